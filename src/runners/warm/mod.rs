//! The `warm` runner: a process that receives one job after another.
//!
//! Owns its processes from spawning to reaping, and the protocol with them: one line of JSON in, one line out, on
//! standard input and output, with standard error as the log. `docs/warm-protocol.md` specifies it. It settles nothing
//! and decides no retry: it only reports.
//!
//! # A job and its process
//! A failed job is reported in the answer, and its process continues. A process that ends, breaks the protocol or
//! outlives the job's timeout fails the attempt of that job, and of no other. If a process ends before it has read any
//! part of a job, it is replaced, and the job does not notice. A process that writes to standard output without being
//! asked becomes unfit, and the log names it.
//!
//! # How it ends
//! In an orderly end its input is closed, and the rest is killed after `kill_grace`. In the middle of a job, at its
//! timeout or when the supervisor stops it: TERM to its process group, and KILL after `kill_grace`. A process that was
//! sent a TERM takes no other job. When a process has ended, the rest of its group is killed.
//!
//! # What is read between jobs
//! No task waits on an idle process. Its log, and whether it is still alive, are read in each reconcile and before its
//! next job.

mod kind;
mod lines;
mod link;
mod manager;
mod memory;
mod protocol;
mod settings;
mod shared;
mod slots;
mod talk;
#[cfg(test)]
mod tests;
mod wear;

pub(crate) use self::kind::KIND;
pub use self::{manager::WarmManager, settings::WarmSettings};
