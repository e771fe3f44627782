//! Results and errors of a supervisor.

use std::{io, time::Duration};

use thiserror::Error;
use tidegate_core::text::form_for;

use crate::decide::{OrderRefused, PoolName, QueueName};

/// Which runners a [flush](super::Supervisor::flush) deletes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FlushMode {
    /// Runners that wait for a job.
    #[default]
    Idle,
    /// Runners with a job too: their jobs are stopped and given back, and no attempt is spent.
    All,
}

/// A drain ended cleanly: every job was finished and settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Jobs that were settled during the drain: done, retried later or dead-lettered.
    pub finished: u64,
    /// How long it took.
    pub took: Duration,
}

/// The result of a stop at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StopReport {
    /// Jobs that were stopped, or not begun, and whose messages were given back to their queues. Programs that consume
    /// their queue themselves and that were killed count too.
    pub given_back: u64,
}

/// A drain did not end cleanly. The supervisor has ended nevertheless.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DrainError {
    /// The deadline passed; jobs that still ran were stopped and given back. Programs that consume their queue themselves
    /// were killed, and count as jobs.
    #[error("the deadline of the drain passed: {}", unfinished(*given_back))]
    DeadlinePassed {
        /// How many.
        given_back: u64,
    },
    /// The drain was interrupted by [`stop_now`](super::Supervisor::stop_now).
    #[error("the drain was interrupted: {}", unfinished(*given_back))]
    CutShort {
        /// How many.
        given_back: u64,
    },
    /// A pool failed because of a bug in tidegate, and could not end in an orderly way. Its running jobs were cut off
    /// and given back.
    #[error("the pool {pool} could not be drained in an orderly way: {cause}")]
    PoolFailed {
        /// The pool, the first if there are several.
        pool: PoolName,
        /// The cause of the failure.
        cause: String,
        /// Messages that were given back unfinished since the drain began, in all pools.
        given_back: u64,
    },
}

/// Says how many jobs and programs were given back. Jobs that had not begun count, and so do programs that were killed.
fn unfinished(count: u64) -> String {
    let what = form_for(
        count,
        "unfinished job or program was",
        "unfinished jobs or programs were",
    );
    format!("{count} {what} given back")
}

impl DrainError {
    /// Messages that were given back unfinished since the drain began.
    pub fn given_back(&self) -> u64 {
        match self {
            Self::DeadlinePassed { given_back }
            | Self::CutShort { given_back }
            | Self::PoolFailed { given_back, .. } => *given_back,
        }
    }
}

/// A supervisor that runs until a signal did not end cleanly.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The process cannot listen to signals. The supervisor still works, and has not begun to drain.
    #[error("the process cannot listen to signals")]
    Signals(#[source] io::Error),
    /// The drain did not end cleanly.
    #[error(transparent)]
    Drain(#[from] DrainError),
}

/// A supervisor could not carry out a call.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// No pool can work with these settings.
    #[error("the pool {pool:?} has invalid settings: {problem}", pool = .pool.as_str())]
    Settings {
        /// The pool.
        pool: PoolName,
        /// Which setting is wrong, and what it must be.
        problem: &'static str,
    },
    /// No supervisor can work with these limits.
    #[error("the limits over all pools are invalid: {0}")]
    Limits(&'static str),
    /// Two pools on one queue: each would plan for the whole queue.
    #[error("the pools {first} and {second} cannot work on one queue, {queue}")]
    SharedQueue {
        /// A pool.
        first: PoolName,
        /// Another.
        second: PoolName,
        /// Their queue.
        queue: QueueName,
    },
    /// Two pools with one name.
    #[error("two pools are named {0}")]
    SharedName(PoolName),
    /// No such pool.
    #[error("no pool is named {0}")]
    NoSuchPool(PoolName),
    /// The pool cannot carry out the order. Nothing has changed.
    #[error("the pool {pool} cannot carry out the order: {why}")]
    Refused {
        /// The pool.
        pool: PoolName,
        /// Why.
        why: OrderRefused,
    },
    /// The supervisor is ending, so its pools stay as they are.
    #[error("the supervisor is ending, so its pools cannot be changed")]
    Ending,
    /// The pool has ended, or is ending.
    #[error("the pool {0} has ended")]
    Ended(PoolName),
    /// The pool failed meanwhile because of a bug in tidegate. It is started again.
    #[error("the pool {0} has failed, and is started again")]
    Failed(PoolName),
}
