//! A job's standard output: its log, or the answer that somebody waits for.

use tokio::io::{self, AsyncRead, AsyncReadExt};

use crate::{
    adapters::process::{JobLog, Output, Stream},
    runner::{Job, OutputUse, Reply},
};

/// Bytes that are made room for at a time, as far as an answer may still grow.
const CHUNK: usize = 8 * 1024;

/// Reads standard output to its end, whatever it is.
pub(super) enum Stdout<'a> {
    Log(Output<JobLog<'a>>),
    Reply(Kept),
    Dropped,
}

impl<'a> Stdout<'a> {
    pub(super) fn new(output: OutputUse, job: &'a Job) -> Self {
        match output {
            OutputUse::Log => Self::Log(Output::new(Stream::Stdout, JobLog(job))),
            OutputUse::Reply { limit } => Self::Reply(Kept::new(limit)),
            OutputUse::Dropped => Self::Dropped,
        }
    }

    /// Reads to the end of the stream.
    ///
    /// # Cancel-safety
    /// Cancel-safe: what was read is kept, where it is kept at all.
    pub(super) async fn drain(&mut self, stream: impl AsyncRead + Unpin) {
        match self {
            Self::Log(output) => output.drain(stream).await,
            Self::Reply(kept) => kept.drain(stream).await,
            Self::Dropped => drop_rest(stream).await,
        }
    }

    /// The answer, where it is one.
    pub(super) fn finish(self) -> Option<Reply> {
        match self {
            Self::Log(output) => {
                output.finish();
                None
            }
            // What a program writes is bytes, whatever it means by them.
            Self::Reply(kept) => {
                Some(Reply::new(kept.bytes).content_type("application/octet-stream"))
            }
            Self::Dropped => None,
        }
    }
}

/// The beginning of a stream.
pub(super) struct Kept {
    bytes: Vec<u8>,
    most: usize,
}

impl Kept {
    /// Keeps one byte more than an answer may have, so that one which is too long is known for it.
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
}

async fn drop_rest(mut stream: impl AsyncRead + Unpin) {
    // At its end, or it cannot be read: all the same.
    let _ = io::copy(&mut stream, &mut io::sink()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_an_answer_whole_and_one_byte_of_what_is_too_long() {
        for (length, kept) in [(0, 0), (9, 9), (10, 10), (11, 11), (100_000, 11)] {
            let text = vec![b'x'; length];
            let mut answer = Kept::new(10);
            answer.drain(&text[..]).await;
            assert_eq!(answer.bytes.len(), kept, "{length}");
        }
    }

    #[tokio::test]
    async fn reads_on_beyond_what_it_keeps() {
        let (reader, mut writer) = io::duplex(64);
        let written = tokio::spawn(async move {
            io::AsyncWriteExt::write_all(&mut writer, &[b'x'; 100_000]).await
        });
        let mut answer = Kept::new(1000);
        answer.drain(reader).await;
        assert_eq!(answer.bytes, vec![b'x'; 1001]);
        assert!(written.await.expect("a task").is_ok());
    }
}
