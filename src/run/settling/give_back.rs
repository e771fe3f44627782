//! Giving back deliveries that have not started.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{HeldDelivery, HoldUntil, prepare, stay_blocked};
use crate::{
    config::PoolSettings,
    queue::Delivery,
    run::shared::PoolShared,
    settle::{Verdict, give_back},
};

/// Gives back deliveries that have not started, one after the other.
pub(crate) struct WaitingReturns<'a> {
    shared: &'a Arc<PoolShared>,
    /// The order to stop the jobs of whoever held them.
    stop: &'a CancellationToken,
    settings: Arc<PoolSettings>,
    /// Whether copies are published. If one cannot be copied, the next ones cannot either, and each attempt may take long.
    is_copied: bool,
}

impl<'a> WaitingReturns<'a> {
    pub(crate) fn new(
        shared: &'a Arc<PoolShared>,
        stop: &'a CancellationToken,
        settings: Arc<PoolSettings>,
    ) -> Self {
        Self {
            shared,
            stop,
            settings,
            is_copied: true,
        }
    }

    /// The same without copies: the broker has given the deliveries back already.
    pub(crate) fn without_copies(mut self) -> Self {
        self.is_copied = false;
        self
    }

    /// Gives a delivery back that came at `since`.
    pub(crate) async fn give_back(&mut self, delivery: Delivery, since: Instant) {
        let held = HeldDelivery::new(self.shared, self.settings.clone(), delivery, since);
        let verdict = match self.is_copied {
            true => give_back(held.history),
            false => Verdict::GiveBack,
        };
        let wants_copy = verdict != Verdict::GiveBack;
        let hold = HoldUntil::new(Instant::now(), self.stop, &self.shared.kill);
        let prepared = prepare(self.shared, held, verdict, hold).await;
        if wants_copy && prepared.is_requeued() {
            self.is_copied = false;
            stay_blocked(self.shared);
        }
        prepared.settle(self.shared).await;
    }
}
