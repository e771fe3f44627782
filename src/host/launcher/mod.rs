//! The launcher: the program between a supervisor and a job that has limits.
//!
//! Some settings of a process can only be made by the process itself, after the fork and before its program starts. In
//! Rust that needs `unsafe`. So a job with limits is started through this program, which is run again as the job's own
//! process. It joins the job's cgroup, sets limits, changes the user, and then replaces itself with the job's program
//! (`exec`). Jobs without limits are spawned directly.
//!
//! The launcher finds a socket as its standard input. Through it come the plan and the pipe that becomes the job's
//! standard input. Errors go back through the same socket, which the kernel closes when the job's program starts. The
//! job's arguments and environment contain none of this. So a job cannot see it, and nothing that a job writes or
//! returns can be taken for a message of the launcher. A variable, which is not passed to the job, marks the process as
//! a launcher: the launcher is not a command that a user could type.
//!
//! # In your own program
//! Your own program is run again, so it must know how to be a launcher. Call [`init`] first thing in `main`:
//!
//! ```no_run
//! tidegate::host::launcher::init();
//! // Everything else, the runtime too.
//! ```
//!
//! Or name an installed `tidegate` of the same version with [`use_program`]. Without either, a job with limits does not
//! start, and its pool reports the reason.

mod child;
mod parent;
mod plan;
mod program;

use std::env;

pub use self::program::use_program;
use self::program::{MARK, THIS_PROGRAM};
pub(crate) use self::{
    parent::{LAUNCH_TIMEOUT, LaunchFailure, PreparedLaunch, heard, mark},
    plan::LaunchPlan,
};

/// Makes this program able to start jobs with limits. Call this first thing in `main`, before another thread exists. If
/// this process was started as a launcher, it becomes the job, and this function does not return.
pub fn init() {
    if env::var_os(MARK).is_some() {
        child::launch();
    }
    use_program(THIS_PROGRAM);
}
