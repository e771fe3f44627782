//! Copies that one queue or no queue accepts, and what the pool does meanwhile.

use tidegate::queue::{QueueError, QueueErrorKind, QueueSpec};

use super::{
    hooked::{Hook, Hooked, Request},
    *,
};

/// A retry queue that refuses messages for a short time after its declaration, as a quorum queue may do while it elects
/// its leader.
#[derive(Debug)]
struct Electing {
    takes: Duration,
    until: std::sync::OnceLock<Instant>,
}

impl Electing {
    fn for_this_long(takes: Duration) -> Arc<Self> {
        let until = std::sync::OnceLock::new();
        Arc::new(Self { takes, until })
    }
}

#[async_trait::async_trait]
impl Hook for Electing {
    async fn before(&self, request: Request<'_>) -> Result<(), QueueError> {
        let Request::Publish(copy) = request else {
            return Ok(());
        };
        let now = Instant::now();
        if copy.routing_key == "jobs.retry.1000"
            && now < *self.until.get_or_init(|| now + self.takes)
        {
            return Err(QueueError::new(QueueErrorKind::Refused, "publish"));
        }
        Ok(())
    }
}

/// Jobs whose body is not `good` fail in all attempts except the last.
fn fails_first(settings: &PoolSettings) -> impl RunnerManager + use<> {
    let last = settings.retry.max_attempts;
    HandlerManager::new(move |job: Job| async move {
        match job.body() == "good" || job.attempt() == last {
            true => Ok(Outcome::Done),
            false => Err("not yet".into()),
        }
    })
}

fn twice(policy: Policy) -> PoolSettings {
    let settings = settings(policy);
    PoolSettings {
        retry: RetrySettings {
            max_attempts: 2,
            ..settings.retry
        },
        ..settings
    }
}

/// Waits like [`until`], and checks that intake is never closed.
async fn until_done(supervisor: &Supervisor, jobs: u64) -> PoolStatus {
    until(supervisor, "done", |pool| {
        assert_ne!(pool.state, PoolState::Blocked, "{pool:#?}");
        pool.jobs.done == jobs
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_retry_queue_that_never_confirms_is_bypassed_and_reported() {
    let broker = broker();
    let settings = twice(Policy::fixed(10));
    broker.set_refusal("jobs.retry.1000", Some(QueueErrorKind::Timeout));
    let jobs = fails_first(&settings);
    let supervisor = start(&broker, settings, jobs);
    let begun = Instant::now();
    for _ in 0..500 {
        broker.send(QUEUE, "bad");
    }
    let mut seen = None;
    let after = until(&supervisor, "done", |pool| {
        assert_ne!(pool.state, PoolState::Blocked, "{pool:#?}");
        pool.jobs.done == 500
    });
    tokio::join!(
        async {
            after.await;
        },
        async {
            let pool = until(&supervisor, "said", |pool| pool.cause.is_some()).await;
            seen = pool.cause;
        }
    );
    // One confirm timeout, plus the second of the retry level.
    assert!(
        begun.elapsed() < Duration::from_secs(40),
        "{:?}",
        begun.elapsed()
    );
    let cause = seen.expect("a cause");
    assert!(
        cause.contains("queue jobs.retry.1000 does not confirm"),
        "{cause}"
    );
    let pool = status(&supervisor);
    assert_eq!(
        (pool.jobs.retried, pool.jobs.lost, pool.jobs.requeued),
        (500, 0, 0)
    );
    // The queue is tried again, and used when it works.
    broker.set_refusal("jobs.retry.1000", None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(status(&supervisor).cause, None);
    broker.send(QUEUE, "bad");
    until(&supervisor, "delayed", |_| {
        broker.ready("jobs.retry.1000") == Some(1)
    })
    .await;
    until_done(&supervisor, 501).await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_queue_gets_time_to_elect_a_leader_before_another_queue_replaces_it() {
    for (takes, stands_in) in [(400, false), (900, true)] {
        let broker = broker();
        let hook = Electing::for_this_long(Duration::from_millis(takes));
        let settings = twice(Policy::fixed(10));
        let jobs = fails_first(&settings);
        let supervisor = Hooked::start(&broker, &hook, settings, jobs);
        for _ in 0..10 {
            broker.send(QUEUE, "bad");
        }
        let after = until_done(&supervisor, 10).await;
        assert_eq!((after.jobs.retried, after.jobs.requeued), (10, 0));
        let spare = broker.ready("jobs.retry.1000.2");
        assert_eq!(spare.is_some(), stands_in, "{takes} ms");
        assert_eq!(after.cause.is_some(), stands_in, "{takes} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_queue_with_another_declaration_gets_nothing() {
    let broker = broker();
    let settings = twice(Policy::fixed(3));
    broker.declare_queue("jobs.retry.1000", QueueKind::Classic);
    let jobs = fails_first(&settings);
    let supervisor = start(&broker, settings, jobs);
    for _ in 0..50 {
        broker.send(QUEUE, "bad");
    }
    let after = until_done(&supervisor, 50).await;
    assert_eq!(broker.ready("jobs.retry.1000"), Some(0));
    assert_eq!(broker.ready("jobs.retry.1000.2"), Some(0));
    let cause = after.cause.expect("a cause");
    assert!(
        cause.contains("jobs.retry.1000 was declared with other arguments"),
        "{cause}"
    );
    assert!(cause.contains("406"), "{cause}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_without_a_usable_queue_is_held_and_counted() {
    let broker = broker();
    let settings = twice(Policy::fixed(2));
    broker.set_full_of_queues(true);
    let jobs = fails_first(&settings);
    let supervisor = start(&broker, settings, jobs);
    broker.send(QUEUE, "bad");
    let waiting = until(&supervisor, "held", |pool| pool.cause.is_some()).await;
    let cause = waiting.cause.expect("a cause");
    assert!(cause.contains("1 job is held"), "{cause}");
    assert!(cause.contains("a limit on queues is reached"), "{cause}");
    let begun = Instant::now();
    broker.send(QUEUE, "good");
    let after = until_done(&supervisor, 2).await;
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!((after.jobs.retried, after.jobs.requeued), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_dead_letter_queue_holds_only_the_jobs_that_go_there() {
    let broker = broker();
    broker.set_refusal("jobs.dead", Some(QueueErrorKind::Refused));
    let handler = |job: Job| async move {
        match job.body() == "good" {
            true => Ok(Outcome::Done),
            false => Ok(Outcome::reject("never")),
        }
    };
    let supervisor = start(
        &broker,
        settings(Policy::fixed(4)),
        HandlerManager::new(handler),
    );
    broker.send(QUEUE, "bad");
    until(&supervisor, "held", |pool| {
        pool.cause
            .as_deref()
            .is_some_and(|cause| cause.contains("jobs.dead takes no copy"))
    })
    .await;
    // More than the pool has workers: no message may wait behind them for ever.
    for _ in 0..9 {
        broker.send(QUEUE, "bad");
    }
    for _ in 0..10 {
        broker.send(QUEUE, "good");
    }
    let begun = Instant::now();
    until_done(&supervisor, 10).await;
    assert!(
        begun.elapsed() < Duration::from_secs(600),
        "{:?}",
        begun.elapsed()
    );
    broker.set_refusal("jobs.dead", None);
    let after = until(&supervisor, "dead", |pool| pool.jobs.dead == 10).await;
    assert_eq!((after.jobs.lost, after.jobs.done), (0, 10));
    assert_eq!(broker.ready("jobs.dead"), Some(10));
    until(&supervisor, "well", |pool| pool.cause.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_queue_with_another_declaration_is_used() {
    let broker = broker();
    broker.declare_queue("jobs.dead", QueueKind::Quorum);
    let handler = |_: Job| async { Ok(Outcome::reject("never")) };
    let supervisor = start(
        &broker,
        settings(Policy::fixed(2)),
        HandlerManager::new(handler),
    );
    for _ in 0..5 {
        broker.send(QUEUE, "bad");
    }
    let after = until(&supervisor, "dead", |pool| pool.jobs.dead == 5).await;
    assert_eq!(after.cause, None);
    assert_eq!(broker.ready("jobs.dead"), Some(5));
}

#[tokio::test(start_paused = true)]
async fn only_the_message_that_is_too_large_for_a_copy_is_held() {
    let broker = broker();
    let settings = twice(Policy::fixed(2));
    let jobs = fails_first(&settings);
    let supervisor = start(&broker, settings, jobs);
    broker.set_max_message_size(Some(100));
    broker.send(QUEUE, "x".repeat(101));
    let held = until(&supervisor, "held", |pool| pool.cause.is_some()).await;
    let cause = held.cause.expect("a cause");
    assert!(
        cause.contains("the body exceeds the broker's limit"),
        "{cause}"
    );
    for _ in 0..20 {
        broker.send(QUEUE, "good");
    }
    let begun = Instant::now();
    until_done(&supervisor, 20).await;
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    broker.set_max_message_size(None);
    let after = until_done(&supervisor, 21).await;
    assert_eq!((after.jobs.retried, after.jobs.requeued), (1, 0));
    assert_eq!(after.cause, None);
}

#[tokio::test(start_paused = true)]
async fn a_confirm_that_an_alarm_holds_back_is_waited_for() {
    let broker = broker();
    let handler = |_: Job| async { Ok(Outcome::reject("never")) };
    let supervisor = start(
        &broker,
        settings(Policy::fixed(5)),
        HandlerManager::new(handler),
    );
    broker.set_confirms_held(true);
    for _ in 0..10 {
        broker.send(QUEUE, "bad");
    }
    until(&supervisor, "blocked", |pool| {
        pool.state == PoolState::Blocked
    })
    .await;
    // The broker has the messages, and confirms them much later.
    let stored = broker.ready("jobs.dead").expect("a queue");
    assert!(stored > 0);
    throughout(&supervisor, Duration::from_secs(300), "blocked", |pool| {
        pool.state == PoolState::Blocked && pool.jobs.dead == 0
    })
    .await;
    assert_eq!(broker.ready("jobs.dead"), Some(stored));
    broker.set_confirms_held(false);
    let after = until(&supervisor, "dead", |pool| pool.jobs.dead == 10).await;
    assert_eq!((after.jobs.requeued, after.jobs.lost), (0, 0));
    assert_eq!(
        broker.ready("jobs.dead"),
        Some(10),
        "each message is there once"
    );
}

#[tokio::test(start_paused = true)]
async fn retries_that_the_broker_cannot_send_back_are_counted_and_reported() {
    let broker = broker();
    let settings = twice(Policy::fixed(2));
    let jobs = fails_first(&settings);
    // Its messages leave the queue and are lost, as with RabbitMQ while the pool's queue is full.
    let swallowing = QueueSpec {
        name: "jobs.retry.1000".into(),
        kind: QueueKind::Quorum,
        dead_letter_to: Some(QUEUE.into()),
        message_ttl: Some(Duration::from_secs(1)),
        arguments: Default::default(),
        bindings: Vec::new(),
    };
    tidegate::queue::QueueDriver::declare(&broker, &swallowing)
        .await
        .unwrap();
    let supervisor = start(&broker, settings, jobs);
    for _ in 0..5 {
        broker.send(QUEUE, "bad");
    }
    until(&supervisor, "retried", |pool| pool.jobs.retried == 5).await;
    let kept = broker.take("jobs.retry.1000");
    assert_eq!(kept.len(), 5);
    let pool = until(&supervisor, "overdue", |pool| {
        let cause = pool.cause.as_deref();
        cause.is_some_and(|cause| cause.contains("5 retries are due, but not back"))
    })
    .await;
    assert_eq!(pool.delayed, 5);
    // They arrive late.
    for mut message in kept {
        message.properties.expiration = None;
        broker.send_back(QUEUE, message);
    }
    until_done(&supervisor, 5).await;
    until(&supervisor, "none delayed", |pool| {
        pool.delayed == 0 && pool.cause.is_none()
    })
    .await;
}
