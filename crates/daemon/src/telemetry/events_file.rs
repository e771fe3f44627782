//! The file of metric events: one JSON object per line. docs/events.md describes them.
//!
//! Workers send events through a bounded channel and never wait. One thread owns the file: it opens it, writes it and
//! opens it again. Events that do not fit the channel or the disk are dropped, the newest first. Dropped events are
//! counted, and a warning has the number. Events report on the work, and must not delay it. So a FIFO without a reader
//! or a disk that stalls delays neither the start nor the end.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use metrics::Counter;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, Signal},
};
use rustix::fs::OFlags;
use serde::Serialize;
use thiserror::Error;
use tracing::{info, warn};

use tidegate::{
    decide::PoolName,
    escape::escaped_json,
    run::{Event, EventSink, metrics::events_dropped},
};

/// Events that may wait for the disk. With three events per job this is one second of about three thousand jobs.
const CAPACITY: usize = 8 * 1024;

/// Bytes of lines that are given to the kernel at once.
const BATCH_BYTES: usize = 64 * 1024;

/// How often a writer without events checks for dropped events to report, and for a reader of its FIFO.
const IDLE: Duration = Duration::from_secs(1);

/// Longest time that the start waits for the file to open, and the end for the last lines to be written.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a writer that waits for a FIFO's reader checks whether it must open the file again, in milliseconds.
const TICK: u8 = 100;

/// The events file could not be opened.
#[derive(Debug, Error)]
#[error("open the events file {}", path.display())]
pub struct EventsFileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Sender to the file's writer. Cheap to clone.
#[derive(Clone)]
pub struct EventsFile {
    /// Written by workers and pools, read by the writer.
    messages: SyncSender<WriterMessage>,
    shared: Arc<SharedCounts>,
}

impl std::fmt::Debug for EventsFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventsFile").finish_non_exhaustive()
    }
}

struct SharedCounts {
    /// Events that did not fit the channel. Written by workers and pools, taken by the writer.
    dropped: AtomicU64,
    /// How often [`EventsFile::reopen`] was called. Read by the writer.
    reopens: AtomicU64,
    /// All events dropped since the start.
    total: Counter,
}

/// The writer's thread.
#[derive(Debug)]
pub struct EventsWriter {
    messages: SyncSender<WriterMessage>,
    /// Closed when the writer has ended.
    ended: Receiver<()>,
}

#[derive(Debug)]
enum WriterMessage {
    Event(Timestamp, Event),
    Reopen,
    Close,
}

impl EventsFile {
    /// Opens the file for appending, and starts its writer. If opening takes longer than a second, or the file is a
    /// FIFO without a reader, the writer keeps trying.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> Result<(Self, EventsWriter), EventsFileError> {
        let failed = |source| EventsFileError {
            path: path.to_owned(),
            source,
        };
        let (messages, receiver) = sync_channel(CAPACITY);
        let (opening, opened) = sync_channel(1);
        let (ending, ended) = sync_channel(0);
        let shared = Arc::new(SharedCounts {
            dropped: AtomicU64::new(0),
            reopens: AtomicU64::new(0),
            total: events_dropped(),
        });
        let output = EventsOutput::new(path, shared.clone());
        thread::Builder::new()
            .name("events-file".to_owned())
            .spawn(move || {
                let _ended: SyncSender<()> = ending;
                output.run(&opening, &receiver);
            })
            .map_err(failed)?;
        match opened.recv_timeout(OPEN_TIMEOUT) {
            Ok(opened) => opened.map_err(failed)?,
            Err(_) => warn!(
                path = %path.display(),
                "the events file is slow to open; events wait for it, and some may be dropped"
            ),
        }
        let writer = EventsWriter {
            messages: messages.clone(),
            ended,
        };
        Ok((Self { messages, shared }, writer))
    }

    /// Opens the file again by its name, after another program has moved the old file away.
    pub fn reopen(&self) {
        self.shared.reopens.fetch_add(1, Ordering::Relaxed);
        // If the channel is full, the writer sees the counter after its current messages.
        let _ = self.messages.try_send(WriterMessage::Reopen);
    }
}

impl EventSink for EventsFile {
    fn emit(&self, event: Event) {
        let message = WriterMessage::Event(Timestamp::now(), event);
        if self.messages.try_send(message).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            self.shared.total.increment(1);
        }
    }
}

impl EventsWriter {
    /// Writes the remaining events and ends the writer. Blocks for at most one second.
    pub fn close(self) {
        let until = Instant::now() + OPEN_TIMEOUT;
        // If the channel is full, the writer is late.
        while self.messages.try_send(WriterMessage::Close).is_err() && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        let left = until.saturating_duration_since(Instant::now());
        if self.ended.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
            warn!("could not write the last events to the events file; they are dropped");
        }
    }
}

/// Opens the file without blocking. `None` for a FIFO without a reader, which must be opened again later.
fn open(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new()
        .create(true)
        .append(true)
        .custom_flags(flags)
        .open(path);
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if is_without_reader(&error, path) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_without_reader(error: &io::Error, path: &Path) -> bool {
    let no_reader = rustix::io::Errno::NXIO.raw_os_error();
    error.raw_os_error() == Some(no_reader)
        && std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// One line of the file.
#[derive(Serialize)]
struct EventLine<'a> {
    timestamp: Timestamp,
    #[serde(flatten)]
    event: &'a Event,
}

/// The writer's state.
struct EventsOutput {
    path: PathBuf,
    /// `None` while the file cannot be opened.
    file: Option<File>,
    shared: Arc<SharedCounts>,
    /// The value of `SharedCounts::reopens` that was handled last.
    reopened: u64,
    /// When opening the file last failed.
    looked: Instant,
    /// Whole lines that are not written yet.
    lines: Vec<u8>,
    /// The number of those lines.
    pending: u64,
    /// Lines that were dropped and not reported yet.
    lost: u64,
    /// Whether the last write failed. A disk that keeps failing gives one warning.
    is_failing: bool,
    /// Whether the last write ended inside a line.
    is_mid_line: bool,
    /// The numbers of each pool's last reconcile in this file.
    reconciled: HashMap<PoolName, [u32; 3]>,
}

impl EventsOutput {
    fn new(path: &Path, shared: Arc<SharedCounts>) -> Self {
        Self {
            path: path.to_owned(),
            file: None,
            shared,
            reopened: 0,
            looked: Instant::now(),
            lines: Vec::with_capacity(BATCH_BYTES),
            pending: 0,
            lost: 0,
            is_failing: false,
            is_mid_line: false,
            reconciled: HashMap::new(),
        }
    }

    /// Opens the file, reports the result, and writes until the channel is closed.
    fn run(mut self, opening: &SyncSender<io::Result<()>>, messages: &Receiver<WriterMessage>) {
        // The file may be a terminal; see the log's writer.
        let _ = SigSet::from(Signal::SIGTTOU).thread_block();
        match open(&self.path) {
            Ok(file) => {
                if file.is_none() {
                    self.failing("it has no reader");
                }
                self.file = file;
                let _ = opening.send(Ok(()));
            }
            Err(error) => {
                let text = error.to_string();
                // The start may have stopped waiting.
                if opening.send(Err(error)).is_err() {
                    self.failing(&text);
                }
            }
        }
        self.serve(messages);
    }

    fn serve(mut self, messages: &Receiver<WriterMessage>) {
        loop {
            let mut message = match messages.recv_timeout(IDLE) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // Takes all messages that are there, then writes: it never waits for a batch to fill up.
            while let Some(next) = message {
                match next {
                    WriterMessage::Event(timestamp, event) => self.add(timestamp, &event),
                    WriterMessage::Reopen => self.reopen(),
                    WriterMessage::Close => return self.flush(),
                }
                if self.lines.len() >= BATCH_BYTES {
                    self.flush();
                }
                message = messages.try_recv().ok();
            }
            self.flush();
            if self.is_to_reopen() {
                self.reopen();
            }
        }
    }

    fn is_to_reopen(&self) -> bool {
        self.shared.reopens.load(Ordering::Relaxed) != self.reopened
    }

    fn add(&mut self, timestamp: Timestamp, event: &Event) {
        if !self.is_news(event) {
            return;
        }
        let line = serde_json::to_string(&EventLine { timestamp, event });
        let Ok(line) = line else {
            self.lose(1);
            return;
        };
        self.lines.extend_from_slice(escaped_json(&line).as_bytes());
        self.lines.push(b'\n');
        self.pending += 1;
    }

    /// Whether an event is written. A reconcile is written only if its numbers differ from the pool's last one in the
    /// file, or if it found dead runners, because each dead runner counts.
    fn is_news(&mut self, event: &Event) -> bool {
        let Event::Reconciliation {
            pool,
            crashed_runners,
            idle_runners,
            active_runners,
            expected_workers,
            ..
        } = event
        else {
            return true;
        };
        let numbers = [*idle_runners, *active_runners, *expected_workers];
        let last = self.reconciled.insert(pool.clone(), numbers);
        last != Some(numbers) || *crashed_runners > 0
    }

    fn flush(&mut self) {
        if self.pending > 0 {
            match self.write() {
                Ok(()) => self.works(),
                Err(error) => {
                    let pending = self.pending;
                    self.lose(pending);
                    self.failing(&error.to_string());
                    // The last reconcile in the file is no longer known.
                    self.reconciled.clear();
                }
            }
            self.lines.clear();
            self.pending = 0;
        }
        self.lost += self.shared.dropped.swap(0, Ordering::Relaxed);
        if self.lost > 0 && !self.is_failing {
            warn!(path = %self.path.display(), events = self.lost, "dropped events");
            self.lost = 0;
        }
    }

    fn lose(&mut self, lines: u64) {
        self.lost += lines;
        self.shared.total.increment(lines);
    }

    /// Warns once that the file cannot be written.
    fn failing(&mut self, error: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            warn!(
                path = %self.path.display(),
                error,
                "could not write to the events file; events are dropped until it can be written"
            );
        }
    }

    fn works(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            info!(path = %self.path.display(), "writing to the events file again");
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.file.is_none() && self.looked.elapsed() >= IDLE {
            self.looked = Instant::now();
            self.file = open(&self.path)?;
        }
        let Some(mut file) = self.file.take() else {
            return Err(io::Error::other("it has no reader"));
        };
        let before = file.metadata()?;
        if std::mem::take(&mut self.is_mid_line) {
            self.lines.insert(0, b'\n');
        }
        let (mut result, mut written) = (Ok(()), 0);
        while written < self.lines.len() {
            match file.write(&self.lines[written..]) {
                Ok(0) => result = Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
                    if poll(&mut fds, PollTimeout::from(TICK)) == Ok(0) && self.is_to_reopen() {
                        result = Err(io::Error::other("its reader has stalled"));
                    }
                }
                Err(error) => result = Err(error),
            }
            if result.is_err() {
                break;
            }
        }
        let Err(error) = result else {
            self.file = Some(file);
            return Ok(());
        };
        // A partial line would also damage the next one.
        if before.is_file() {
            let _ = file.set_len(before.len());
        } else {
            self.is_mid_line = written > 0 && self.lines[written - 1] != b'\n';
        }
        if error.kind() == io::ErrorKind::BrokenPipe {
            self.is_mid_line = false;
        } else {
            self.file = Some(file);
        }
        Err(error)
    }

    fn reopen(&mut self) {
        self.flush();
        self.reopened = self.shared.reopens.load(Ordering::Relaxed);
        // A new file starts with the numbers of every pool.
        self.reconciled.clear();
        match open(&self.path) {
            Ok(Some(file)) => {
                self.file = Some(file);
                self.is_mid_line = false;
            }
            Ok(None) => {
                self.file = None;
                self.failing("it has no reader");
            }
            Err(error) => warn!(
                path = %self.path.display(),
                error = %error,
                "could not open the events file again; continuing with the old one"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
