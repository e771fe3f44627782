//! The `warm` runner: a process that stays, and is handed job after job.
//!
//! Owns its processes from spawning to reaping, and the protocol that is spoken with them: one line of JSON in, one
//! line out, on standard input and output, with standard error as the log. `docs/warm-protocol.md` specifies it. It
//! settles nothing and decides no retry: it reports.
//!
//! # A job and its process
//! A job that fails says so in its answer, and its process goes on. A process that ends, breaks the protocol or
//! outlives the job's timeout is that job's failed attempt, and no other's: one that has gone before it read any of
//! a job is replaced without a word to the job. What a process writes to standard output without being asked makes
//! it unfit, and is named in the log.
//!
//! # How it ends
//! Politely: its input ends, and `kill_grace` later what is left is killed. In the middle of a job, at its timeout
//! or when the supervisor stops it: TERM to its process group, and KILL after `kill_grace`; a process that was sent
//! a TERM takes no other job. What is left of its group is killed when it has ended.
//!
//! # What is read between jobs
//! Nobody waits on an idle process. Its log, and whether it is still there, are looked at in each reconcile and
//! before its next job.

mod kind;
mod lines;
mod link;
mod manager;
mod memory;
mod protocol;
mod settings;
mod talk;
mod wear;

pub(crate) use self::kind::KIND;
pub use self::{manager::WarmManager, settings::WarmSettings};
