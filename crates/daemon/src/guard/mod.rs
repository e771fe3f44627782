//! No orphans: when the supervisor or its guard is killed, every process of every job is ended at once.
//!
//! ```text
//! guard           waits for the supervisor; passes signals on; hands its exit code back
//! └── supervisor  waits for the guard; runs everything
//!     ├── job     spawned directly
//!     │   └── its own children
//!     └── whatever jobs have orphaned: double forks, setsid
//! ```
//!
//! Both are *child subreapers*: a process whose parent dies becomes the child of the nearest subreaper above it that
//! is alive, whatever group or session it went to. So nothing of a job leaves this tree, and
//!
//! - when the supervisor is killed, everything it had comes to the guard, which ends it ([`end`]) and then itself;
//! - when the guard is killed, the supervisor hears of it ([`ward`]) and runs this program anew in its own place, to
//!   do the same. That is the one way to stop all of its threads at once, so that no job which is ended now can
//!   still be reported, and settled, as one that failed: its connections are gone, and the broker gives it to others;
//! - when neither is killed, the supervisor ends what a job has left behind once that job is over ([`left_over`]).
//!
//! A process that has no child has no descendant, and that the kernel tells for certain. So ending is done when there
//! is no child left, and no process escapes by forking while we look. A job in a cgroup of its own is ended through that
//! as soon as one process of it is found. Reaping is by id alone: in the supervisor
//! the runtime waits for children of its own.
//!
//! The guard does nothing else, has one thread and hardly any memory: what could bring it down is its being killed.
//! It is called `tide-guard` in the process table, so that a `pkill tidegate` finds the supervisor alone.
//!
//! # Outside the promise
//! - Both are killed in the same instant (`pkill -f`, a whole cgroup). Under systemd the unit's cgroup is ended then.
//! - The machine stops, or whoever does the ending is itself stopped (SIGSTOP, a debugger).
//! - A process that sleeps in the kernel (state D) dies when it wakes up; one that a debugger holds dies as well.
//! - A process that runs as another user, where we are not root: nobody lets us end it.
//! - What is no descendant: processes that a job asked someone else to start (systemd, cron, at, a container engine).
//! - A process that forks faster than it can be found, again and again, may take longer than a second.

mod end;
mod left_over;
mod table;
mod ward;
mod watch;

use std::{env, io, process::ExitCode};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
    unistd::Pid,
};
use thiserror::Error;

/// Set for the supervisor: its guard's process id.
const GUARD_PID: &str = "TIDEGATE_GUARD_PID";

/// This program, also where its file has been replaced since it was started.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// What is left to do for a process that was told to run the supervisor.
#[derive(Debug)]
pub(super) enum Place {
    /// All of it: this is the supervisor, under its guard.
    Supervisor,
    /// Nothing: it was the guard, and all has ended; or a supervisor whose guard is gone, and its jobs have ended.
    Done(ExitCode),
}

/// Puts this process in its place. Started by anyone else it becomes the guard, and starts the same command once more
/// below it.
///
/// # Assumptions
/// Nobody has started a thread yet.
///
/// # Errors
/// The kernel, or the file system, lacks what this needs. Nothing runs then.
pub(super) fn take_place() -> Result<Place, GuardError> {
    match pid() {
        None => watch::run().map(Place::Done),
        Some(guard) => ward::join(guard),
    }
}

/// Keeps the environment and the memory of this process, with the broker's password in them, from other processes of its
/// own user, which jobs may be: `/proc/PID/environ` and the like are root's from now on. There are no core dumps of it
/// either. A program that it starts is as open as any.
pub(super) fn conceal() {
    // Refused by no kernel that there is.
    let _ = prctl::set_dumpable(false);
}

/// The guard of this process, where it has one.
pub(super) fn pid() -> Option<Pid> {
    let pid = env::var(GUARD_PID).ok()?.parse().ok()?;
    Some(Pid::from_raw(pid))
}

/// Signals that the guard passes on. It must hold them back while it waits, and its children start with them held
/// back too, until they let them through.
const PASSED_ON: [Signal; 5] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
];

/// All that the guard waits for.
fn held_back() -> SigSet {
    let own = [Signal::SIGCHLD, Signal::SIGTSTP];
    PASSED_ON.into_iter().chain(own).collect()
}

/// Supervisor and guard could not be put in place.
#[derive(Debug, Error)]
pub(super) enum GuardError {
    /// The kernel refused something that the guard cannot do without.
    #[error("guard the supervisor: {what}")]
    Kernel {
        /// What it refused.
        what: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The supervisor could not be started.
    #[error("start the supervisor under its guard")]
    Start(#[source] io::Error),
}

fn refused(what: &'static str) -> impl FnOnce(Errno) -> GuardError {
    move |source| GuardError::Kernel { what, source }
}
