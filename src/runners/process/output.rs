//! Reads a job's output to its end and logs it line by line, up to a limit.

use std::os::fd::AsFd;

use tokio::io::{AsyncRead, AsyncReadExt};

use tidegate_core::text::last_bytes;

use crate::{
    escape::{Escaped, escaped_len},
    runner::Job,
};

/// Longest line that is logged. The rest of a longer line is dropped.
const LINE_CAP: usize = 16 * 1024;

/// How much a stream may add to the log, in bytes. The rest of the stream is dropped.
const STREAM_CAP: u64 = 1024 * 1024;

/// Bytes that a line adds to the log besides its own text: time, level, message, pool, job and stream. An estimate for
/// names of usual length, for the text format and for JSON.
const LINE_COST: u64 = 256;

/// Room for a line that is not complete yet, and for one more read of the same size.
const BUFFER: usize = 2 * LINE_CAP;

/// How many chunks of [`LINE_CAP`] bytes the largest pipe holds. Without special rights a pipe has at most 1 MiB.
const MAX_CHUNKS: usize = 64;

/// Bytes of standard error that a failure carries.
const TAIL: usize = 2 * 1024;

/// One of the two outputs of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runners) enum OutputStream {
    Stdout,
    Stderr,
}

impl OutputStream {
    pub(in crate::runners) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Reads one output of a process, and writes its lines to a log.
pub(in crate::runners) struct OutputReader<L> {
    stream: OutputStream,
    log: L,
    /// The unfinished line. Never longer than [`LINE_CAP`] between two reads.
    buffer: Vec<u8>,
    /// The rest of the current line is dropped, because its beginning was logged already.
    skipping: bool,
    /// The stream's cap is reached.
    closed: bool,
    read: u64,
    /// Bytes that were read and are in the log.
    logged: u64,
    /// Bytes that these lines take in the log, with [`LINE_COST`] for each.
    cost: u64,
    tail: Vec<u8>,
}

/// Receives the lines.
pub(in crate::runners) trait Log {
    fn line(&mut self, stream: OutputStream, line: &[u8]);
    fn dropped(&mut self, stream: OutputStream, bytes: u64);
}

/// The supervisor's own log. At `info`, because the owner of a job looks for its output first.
pub(in crate::runners) struct JobLog<'a>(pub(in crate::runners) &'a Job);

impl Log for JobLog<'_> {
    fn line(&mut self, stream: OutputStream, line: &[u8]) {
        tracing::info!(
            target: "tidegate::job",
            pool = %self.0.pool(),
            job.id = %Escaped(self.0.id().as_str()),
            stream = stream.name(),
            line = %Escaped(&String::from_utf8_lossy(line)),
            "job output"
        );
    }

    fn dropped(&mut self, stream: OutputStream, bytes: u64) {
        tracing::info!(
            target: "tidegate::job",
            pool = %self.0.pool(),
            job.id = %Escaped(self.0.id().as_str()),
            stream = stream.name(),
            bytes,
            "job output dropped"
        );
    }
}

impl<L: Log> OutputReader<L> {
    pub(in crate::runners) fn new(stream: OutputStream, log: L) -> Self {
        Self {
            stream,
            log,
            buffer: Vec::with_capacity(BUFFER),
            skipping: false,
            closed: false,
            read: 0,
            logged: 0,
            cost: 0,
            tail: Vec::new(),
        }
    }

    /// The log that receives the lines.
    pub(in crate::runners) fn log(&mut self) -> &mut L {
        &mut self.log
    }

    /// Reads to the end of the stream.
    ///
    /// # Cancel-safety
    /// Cancel-safe: all bytes that were read are counted.
    pub(in crate::runners) async fn drain(&mut self, mut stream: impl AsyncRead + Unpin) {
        loop {
            let pending = self.buffer.len();
            let mut room = bytes::BufMut::limit(&mut self.buffer, BUFFER - pending);
            match stream.read_buf(&mut room).await {
                Ok(0) => return,
                Ok(_) => self.take(pending),
                // A pipe that cannot be read is at its end.
                Err(_) => return,
            }
        }
    }

    /// Reads all bytes that are available without waiting. These are all bytes that the process wrote before this call.
    pub(in crate::runners) fn drain_now(&mut self, stream: &impl AsFd) {
        // A process may write faster than we read. The bytes written before this call fit into the largest pipe.
        for _ in 0..MAX_CHUNKS {
            let pending = self.buffer.len();
            let room = rustix::buffer::spare_capacity(&mut self.buffer);
            // A direct read, because the runtime may not know yet that the pipe is readable.
            let Ok(1..) = rustix::io::read(stream, room) else {
                return;
            };
            self.take(pending);
        }
    }

    /// Adds bytes that the caller has read.
    pub(in crate::runners) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let pending = self.buffer.len();
            let (piece, rest) = bytes.split_at(bytes.len().min(BUFFER - pending));
            self.buffer.extend_from_slice(piece);
            self.take(pending);
            bytes = rest;
        }
    }

    /// Handles the bytes in the buffer. The first `pending` bytes are an unfinished line of an earlier read.
    fn take(&mut self, pending: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.read += (buffer.len() - pending) as u64;
        if self.stream == OutputStream::Stderr {
            keep_tail(&mut self.tail, &buffer[pending..]);
        }
        if self.closed {
            buffer.clear();
            self.buffer = buffer;
            return;
        }
        let mut line = 0;
        let mut looked_at = pending;
        while let Some(length) = buffer[looked_at..].iter().position(|byte| *byte == b'\n') {
            let end = looked_at + length;
            self.line(&buffer[line..end], 1);
            line = end + 1;
            looked_at = line;
        }
        let rest = buffer.len() - line;
        if self.skipping || self.closed {
            buffer.clear();
        } else if rest > LINE_CAP {
            self.line(&buffer[line..], 0);
            self.skipping = true;
            buffer.clear();
        } else {
            buffer.copy_within(line.., 0);
            buffer.truncate(rest);
        }
        self.buffer = buffer;
    }

    /// Logs a line, or the beginning of a long line. `ending` is the number of bytes of the line's ending.
    fn line(&mut self, line: &[u8], ending: usize) {
        if std::mem::take(&mut self.skipping) || self.closed {
            return;
        }
        let (line, size) = match line.get(..LINE_CAP) {
            Some(cut) if line.len() > LINE_CAP => (cut, LINE_CAP),
            _ => (line, line.len() + ending),
        };
        let shown = line.strip_suffix(b"\r").unwrap_or(line);
        let cost = LINE_COST + escaped_len(&String::from_utf8_lossy(shown)) as u64;
        if self.cost + cost > STREAM_CAP {
            self.closed = true;
            return;
        }
        self.cost += cost;
        self.logged += size as u64;
        self.log.line(self.stream, shown);
    }

    /// Logs an unfinished last line, and logs how many bytes were dropped. Returns the end of the stream.
    pub(in crate::runners) fn finish(mut self) -> Option<String> {
        if !self.buffer.is_empty() {
            let line = std::mem::take(&mut self.buffer);
            self.line(&line, 0);
        }
        self.turn()
    }

    /// Logs how many bytes were dropped, and starts to count from zero with the full limit. Returns the end of the
    /// bytes that were read. An unfinished line stays in the buffer.
    pub(in crate::runners) fn turn(&mut self) -> Option<String> {
        let pending = self.buffer.len() as u64;
        let dropped = self.read - self.logged - pending;
        if dropped > 0 {
            self.log.dropped(self.stream, dropped);
        }
        (self.read, self.logged, self.cost, self.closed) = (pending, 0, 0, false);
        tail_text(&std::mem::take(&mut self.tail))
    }
}

/// Keeps the last [`TAIL`] bytes of a stream. The tail is never longer than twice that.
fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[bytes.len().saturating_sub(TAIL)..];
    if tail.len() + bytes.len() > 2 * TAIL {
        tail.drain(..tail.len() - TAIL);
    }
    tail.extend_from_slice(bytes);
}

/// The last [`TAIL`] bytes as text. Bytes that are not UTF-8 are replaced. This can make the text longer, so it is cut
/// again.
fn tail_text(tail: &[u8]) -> Option<String> {
    let mut bytes = &tail[tail.len().saturating_sub(TAIL)..];
    if bytes.len() < tail.len() {
        // The cut may split a character. The rest of that character is removed.
        let continuation = bytes
            .iter()
            .take(3)
            .take_while(|byte| **byte & 0xc0 == 0x80);
        bytes = &bytes[continuation.count()..];
    }
    let text = String::from_utf8_lossy(bytes);
    Some(last_bytes(&text, TAIL).trim_end().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen {
        lines: Vec<Vec<u8>>,
        dropped: Vec<u64>,
    }

    impl Log for &mut Seen {
        fn line(&mut self, _: OutputStream, line: &[u8]) {
            self.lines.push(line.to_vec());
        }

        fn dropped(&mut self, _: OutputStream, bytes: u64) {
            self.dropped.push(bytes);
        }
    }

    async fn seen(reader: impl AsyncRead + Unpin) -> (Seen, Option<String>) {
        let mut seen = Seen::default();
        let mut output = OutputReader::new(OutputStream::Stderr, &mut seen);
        output.drain(reader).await;
        let tail = output.finish();
        (seen, tail)
    }

    /// Hands a text out in pieces of this many bytes.
    fn pieces(text: Vec<u8>, size: usize) -> impl AsyncRead + Unpin {
        let (reader, mut writer) = tokio::io::duplex(size);
        tokio::spawn(async move {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut writer, &text).await;
        });
        reader
    }

    #[tokio::test]
    async fn logs_the_same_lines_however_they_arrive() {
        let text = b"one\n\ntwo\r\nunfinished".to_vec();
        for size in [1, 2, 3, 7, 1000] {
            let (seen, _) = seen(pieces(text.clone(), size)).await;
            assert_eq!(
                seen.lines,
                [&b"one"[..], b"", b"two", b"unfinished"],
                "{size}"
            );
            assert!(seen.dropped.is_empty());
        }
    }

    #[test]
    fn fed_bytes_give_the_same_result_as_read_bytes() {
        let text = [
            b"one\n".to_vec(),
            vec![b'x'; 10 * LINE_CAP],
            b"\nlast".to_vec(),
        ]
        .concat();
        for size in [1, 1000, LINE_CAP, text.len()] {
            let mut seen = Seen::default();
            let mut output = OutputReader::new(OutputStream::Stderr, &mut seen);
            for piece in text.chunks(size) {
                output.feed(piece);
            }
            let tail = output.finish().expect("a tail");
            assert!(tail.ends_with("x\nlast"));
            let lengths: Vec<_> = seen.lines.iter().map(Vec::len).collect();
            assert_eq!(lengths, [3, LINE_CAP, 4], "{size}");
            assert_eq!(seen.dropped, [9 * LINE_CAP as u64 + 1]);
        }
    }

    #[tokio::test]
    async fn cuts_a_line_at_its_cap_and_counts_the_rest() {
        for size in [100, LINE_CAP, 10 * LINE_CAP] {
            let mut text = vec![b'x'; LINE_CAP];
            text.push(b'\n');
            text.extend(vec![b'y'; LINE_CAP + 9]);
            text.extend(b"\nnext\n");
            text.extend(vec![b'z'; 5 * LINE_CAP]);
            let (seen, _) = seen(pieces(text, size)).await;
            let lengths: Vec<_> = seen.lines.iter().map(Vec::len).collect();
            assert_eq!(lengths, [LINE_CAP, LINE_CAP, 4, LINE_CAP], "{size}");
            // Nine bytes and the line's ending, and what follows the cap of the last.
            assert_eq!(seen.dropped, [10 + 4 * LINE_CAP as u64]);
        }
    }

    #[tokio::test]
    async fn keeps_reading_beyond_the_limit_of_a_stream_and_reports_once_what_was_dropped() {
        let line = [[b'x'; 1023].as_slice(), b"\n"].concat();
        let (seen, tail) = seen(pieces(
            [line.repeat(3000), b"the end\n".to_vec()].concat(),
            4096,
        ))
        .await;
        // Each line has 1023 bytes, plus the bytes that the log adds.
        let logged = 1024 * 1024 / (1023 + 256);
        assert_eq!(seen.lines.len(), logged);
        assert_eq!(seen.dropped, [(3000 - logged as u64) * 1024 + 8]);
        assert!(tail.expect("a tail").ends_with("x\nthe end"));
    }

    #[tokio::test]
    async fn counts_the_length_of_the_whole_log_line_and_not_only_its_text() {
        for (line, cost) in [
            ("short\n", 256 + 5),
            ("\n", 256),
            ("\u{1b}\u{1b}\n", 256 + 12),
        ] {
            let text = line.repeat(10_000).into_bytes();
            let (seen, _) = seen(pieces(text, 4096)).await;
            let logged = 1024 * 1024 / cost;
            assert_eq!(seen.lines.len(), logged, "{line:?}");
            let dropped = (10_000 - logged) * line.len();
            assert_eq!(seen.dropped, [dropped as u64], "{line:?}");
        }
    }

    #[tokio::test]
    async fn keeps_the_last_part_of_the_output() {
        assert_eq!(seen(&b""[..]).await.1, None);
        assert_eq!(seen(&b" \n\n"[..]).await.1, None);
        assert_eq!(seen(&b"why\n"[..]).await.1.as_deref(), Some("why"));
        for size in [1, 100, 5000] {
            let text: Vec<u8> = (0..5000_u32)
                .flat_map(|n| format!("{n}\n").into_bytes())
                .collect();
            let (_, tail) = seen(pieces(text, size)).await;
            let tail = tail.expect("a tail");
            assert!(tail.ends_with("\n4998\n4999") && (TAIL - 10..=TAIL).contains(&tail.len()));
        }
    }

    #[test]
    fn a_tail_is_text_of_at_most_its_size() {
        let text = tail_text(&[0xff; 3 * TAIL]).expect("a tail");
        assert!(text.len() <= TAIL && text.chars().all(|char| char == '\u{fffd}'));
        let text = tail_text("\u{e9}".repeat(TAIL).as_bytes()).expect("a tail");
        assert_eq!(text, "\u{e9}".repeat(TAIL / 2));
        let odd = [b"x".as_slice(), "\u{e9}".repeat(TAIL).as_bytes(), b"y"].concat();
        assert_eq!(
            tail_text(&odd).expect("a tail"),
            "\u{e9}".repeat(TAIL / 2 - 1) + "y"
        );
    }
}
