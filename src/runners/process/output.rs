//! A job's output: read to its end whatever it is, logged line by line, and bounded.

use std::os::fd::AsFd;

use tokio::io::{AsyncRead, AsyncReadExt};

use tidegate_core::text::last_bytes;

use crate::{
    escape::{Escaped, escaped_len},
    runner::Job,
};

/// Longest line that is logged; what follows up to its end is dropped.
const LINE_CAP: usize = 16 * 1024;

/// What a stream may add to the log, in bytes; what follows is dropped.
const STREAM_CAP: u64 = 1024 * 1024;

/// What a line adds to the log beside its own text: time, level, message, pool, job and stream. About what it comes to
/// in the form for people and as JSON, with names of usual length.
const LINE_COST: u64 = 256;

/// A line that is not complete yet, and always as much room again to read into.
const BUFFER: usize = 2 * LINE_CAP;

/// Chunks of a line's size that the largest pipe can hold: 1 MiB, for whoever has no special rights.
const MAX_CHUNKS: usize = 64;

/// Bytes of standard error that a failure carries.
const TAIL: usize = 2 * 1024;

/// Which of the two it is.
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

/// Reads one stream of a process, for the log.
pub(in crate::runners) struct OutputReader<L> {
    stream: OutputStream,
    log: L,
    /// The unfinished line. Never longer than [`LINE_CAP`] between two reads.
    buffer: Vec<u8>,
    /// The rest of the present line is dropped: its beginning was logged already.
    skipping: bool,
    /// The stream's cap is reached.
    closed: bool,
    read: u64,
    /// Bytes of what was read that are in the log.
    logged: u64,
    /// What they cost there.
    cost: u64,
    tail: Vec<u8>,
}

/// Where lines go.
pub(in crate::runners) trait Log {
    fn line(&mut self, stream: OutputStream, line: &[u8]);
    fn dropped(&mut self, stream: OutputStream, bytes: u64);
}

/// The supervisor's own log. At `info`, because what their job prints is what its owner looks for first.
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

    /// Where its lines go.
    pub(in crate::runners) fn log(&mut self) -> &mut L {
        &mut self.log
    }

    /// Reads to the end of the stream.
    ///
    /// # Cancel-safety
    /// Cancel-safe: what was read is accounted for.
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

    /// Takes in what can be read without waiting. What a process wrote before something that is known to have
    /// happened is then in.
    pub(in crate::runners) fn drain_now(&mut self, stream: &impl AsFd) {
        // A flood has no end: what fits into the largest pipe is all that can have been written before.
        for _ in 0..MAX_CHUNKS {
            let pending = self.buffer.len();
            let room = rustix::buffer::spare_capacity(&mut self.buffer);
            // Not by way of the runtime, which may not have heard yet that there is something.
            let Ok(1..) = rustix::io::read(stream, room) else {
                return;
            };
            self.take(pending);
        }
    }

    /// Takes in a piece that somebody else has read.
    pub(in crate::runners) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let pending = self.buffer.len();
            let (piece, rest) = bytes.split_at(bytes.len().min(BUFFER - pending));
            self.buffer.extend_from_slice(piece);
            self.take(pending);
            bytes = rest;
        }
    }

    /// Takes in what was read behind the `pending` bytes of an unfinished line.
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

    /// One line, or the beginning of one, with the bytes of its ending.
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

    /// Logs an unfinished last line, and says what was dropped. Returns the end of what was read.
    pub(in crate::runners) fn finish(mut self) -> Option<String> {
        if !self.buffer.is_empty() {
            let line = std::mem::take(&mut self.buffer);
            self.line(&line, 0);
        }
        self.turn()
    }

    /// Says what was dropped, and begins a new account, with all of its room, for what comes next. Returns the end
    /// of what was read. An unfinished line is left to its rest.
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

/// Keeps the last of what goes by, copying no more than twice what is kept.
fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[bytes.len().saturating_sub(TAIL)..];
    if tail.len() + bytes.len() > 2 * TAIL {
        tail.drain(..tail.len() - TAIL);
    }
    tail.extend_from_slice(bytes);
}

/// The last [`TAIL`] bytes as text. What is not UTF-8 is replaced, which can make it longer, so it is cut after.
fn tail_text(tail: &[u8]) -> Option<String> {
    let mut bytes = &tail[tail.len().saturating_sub(TAIL)..];
    if bytes.len() < tail.len() {
        // The cut may have gone through a character: its rest says nothing.
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
    fn takes_what_it_is_fed_as_it_takes_what_it_reads() {
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
    async fn reads_on_beyond_the_cap_of_a_stream_and_says_once_what_was_dropped() {
        let line = [[b'x'; 1023].as_slice(), b"\n"].concat();
        let (seen, tail) = seen(pieces(
            [line.repeat(3000), b"the end\n".to_vec()].concat(),
            4096,
        ))
        .await;
        // Each of 1023 bytes and what the log adds to it.
        let logged = 1024 * 1024 / (1023 + 256);
        assert_eq!(seen.lines.len(), logged);
        assert_eq!(seen.dropped, [(3000 - logged as u64) * 1024 + 8]);
        assert!(tail.expect("a tail").ends_with("x\nthe end"));
    }

    #[tokio::test]
    async fn counts_what_a_line_costs_in_the_log_and_not_its_text_alone() {
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
    async fn keeps_the_last_of_what_was_written() {
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
