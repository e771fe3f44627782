//! Reads a runner's standard output line by line, with a limit on the length of a line.

use std::fmt;

use bytes::{Bytes, BytesMut};
use tokio::{io::AsyncReadExt, process::ChildStdout};

/// Longest line that a runner may write: an answer with its reply.
pub(super) const LINE_CAP: usize = 16 * 1024 * 1024;

/// Room to read into at first. It grows with the line.
const CHUNK: usize = 8 * 1024;

/// Lines of a pipe.
pub(super) struct Lines {
    stdout: ChildStdout,
    buffer: BytesMut,
    /// Bytes of the buffer that are known to hold no newline.
    scanned: usize,
}

/// The reason why there is no line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoLine {
    /// The other end is closed.
    Ended,
    /// It is longer than [`LINE_CAP`].
    TooLong,
}

impl Lines {
    pub(super) fn new(stdout: ChildStdout) -> Self {
        Self {
            stdout,
            buffer: BytesMut::new(),
            scanned: 0,
        }
    }

    /// The next line, without its newline.
    ///
    /// # Cancel-safety
    /// Cancel-safe: what was read stays in the buffer.
    pub(super) async fn next(&mut self) -> Result<Bytes, NoLine> {
        loop {
            let unseen = &self.buffer[self.scanned..];
            if let Some(length) = unseen.iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(self.scanned + length + 1);
                self.scanned = 0;
                line.truncate(line.len() - 1);
                return Ok(line.freeze());
            }
            self.scanned = self.buffer.len();
            if self.scanned > LINE_CAP {
                return Err(NoLine::TooLong);
            }
            self.buffer.reserve(CHUNK);
            // A pipe that cannot be read is at its end.
            if !matches!(self.stdout.read_buf(&mut self.buffer).await, Ok(1..)) {
                return Err(NoLine::Ended);
            }
        }
    }

    /// Whether the buffer holds bytes after the last line.
    pub(super) fn has_more(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Reads without waiting. Between jobs there should be nothing to read: the result is unexpected bytes, or the end.
    pub(super) fn unexpected(&mut self) -> Option<Result<&[u8], NoLine>> {
        if self.buffer.is_empty() {
            let mut chunk = [0; 1024];
            match rustix::io::read(&self.stdout, &mut chunk) {
                Ok(0) => return Some(Err(NoLine::Ended)),
                Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return None,
                Err(_) => return Some(Err(NoLine::Ended)),
            }
        }
        let line = self.buffer[..].split(|byte| *byte == b'\n').next();
        Some(Ok(line.unwrap_or_default()))
    }

    /// Frees the memory of a long line.
    pub(super) fn shrink(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > CHUNK {
            self.buffer = BytesMut::new();
        }
    }

    /// Reads to the end and drops the bytes.
    pub(super) async fn discard(mut self) {
        let mut chunk = vec![0; CHUNK];
        while let Ok(1..) = self.stdout.read(&mut chunk).await {}
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines")
            .field("buffered", &self.buffer.len())
            .finish_non_exhaustive()
    }
}
