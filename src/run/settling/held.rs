//! A delivery that a worker holds, with all that settling it needs.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    config::PoolSettings,
    decide::{DeliveryDeadlines, JobId},
    queue::{Delivery, Message},
    run::shared::PoolShared,
    settle::History,
};

/// A delivery that a worker holds. It is settled by its verdict: see [`prepare`](super::prepare).
///
/// Not `Sync`, because drivers need not be: a future that only reads one takes `&mut`.
#[must_use = "a delivery that is not settled is given back"]
pub(crate) struct HeldDelivery {
    pub(crate) delivery: Delivery,
    /// The pool's settings from when the worker took the delivery.
    pub(crate) settings: Arc<PoolSettings>,
    pub(crate) history: History,
    /// The id of its job. `None` as long as none is needed and the message has none.
    pub(crate) job: Option<JobId>,
    /// When the broker sent it: its consumer timeout counts from here.
    pub(crate) since: Instant,
    pub(crate) deadlines: DeliveryDeadlines,
}

impl HeldDelivery {
    pub(crate) fn new(
        shared: &PoolShared,
        settings: Arc<PoolSettings>,
        delivery: Delivery,
        since: Instant,
    ) -> Self {
        let stop_grace = shared.fleet.times().stop_grace;
        let history = History::of(delivery.message(), &settings.retry);
        Self {
            history: history.keeping_places(settings.key.is_some()),
            deadlines: DeliveryDeadlines::new(settings.ack_deadline, stop_grace),
            delivery,
            settings,
            job: None,
            since,
        }
    }

    pub(crate) fn message(&self) -> &Arc<Message> {
        self.delivery.message()
    }

    /// When its job is told to stop.
    pub(crate) fn stop_at(&self) -> Instant {
        self.since + self.deadlines.stop
    }

    /// When a runner that has not ended its job by then is dropped.
    pub(crate) fn abandon_at(&self) -> Instant {
        self.since + self.deadlines.abandon
    }

    /// When it must be settled at the latest.
    pub(crate) fn settle_at(&self) -> Instant {
        self.since + self.deadlines.settle
    }
}
