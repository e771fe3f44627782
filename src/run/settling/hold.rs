//! How long a delivery may be held for a copy or a reply.

use std::{sync::OnceLock, time::Duration};

use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::run::shared::PoolShared;

/// How long a copy is still tried once everything is to end: a broker that is well confirms it by then, and what goes
/// back without a copy is counted by the queue.
const FINAL_COPY_TIME: Duration = Duration::from_secs(1);

/// Until when a delivery may be held for a copy.
pub(crate) struct HoldUntil<'a> {
    /// When it must be given back at the latest: later, the broker would cut the channel.
    deadline: Instant,
    /// The worker's order to stop what it does.
    stop: &'a CancellationToken,
    /// The supervisor's.
    kill: &'a CancellationToken,
    /// When the first order to stop or to end was seen.
    ordered: OnceLock<Instant>,
}

impl<'a> HoldUntil<'a> {
    /// Until `deadline`, or a moment after an order.
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

    /// Completes when the delivery is to be given back: at its deadline, or a moment after an order.
    pub(super) async fn over(&self) {
        let ordered = async {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.kill.cancelled() => {}
            }
            final_copy_time(&self.ordered).await;
        };
        tokio::select! {
            () = time::sleep_until(self.deadline) => {}
            () = ordered => {}
        }
    }

    /// Counts a job that came to its end, and will all the same run again, where that is because we stop.
    pub(super) fn count_stopped(&self, shared: &PoolShared) {
        if self.stop.is_cancelled() || self.kill.is_cancelled() {
            shared.stats.job_stopped();
        }
    }
}

/// The rest of the moment that began when this was first asked.
async fn final_copy_time(since: &OnceLock<Instant>) {
    time::sleep_until(*since.get_or_init(Instant::now) + FINAL_COPY_TIME).await;
}

/// Nothing could be published for as long as the delivery could be held.
#[derive(Debug)]
pub(super) struct TimeUp;
