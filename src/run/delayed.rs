//! Counts the messages that wait in a pool's retry queues, for its state. Nothing is decided by it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::{self, Instant};

use super::shared::Shared;
use crate::{
    decide::QueueName,
    queue::QueueErrorKind,
    settle::{Levels, retry_queue},
};

/// Time between two counts.
const INTERVAL: Duration = Duration::from_secs(2);
/// Time until a queue that was missing is looked for again. Asking for one costs the probe's channel.
const MISSING_FOR: Duration = Duration::from_secs(30);

/// Counts until it is dropped. Writes the pool's view.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut missing: HashMap<QueueName, Instant> = HashMap::new();
    let mut retried = 0;
    loop {
        time::sleep(INTERVAL).await;
        // Whatever this pool has retried since has made its queue, so it is there now.
        let now_retried = shared.totals.snapshot().retried;
        if now_retried != retried {
            retried = now_retried;
            missing.clear();
        }
        let settings = shared.settings();
        let mut delayed = 0;
        for level in Levels::new(&settings.retry).iter() {
            let queue = retry_queue(&settings.queue, level);
            if missing
                .get(&queue)
                .is_some_and(|since| since.elapsed() < MISSING_FOR)
            {
                continue;
            }
            match shared.driver.probe(&queue).await {
                Ok(depth) => delayed += depth.ready,
                Err(error) if error.kind == QueueErrorKind::NotFound => {
                    missing.insert(queue, Instant::now());
                }
                // What cannot be counted now is counted in the next round.
                Err(_) => {}
            }
        }
        shared.view().delayed = delayed;
        shared.metrics.delayed(delayed);
    }
}
