//! Queues that are missing, deleted and made again, or declared by the pool.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_missing_queue_is_waited_for() {
    let broker = MemoryBroker::new();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(2)),
        HandlerManager::new(done),
    );
    until(&supervisor, "waiting", |pool| {
        pool.state == PoolState::Waiting
    })
    .await;
    assert!(!supervisor.readiness().is_ready());
    broker.declare_queue(QUEUE, QueueKind::Classic);
    broker.send(QUEUE, "one");
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    assert!(supervisor.readiness().is_ready());
}

/// Counts reconciles. Each look at the queue makes one.
#[derive(Debug, Default)]
struct Reconciles(AtomicU32);

impl EventSink for Reconciles {
    fn emit(&self, event: Event) {
        if matches!(event, Event::Reconciliation { .. }) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_queue_is_probed_less_and_less_often_but_found_within_five_seconds() {
    let broker = MemoryBroker::new();
    let reconciles = Arc::new(Reconciles::default());
    let pool = PoolSpec {
        settings: settings(Policy::fixed(2)),
        runners: Arc::new(HandlerManager::new(done)),
    };
    let driver = Arc::new(broker.clone());
    let supervisor = Supervisor::start(driver, vec![pool], Some(reconciles.clone())).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    // Two looks per second would be 120.
    let looks = reconciles.0.load(Ordering::Relaxed);
    assert!((12..=20).contains(&looks), "{looks}");

    broker.declare_queue(QUEUE, QueueKind::Classic);
    broker.send(QUEUE, "one");
    let declared = Instant::now();
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    assert!(
        declared.elapsed() <= Duration::from_millis(5500),
        "{:?}",
        declared.elapsed()
    );

    // A queue that vanishes is looked for at the usual pace at first.
    let before = reconciles.0.load(Ordering::Relaxed);
    broker.delete_queue(QUEUE);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(reconciles.0.load(Ordering::Relaxed) - before >= 3);
}

#[tokio::test(start_paused = true)]
async fn after_a_queue_is_deleted_the_pool_waits_for_it_again() {
    let broker = broker();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(4)),
        HandlerManager::new(slow),
    );
    for n in 0..8 {
        broker.send(QUEUE, format!("job {n}"));
    }
    until(&supervisor, "busy", |pool| pool.runners.busy == 4).await;
    broker.delete_queue(QUEUE);
    let waiting = until(&supervisor, "waiting", |pool| {
        pool.state == PoolState::Waiting && pool.workers.live == 0
    })
    .await;
    // As in RabbitMQ: a channel outlives the queue, so deliveries are still settled.
    assert_eq!((waiting.jobs.done, waiting.jobs.lost), (4, 0));
    broker.declare_queue(QUEUE, QueueKind::Classic);
    broker.send(QUEUE, "again");
    until(&supervisor, "done", |pool| pool.jobs.done == 5).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_may_declare_its_queue_itself_and_again_when_it_is_deleted() {
    let broker = MemoryBroker::new();
    let settings = PoolSettings {
        declare: tidegate::config::Declare::Quorum,
        ..settings(Policy::fixed(1))
    };
    let supervisor = start(&broker, settings, HandlerManager::new(done));
    until(&supervisor, "idle", |pool| pool.depth.age_ms.is_some()).await;
    assert_eq!(broker.ready(QUEUE), Some(0));
    // The pool declares no more than it was asked to.
    assert_eq!(broker.ready("jobs.dead"), None);
    broker.delete_queue(QUEUE);
    until(&supervisor, "declared again", |_| {
        broker.ready(QUEUE).is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_was_declared_differently_is_used_and_reported() {
    let broker = broker();
    let settings = PoolSettings {
        declare: Declare::Classic,
        ..settings(Policy::fixed(1))
    };
    let supervisor = start(&broker, settings.clone(), HandlerManager::new(done));
    broker.send(QUEUE, "a job");
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    for state in [PoolState::Active, PoolState::Idle] {
        until(&supervisor, "told of", |pool| {
            let cause = pool.cause.as_deref().unwrap_or_default();
            pool.state == state
                && cause.contains("declare the queue jobs: it exists with other arguments")
        })
        .await;
    }
    // When the queue is deleted, the pool declares it as configured.
    broker.delete_queue(QUEUE);
    until(&supervisor, "declared", |pool| pool.cause.is_none()).await;
    let again = QueueSpec::new(QUEUE, QueueKind::Classic);
    broker.declare(&again).await.expect("it is as configured");
}
