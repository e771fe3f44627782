//! What kinds of runner that are processes have in common: how one is started, watched, ended and listened to.
//!
//! Owns a child process from its spawning to its reaping, the settings that it is started with, and what these need of the
//! machine. It knows nothing of what the process is for: that is the affair of the kinds, which never import each other.

mod child;
mod course;
mod environment;
mod exit;
mod header_json;
mod output;
pub(crate) mod program;
pub(crate) mod rights;
pub(crate) mod scripts;
mod settings;
mod start;
mod stdout;
mod variables;

use std::time::Duration;

pub(in crate::runners) use self::{
    child::{Ended, Pipes, Process},
    course::{Cause, Course, Event, KILL_PATIENCE, LINGER, Step},
    environment::Environment,
    exit::{Exit, job_end, signal_name},
    header_json::is_whole_in_json,
    output::{JobLog, Log, Output, Stream},
    start::{Launch, SpawnError, Stays},
    stdout::Stdout,
    variables::{WithHeaders, job_variables},
};
pub use self::{header_json::headers_to_json, settings::ExecSettings};
pub use crate::escape::Escaped;

/// The clock's own limit is some way beyond this, and nobody waits so long.
pub(in crate::runners) const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
