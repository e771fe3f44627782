//! Counts the messages that wait in a pool's retry queues and its dead letters, for its state. Nothing is decided by it.
//!
//! The broker counts only what is ready in them. What it could not send back, because the pool's queue is full or gone, it
//! keeps aside and tries again every 3 minutes; that is counted here by what was sent and has not come back.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::Arc,
    time::Duration,
};

use tokio::time::{self, Instant};

use super::shared::PoolShared;
use crate::{
    decide::{QueueName, may_break_error_texts},
    queue::QueueErrorKind,
    settle::{Levels, dead_queue, retry_queue, spares},
};

/// Time between two counts.
const INTERVAL: Duration = Duration::from_secs(2);
/// Time until a queue that was missing is looked for again, lest another daemon has made it. Asking for one costs
/// the probe's channel, and is an error in the broker's log.
const MISSING_FOR: Duration = Duration::from_secs(3600);

/// Time in which the broker tries again to send back what it could not: 3 minutes, and some.
const CYCLE: Duration = Duration::from_secs(240);

/// What a count found.
#[derive(Debug, Clone, Copy, Default)]
struct DelayedCount {
    /// Retries whose time is over, those on their way among them.
    now: u64,
    /// Those that were so at the last count too.
    stay: u64,
}

/// Retries whose time is over and which have not come back, as far as that can be told.
#[derive(Debug, Default)]
struct OverdueRetries {
    /// What the last count found.
    before: u64,
    /// Since when the queue has had room, and was empty.
    had_room: Option<Instant>,
}

impl OverdueRetries {
    /// Counts them, at a time when `visible` retries wait in their queues. A lower bound: what is ready in the pool's queue or
    /// held by its workers may be among those sent.
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
                    // They may have come back to someone else.
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
            // The broker has tried again since, so they are not there: someone took them out.
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

/// Counts until it is dropped. Writes the pool's view.
pub(crate) async fn watch(shared: Arc<PoolShared>) {
    // A queue that is not in here is looked at: each at the start, for what an earlier run left.
    let mut missing: HashMap<QueueName, Instant> = HashMap::new();
    let mut fed: HashSet<QueueName> = HashSet::new();
    let mut counter = OverdueRetries::default();
    loop {
        time::sleep(INTERVAL).await;
        // Before looking: what is fed during the look is found missing by it, perhaps, and there in the next round.
        for queue in shared.copies.received.take() {
            missing.remove(&queue);
            fed.insert(queue);
        }
        let settings = shared.settings();
        let mut visible = 0;
        for level in Levels::new(&settings.retry).iter() {
            let own = retry_queue(&settings.queue, level);
            // What an earlier run left in a spare is looked for where that run left the queues before it.
            let mut may_be_there = true;
            for queue in std::iter::once(own.clone()).chain(spares(&own)) {
                let since = missing.get(&queue);
                let is_missing = since.is_some_and(|since| since.elapsed() < MISSING_FOR);
                // Asking for one that is missing may cost more than its channel.
                let is_wary = may_break_error_texts(queue.as_str());
                if is_missing || !(fed.contains(&queue) || may_be_there && !is_wary) {
                    may_be_there = false;
                    continue;
                }
                match count(&shared, &queue, &mut missing).await {
                    QueueReading::Ready(ready) => {
                        visible += ready;
                        // One that we have made has a spare only where we have fed that too.
                        may_be_there &= !fed.contains(&queue);
                    }
                    QueueReading::Missing => {
                        may_be_there = false;
                        fed.remove(&queue);
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
        // Asking for one that is missing may cost more than its channel.
        if fed.contains(&dead) || !may_break_error_texts(dead.as_str()) {
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

/// What a look at a queue of ours saw.
enum QueueReading {
    /// Messages that wait there.
    Ready(u64),
    /// It is not there, or was not when it was last looked for.
    Missing,
    /// It cannot be counted now. The next round does it.
    Unknown,
}

async fn count(
    shared: &PoolShared,
    queue: &QueueName,
    missing: &mut HashMap<QueueName, Instant>,
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
        // One that we may not see is no better than none: asking costs the same.
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
