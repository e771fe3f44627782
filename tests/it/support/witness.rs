//! A witness of a job: a FIFO that the job writes to and keeps open. Its lines are the job's events. The end of the
//! file means that no process of the job is left, not even a grandchild.

use std::{future::Future, path::Path, time::Duration};

use nix::sys::stat::Mode;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
};

/// Longest wait for any event in a test.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Waits for `event`, at most [`TIMEOUT`].
pub(crate) async fn soon<F: Future>(event: F) -> F::Output {
    tokio::time::timeout(TIMEOUT, event)
        .await
        .expect("the event happens in time")
}

pub(crate) struct Witness {
    folder: TempDir,
    fifo: BufReader<pipe::Receiver>,
}

impl Witness {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("witness");
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("a fifo");
        let fifo = pipe::OpenOptions::new()
            .open_receiver(&path)
            .expect("the reader's end");
        Self {
            folder,
            fifo: BufReader::new(fifo),
        }
    }

    /// A folder for the job's files. The FIFO in it is named `witness`.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The next line that the job writes.
    pub(crate) async fn line(&mut self) -> String {
        self.next()
            .await
            .expect("the job writes a line before it ends")
    }

    /// The next line that the job writes, or `None` when no process has the FIFO open any more.
    pub(crate) async fn next(&mut self) -> Option<String> {
        let mut line = String::new();
        soon(self.fifo.read_line(&mut line))
            .await
            .expect("a readable fifo");
        line.ends_with('\n').then(|| line.trim_end().to_owned())
    }

    /// Waits until no process has the FIFO open, after at least one had.
    pub(crate) async fn gone(&mut self) {
        let mut line = String::new();
        while soon(self.fifo.read_line(&mut line))
            .await
            .expect("a readable fifo")
            > 0
        {}
    }
}
