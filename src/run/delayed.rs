//! Counts the messages in a pool's retry queues and in its dead letters, for the status. No decision depends on it.
//!
//! The broker counts only messages that are ready in them. If the broker cannot send a retry back, because the pool's
//! queue is full or gone, it keeps the retry and tries again every 3 minutes. Such retries are counted here: they were
//! sent and have not come back.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
    time::Duration,
};

use tokio::time::{self, Instant};

use super::{shared::PoolShared, shared_ticks::next_whole};
use crate::{
    decide::{QueueName, may_break_error_texts},
    queue::QueueErrorKind,
    settle::{Levels, dead_queue, retry_queue, spares},
};

/// Time between two counts.
const INTERVAL: Duration = Duration::from_secs(2);
/// Time until a queue that was missing is read again, because another daemon may have declared it. Reading a missing
/// queue closes the probe's channel, and writes an error to the broker's log.
const MISSING_FOR: Duration = Duration::from_secs(3600);

/// Within this time the broker has tried again to send back such retries: 3 minutes and a margin.
const CYCLE: Duration = Duration::from_secs(240);

/// The result of a count.
#[derive(Debug, Clone, Copy, Default)]
struct DelayedCount {
    /// Retries whose time is over, also those that are about to arrive.
    now: u64,
    /// Of these, those that were counted the last time too.
    stay: u64,
}

/// Retries whose time is over and that have not come back, as far as that can be known.
#[derive(Debug, Default)]
struct OverdueRetries {
    /// The result of the last count.
    before: u64,
    /// Since when the queue has been empty, so that it had room.
    had_room: Option<Instant>,
}

impl OverdueRetries {
    /// Counts them while `visible` retries wait in their queues. The result is a lower bound: messages that are ready in the
    /// pool's queue or held by its workers may be retries too.
    async fn count(
        &mut self,
        shared: &PoolShared,
        queue: &QueueName,
        visible: u64,
    ) -> DelayedCount {
        let sent = shared.copies.outstanding.get();
        if sent <= visible {
            *self = Self::default();
            return DelayedCount::default();
        }
        let (census_before, now) = (shared.now(), Instant::now());
        let ready = match shared.broker.driver.probe(queue).await {
            Ok(depth) => {
                let (_, ours) = shared.census(census_before);
                if depth.consumers > ours.consumers {
                    // They may have come back to another consumer.
                    *self = Self::default();
                    return DelayedCount::default();
                }
                depth.ready
            }
            Err(error) if error.kind == QueueErrorKind::NotFound => 0,
            Err(_) => {
                return DelayedCount {
                    now: self.before,
                    stay: self.before,
                };
            }
        };
        let (_, ours) = shared.census(shared.now());
        let elsewhere = visible.saturating_add(ready).saturating_add(ours.held);
        let overdue = sent.saturating_sub(elsewhere);
        let is_empty = ready == 0 && ours.consumers > 0;
        self.had_room = is_empty.then(|| self.had_room.unwrap_or(now));
        if self.had_room.is_some_and(|since| since.elapsed() > CYCLE) {
            // The broker has tried again since, so they no longer exist: they were removed.
            shared.copies.outstanding.forget(overdue);
            *self = Self::default();
            return DelayedCount::default();
        }
        DelayedCount {
            now: overdue,
            stay: mem::replace(&mut self.before, overdue).min(overdue),
        }
    }
}

/// Counts until it is dropped. Writes the counts of `copies`.
pub(crate) async fn watch(shared: Arc<PoolShared>) {
    // Every queue that is not in this map is read. At the start that is each one, because an earlier run may have left
    // messages.
    let mut missing: BTreeMap<QueueName, Instant> = BTreeMap::new();
    let mut received: BTreeSet<QueueName> = BTreeSet::new();
    let mut counter = OverdueRetries::default();
    loop {
        time::sleep_until(next_whole(INTERVAL, shared.now())).await;
        // Before the reading: a queue that gets its first message during the reading may be found missing now, and is read
        // in the next round.
        for queue in shared.copies.received.take() {
            missing.remove(&queue);
            received.insert(queue);
        }
        let settings = shared.settings();
        let mut visible = 0;
        for level in Levels::new(&settings.retry).iter() {
            let own = retry_queue(&settings.queue, level);
            // An earlier run used a spare only if it also used the queues before it.
            let mut may_be_there = true;
            for queue in std::iter::once(own.clone()).chain(spares(&own)) {
                let since = missing.get(&queue);
                let is_missing = since.is_some_and(|since| since.elapsed() < MISSING_FOR);
                let is_read = !is_missing
                    && (received.contains(&queue)
                        // Reading a missing queue may cost more than the channel.
                        || may_be_there && !may_break_error_texts(queue.as_str()));
                if !is_read {
                    may_be_there = false;
                    if received.is_empty() {
                        // So no spare of this queue is read. Idle pools end here, at each level.
                        break;
                    }
                    continue;
                }
                match count(&shared, &queue, &mut missing).await {
                    QueueReading::Ready(ready) => {
                        visible += ready;
                        // A queue that this process declared has a spare only if this process also used the spare.
                        may_be_there &= !received.contains(&queue);
                    }
                    QueueReading::Missing => {
                        may_be_there = false;
                        received.remove(&queue);
                    }
                    QueueReading::Unknown => {}
                }
            }
        }
        let overdue = counter.count(&shared, &settings.queue, visible).await;
        let delayed = visible + overdue.now;
        {
            let mut counts = shared.copies.counts();
            counts.delayed = delayed;
            counts.overdue = overdue.stay;
        }
        shared.stats.metrics.delayed(delayed);
        let dead = dead_queue(&settings.queue);
        // Reading a missing queue may cost more than the channel.
        if received.contains(&dead) || !may_break_error_texts(dead.as_str()) {
            let counted = count(&shared, &dead, &mut missing).await;
            let waiting = match counted {
                QueueReading::Ready(ready) => Some(ready),
                QueueReading::Missing => Some(0),
                QueueReading::Unknown => None,
            };
            if let Some(waiting) = waiting {
                shared.copies.counts().dead = waiting;
                shared.stats.metrics.dead_letters(waiting);
            }
        }
    }
}

/// The reading of an own queue.
enum QueueReading {
    /// Messages that wait there.
    Ready(u64),
    /// The queue does not exist, or did not when it was last read.
    Missing,
    /// The queue cannot be read now. The next round reads it.
    Unknown,
}

async fn count(
    shared: &PoolShared,
    queue: &QueueName,
    missing: &mut BTreeMap<QueueName, Instant>,
) -> QueueReading {
    let since = missing.get(queue);
    if since.is_some_and(|since| since.elapsed() < MISSING_FOR) {
        return QueueReading::Missing;
    }
    match shared.broker.driver.probe(queue).await {
        Ok(depth) => {
            missing.remove(queue);
            QueueReading::Ready(depth.ready)
        }
        // A queue without the permission to read it is treated as missing: to try again costs the same.
        Err(error)
            if matches!(
                error.kind,
                QueueErrorKind::NotFound | QueueErrorKind::AccessRefused
            ) =>
        {
            missing.insert(queue.clone(), Instant::now());
            QueueReading::Missing
        }
        Err(_) => QueueReading::Unknown,
    }
}
