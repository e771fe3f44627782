//! The end of a supervisor: a drain, or a stop at once.

use std::time::Duration;

use tokio::time::{self, Instant};

use super::{DrainError, DrainReport, Handle, StopReport, Supervisor};
use crate::{
    config::PoolSettings,
    run::{pool::PoolCommand, shared::ANSWER},
};

impl Supervisor {
    /// Drains every pool and ends the supervisor: no worker takes anything more, running jobs are finished and
    /// settled. Jobs that still run after `grace` are stopped (see the runner's own grace) and given back. The drain
    /// ends within both graces and 4 seconds, also if the broker does not answer.
    ///
    /// # Errors
    /// The deadline passed or [`stop_now`](Self::stop_now) came, and jobs were given back; or a pool could not be ended
    /// in an orderly way. The supervisor has ended in any case.
    ///
    /// # Cancel-safety
    /// The drain continues if this future is dropped. Call again to wait for it.
    pub async fn drain(&self, grace: Duration) -> Result<DrainReport, DrainError> {
        self.drain_each(|_| grace).await
    }

    /// Drains every pool, each within its own `shutdown_grace`, and ends the supervisor. Otherwise as
    /// [`drain`](Self::drain).
    pub async fn shutdown(&self) -> Result<DrainReport, DrainError> {
        self.drain_each(|settings| settings.shutdown_grace).await
    }

    async fn drain_each(
        &self,
        grace: impl Fn(&PoolSettings) -> Duration,
    ) -> Result<DrainReport, DrainError> {
        let began = Instant::now();
        let handles = self.inner.end();
        let stopped_before = stopped(&handles);
        let settled_before = settled(&handles);
        for handle in &handles {
            let grace = grace(&handle.shared.settings());
            // A pool that has ended is drained already.
            let _ = handle.commands.send(PoolCommand::Drain(grace)).await;
        }
        let given_back = self
            .until_ended(&handles)
            .await
            .saturating_sub(stopped_before);
        let failed = handles.iter().find_map(|handle| {
            let cause = handle.shared.gate.pool_failure()?;
            Some((handle.shared.name.clone(), cause))
        });
        if let Some((pool, cause)) = failed {
            return Err(DrainError::PoolFailed {
                pool,
                cause,
                given_back,
            });
        }
        match given_back {
            0 => Ok(DrainReport {
                finished: settled(&handles).saturating_sub(settled_before),
                took: began.elapsed(),
            }),
            given_back if self.inner.at_once.is_cancelled() => {
                Err(DrainError::CutShort { given_back })
            }
            given_back => Err(DrainError::DeadlinePassed { given_back }),
        }
    }

    /// Stops every job at once, gives its message back, and ends the supervisor. A drain that waits meanwhile ends too. If
    /// the broker does not answer, this waits a second at most: the broker gives messages back by itself when it notices
    /// that the connection is closed.
    ///
    /// # Cancel-safety
    /// The stop continues if this future is dropped. Call again to wait for it.
    pub async fn stop_now(&self) -> StopReport {
        self.inner.at_once.cancel();
        let handles = self.inner.end();
        let stopped_before = stopped(&handles);
        for handle in &handles {
            handle.shared.kill.cancel();
        }
        let given_back = self
            .until_ended(&handles)
            .await
            .saturating_sub(stopped_before);
        StopReport { given_back }
    }

    /// Waits until every pool has ended, closes the broker's connections, and counts the jobs that were stopped.
    async fn until_ended(&self, handles: &[Handle]) -> u64 {
        let inner = &self.inner;
        inner.watching.cancel();
        inner.tasks.close();
        inner.tasks.wait().await;
        if inner.at_once.is_cancelled() || handles.iter().any(|h| h.shared.kill.is_cancelled()) {
            // The driver closes its connections in the background.
            let _ = time::timeout(ANSWER / 2, inner.common.driver.close()).await;
        } else {
            inner.common.driver.close().await;
        }
        stopped(handles)
    }
}

fn stopped(handles: &[Handle]) -> u64 {
    handles
        .iter()
        .map(|handle| handle.shared.stats.stopped())
        .sum()
}

/// Jobs that ended by themselves.
fn settled(handles: &[Handle]) -> u64 {
    let settled = |handle: &Handle| {
        let jobs = handle.shared.stats.jobs();
        jobs.done + jobs.retried + jobs.dead
    };
    handles.iter().map(settled).sum()
}
