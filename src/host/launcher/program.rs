//! Which program can be a launcher, and how it knows that it is one.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Set only for a launcher.
pub(super) const MARK: &str = "TIDEGATE_LAUNCHER";

/// This program, even if its file has been replaced since the start.
pub(super) const THIS_PROGRAM: &str = "/proc/self/exe";

/// The program that can be a launcher. Written once, before any job runs. Read by each launch.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Makes jobs with limits start through the `tidegate` at `path`, which must have the same version as this library.
/// Only the first call has an effect.
pub fn use_program(path: impl Into<PathBuf>) {
    let _is_named_already = PROGRAM.set(path.into());
}

/// The program to start.
pub(super) fn program() -> Option<&'static Path> {
    PROGRAM.get().map(PathBuf::as_path)
}
