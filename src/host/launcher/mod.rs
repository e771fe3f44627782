//! The launcher: what stands between a supervisor and a job that has limits.
//!
//! Some of what makes a process has to be done by the process itself, after it was forked and before its program
//! starts, and in Rust that takes `unsafe`. So a job with limits is started by way of this program: it is run anew,
//! as the job's own process; it joins the job's cgroup, sets limits, becomes another user, and then has the job's program
//! take its place (`exec`). Jobs without limits are spawned directly.
//!
//! What it is to do comes through a socket, which it finds in the place of its standard input, together with the pipe
//! that is to take that place. What went wrong goes back through the socket, which closes by itself as the job's program
//! starts. Nothing of it is in the job's arguments or environment, so a job cannot see it, and nothing that a job writes
//! or returns can be taken for the launcher's word. A variable, which the job is not given, says that this is a
//! launcher: it is no command that could be typed.
//!
//! # In a program of your own
//! The program that is run anew is yours, so it has to know what to do. Call [`init`] first thing in `main`:
//!
//! ```no_run
//! tidegate::host::launcher::init();
//! // Everything else, the runtime too.
//! ```
//!
//! or name an installed `tidegate` of the same version by [`use_program`]. Without either a job with limits does not
//! start, and its pool says so.

mod child;
mod parent;
mod plan;

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
};

pub(crate) use self::{
    parent::{LAUNCH_PATIENCE, LaunchFailure, Launching, heard, mark},
    plan::Plan,
};

/// Set for a launcher alone.
const MARK: &str = "TIDEGATE_LAUNCHER";

/// This program, also where its file has been replaced since it was started.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// The program that knows how to be a launcher. Written once, before anything runs.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Makes this program one that can start jobs with limits. To be called first thing in `main`, before there is another
/// thread. Where this process was started to be a launcher, it becomes the job, and this does not return.
pub fn init() {
    if env::var_os(MARK).is_some() {
        child::launch();
    }
    let _is_named_already = PROGRAM.set(THIS_PROGRAM.into());
}

/// Has jobs with limits started by way of the `tidegate` at `path`, which must be of the version that this library is.
/// The first call counts.
pub fn use_program(path: impl Into<PathBuf>) {
    let _is_named_already = PROGRAM.set(path.into());
}

/// The program to start.
fn program() -> Option<&'static Path> {
    PROGRAM.get().map(PathBuf::as_path)
}
