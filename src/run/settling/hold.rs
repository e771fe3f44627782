//! How long a delivery may be held for a copy or a reply.

use std::{sync::OnceLock, time::Duration};

use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::run::shared::PoolShared;

/// How long a copy is still tried after an order to end. A healthy broker confirms a copy within this time. A message that
/// goes back without a copy is counted by its queue.
const FINAL_COPY_TIME: Duration = Duration::from_secs(1);

/// The time until which a delivery may be held for a copy or a reply.
pub(crate) struct HoldUntil<'a> {
    /// When it must be given back at the latest. Later, the broker would close the channel.
    deadline: Instant,
    /// The order to stop the worker's job.
    stop: &'a CancellationToken,
    /// The supervisor's order to stop everything.
    kill: &'a CancellationToken,
    /// When the first order to stop or to end was seen.
    ordered: OnceLock<Instant>,
}

impl<'a> HoldUntil<'a> {
    /// Until `deadline`, or until shortly after an order.
    pub(crate) fn new(
        deadline: Instant,
        stop: &'a CancellationToken,
        kill: &'a CancellationToken,
    ) -> Self {
        Self {
            deadline,
            stop,
            kill,
            ordered: OnceLock::new(),
        }
    }

    /// Completes when the delivery must be given back: at its deadline, or shortly after an order.
    pub(super) async fn over(&self) {
        let ordered = async {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                () = self.kill.cancelled() => {}
            }
            final_copy_time(&self.ordered).await;
        };
        tokio::select! {
            biased;
            () = time::sleep_until(self.deadline) => {}
            () = ordered => {}
        }
    }

    /// Counts a job that has ended but will run again, if the reason is an order to stop.
    pub(super) fn count_stopped(&self, shared: &PoolShared) {
        if self.stop.is_cancelled() || self.kill.is_cancelled() {
            shared.stats.job_stopped();
        }
    }
}

/// Waits until the final time is over. It begins with the first call.
async fn final_copy_time(since: &OnceLock<Instant>) {
    time::sleep_until(*since.get_or_init(Instant::now) + FINAL_COPY_TIME).await;
}

/// Nothing could be published in the time for which the delivery could be held.
#[derive(Debug)]
pub(super) struct TimeUp;
