//! The supervisor: all pools of a process, and the handle to them.
use std::{sync::Arc, time::Duration};

use super::{EventSink, PoolStatus, Readiness};
use crate::{
    config::PoolSettings,
    decide::{Decision, PoolName},
    queue::QueueDriver,
    runner::RunnerManager,
};

/// A pool to run: its settings, and what its jobs run on.
#[derive(Debug, Clone)]
pub struct PoolSpec {
    /// Settings.
    pub settings: PoolSettings,
    /// Brings its runners up.
    pub runners: Arc<dyn RunnerManager>,
}

/// Handle to a running supervisor. Cheap to clone; all clones are the same supervisor.
#[derive(Debug, Clone)]
pub struct Supervisor {}

/// What a drain came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Jobs that were stopped and given back to their queues.
    pub given_back: u64,
}

/// A drain did not come to a clean end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// The deadline passed; jobs that still ran were stopped and given back.
    #[error("drain before the deadline: {given_back} jobs were stopped and given back")]
    DeadlinePassed {
        /// How many.
        given_back: u64,
    },
}

/// A supervisor could not be started or reconfigured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// Two pools on one queue would each plan for the whole of it.
    #[error("run pools {first} and {second} on one queue, {queue}")]
    SharedQueue {
        /// A pool.
        first: PoolName,
        /// Another.
        second: PoolName,
        /// Their queue.
        queue: crate::decide::QueueName,
    },
    /// No such pool.
    #[error("find a pool named {0}")]
    NoSuchPool(PoolName),
}

#[expect(unused_variables, clippy::unused_async, reason = "skeleton")]
impl Supervisor {
    /// Starts the pools on a driver.
    pub fn start(
        driver: Arc<dyn QueueDriver>,
        pools: Vec<PoolSpec>,
        events: Option<Arc<dyn EventSink>>,
    ) -> Result<Self, SupervisorError> {
        unimplemented!()
    }
    /// Every pool, in the order of the configuration.
    pub fn pools(&self) -> Vec<PoolStatus> {
        unimplemented!()
    }
    /// One pool.
    pub fn pool(&self, name: &PoolName) -> Option<PoolStatus> {
        unimplemented!()
    }
    /// The record of the pool's last decision; `None` for no such pool or before the first.
    pub fn explain(&self, name: &PoolName) -> Option<Decision> {
        unimplemented!()
    }
    /// Whether it is connected and every pool can work.
    pub fn readiness(&self) -> Readiness {
        unimplemented!()
    }
    /// Takes a new set of pools over: added ones start, removed ones drain, changed ones change in place.
    pub async fn reconfigure(&self, pools: Vec<PoolSpec>) -> Result<(), SupervisorError> {
        unimplemented!()
    }
    /// Drains every pool, for at most `grace` each, and ends the supervisor.
    pub async fn drain(&self, grace: Duration) -> Result<DrainReport, DrainError> {
        unimplemented!()
    }
    /// Drains every pool, each with its own `shutdown_grace`, and ends the supervisor.
    pub async fn shutdown(&self) -> Result<DrainReport, DrainError> {
        unimplemented!()
    }
    /// Stops every job at once, gives it back, and ends the supervisor. May be called while a drain is waiting: that ends too.
    pub async fn stop_now(&self) -> DrainReport {
        unimplemented!()
    }
    /// Logs the state of every pool and worker, at `info`.
    pub fn dump(&self) {
        unimplemented!()
    }
    /// Stops intake; running jobs go on.
    pub fn pause(&self, name: &PoolName) -> Result<(), SupervisorError> {
        unimplemented!()
    }
    /// Opens intake again.
    pub fn resume(&self, name: &PoolName) -> Result<(), SupervisorError> {
        unimplemented!()
    }
    /// Pins a pool to a number of workers, or lets go of it.
    pub fn scale(&self, name: &PoolName, workers: Option<u32>) -> Result<(), SupervisorError> {
        unimplemented!()
    }
}
