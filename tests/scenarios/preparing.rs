//! A pool prepares to publish before it takes messages, because it may have to publish a copy of the first one at once.

use tidegate::queue::QueueError;
use tokio::sync::watch;

use super::{
    hooked::{Hook, Hooked, Request},
    *,
};

/// A broker that lets us publish only once it is told to.
#[derive(Debug)]
struct Preparing {
    ready: watch::Sender<bool>,
    prepared: AtomicU32,
}

impl Preparing {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            ready: watch::Sender::new(false),
            prepared: AtomicU32::new(0),
        })
    }
}

#[async_trait::async_trait]
impl Hook for Preparing {
    async fn before(&self, request: Request<'_>) -> Result<(), QueueError> {
        if matches!(request, Request::PrepareToPublish) {
            self.prepared.fetch_add(1, Ordering::Relaxed);
            let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_before_copies_can_be_published() {
    let broker = broker();
    broker.send(QUEUE, "one");
    let hook = Preparing::new();
    let runners = HandlerManager::new(done);
    let supervisor = Hooked::start(&broker, &hook, settings(Policy::fixed(1)), runners);
    until(&supervisor, "preparing", |_| {
        hook.prepared.load(Ordering::Relaxed) == 1
    })
    .await;
    throughout(&supervisor, Duration::from_secs(1), "waiting", |pool| {
        pool.jobs.done == 0 && broker.ready(QUEUE) == Some(1)
    })
    .await;
    hook.ready.send_replace(true);
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
}

#[tokio::test(start_paused = true)]
async fn jobs_run_even_if_nothing_can_be_published() {
    let broker = broker();
    broker.send(QUEUE, "one");
    let hook = Preparing::new();
    let runners = HandlerManager::new(done);
    let supervisor = Hooked::start(&broker, &hook, settings(Policy::fixed(1)), runners);
    let begun = Instant::now();
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_counts_no_deliveries_needs_no_preparation() {
    let broker = MemoryBroker::new();
    let hook = Preparing::new();
    let settings = PoolSettings {
        declare: Declare::Classic,
        ..settings(Policy::fixed(1))
    };
    let supervisor = Hooked::start(&broker, &hook, settings, HandlerManager::new(done));
    until(&supervisor, "up", |_| broker.ready(QUEUE).is_some()).await;
    broker.send(QUEUE, "one");
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    assert_eq!(hook.prepared.load(Ordering::Relaxed), 0);
}
