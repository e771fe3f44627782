//! Standard error, written by a thread of its own, so that no other thread waits for its reader.
//!
//! Lines are handed over in memory, without waiting. The buffer is bounded in bytes. When it is full, **the newest
//! line is dropped**, so that the first lines about a fault stay. The last quarter of the buffer is reserved for
//! warnings and errors. Dropped lines are counted. When lines can be written again, the log has their number at the
//! position where they are missing. Lines that standard error refuses (a full disk, a closed descriptor) are counted in
//! the same way.
//!
//! The thread writes to the descriptor directly. [`std::io::Stderr`] has a lock, which the thread would hold while it
//! waits.

use std::{
    io,
    os::fd::AsFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, Signal},
};

/// Bytes of lines that may wait for the reader. The same number may be on its way to the kernel.
const CAPACITY: usize = 1024 * 1024;

/// The part of the buffer that only warnings and errors may use.
const RESERVED: usize = CAPACITY / 4;

/// Longest time that the end of the process waits for the last lines to be written.
pub const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The target of the line that reports dropped lines. No filter hides it.
pub(super) const DROPPED_TARGET: &str = "tidegate::log::dropped";

static STDERR: OnceLock<Stderr> = OnceLock::new();

/// The importance of a line when the buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogPriority {
    /// Dropped first.
    Usual,
    /// A warning or an error.
    Important,
    /// The line that reports dropped lines. Only the writer's thread logs it.
    Notice,
}

/// Handle to the writer of standard error. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stderr(Arc<SharedQueue>);

#[derive(Debug, Default)]
struct SharedQueue {
    /// Written by every thread that logs, emptied by the writer.
    queue: Mutex<LineQueue>,
    /// Notified when there is something to write.
    filled: Condvar,
    /// Notified when all lines are written or refused.
    done: Condvar,
    /// Lines dropped since the start. Written by threads that log and by the writer, read by the metrics.
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct LineQueue {
    /// Whole lines.
    lines: Vec<u8>,
    /// Lines dropped since the writer last took the buffer.
    dropped: u64,
    /// See [`LogPriority::Notice`].
    notice: Vec<u8>,
    /// The writer is writing the lines that it took.
    is_writing: bool,
}

impl LineQueue {
    /// Takes a line, or drops and counts it. Returns whether it was taken.
    fn push(&mut self, line: &[u8], weight: LogPriority) -> bool {
        let room = match weight {
            LogPriority::Usual => CAPACITY - RESERVED,
            LogPriority::Important => CAPACITY,
            LogPriority::Notice => {
                self.notice.extend_from_slice(line);
                return true;
            }
        };
        let fits = self.lines.len() + line.len() <= room;
        match fits {
            true => self.lines.extend_from_slice(line),
            false => self.dropped += 1,
        }
        fits
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.dropped == 0
    }
}

/// Starts the writer of this process's standard error, if it does not run yet.
///
/// # Errors
/// The thread cannot be started.
pub fn start() -> io::Result<Stderr> {
    if let Some(stderr) = started() {
        return Ok(stderr.clone());
    }
    let stderr = Stderr::to(write_stderr)?;
    Ok(STDERR.get_or_init(|| stderr).clone())
}

/// The writer of this process's standard error, if it was started.
pub fn started() -> Option<&'static Stderr> {
    STDERR.get()
}

impl Stderr {
    /// Starts a writer that gives its lines to `write`, which may block.
    fn to(write: impl FnMut(&[u8]) -> io::Result<usize> + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(SharedQueue::default());
        let writer = StderrWriter {
            shared: shared.clone(),
            write,
            lost: 0,
            is_mid_line: false,
        };
        thread::Builder::new()
            .name("stderr".to_owned())
            .spawn(move || writer.serve())?;
        Ok(Self(shared))
    }

    /// Gives lines to the writer. Never waits for the reader.
    pub fn push(&self, lines: &[u8], weight: LogPriority) {
        if !self.0.lock().push(lines, weight) {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.0.filled.notify_one();
    }

    /// Waits at most `timeout` until all lines are written. Returns whether they are.
    pub fn finish(&self, timeout: Duration) -> bool {
        let queue = self.0.lock();
        let busy = |queue: &mut LineQueue| queue.is_writing || !queue.is_empty();
        let waited = self.0.done.wait_timeout_while(queue, timeout, busy);
        let (_queue, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }

    /// Lines that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl SharedQueue {
    fn lock(&self) -> MutexGuard<'_, LineQueue> {
        // No code panics under this lock, and an inexact log is better than none.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct StderrWriter<W> {
    shared: Arc<SharedQueue>,
    write: W,
    /// Dropped lines that are not reported yet.
    lost: u64,
    /// Whether the last write ended inside a line.
    is_mid_line: bool,
}

impl<W: FnMut(&[u8]) -> io::Result<usize>> StderrWriter<W> {
    fn serve(mut self) {
        // A terminal in `tostop` mode stops a background process that writes to it, unless the signal is blocked.
        // Blocked only in this thread, because jobs inherit the mask of the other threads.
        let _ = SigSet::from(Signal::SIGTTOU).thread_block();
        let mut batch = Vec::new();
        loop {
            self.take(&mut batch);
            self.write_all(&batch);
            self.tell();
            batch.clear();
        }
    }

    /// Waits for something to write.
    fn take(&mut self, batch: &mut Vec<u8>) {
        let mut queue = self.shared.lock();
        queue.is_writing = false;
        while queue.is_empty() {
            self.shared.done.notify_all();
            let woken = self.shared.filled.wait(queue);
            queue = woken.unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut queue.lines, batch);
        self.lost += std::mem::take(&mut queue.dropped);
        queue.is_writing = true;
    }

    /// Writes lines, or counts the lines that were refused.
    fn write_all(&mut self, lines: &[u8]) -> bool {
        if self.is_mid_line {
            match self.write_bytes(b"\n") {
                Ok(()) => self.is_mid_line = false,
                Err(_) => {
                    self.refused(lines);
                    return false;
                }
            }
        }
        match self.write_bytes(lines) {
            Ok(()) => true,
            Err(left) => {
                let written = lines.len() - left;
                self.is_mid_line = written > 0 && lines[written - 1] != b'\n';
                self.refused(&lines[written..]);
                false
            }
        }
    }

    /// Writes all bytes. The error is the number of bytes that were not written.
    fn write_bytes(&mut self, mut bytes: &[u8]) -> Result<(), usize> {
        while !bytes.is_empty() {
            match (self.write)(bytes) {
                Ok(0) => return Err(bytes.len()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(bytes.len()),
            }
        }
        Ok(())
    }

    fn refused(&mut self, lines: &[u8]) {
        let refused = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.lost += refused;
        self.shared.dropped.fetch_add(refused, Ordering::Relaxed);
    }

    /// Reports how many lines are missing here.
    fn tell(&mut self) {
        if self.lost == 0 || self.is_mid_line {
            return;
        }
        // The log line comes back as bytes in `notice`, in the format of all other lines.
        tracing::warn!(
            target: DROPPED_TARGET,
            lines = self.lost,
            "log lines were dropped: standard error did not accept them"
        );
        let mut notice = std::mem::take(&mut self.shared.lock().notice);
        if notice.is_empty() {
            notice = format!("tidegate: {} log lines were dropped\n", self.lost).into_bytes();
        }
        if self.write_bytes(&notice).is_ok() {
            self.lost = 0;
        }
    }
}

/// Writes to the descriptor of standard error. Waits for space if another process has made the descriptor
/// non-blocking.
fn write_stderr(bytes: &[u8]) -> io::Result<usize> {
    let stderr = io::stderr();
    loop {
        match rustix::io::write(&stderr, bytes) {
            Err(rustix::io::Errno::AGAIN) => {
                let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
                poll(&mut fds, PollTimeout::NONE)?;
            }
            written => return Ok(written?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// Longest time that a test waits.
    const LONG: Duration = Duration::from_secs(60);

    /// A reader that takes written bytes only when the test allows it.
    struct Reader {
        written: Receiver<Vec<u8>>,
        allow: SyncSender<io::Result<usize>>,
    }

    /// A writer for such a reader. Each write waits until the test says how many bytes are taken.
    fn stalled() -> (Stderr, Reader) {
        let (tell, written) = sync_channel(1000);
        let (allow, allowed) = sync_channel::<io::Result<usize>>(1000);
        let stderr = Stderr::to(move |bytes| {
            // Nobody receives this after the test.
            let _ = tell.send(bytes.to_vec());
            let taken = allowed.recv().unwrap_or(Ok(0))?;
            Ok(taken.min(bytes.len()))
        });
        (stderr.unwrap(), Reader { written, allow })
    }

    impl Reader {
        fn next(&self) -> String {
            let written = self.written.recv_timeout(LONG).expect("a write");
            String::from_utf8(written).unwrap()
        }

        fn take(&self) -> String {
            let text = self.next();
            self.allow.send(Ok(usize::MAX)).unwrap();
            text
        }
    }

    fn line(n: usize) -> Vec<u8> {
        format!("{n:0>1023}\n").into_bytes()
    }

    #[test]
    fn a_stalled_reader_blocks_no_writer_and_the_newest_lines_are_dropped() {
        let (stderr, reader) = stalled();
        stderr.push(b"the first\n", LogPriority::Usual);
        assert_eq!(reader.next(), "the first\n");
        // From here on the writer waits inside its write.
        for n in 0..1000 {
            stderr.push(&line(n), LogPriority::Usual);
        }
        let room = (CAPACITY - RESERVED) / 1024;
        assert_eq!(stderr.dropped(), (1000 - room) as u64);
        assert!(!stderr.finish(Duration::ZERO));

        // The reader takes lines again: first the buffered lines, then the number of missing ones.
        reader.allow.send(Ok(usize::MAX)).unwrap();
        let kept = reader.take();
        assert_eq!(kept.lines().count(), room);
        assert!(kept.lines().last().unwrap().ends_with("767"), "{room}");
        let notice = format!("tidegate: {} log lines were dropped\n", 1000 - room);
        assert_eq!(reader.take(), notice);
        stderr.push(b"after\n", LogPriority::Usual);
        assert_eq!(reader.take(), "after\n");
        assert!(stderr.finish(LONG));
    }

    #[test]
    fn the_last_quarter_of_the_room_is_for_warnings_and_errors() {
        let mut queue = LineQueue::default();
        while queue.push(&line(0), LogPriority::Usual) {}
        assert_eq!(queue.lines.len(), CAPACITY - RESERVED);
        let mut grave = 0;
        while queue.push(&line(1), LogPriority::Important) {
            grave += 1;
        }
        assert_eq!(grave, RESERVED / 1024);
        assert_eq!(queue.dropped, 2);
    }

    #[test]
    fn refused_lines_are_counted_and_reported_when_a_line_can_begin_again() {
        let (stderr, reader) = stalled();
        stderr.push(b"whole\nbroken\nrefused\n", LogPriority::Usual);
        assert_eq!(reader.next(), "whole\nbroken\nrefused\n");
        reader.allow.send(Ok(9)).unwrap();
        assert_eq!(reader.next(), "ken\nrefused\n");
        reader
            .allow
            .send(Err(io::ErrorKind::StorageFull.into()))
            .unwrap();
        assert!(stderr.finish(LONG));
        assert_eq!(stderr.dropped(), 2);

        stderr.push(b"again\n", LogPriority::Usual);
        assert_eq!(reader.take(), "\n");
        assert_eq!(reader.take(), "again\n");
        assert_eq!(reader.take(), "tidegate: 2 log lines were dropped\n");
    }

    #[test]
    fn an_end_waits_for_what_can_be_written() {
        let (reader, mut writer) = io::pipe().unwrap();
        let stderr = Stderr::to(move |bytes| io::Write::write(&mut writer, bytes)).unwrap();
        stderr.push(b"the last\n", LogPriority::Usual);
        assert!(stderr.finish(LONG));
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(reader), &mut line).unwrap();
        assert_eq!(line, "the last\n");
    }
}
