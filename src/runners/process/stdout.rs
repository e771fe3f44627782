//! A job's standard output: it is logged, or it is the answer to the message.

use tokio::io::{self, AsyncRead, AsyncReadExt};

use super::output::{JobLog, OutputReader, OutputStream};
use crate::runner::{Job, OutputUse, Reply};

/// Room that is reserved for one read, within the limit of an answer.
const CHUNK: usize = 8 * 1024;

/// Reads standard output to its end in each case.
pub(in crate::runners) enum Stdout<'a> {
    Log(OutputReader<JobLog<'a>>),
    Reply(CapturedOutput),
    Dropped,
}

impl<'a> Stdout<'a> {
    pub(in crate::runners) fn new(output: OutputUse, job: &'a Job) -> Self {
        match output {
            OutputUse::Log => Self::Log(OutputReader::new(OutputStream::Stdout, JobLog(job))),
            OutputUse::Reply { limit } => Self::Reply(CapturedOutput::new(limit)),
            OutputUse::Dropped => Self::Dropped,
        }
    }

    /// Reads to the end of the stream.
    ///
    /// # Cancel-safety
    /// Cancel-safe: no byte that was read is lost, unless it is dropped anyway.
    pub(in crate::runners) async fn drain(&mut self, stream: impl AsyncRead + Unpin) {
        match self {
            Self::Log(output) => output.drain(stream).await,
            Self::Reply(kept) => kept.drain(stream).await,
            Self::Dropped => drop_rest(stream).await,
        }
    }

    /// Adds bytes that the caller has read.
    pub(in crate::runners) fn feed(&mut self, bytes: &[u8]) {
        match self {
            Self::Log(output) => output.feed(bytes),
            Self::Reply(kept) => kept.feed(bytes),
            Self::Dropped => {}
        }
    }

    /// The answer, if the output is one.
    pub(in crate::runners) fn finish(self) -> Option<Reply> {
        match self {
            Self::Log(output) => {
                output.finish();
                None
            }
            // The format of the bytes is not known.
            Self::Reply(kept) => {
                Some(Reply::new(kept.bytes).content_type("application/octet-stream"))
            }
            Self::Dropped => None,
        }
    }
}

/// The beginning of a stream.
pub(in crate::runners) struct CapturedOutput {
    bytes: Vec<u8>,
    most: usize,
}

impl CapturedOutput {
    /// Keeps one byte more than an answer may have, so that an answer that is too long can be recognised.
    fn new(limit: u64) -> Self {
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            bytes: Vec::new(),
            most: most.saturating_add(1),
        }
    }

    async fn drain(&mut self, mut stream: impl AsyncRead + Unpin) {
        while self.bytes.len() < self.most {
            let room = self.most - self.bytes.len();
            self.bytes.reserve(CHUNK.min(room));
            let mut buffer = bytes::BufMut::limit(&mut self.bytes, room);
            // A pipe that cannot be read is at its end.
            let Ok(1..) = stream.read_buf(&mut buffer).await else {
                return;
            };
        }
        drop_rest(stream).await;
    }

    fn feed(&mut self, bytes: &[u8]) {
        let room = self.most - self.bytes.len();
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

async fn drop_rest(mut stream: impl AsyncRead + Unpin) {
    // An error of the read counts as the end of the stream.
    let _ = io::copy(&mut stream, &mut io::sink()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_a_whole_answer_and_one_byte_more_of_one_that_is_too_long() {
        for (length, kept) in [(0, 0), (9, 9), (10, 10), (11, 11), (100_000, 11)] {
            let text = vec![b'x'; length];
            let mut answer = CapturedOutput::new(10);
            answer.drain(&text[..]).await;
            assert_eq!(answer.bytes.len(), kept, "{length}");
            let mut fed = CapturedOutput::new(10);
            text.chunks(4).for_each(|piece| fed.feed(piece));
            assert_eq!(fed.bytes, answer.bytes);
        }
    }

    #[tokio::test]
    async fn keeps_reading_beyond_what_it_stores() {
        let (reader, mut writer) = io::duplex(64);
        let written = tokio::spawn(async move {
            io::AsyncWriteExt::write_all(&mut writer, &[b'x'; 100_000]).await
        });
        let mut answer = CapturedOutput::new(1000);
        answer.drain(reader).await;
        assert_eq!(answer.bytes, vec![b'x'; 1001]);
        assert!(written.await.expect("a task").is_ok());
    }
}
