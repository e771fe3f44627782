//! The ledger: a file that every job signs by its id, once for each time that it runs.

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
    /// A new one, which nobody else can sign.
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

    /// Every signature, in their order.
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
