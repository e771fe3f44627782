//! The jobs that run now: listing them, and stopping one of them.

use super::{Supervisor, SupervisorError};
use crate::{
    decide::{JobId, PoolName},
    run::{RunningJob, Stopping},
};

impl Supervisor {
    /// The jobs of a pool that run now, the oldest first. `None` if there is no such pool. Jobs that wait for a runner, or
    /// that are being settled, are not in the list. A pool that a reload has removed is there until it has drained.
    pub fn jobs(&self, name: &PoolName) -> Option<Vec<RunningJob>> {
        let handles = self.inner.find_all(name);
        let jobs = handles.iter().flat_map(|handle| {
            let shared = &handle.shared;
            shared.running.list(shared.orders.clock.now())
        });
        let mut jobs: Vec<RunningJob> = jobs.collect();
        jobs.sort_by_key(|job| job.since);
        (!handles.is_empty()).then_some(jobs)
    }

    /// Stops the jobs of a pool that have this id, each with its runner's grace, and returns how many there are. Their
    /// messages are settled as `stopping` says. A job that comes to its own end within the grace is settled by that end.
    ///
    /// Returns at once, and does not wait for the ends of the jobs. A job that was told to stop before keeps its first
    /// order.
    ///
    /// # Errors
    /// No such pool.
    pub fn stop_job(
        &self,
        name: &PoolName,
        id: &JobId,
        stopping: &Stopping,
    ) -> Result<usize, SupervisorError> {
        let handles = self.inner.find_all(name);
        if handles.is_empty() {
            return Err(SupervisorError::NoSuchPool(name.clone()));
        }
        let told = handles
            .iter()
            .map(|handle| handle.shared.running.stop(id, stopping));
        Ok(told.sum())
    }
}
