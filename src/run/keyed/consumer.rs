//! A worker's part of the pool's consumer, and the settlement of what it gets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    intake::{IntakeTable, KeyedIntake, ParkedDelivery},
    opening::{ConsumerEnd, KeyedOpening, OpeningPhase},
};
use crate::{
    queue::{Consumer, Delivery, QueueError, Settle, SettleError},
    run::worker_state::{WorkerState, WorkerStopReason},
};
use tidegate_core::keys::{KeySettings, TakenId};

/// A worker's part of the pool's consumer. It gets one delivery at a time, and besides those that must be replaced by a
/// fresh copy at once.
///
/// **On drop** the worker takes nothing more. What it holds goes back to its place in the pool, or to the broker if the
/// pool takes nothing more.
pub(crate) struct KeyedConsumer {
    intake: Arc<KeyedIntake>,
    opening: Arc<KeyedOpening>,
    worker: Arc<WorkerState>,
    /// Its place among the workers that wait.
    id: u64,
    /// Whether it holds a delivery. Written here and by the settlement.
    holds: Arc<AtomicBool>,
    is_cancelled: bool,
    /// Whether the opening knows that this worker takes nothing more.
    has_left: bool,
    /// Whether the worker was told that the consumer is lost.
    is_told: bool,
}

impl KeyedConsumer {
    /// Begins an opening, with its first worker.
    pub(crate) fn begin(
        intake: &Arc<KeyedIntake>,
        keys: &KeySettings,
        opening: &Arc<KeyedOpening>,
        worker: &Arc<WorkerState>,
    ) -> Self {
        let mut table = intake.lock();
        table.keys.set_per_key(keys.per_key);
        table.current = Some(opening.clone());
        Self::new(intake, &mut table, opening, worker)
    }

    /// Adds a worker to an opening. `None` if it takes nothing more.
    pub(crate) fn join(
        intake: &Arc<KeyedIntake>,
        opening: &Arc<KeyedOpening>,
        worker: &Arc<WorkerState>,
    ) -> Option<Self> {
        let mut table = intake.lock();
        opening
            .is_open()
            .then(|| Self::new(intake, &mut table, opening, worker))
    }

    fn new(
        intake: &Arc<KeyedIntake>,
        table: &mut IntakeTable,
        opening: &Arc<KeyedOpening>,
        worker: &Arc<WorkerState>,
    ) -> Self {
        table.last_worker += 1;
        opening.enter();
        Self {
            intake: intake.clone(),
            opening: opening.clone(),
            worker: worker.clone(),
            id: table.last_worker,
            holds: Arc::default(),
            is_cancelled: false,
            has_left: false,
            is_told: false,
        }
    }

    /// The worker takes nothing more. One that holds a delivery leaves the opening when it has settled it: if it gives the
    /// delivery back, that must be before the others of the key.
    fn stop(&mut self) {
        if !self.is_cancelled {
            self.is_cancelled = true;
            self.intake.wakes_no_more(self.id);
        }
        if !self.holds.load(Ordering::Relaxed) {
            self.leave();
        }
    }

    fn leave(&mut self) {
        if !self.has_left {
            self.has_left = true;
            self.intake.left(&self.opening);
        }
    }

    /// The next delivery, if there is one for this worker now. Otherwise the worker is woken later.
    fn next(&self, cx: &mut Context<'_>) -> Option<Delivery> {
        let mut table = self.intake.lock();
        table.idle.remove(&self.id);
        table.busy.remove(&self.id);
        let holds = self.holds.load(Ordering::Relaxed);
        if self.opening.is_open() {
            if let Some(parked) = table.renewals.pop_front() {
                table.wake();
                return Some(self.hand_out(parked, None));
            }
            if !holds && let Some(id) = table.keys.start_next() {
                // The table of keys has no other deliveries than those that wait.
                if let Some(parked) = table.waiting.remove(&id) {
                    table.wake();
                    self.holds.store(true, Ordering::Relaxed);
                    return Some(self.hand_out(parked, Some(id)));
                }
            }
        } else if !holds {
            // It would get nothing more. Another worker takes its place, with a new opening.
            self.worker.order_to_leave(WorkerStopReason::Drained);
        }
        let sleepers = if holds {
            &mut table.busy
        } else {
            &mut table.idle
        };
        sleepers.insert(self.id, cx.waker().clone());
        None
    }

    fn hand_out(&self, parked: ParkedDelivery, id: Option<TakenId>) -> Delivery {
        let ParkedDelivery { delivery, at } = parked;
        let message = delivery.message().clone();
        let settle = KeyedSettle {
            intake: self.intake.clone(),
            opening: self.opening.clone(),
            started: id.map(|id| (id, self.holds.clone())),
            delivery: Some(delivery),
            at,
        };
        Delivery::handed_on(message, at, Box::new(settle))
    }
}

#[async_trait]
impl Consumer for KeyedConsumer {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery, QueueError>>> {
        if self.is_cancelled {
            return Poll::Ready(None);
        }
        match self.opening.end() {
            Some(ConsumerEnd::Lost(kind)) if !self.is_told => {
                self.is_told = true;
                return Poll::Ready(Some(Err(QueueError::new(kind, "consume"))));
            }
            Some(_) => return Poll::Ready(None),
            None => {}
        }
        match self.next(cx) {
            Some(delivery) => Poll::Ready(Some(Ok(delivery))),
            None => Poll::Pending,
        }
    }

    async fn cancel(&mut self) -> Result<(), QueueError> {
        self.stop();
        match self.opening.end() {
            Some(ConsumerEnd::Lost(kind)) => Err(QueueError::new(kind, "cancel a consumer")),
            _ => Ok(()),
        }
    }

    async fn close(self: Box<Self>) {
        let opening = self.opening.clone();
        drop(self);
        // The last worker waits until what the pool had taken ahead is given back.
        if opening.is_settled() {
            opening.until(OpeningPhase::Closed).await;
        }
    }
}

impl Drop for KeyedConsumer {
    fn drop(&mut self) {
        self.stop();
        self.leave();
        self.opening.settled();
    }
}

/// Settles a delivery with the pool's consumer. Then the next one of its key may start.
///
/// **On drop** without a settlement, the delivery is dropped, and the next one of its key may start.
struct KeyedSettle {
    intake: Arc<KeyedIntake>,
    opening: Arc<KeyedOpening>,
    /// Its place in the table of keys, until it is settled, and whether its worker holds it. `None` if it is not in the
    /// table.
    started: Option<(TakenId, Arc<AtomicBool>)>,
    /// Set until it is settled.
    delivery: Option<Delivery>,
    at: Instant,
}

impl KeyedSettle {
    fn take(&mut self) -> Result<Delivery, SettleError> {
        self.delivery.take().ok_or(SettleError { source: None })
    }

    /// Puts the delivery back at its place in the pool, unless what the pool has is being given back. Then returns it.
    ///
    /// From the broker it would come back behind the next one of its key, which the pool has already.
    fn put_back(&mut self, delivery: Delivery) -> Option<Delivery> {
        let mut table = self.intake.lock();
        if !self.opening.takes_back() {
            return Some(delivery);
        }
        let Some((id, holds)) = self.started.take() else {
            return Some(delivery);
        };
        let parked = ParkedDelivery {
            // Its job may have begun.
            delivery: delivery.redelivered(),
            at: self.at,
        };
        table.keys.put_back(id);
        table.waiting.insert(id, parked);
        holds.store(false, Ordering::Relaxed);
        table.wake();
        drop(table);
        self.opening.came_back.notify_one();
        None
    }
}

impl Drop for KeyedSettle {
    fn drop(&mut self) {
        if let Some((id, holds)) = self.started.take() {
            holds.store(false, Ordering::Relaxed);
            self.intake.done(id);
        }
    }
}

#[async_trait]
impl Settle for KeyedSettle {
    async fn ack(mut self: Box<Self>) -> Result<(), SettleError> {
        self.take()?.ack().await
    }

    async fn requeue(mut self: Box<Self>) -> Result<(), SettleError> {
        let delivery = self.take()?;
        match self.put_back(delivery) {
            Some(delivery) => delivery.requeue().await,
            None => Ok(()),
        }
    }

    async fn reject(mut self: Box<Self>) -> Result<(), SettleError> {
        self.take()?.reject().await
    }

    fn abandon(mut self: Box<Self>) {
        if let Some(delivery) = self.delivery.take() {
            // Otherwise the drop gives it back to the broker.
            drop(self.put_back(delivery));
        }
    }
}
