//! Restarting a pool's task when tidegate's own code panics in it.
//!
//! The panic is caught around [`PoolTask::run`]. The pool owns the workers' tasks, so they survive: running jobs end
//! normally and are settled. Meanwhile the pool is faulted, and is started again with backoff. A pool that fails
//! repeatedly while it ends is dropped: its jobs are cut off, given back and counted.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;
use tokio::time::{self, Instant};
use tracing::{error, info};

use super::{PoolCommand, PoolTask, reading::ReadingState, reconciler};
use crate::{
    decide::fault_pause,
    run::{panics::Panicked, pool_state::state_of, worker_state::WorkerStopReason},
};

/// After a pool has worked this long, its next failure counts as the first.
const STABLE: Duration = Duration::from_secs(60);
/// How often a pool that is ending is started again, so that it ends in an orderly way.
const MAX_ENDING_RESTARTS: u32 = 3;

/// Runs a pool to its end, and starts it again whenever it fails.
pub(crate) async fn run_with_restarts(mut pool: PoolTask) {
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let Err(panicked) = contained(pool.run()).await else {
            return;
        };
        failures = match begun.elapsed() {
            worked if worked >= STABLE => 1,
            _ => failures + 1,
        };
        let again = contained(pool.failed(&panicked, failures)).await;
        if matches!(again, Ok(RestartDecision::No) | Err(_)) {
            // Its destructor gives back what is left, and reports the failure.
            return;
        }
    }
}

/// Whether a pool that failed is to be run again.
enum RestartDecision {
    Yes,
    No,
}

async fn contained<T>(future: impl Future<Output = T>) -> Result<T, Panicked> {
    let outcome = AssertUnwindSafe(future).catch_unwind().await;
    outcome.map_err(|panic| Panicked::new(&*panic))
}

impl PoolTask {
    /// The pool has panicked. Waits until it may be run again.
    async fn failed(&mut self, panicked: &Panicked, failures: u32) -> RestartDecision {
        let cause = format!("the pool's own task panicked: {panicked}");
        self.shared.gate.pool_failed(cause.clone());
        let metrics = &self.shared.stats.metrics;
        metrics.pool_restarted();
        let last = self.shared.last().clone();
        metrics.state(state_of(&self.shared, &last));
        error!(
            pool = %self.shared.name,
            error = ?cause,
            failures,
            "pool failed because of a bug in tidegate: running jobs continue, and the pool is started again"
        );
        self.start_over();
        let ends = self.shared.gate.is_draining() || self.shared.kill.is_cancelled();
        if ends && failures > MAX_ENDING_RESTARTS {
            return RestartDecision::No;
        }
        if ends {
            // The panic may have come before the workers were told.
            self.shared.order_all_to_leave(WorkerStopReason::Drained);
            if self.ending.next().is_none() {
                let grace = self.shared.settings().shutdown_grace;
                self.ending.deadline = Instant::now().checked_add(grace);
            }
        } else {
            // As with any fault, workers finish what they have, and messages stay in the queue.
            self.shared.order_all_to_leave(WorkerStopReason::Faulted);
            self.pause(failures).await;
        }
        RestartDecision::Yes
    }

    /// Drops all state that a panic may have left half done. The operator's orders stay.
    fn start_over(&mut self) {
        self.reconciler = reconciler(&self.shared);
        self.seen = None;
        // The callers that wait get no answer, and see that.
        self.reading = ReadingState::default();
        self.ending.killed = false;
    }

    /// Waits with backoff. A command, or the end of everything, ends the wait.
    async fn pause(&mut self, failures: u32) {
        let mut over = std::pin::pin!(time::sleep(fault_pause(failures)));
        let shared = self.shared.clone();
        loop {
            tokio::select! {
                biased;
                () = shared.kill.cancelled() => return,
                Some(ended) = self.workers.join_next() => self.workers.ended(&self.shared, ended),
                command = self.commands.recv() => {
                    // A question starts nothing. The caller sees that it is not answered.
                    if matches!(command, Some(PoolCommand::Foresee(..))) {
                        continue;
                    }
                    // `None`: every handle was dropped. The pool itself will see that.
                    self.early = command;
                    return;
                }
                () = &mut over => return,
            }
        }
    }
}

impl Drop for PoolTask {
    fn drop(&mut self) {
        if self.ending.is_over {
            return;
        }
        // The workers' tasks are dropped with the pool, and their jobs with them.
        let workers: Vec<_> = self.shared.roster.workers().values().cloned().collect();
        let held = workers.iter().map(|worker| worker.snapshot().held).sum();
        for _ in workers.iter().filter(|worker| worker.snapshot().held > 0) {
            self.shared.stats.job_stopped();
        }
        self.shared.stats.given_back(held);
        self.shared.roster.workers().clear();
        self.shared.keyed.stop_taking();
        let cause = self.shared.gate.cause();
        let cause = cause.unwrap_or_else(|| String::from("the pool's task was dropped"));
        self.shared.gate.pool_failed(cause);
        info!(pool = %self.shared.name, held, "pool was aborted: its messages are given back");
    }
}
