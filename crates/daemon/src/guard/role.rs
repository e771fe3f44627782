//! What a guard and a supervisor agree on: their roles, the variable that tells them apart, and the signals between
//! them.

use std::{io, process::ExitCode};

use nix::{
    errno::Errno,
    sys::signal::{SigSet, Signal},
};
use thiserror::Error;

/// Environment variable of the supervisor: its guard's process id.
pub(super) const GUARD_PID: &str = "TIDEGATE_GUARD_PID";

/// This program, also if its file has been replaced since the start.
pub(super) const THIS_PROGRAM: &str = "/proc/self/exe";

/// The role of a process after it was started to run the supervisor.
#[derive(Debug)]
pub(crate) enum Role {
    /// This is the supervisor, under its guard. It has everything left to do.
    Supervisor,
    /// It has nothing left to do: it was the guard and all jobs have ended, or its guard had ended and its jobs were
    /// killed.
    Done(ExitCode),
}

/// Signals that the guard passes on. The guard blocks them while it waits. Its children start with them blocked too,
/// and must unblock them.
pub(super) const PASSED_ON: [Signal; 5] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
];

/// All signals that the guard waits for.
pub(super) fn held_back() -> SigSet {
    let own = [Signal::SIGCHLD, Signal::SIGTSTP];
    PASSED_ON.into_iter().chain(own).collect()
}

/// The supervisor and its guard could not be set up.
#[derive(Debug, Error)]
pub(crate) enum GuardError {
    /// The kernel refused something that the guard needs.
    #[error("guard the supervisor: {what}")]
    Kernel {
        /// The refused operation.
        what: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The supervisor could not be started.
    #[error("start the supervisor under its guard")]
    Start(#[source] io::Error),
}

pub(super) fn refused(what: &'static str) -> impl FnOnce(Errno) -> GuardError {
    move |source| GuardError::Kernel { what, source }
}
