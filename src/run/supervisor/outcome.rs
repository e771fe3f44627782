//! What is asked of a supervisor, and what came of it.

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

/// What a drain came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Jobs that were stopped and given back to their queues.
    pub given_back: u64,
}

/// A drain did not come to a clean end.
#[derive(Debug, Error)]
pub enum DrainError {
    /// The deadline passed; jobs that still ran were stopped and given back.
    #[error("drain before the deadline: {given_back} running jobs were stopped and given back")]
    DeadlinePassed {
        /// How many.
        given_back: u64,
    },
    /// A pool failed by a fault of tidegate's own, and could not be ended in order. What it still ran was cut off and
    /// given back.
    #[error("drain the pool {pool} in order: {cause}")]
    PoolFailed {
        /// The pool, the first if there are several.
        pool: PoolName,
        /// What its fault was.
        cause: String,
        /// Running jobs that were stopped and given back since the drain began, in all pools.
        given_back: u64,
    },
}

/// A supervisor could not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// Two pools on one queue would each plan for the whole of it.
    #[error("run the pools {first} and {second} on one queue, {queue}")]
    SharedQueue {
        /// A pool.
        first: PoolName,
        /// Another.
        second: PoolName,
        /// Their queue.
        queue: QueueName,
    },
    /// Two pools of one name.
    #[error("run two pools named {0}")]
    SharedName(PoolName),
    /// No such pool.
    #[error("find a pool named {0}")]
    NoSuchPool(PoolName),
    /// The pool cannot carry the order out. Nothing has changed.
    #[error("steer the pool {pool}: {why}")]
    Refused {
        /// The pool.
        pool: PoolName,
        /// Why.
        why: OrderRefused,
    },
    /// It is ending, so its pools stay as they are.
    #[error("change the pools of a supervisor that is ending")]
    Ending,
    /// The pool has ended, or is ending.
    #[error("reach the pool {0}: it has ended")]
    Ended(PoolName),
    /// The pool failed by a fault of tidegate's own while it was at it. It is started again.
    #[error("reach the pool {0}: it has failed, and is started again")]
    Failed(PoolName),
}
