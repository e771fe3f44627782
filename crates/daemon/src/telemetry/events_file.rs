//! The file of metric events: one JSON object a line.
//!
//! Workers hand events over through a bounded channel and never wait; one thread owns the file. What does not fit
//! the channel or the disk is dropped, counted, and warned of: events tell about the work, they are not the work.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;
use tracing::{info, warn};

use tidegate::run::{Event, EventSink};

/// Events that may wait for the disk. At three events a job, a second of three thousand jobs.
const CAPACITY: usize = 8 * 1024;

/// Bytes of lines that are handed to the kernel at once.
const BATCH_BYTES: usize = 64 * 1024;

/// How often a writer without any event looks whether it has drops to tell of.
const IDLE: Duration = Duration::from_secs(1);

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
#[derive(Debug, Clone)]
pub struct EventsFile {
    /// Written by workers and pools, read by the writer.
    messages: SyncSender<Message>,
    /// Events that found the channel full. Written by workers and pools, taken by the writer.
    dropped: Arc<AtomicU64>,
}

/// The writer's thread.
#[derive(Debug)]
pub struct EventsWriter {
    thread: thread::JoinHandle<()>,
    messages: SyncSender<Message>,
}

#[derive(Debug)]
enum Message {
    Event(Timestamp, Event),
    Reopen,
    Close,
}

impl EventsFile {
    /// Opens the file to append to it, and starts its writer.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path) -> Result<(Self, EventsWriter), EventsFileError> {
        let failed = |source| EventsFileError {
            path: path.to_owned(),
            source,
        };
        let file = open(path).map_err(failed)?;
        let (messages, receiver) = sync_channel(CAPACITY);
        let dropped = Arc::new(AtomicU64::new(0));
        let output = Output {
            path: path.to_owned(),
            file,
            dropped: dropped.clone(),
            lines: Vec::with_capacity(BATCH_BYTES),
            pending: 0,
            lost: 0,
            is_failing: false,
        };
        let thread = thread::Builder::new()
            .name("events-file".to_owned())
            .spawn(move || output.serve(&receiver))
            .map_err(failed)?;
        let writer = EventsWriter {
            thread,
            messages: messages.clone(),
        };
        Ok((Self { messages, dropped }, writer))
    }

    /// Opens the file by its name again, after someone has moved the old one away.
    pub fn reopen(&self) {
        // A full channel means that the disk is behind; whoever rotates asks again.
        if self.messages.try_send(Message::Reopen).is_err() {
            warn!("could not ask the events file's writer to open it again");
        }
    }
}

impl EventSink for EventsFile {
    fn emit(&self, event: Event) {
        let message = Message::Event(Timestamp::now(), event);
        if self.messages.try_send(message).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl EventsWriter {
    /// Writes what is left and ends the writer. Blocks while the disk does.
    pub fn close(self) {
        if self.messages.send(Message::Close).is_ok() && self.thread.join().is_err() {
            warn!("the events file's writer panicked");
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// One line, as it is written.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: Timestamp,
    #[serde(flatten)]
    event: &'a Event,
}

/// The writer's side.
struct Output {
    path: PathBuf,
    file: File,
    dropped: Arc<AtomicU64>,
    /// Whole lines that are not written yet.
    lines: Vec<u8>,
    /// How many lines those are.
    pending: u64,
    /// Lines that were dropped and not yet told of.
    lost: u64,
    /// Whether the last write failed, so that one failing disk is one warning.
    is_failing: bool,
}

impl Output {
    fn serve(mut self, messages: &Receiver<Message>) {
        loop {
            let mut message = match messages.recv_timeout(IDLE) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // All that is there in one go, and then to the file: nothing waits for a batch to fill up.
            while let Some(next) = message {
                match next {
                    Message::Event(timestamp, event) => self.add(timestamp, &event),
                    Message::Reopen => self.reopen(),
                    Message::Close => return self.flush(),
                }
                if self.lines.len() >= BATCH_BYTES {
                    self.flush();
                }
                message = messages.try_recv().ok();
            }
            self.flush();
        }
    }

    fn add(&mut self, timestamp: Timestamp, event: &Event) {
        let start = self.lines.len();
        let line = Line { timestamp, event };
        if serde_json::to_writer(&mut self.lines, &line).is_err() {
            self.lines.truncate(start);
            self.lost += 1;
            return;
        }
        self.lines.push(b'\n');
        self.pending += 1;
    }

    fn flush(&mut self) {
        if self.pending > 0 {
            match write_whole(&mut self.file, &self.lines) {
                Ok(()) if self.is_failing => {
                    self.is_failing = false;
                    info!(path = %self.path.display(), "the events file is written again");
                }
                Ok(()) => {}
                Err(error) => {
                    self.lost += self.pending;
                    if !self.is_failing {
                        self.is_failing = true;
                        warn!(
                            path = %self.path.display(),
                            error = %error,
                            "could not write to the events file; events are dropped until it can be written"
                        );
                    }
                }
            }
            self.lines.clear();
            self.pending = 0;
        }
        self.lost += self.dropped.swap(0, Ordering::Relaxed);
        if self.lost > 0 && !self.is_failing {
            warn!(path = %self.path.display(), events = self.lost, "dropped events");
            self.lost = 0;
        }
    }

    fn reopen(&mut self) {
        self.flush();
        match open(&self.path) {
            Ok(file) => self.file = file,
            Err(error) => warn!(
                path = %self.path.display(),
                error = %error,
                "could not open the events file again; going on with the old one"
            ),
        }
    }
}

/// Writes all of `lines` or, as well as it can be done, nothing: half a line would spoil the next one too.
fn write_whole(file: &mut File, lines: &[u8]) -> io::Result<()> {
    let before = file.metadata()?;
    file.write_all(lines).inspect_err(|_| {
        if before.is_file() {
            let _ = file.set_len(before.len());
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn event(job: u32) -> Event {
        Event::RunnerStart {
            pool: "thumbnails".into(),
            job_id: job.to_string().as_str().into(),
            idle: Duration::from_millis(250),
            queue_duration: None,
        }
    }

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn writes_one_object_a_line_with_time_and_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let (events, writer) = EventsFile::open(&path).unwrap();
        events.emit(event(1));
        events.emit(event(2));
        writer.close();

        let lines = lines(&path);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["event"], "runner_start");
        assert_eq!(lines[0]["pool"], "thumbnails");
        assert_eq!(lines[0]["idle"], 0.25);
        assert_eq!(lines[1]["job_id"], "2");
        let stamp = lines[0]["timestamp"].as_str().unwrap();
        stamp.parse::<Timestamp>().unwrap();
    }

    #[test]
    fn appends_to_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        for job in 0..2 {
            let (events, writer) = EventsFile::open(&path).unwrap();
            events.emit(event(job));
            writer.close();
        }
        assert_eq!(lines(&path).len(), 2);
    }

    #[test]
    fn goes_on_in_a_new_file_after_the_old_one_was_moved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let old = dir.path().join("events.jsonl.1");
        let (events, writer) = EventsFile::open(&path).unwrap();
        events.emit(event(1));
        std::fs::rename(&path, &old).unwrap();
        events.reopen();
        events.emit(event(2));
        writer.close();
        assert_eq!(lines(&old)[0]["job_id"], "1");
        assert_eq!(lines(&path)[0]["job_id"], "2");
        assert_eq!((lines(&old).len(), lines(&path).len()), (1, 1));
    }

    #[test]
    fn survives_a_full_disk() {
        let (events, writer) = EventsFile::open(Path::new("/dev/full")).unwrap();
        events.emit(event(1));
        events.emit(event(2));
        // Comes to its end although nothing could be written.
        writer.close();
    }

    #[test]
    fn drops_and_counts_instead_of_blocking_a_worker() {
        let (messages, _receiver) = sync_channel(1);
        let events = EventsFile {
            messages,
            dropped: Arc::default(),
        };
        for job in 0..3 {
            events.emit(event(job));
        }
        assert_eq!(events.dropped.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn names_the_file_that_cannot_be_opened() {
        let error = EventsFile::open(Path::new("/nowhere/events.jsonl")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "open the events file /nowhere/events.jsonl"
        );
    }
}
