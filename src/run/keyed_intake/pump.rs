//! The task that owns the consumer of a pool with keys: it takes deliveries up to the window, and gives back those that
//! have not started.

use std::{future::poll_fn, sync::Arc, time::Duration};

use tokio::time::{self, Instant};
use tracing::debug;

use crate::{
    decide::DeliveryDeadlines,
    queue::{Consumer, QueueErrorKind},
    run::{
        keyed::{ConsumerEnd, KeyedOpening, OpeningPhase, ParkedDelivery},
        settling::WaitingReturns,
        shared::PoolShared,
    },
    settle::History,
};
use tidegate_core::text::chain;

/// Takes deliveries until the workers need no more or the consumer ends, gives back what has not started, and closes the
/// consumer when everything is settled.
pub(super) async fn run(
    shared: Arc<PoolShared>,
    opening: Arc<KeyedOpening>,
    mut consumer: Box<dyn Consumer>,
) {
    let over = OverGuard {
        shared: &shared,
        opening: &opening,
    };
    let mut returned = Vec::new();
    match take(&shared, &opening, &mut *consumer).await {
        None if !shared.keyed.hands_over() && is_settled_in_time(&shared, &opening).await => {
            let all = shared.keyed.collect(&opening);
            let retry = &opening.settings.retry;
            let may_count = |parked: &ParkedDelivery| {
                let history = History::of(parked.delivery.message(), retry);
                history.keeping_places(true).may_count
            };
            let (counted, rest) = all.into_iter().partition(may_count);
            // One more return could be one too many for these.
            give_back(&shared, &opening, counted).await;
            returned = rest;
        }
        None => cancel(&shared, &opening, &mut *consumer).await,
        Some(end) => opening.ended(end),
    }
    shared.keyed.wake_all();
    let left = shared.keyed.collect(&opening);
    match opening.end() {
        // The broker has given them back already.
        Some(ConsumerEnd::Lost(_)) => drop(left),
        Some(ConsumerEnd::Cancelled) | None => give_back(&shared, &opening, left).await,
    }
    opening.advance(OpeningPhase::Cleared);
    opening.until_settled().await;
    let returns = u32::try_from(returned.len()).unwrap_or(u32::MAX);
    shared.stats.given_back(returns);
    // If the broker does not answer any more, the drop closes the consumer without waiting.
    let _ = shared.broker.answered(consumer.close()).await;
    // All went back at once when the channel was closed.
    drop(returned);
    drop(over);
}

/// Waits until all jobs have ended, while the consumer stays open. `false` if the deliveries that have not started cannot
/// be held that long.
///
/// Closing the channel puts everything back at its place at once. What is given back one by one comes to the end of a quorum
/// queue of RabbitMQ 3. And on a queue with a single active consumer, the broker goes on to the next daemon when a consumer
/// ends. That daemon must not run a job of a key beside one of ours, and must get first what has not started here.
async fn is_settled_in_time(shared: &PoolShared, opening: &KeyedOpening) -> bool {
    let age = longest_wait(shared, opening);
    let begun = Instant::now();
    let oldest = shared.keyed.oldest().unwrap_or(begun);
    tokio::select! {
        biased;
        () = opening.until_settled() => true,
        () = time::sleep_until(oldest + age) => false,
    }
}

/// How long a delivery may wait for its turn.
fn longest_wait(shared: &PoolShared, opening: &KeyedOpening) -> Duration {
    let times = shared.fleet.times();
    let deadlines = DeliveryDeadlines::new(opening.settings.ack_deadline, times.stop_grace);
    deadlines.longest_wait(times.timeout)
}

/// Takes deliveries. Returns how the consumer ended, or `None` if the workers need no more.
async fn take(
    shared: &Arc<PoolShared>,
    opening: &KeyedOpening,
    consumer: &mut dyn Consumer,
) -> Option<ConsumerEnd> {
    let intake = &shared.keyed;
    loop {
        let age = longest_wait(shared, opening);
        let aged = intake.oldest().map(|oldest| oldest + age);
        let aged = async {
            match aged {
                Some(at) => time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = opening.until(OpeningPhase::Released) => return None,
            () = opening.came_back.notified() => {}
            next = poll_fn(|cx| consumer.poll_next(cx)) => match next {
                Some(Ok(delivery)) => intake.park(opening, delivery),
                Some(Err(error)) => {
                    debug!(pool = %shared.name, error = %chain(&error), "consumer of all workers lost");
                    return Some(ConsumerEnd::Lost(error.kind));
                }
                // Nobody here has cancelled it, so the broker has.
                None => return Some(ConsumerEnd::Cancelled),
            },
            () = aged => {
                let aged = intake.take_aged(age);
                debug!(
                    pool = %shared.name,
                    messages = aged.len(),
                    "messages have waited too long for their keys: they are given back and taken again"
                );
                give_back(shared, opening, aged).await;
            }
        }
    }
}

/// Cancels the consumer, and keeps what the broker sent before it got the cancel.
async fn cancel(shared: &Arc<PoolShared>, opening: &KeyedOpening, consumer: &mut dyn Consumer) {
    match shared.broker.answered(consumer.cancel()).await {
        Some(Ok(())) => {
            while let Some(Ok(delivery)) = poll_fn(|cx| consumer.poll_next(cx)).await {
                shared.keyed.park(opening, delivery);
            }
        }
        Some(Err(error)) => {
            debug!(
                pool = %shared.name,
                error = %chain(&error),
                "consumer of all workers not cancelled: its channel is closed"
            );
            opening.ended(ConsumerEnd::Lost(error.kind));
        }
        // What waits goes back when the channel is closed.
        None => opening.ended(ConsumerEnd::Lost(QueueErrorKind::Timeout)),
    }
}

/// Gives deliveries back one by one, the oldest first. A classic queue finds their old places.
async fn give_back(shared: &Arc<PoolShared>, opening: &KeyedOpening, waiting: Vec<ParkedDelivery>) {
    let mut returns = WaitingReturns::new(shared, &shared.stop, opening.settings.clone());
    for ParkedDelivery { delivery, at } in waiting {
        returns.give_back(delivery, at).await;
    }
}

/// **On drop** the opening is over, also after a panic in the driver's code: no worker waits for it.
struct OverGuard<'a> {
    shared: &'a Arc<PoolShared>,
    opening: &'a Arc<KeyedOpening>,
}

impl Drop for OverGuard<'_> {
    fn drop(&mut self) {
        if !self.opening.has_reached(OpeningPhase::Cleared) {
            self.opening.ended(ConsumerEnd::Lost(QueueErrorKind::Other));
            drop(self.shared.keyed.collect(self.opening));
            self.shared.keyed.wake_all();
        }
        self.opening.advance(OpeningPhase::Closed);
        self.shared.keyed.forget(self.opening);
    }
}
