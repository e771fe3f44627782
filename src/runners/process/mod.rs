//! The common part of the kinds of runner that are processes: how a process is started, watched, ended and read.
//!
//! Owns a child process from spawning to reaping, the settings that it is started with, and the checks of the machine
//! for these settings. It does not know the purpose of the process: that belongs to the kinds, which never import each
//! other.

mod child;
mod course;
mod environment;
mod exit;
mod header_json;
mod interrupts;
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
    child::{ChildExit, Pipes, Process},
    course::{Course, CourseAction, CourseEvent, EndCause, KILL_TIMEOUT, LINGER},
    environment::Environment,
    exit::{ProcessExit, job_end, signal_name},
    header_json::is_whole_in_json,
    interrupts::Interrupts,
    output::{JobLog, Log, OutputReader, OutputStream},
    start::{Launch, ProcessReuse, SpawnError},
    stdout::Stdout,
    variables::{WithHeaders, job_variables},
};
pub use self::{header_json::headers_to_json, settings::ExecSettings};
pub use crate::escape::Escaped;

/// A time that the clock can still add, and that is longer than any wait.
pub(in crate::runners) const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
