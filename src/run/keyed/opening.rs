//! An opening: one consumer of a pool with keys, from its start to its end.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Notify, watch};

use crate::{config::PoolSettings, queue::QueueErrorKind};

/// One consumer of a pool with keys.
pub(crate) struct KeyedOpening {
    pub(crate) settings: Arc<PoolSettings>,
    /// Deliveries that it may hold unsettled.
    pub(crate) window: u16,
    /// Written by the pump, and by everything that ends the opening. Read by the pump and by workers.
    phase: watch::Sender<OpeningPhase>,
    /// How the consumer ended, if it did so by itself. Written by the pump, read by workers.
    end: OnceLock<ConsumerEnd>,
    /// Workers that may still take. Written by workers.
    takers: AtomicUsize,
    /// Workers that may still settle. Written by workers, read by the pump.
    settlers: watch::Sender<usize>,
    /// Wakes the pump when a delivery has come back. Written by workers.
    pub(crate) came_back: Notify,
}

/// How far an opening is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OpeningPhase {
    /// It takes deliveries.
    Open,
    /// It takes nothing more. A delivery may still come back to it.
    Released,
    /// What has not started is being given back, and what comes back now goes to the broker.
    Collected,
    /// That is done. Jobs may still run.
    Cleared,
    /// The consumer is closed.
    Closed,
}

/// How a consumer ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConsumerEnd {
    /// Its channel or connection was lost.
    Lost(QueueErrorKind),
    /// The broker cancelled it.
    Cancelled,
}

impl KeyedOpening {
    pub(crate) fn new(settings: Arc<PoolSettings>, window: u16) -> Self {
        Self {
            settings,
            window,
            phase: watch::Sender::new(OpeningPhase::Open),
            end: OnceLock::new(),
            takers: AtomicUsize::new(0),
            settlers: watch::Sender::new(0),
            came_back: Notify::new(),
        }
    }

    /// Whether a worker with these settings can take from it.
    pub(crate) fn serves(&self, settings: &PoolSettings) -> bool {
        self.settings.queue == settings.queue && self.settings.key == settings.key
    }

    pub(super) fn is_open(&self) -> bool {
        !self.has_reached(OpeningPhase::Released)
    }

    /// Whether a delivery that was not finished waits here to start again.
    pub(super) fn takes_back(&self) -> bool {
        self.end().is_none() && !self.has_reached(OpeningPhase::Collected)
    }

    pub(crate) fn has_reached(&self, phase: OpeningPhase) -> bool {
        *self.phase.borrow() >= phase
    }

    /// Goes on to a phase. `false` if it was there already.
    pub(crate) fn advance(&self, to: OpeningPhase) -> bool {
        self.phase.send_if_modified(|phase| {
            let advances = *phase < to;
            *phase = to.max(*phase);
            advances
        })
    }

    /// Waits until it has reached a phase.
    pub(crate) async fn until(&self, reached: OpeningPhase) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as this borrow of it, so `wait_for` cannot fail.
        let _ = phase.wait_for(|phase| *phase >= reached).await;
    }

    /// The consumer has ended by itself.
    pub(crate) fn ended(&self, end: ConsumerEnd) {
        // It ends once.
        let _ = self.end.set(end);
        self.advance(OpeningPhase::Released);
    }

    /// How the consumer ended, if it did so by itself.
    pub(crate) fn end(&self) -> Option<ConsumerEnd> {
        self.end.get().copied()
    }

    /// A worker may take and settle.
    pub(super) fn enter(&self) {
        self.takers.fetch_add(1, Ordering::Relaxed);
        self.settlers.send_modify(|n| *n += 1);
    }

    /// A worker takes nothing more. `true` if it was the last one.
    pub(super) fn leave(&self) -> bool {
        self.takers.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// A worker settles nothing more.
    pub(super) fn settled(&self) {
        self.settlers.send_modify(|n| *n -= 1);
    }

    /// Whether no worker has anything to settle.
    pub(super) fn is_settled(&self) -> bool {
        *self.settlers.borrow() == 0
    }

    /// Waits until no worker has anything to settle.
    pub(crate) async fn until_settled(&self) {
        let mut settlers = self.settlers.subscribe();
        // As above.
        let _ = settlers.wait_for(|n| *n == 0).await;
    }
}
