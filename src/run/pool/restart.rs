//! Keeping a pool's task: what becomes of a pool whose own code panics.
//!
//! The panic is contained around [`Pool::run`], so that the workers' tasks, which the pool owns, outlive it: running
//! jobs go on to their ends and are settled. Meanwhile the pool is faulted, and is started again with backoff. A pool
//! that cannot even end in order is given up: then its jobs are cut off, given back and counted.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt as _;
use tokio::time::{self, Instant};
use tracing::{error, info};

use super::{Pool, reading::ReadingState, reconciler};
use crate::{
    decide::fault_pause,
    run::{panics::Panicked, worker_state::WorkerStopReason},
};

/// As long as a pool must have worked for its next failure to be a first one.
const WELL: Duration = Duration::from_secs(60);
/// How often a pool that is on its way out is started again to end in order.
const LAST_TRIES: u32 = 3;

/// Runs a pool to its end, and starts it again whenever it fails.
pub(crate) async fn run_with_restarts(mut pool: Pool) {
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let Err(panicked) = contained(pool.run()).await else {
            return;
        };
        failures = match begun.elapsed() {
            worked if worked >= WELL => 1,
            _ => failures + 1,
        };
        let again = contained(pool.failed(&panicked, failures)).await;
        if matches!(again, Ok(RestartDecision::No) | Err(_)) {
            // On drop it gives back what is left and says that it failed.
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

impl Pool {
    /// It has panicked. Waits until it may be run again.
    async fn failed(&mut self, panicked: &Panicked, failures: u32) -> RestartDecision {
        let cause = format!("the pool's own task panicked: {panicked}");
        self.shared.gate.pool_failed(cause.clone());
        self.shared.stats.metrics.pool_restarted();
        error!(
            pool = %self.shared.name,
            error = ?cause,
            failures,
            "pool failed by a fault of tidegate: running jobs go on, and it is started again"
        );
        self.start_over();
        let ends = self.shared.gate.is_draining() || self.shared.kill.is_cancelled();
        if ends && failures > LAST_TRIES {
            return RestartDecision::No;
        }
        if ends {
            // The panic may have come before anyone was told.
            self.shared
                .roster
                .order_all_to_leave(WorkerStopReason::Drained);
            if self.ending.next().is_none() {
                let grace = self.shared.settings().shutdown_grace;
                self.ending.deadline = Instant::now().checked_add(grace);
            }
        } else {
            // As with any fault: they finish what they have, and messages stay in the queue.
            self.shared
                .roster
                .order_all_to_leave(WorkerStopReason::Faulted);
            self.pause(failures).await;
        }
        RestartDecision::Yes
    }

    /// Forgets all that a panic may have left half done. What the operator wants stays.
    fn start_over(&mut self) {
        self.reconciler = reconciler(&self.shared);
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
                    // None: every handle is gone, which the pool itself finds out.
                    self.early = command;
                    return;
                }
                () = &mut over => return,
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.ending.is_over {
            return;
        }
        // Its workers' tasks go with it, and with them their jobs.
        let workers: Vec<_> = self.shared.roster.workers().values().cloned().collect();
        let held = workers.iter().map(|worker| worker.snapshot().held).sum();
        for _ in workers.iter().filter(|worker| worker.snapshot().held > 0) {
            self.shared.stats.job_stopped();
        }
        self.shared.stats.given_back(held);
        self.shared.roster.workers().clear();
        let cause = self.shared.gate.cause();
        let cause = cause.unwrap_or_else(|| String::from("the pool's task was dropped"));
        self.shared.gate.pool_failed(cause);
        info!(pool = %self.shared.name, held, "pool was cut off: what it held is given back");
    }
}
