//! The job file: each job appends its id to this file, once for each run.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// The file, in a folder of its own. Both are removed on drop.
#[derive(Debug)]
pub(super) struct JobFile {
    folder: PathBuf,
    path: PathBuf,
}

impl JobFile {
    /// Creates a new file. No other user can reach it.
    pub(super) fn new() -> io::Result<Self> {
        let name = format!("tidegate-demo-{:016x}", rand::random::<u64>());
        let folder = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&folder)?;
        let path = folder.join("ledger");
        let file = Self { folder, path };
        File::create_new(&file.path)?;
        Ok(file)
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
        // A job that is being killed may still append, and would create the file again. Under another name it does not find
        // the folder.
        let ending = self.folder.with_extension("ending");
        let _ = fs::rename(&self.folder, &ending).and_then(|()| fs::remove_dir_all(&ending));
    }
}
