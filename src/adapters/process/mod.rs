//! What kinds of runner that are processes have in common: how one is started, watched, ended and listened to.
//!
//! Owns a child process from its spawning to its reaping. It knows nothing of what the process is for: that is the
//! affair of [`exec`](super::exec) and [`warm`](super::warm), which never import each other.

mod child;
mod course;
mod environment;
mod exit;
mod header_json;
mod output;
mod start;
mod stdout;
mod variables;

use std::time::Duration;

pub use self::header_json::headers_to_json;
pub(in crate::adapters) use self::{
    child::{Ended, Pipes, Process, signal_name},
    course::{Cause, Course, Event, KILL_PATIENCE, LINGER, Step},
    environment::Environment,
    exit::{Exit, job_end},
    header_json::is_whole_in_json,
    output::{JobLog, Log, Output, Stream},
    start::{Launch, SpawnError, Stays},
    stdout::Stdout,
    variables::{WithHeaders, job_variables},
};
pub use crate::escape::Escaped;

/// The clock's own limit is some way beyond this, and nobody waits so long.
pub(in crate::adapters) const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
