//! The job file: each job appends its id to this file, once for each run.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The file. Removed on drop.
#[derive(Debug)]
pub(super) struct JobFile {
    path: PathBuf,
}

impl JobFile {
    /// Creates a new file. No other user can write to it.
    pub(super) fn new() -> io::Result<Self> {
        let name = format!("tidegate-demo-{:016x}.ledger", rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All ids in the file, in the order of the runs.
    pub(super) fn read(&self) -> io::Result<Vec<String>> {
        let text = fs::read_to_string(&self.path)?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

impl Drop for JobFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
