//! The jobs that run now: looked at, and stopped one by one.

use super::{Supervisor, SupervisorError};
use crate::{
    decide::{JobId, PoolName},
    run::{RunningJob, Stopping},
};

impl Supervisor {
    /// The jobs of a pool that run now, the oldest first; `None` where there is no such pool. Jobs that wait for a runner,
    /// or whose end is being settled, are not among them.
    pub fn jobs(&self, name: &PoolName) -> Option<Vec<RunningJob>> {
        let handle = self.inner.find(name).ok()?;
        Some(handle.shared.running.list())
    }

    /// Stops the jobs of a pool that have this id, each with its runner's grace, and says how many there are. Their messages
    /// are settled as `stopping` says, unless a job comes to its own end within the grace: that one is settled by its end.
    ///
    /// Returns at once: the end of a job is not waited for. A job that was told before stays as it was told.
    ///
    /// # Errors
    /// No such pool.
    pub fn stop_job(
        &self,
        name: &PoolName,
        id: &JobId,
        stopping: &Stopping,
    ) -> Result<usize, SupervisorError> {
        let handle = self.inner.find(name)?;
        Ok(handle.shared.running.stop(id, stopping))
    }
}
