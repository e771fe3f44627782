//! The count of messages in the retry queues, and its cost for the broker.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tidegate::{
    decide::QueueName,
    queue::{QueueDepth, QueueError},
};

use super::{
    hooked::{Hook, Hooked},
    *,
};

/// Counts probes of queues that do not exist.
#[derive(Debug, Default)]
struct Asked(Mutex<HashMap<String, u32>>);

impl Asked {
    /// The number of such probes, and of different queues.
    fn not_found(&self) -> (u32, usize) {
        let not_found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (not_found.values().sum(), not_found.len())
    }
}

impl Hook for Asked {
    fn probed(&self, queue: &QueueName, answer: &Result<QueueDepth, QueueError>) {
        if answer.is_err() {
            let mut not_found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *not_found.entry(queue.to_string()).or_default() += 1;
        }
    }
}

/// Jobs that ask to run again in a minute.
fn later() -> impl RunnerManager {
    HandlerManager::new(|_: Job| async {
        Ok(Outcome::Retry {
            after: Some(Duration::from_secs(60)),
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_missing_retry_queue_is_rarely_probed() {
    let broker = broker();
    let asked = Arc::new(Asked::default());
    let supervisor = Hooked::start(&broker, &asked, settings(Policy::fixed(1)), later());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (times, levels) = asked.not_found();
    assert!(levels > 5, "{levels}");
    assert_eq!(times as usize, levels, "each once");

    // A retry tells the pool about its own queue only. The other queues are not probed more often.
    tokio::time::sleep(Duration::from_secs(1800)).await;
    broker.send(QUEUE, "one");
    until(&supervisor, "delayed", |pool| pool.delayed == 1).await;
    tokio::time::sleep(Duration::from_secs(1700)).await;
    assert_eq!(asked.not_found(), (times, levels));

    // Another daemon may have made one in the meantime. Two exist by now: the retry queue, and the dead-letter queue,
    // where the message went after its last attempt.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let (again, _) = asked.not_found();
    assert_eq!(again, 2 * times - 2);
}

#[tokio::test(start_paused = true)]
async fn messages_of_an_earlier_run_are_counted() {
    let broker = broker();
    broker.declare_queue("jobs.retry.64000", QueueKind::Quorum);
    for queue in ["jobs.retry.64000", "jobs.retry.64000"] {
        broker.send(queue, "left");
    }
    let supervisor = start(&broker, settings(Policy::fixed(1)), later());
    until(&supervisor, "delayed", |pool| pool.delayed == 2).await;
    // A deleted retry queue is made again by the next retry.
    assert!(broker.delete_queue("jobs.retry.64000"));
    until(&supervisor, "gone", |pool| pool.delayed == 0).await;
    broker.send(QUEUE, "one");
    until(&supervisor, "delayed again", |pool| pool.delayed == 1).await;
}

#[tokio::test(start_paused = true)]
async fn dead_letters_that_wait_now_are_counted_from_any_source() {
    let broker = broker();
    broker.declare_queue("jobs.dead", QueueKind::Classic);
    broker.send("jobs.dead", "of an earlier run");
    let reject = HandlerManager::new(|_: Job| async { Ok(Outcome::reject("never")) });
    let supervisor = start(&broker, settings(Policy::fixed(1)), reject);
    let earlier = until(&supervisor, "counted", |pool| pool.dead_waiting == 1).await;
    assert_eq!(earlier.jobs.dead, 0);
    broker.send(QUEUE, "bad");
    until(&supervisor, "counted too", |pool| pool.dead_waiting == 2).await;
    broker.take("jobs.dead");
    let purged = until(&supervisor, "gone", |pool| pool.dead_waiting == 0).await;
    assert_eq!(purged.jobs.dead, 1);
    // A queue that did not exist when it was probed is known when a message is published to it.
    assert!(broker.delete_queue("jobs.dead"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    broker.send(QUEUE, "bad");
    until(&supervisor, "counted again", |pool| pool.dead_waiting == 1).await;
}
