//! A witness of what a job does: a FIFO that the job writes to and holds open. Lines are its events, and the end
//! of the file is the event that nothing of the job, down to the last grandchild, runs any more.

use std::{future::Future, path::Path, time::Duration};

use nix::sys::stat::Mode;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
};

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for `event`, but not for ever.
pub(crate) async fn soon<F: Future>(event: F) -> F::Output {
    tokio::time::timeout(PATIENCE, event)
        .await
        .expect("it happens in time")
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

    /// A folder for what the job writes, with the FIFO as its `witness`.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The next line that the job writes.
    pub(crate) async fn line(&mut self) -> String {
        self.next().await.expect("the job has gone without a word")
    }

    /// The next line that the job writes, or `None` once nobody holds the FIFO any more.
    pub(crate) async fn next(&mut self) -> Option<String> {
        let mut line = String::new();
        soon(self.fifo.read_line(&mut line))
            .await
            .expect("a readable fifo");
        line.ends_with('\n').then(|| line.trim_end().to_owned())
    }

    /// Waits until nobody holds the FIFO any more, after at least one has.
    pub(crate) async fn gone(&mut self) {
        let mut line = String::new();
        while soon(self.fifo.read_line(&mut line))
            .await
            .expect("a readable fifo")
            > 0
        {}
    }
}
