//! What is asked of a supervisor, and what came of it.

use std::{io, time::Duration};

use thiserror::Error;

use crate::decide::{OrderRefused, PoolName, QueueName};

/// Which runners a [flush](super::Supervisor::flush) deletes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FlushMode {
    /// Those that wait for a job.
    #[default]
    Idle,
    /// Those that have one, too: their jobs are stopped and given back, without an attempt spent.
    All,
}

/// A drain came to a clean end: every job was finished and settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Jobs that were settled meanwhile: done, put off or dead-lettered.
    pub finished: u64,
    /// How long it took.
    pub took: Duration,
}

/// What an end at once came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StopReport {
    /// Running jobs that were stopped and given back to their queues.
    pub given_back: u64,
}

/// A drain did not come to a clean end. The supervisor has ended all the same.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DrainError {
    /// The deadline passed; jobs that still ran were stopped and given back.
    #[error("the deadline of the drain passed: {}", unfinished(*given_back))]
    DeadlinePassed {
        /// How many.
        given_back: u64,
    },
    /// It was overtaken by [`stop_now`](super::Supervisor::stop_now).
    #[error("the drain was cut short: {}", unfinished(*given_back))]
    CutShort {
        /// How many.
        given_back: u64,
    },
    /// A pool failed by a fault of tidegate's own, and could not be ended in order. What it still ran was cut off and
    /// given back.
    #[error("the pool {pool} could not be drained in order: {cause}")]
    PoolFailed {
        /// The pool, the first if there are several.
        pool: PoolName,
        /// What its fault was.
        cause: String,
        /// Running jobs that were stopped and given back since the drain began, in all pools.
        given_back: u64,
    },
}

/// Says how many messages went back. Some of their jobs may not have begun.
fn unfinished(messages: u64) -> String {
    match messages {
        1 => String::from("1 message was given back unfinished"),
        messages => format!("{messages} messages were given back unfinished"),
    }
}

impl DrainError {
    /// Running jobs that were stopped and given back since the drain began.
    pub fn given_back(&self) -> u64 {
        match self {
            Self::DeadlinePassed { given_back }
            | Self::CutShort { given_back }
            | Self::PoolFailed { given_back, .. } => *given_back,
        }
    }
}

/// A supervisor that runs until a signal comes did not come to a clean end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// The signals cannot be listened to. The supervisor works on, and has not begun to drain.
    #[error("signals cannot be listened to")]
    Signals(#[source] io::Error),
    /// The drain did not come to a clean end.
    #[error(transparent)]
    Drain(#[from] DrainError),
}

/// A supervisor could not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// No pool can work with these settings.
    #[error("the pool {pool:?} cannot be used as it is set: {problem}", pool = .pool.as_str())]
    Settings {
        /// The pool.
        pool: PoolName,
        /// Which setting is wrong, and what it must be.
        problem: &'static str,
    },
    /// Two pools on one queue would each plan for the whole of it.
    #[error("the pools {first} and {second} cannot work on one queue, {queue}")]
    SharedQueue {
        /// A pool.
        first: PoolName,
        /// Another.
        second: PoolName,
        /// Their queue.
        queue: QueueName,
    },
    /// Two pools of one name.
    #[error("two pools are named {0}")]
    SharedName(PoolName),
    /// No such pool.
    #[error("no pool is named {0}")]
    NoSuchPool(PoolName),
    /// The pool cannot carry the order out. Nothing has changed.
    #[error("the pool {pool} cannot carry the order out: {why}")]
    Refused {
        /// The pool.
        pool: PoolName,
        /// Why.
        why: OrderRefused,
    },
    /// It is ending, so its pools stay as they are.
    #[error("the supervisor is ending, so its pools cannot be changed")]
    Ending,
    /// The pool has ended, or is ending.
    #[error("the pool {0} has ended")]
    Ended(PoolName),
    /// The pool failed by a fault of tidegate's own while it was at it. It is started again.
    #[error("the pool {0} has failed, and is started again")]
    Failed(PoolName),
}
