//! Counts the messages that wait in a pool's retry queues and its dead letters, for its state. Nothing is decided by it.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{self, Instant};

use super::shared::Shared;
use crate::{
    decide::QueueName,
    queue::QueueErrorKind,
    settle::{Levels, dead_queue, retry_queue},
};

/// Time between two counts.
const INTERVAL: Duration = Duration::from_secs(2);
/// Time until a queue that was missing is looked for again, lest another daemon has made it. Asking for one costs
/// the probe's channel, and is an error in the broker's log.
const MISSING_FOR: Duration = Duration::from_secs(3600);

/// Queues of ours that got a message since they were last asked for: they are there. Written by workers, read by the
/// count.
#[derive(Debug, Default)]
pub(crate) struct Fed(Mutex<HashSet<QueueName>>);

impl Fed {
    pub(crate) fn add(&self, queue: &QueueName) {
        let mut fed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !fed.contains(queue) {
            fed.insert(queue.clone());
        }
    }

    fn take(&self) -> HashSet<QueueName> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Counts until it is dropped. Writes the pool's view.
pub(crate) async fn watch(shared: Arc<Shared>) {
    // A queue that is not in here is looked at: each at the start, for what an earlier run left.
    let mut missing: HashMap<QueueName, Instant> = HashMap::new();
    loop {
        time::sleep(INTERVAL).await;
        // Before looking: what is fed during the look is found missing by it, perhaps, and there in the next round.
        for queue in shared.fed.take() {
            missing.remove(&queue);
        }
        let settings = shared.settings();
        let mut delayed = 0;
        for level in Levels::new(&settings.retry).iter() {
            let queue = retry_queue(&settings.queue, level);
            delayed += count(&shared, queue, &mut missing).await.unwrap_or(0);
        }
        shared.view().delayed = delayed;
        shared.metrics.delayed(delayed);
        if let Some(dead) = count(&shared, dead_queue(&settings.queue), &mut missing).await {
            shared.view().dead = dead;
            shared.metrics.dead_letters(dead);
        }
    }
}

/// Messages that wait in a queue of ours; none where it is not there, or was not when it was last looked for. `None`
/// where it cannot be counted now: the next round does it.
async fn count(
    shared: &Shared,
    queue: QueueName,
    missing: &mut HashMap<QueueName, Instant>,
) -> Option<u64> {
    let since = missing.get(&queue);
    if since.is_some_and(|since| since.elapsed() < MISSING_FOR) {
        return Some(0);
    }
    match shared.driver.probe(&queue).await {
        Ok(depth) => {
            missing.remove(&queue);
            Some(depth.ready)
        }
        // One that we may not see is no better than none: asking costs the same.
        Err(error)
            if matches!(
                error.kind,
                QueueErrorKind::NotFound | QueueErrorKind::AccessRefused
            ) =>
        {
            missing.insert(queue, Instant::now());
            Some(0)
        }
        Err(_) => None,
    }
}
