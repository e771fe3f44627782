//! Problems that stop a pool on a real broker, and how the pool reports them: limits of users, permissions,
//! other clients' queues, streams.

use std::time::Duration;

use lapin::{
    options::{BasicAckOptions, QueueDeclareOptions},
    types::AMQPValue,
};
use tidegate::{
    Policy,
    adapters::amqp::AmqpDriver,
    decide::QueueName,
    queue::{ConsumeRequest, QueueDriver, QueueErrorKind},
    run::PoolState,
};
use tokio::{task, time::Instant};

use crate::support::{
    broker::{PrivateBroker, faulty_broker, settings},
    watched::{Other, TIMEOUT, Watched, number, text},
};

/// A user of this test. Deleted when the guard is dropped.
struct User {
    name: &'static str,
}

impl User {
    fn new(broker: &mut PrivateBroker, name: &'static str, limits: &str, read: &str) -> Self {
        task::block_in_place(|| {
            broker.ctl(&["add_user", name, name]);
            broker.ctl(&["set_permissions", name, ".*", ".*", read]);
            if !limits.is_empty() {
                broker.ctl(&["set_user_limits", name, limits]);
            }
        });
        Self { name }
    }

    fn url(&self, broker: &PrivateBroker) -> String {
        let login = format!("{0}:{0}", self.name);
        broker.url().replace("guest:guest", &login)
    }

    fn delete(self, broker: &mut PrivateBroker) {
        task::block_in_place(|| broker.ctl(&["delete_user", self.name]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_works_with_the_channels_that_its_user_may_have_and_runs_each_job_once() {
    let mut broker = faulty_broker().await;
    let user = User::new(&mut broker, "few", r#"{"max-channels": 10}"#, ".*");
    let other = Other::declare(&broker.url(), "few", &[]).await;
    // The pool first grows one worker at a time while jobs run. This must lose none of them.
    let policy = Policy::backlog(1).max(20);
    let takes = Duration::from_secs(1);
    let pool = Watched::start(&user.url(&broker), &other.queue, policy, takes).await;
    for nth in 1..=12 {
        other.publish(1).await;
        // Its job begins while earlier ones run, or on the channel that one of them frees.
        pool.until("taken", |_| pool.runs().len() >= nth).await;
    }
    // Then a burst.
    other.publish(24).await;
    pool.until("limited", |pool| {
        let cause = pool.cause.as_deref();
        let says = cause.is_some_and(|cause| cause.contains("10 channels, 7 of them for workers"));
        pool.workers.live >= 7 && says
    })
    .await;
    let done = pool.until("done", |pool| pool.jobs.done == 36).await;
    assert_eq!((done.jobs.lost, done.jobs.requeued), (0, 0));
    let runs = pool.runs();
    assert_eq!(runs.len(), 36);
    assert!(runs.values().all(|runs| *runs == 1), "{runs:?}");
    pool.stop().await;
    other.end().await;
    user.delete(&mut broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_with_a_user_of_few_channels_loses_no_job() {
    let mut broker = faulty_broker().await;
    let user = User::new(&mut broker, "burst", r#"{"max-channels": 10}"#, ".*");
    let other = Other::declare(&broker.url(), "burst", &[]).await;
    other.publish(24).await;
    let policy = Policy::backlog(1).max(20);
    let takes = Duration::from_secs(1);
    let pool = Watched::start(&user.url(&broker), &other.queue, policy, takes).await;
    let done = pool.until("done", |pool| pool.jobs.done == 24).await;
    assert_eq!((done.jobs.lost, done.jobs.requeued), (0, 0));
    let runs = pool.runs();
    assert!(runs.values().all(|runs| *runs == 1), "{runs:?}");
    pool.stop().await;
    other.end().await;
    user.delete(&mut broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_a_cause() {
    let mut broker = faulty_broker().await;
    // Any other limit is a race: the broker counts connections in the background, so all three of a pool may pass it.
    let user = User::new(&mut broker, "none", r#"{"max-connections": 0}"#, ".*");
    let other = Other::declare(&broker.url(), "none", &[]).await;
    let policy = Policy::fixed(1);
    let pool = Watched::start(&user.url(&broker), &other.queue, policy, Duration::ZERO).await;
    // Before the broker has refused it, there is no more to say than that the queue was not looked at yet.
    pool.until("refused", |pool| {
        let cause = pool.cause.as_deref();
        let says = cause.is_some_and(|cause| cause.contains("connection limit (0)"));
        pool.state == PoolState::Disconnected && says
    })
    .await;
    assert!(!pool.supervisor.readiness().is_ready());
    pool.stop().await;
    other.end().await;
    user.delete(&mut broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_whose_user_may_not_read_is_stuck_with_the_cause() {
    let mut broker = faulty_broker().await;
    let user = User::new(&mut broker, "blind", "", "^$");
    let other = Other::declare(&broker.url(), "blind", &[]).await;
    other.publish(3).await;
    let policy = Policy::fixed(2);
    let pool = Watched::start(&user.url(&broker), &other.queue, policy, Duration::ZERO).await;
    pool.is_stuck("ACCESS_REFUSED").await;
    pool.stop().await;
    assert_eq!(other.ready().await, 3);
    other.end().await;
    user.delete(&mut broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exclusive_queue_of_another_connection_is_reported() {
    let broker = faulty_broker().await;
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let other = Other::declare_with(&broker.url(), "exclusive", &[], options).await;
    let pool = Watched::start(
        &broker.url(),
        &other.queue,
        Policy::fixed(1),
        Duration::ZERO,
    )
    .await;
    pool.is_stuck("RESOURCE_LOCKED").await;
    pool.stop().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_never_consumed() {
    let broker = faulty_broker().await;
    let arguments = [("x-queue-type", text("stream"))];
    let other = Other::declare(&broker.url(), "stream", &arguments).await;
    other.publish(5).await;
    // The broker counts the message a moment later.
    let time_limit = Instant::now() + TIMEOUT;
    while other.ready().await == 0 && Instant::now() < time_limit {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pool = Watched::start(
        &broker.url(),
        &other.queue,
        Policy::fixed(3),
        Duration::ZERO,
    )
    .await;
    pool.is_stuck("it is a stream").await;
    pool.stop().await;
    assert_eq!(pool.runs().len(), 0);
    other.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_queue_with_a_single_active_consumer_is_worked_off_and_drained() {
    let broker = faulty_broker().await;
    let arguments = [
        ("x-queue-type", text("quorum")),
        ("x-single-active-consumer", AMQPValue::Boolean(true)),
    ];
    let other = Other::declare(&broker.url(), "single", &arguments).await;
    let pool = Watched::start(
        &broker.url(),
        &other.queue,
        Policy::fixed(5),
        Duration::ZERO,
    )
    .await;
    other.publish(20).await;
    pool.until("done", |pool| pool.jobs.done == 20).await;
    let idle = pool.until("drained", |pool| pool.workers.live == 0).await;
    assert_eq!((idle.state, idle.depth.stale), (PoolState::Idle, false));
    pool.stop().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_reports_its_type() {
    let broker = faulty_broker().await;
    let driver = AmqpDriver::connect_lazily(&settings(&broker.url())).unwrap();
    driver.until_connected(TIMEOUT).await.unwrap();
    let kinds: [(&str, &[(&str, AMQPValue)]); 5] = [
        ("classic", &[]),
        (
            "classic",
            &[
                ("x-queue-type", text("classic")),
                ("x-message-ttl", number(60_000)),
            ],
        ),
        (
            "quorum",
            &[
                ("x-queue-type", text("quorum")),
                ("x-delivery-limit", number(3)),
            ],
        ),
        ("stream", &[("x-queue-type", text("stream"))]),
        (
            "quorum",
            &[
                ("x-queue-type", text("quorum")),
                ("x-single-active-consumer", AMQPValue::Boolean(true)),
                ("x-dead-letter-exchange", text("'a' but current is 'b'")),
                ("x-overflow", text("reject-publish")),
            ],
        ),
    ];
    for (kind, arguments) in kinds {
        let other = Other::declare(&broker.url(), "what", arguments).await;
        let facts = driver
            .queue_facts(&QueueName::from(other.queue.as_str()))
            .await
            .unwrap();
        // An argument that cannot be read may hide those after it.
        if !arguments
            .iter()
            .any(|(name, _)| *name == "x-dead-letter-exchange")
        {
            assert_eq!(facts.kind.as_deref(), Some(kind), "{arguments:?}");
        }
        assert_eq!(facts.is_stream(), kind == "stream");
        other.end().await;
    }
    let single = [
        ("x-queue-type", text("quorum")),
        ("x-single-active-consumer", AMQPValue::Boolean(true)),
        ("x-delivery-limit", number(3)),
        ("x-dead-letter-exchange", text("")),
    ];
    let other = Other::declare(&broker.url(), "single", &single).await;
    let facts = driver
        .queue_facts(&QueueName::from(other.queue.as_str()))
        .await
        .unwrap();
    assert_eq!(facts.kind.as_deref(), Some("quorum"));
    assert!(facts.has_single_active_consumer());
    // Some arguments are compared only after the type.
    let exchange = facts.arguments.get("x-dead-letter-exchange");
    assert_eq!(exchange.map(String::as_str), Some(""));
    other.end().await;

    // Asking about a missing queue must not create it.
    let missing = QueueName::from("tidegate-test-never-declared");
    for _ in 0..2 {
        let error = driver.queue_facts(&missing).await.unwrap_err();
        assert_eq!(error.kind, QueueErrorKind::NotFound);
    }
}

/// When a channel number is used again, lapin reports the error with which the broker closed the number's last
/// channel.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_queue_uses_up_no_channels_and_affects_no_other_queue() {
    let broker = faulty_broker().await;
    let url = format!("{}?channel_max=8", broker.url());
    let driver = AmqpDriver::connect_lazily(&settings(&url)).unwrap();
    driver.until_connected(TIMEOUT).await.unwrap();
    let other = Other::declare(&broker.url(), "there", &[]).await;
    let there = QueueName::from(other.queue.as_str());
    let missing = QueueName::from("tidegate-test-never-declared");
    for _ in 0..40 {
        let error = driver.probe(&missing).await.unwrap_err();
        assert_eq!(error.kind, QueueErrorKind::NotFound, "{error:?}");
        driver.probe(&there).await.unwrap();
    }
    let request = |queue: &QueueName| ConsumeRequest {
        queue: queue.clone(),
        prefetch: 1,
        tag: format!("test-{:08x}", rand::random::<u32>()),
    };
    // One consumer that stays while all others are replaced.
    let mut first = driver.consume(request(&there)).await.unwrap();
    for _ in 0..40 {
        let error = driver.consume(request(&missing)).await.err().unwrap();
        assert_eq!(error.kind, QueueErrorKind::NotFound, "{error:?}");
        driver.consume(request(&there)).await.unwrap();
    }
    other.publish(1).await;
    let delivery = std::future::poll_fn(|cx| first.poll_next(cx)).await;
    delivery.unwrap().unwrap().ack().await.unwrap();
    other.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_behind_someone_elses_single_active_consumer_is_stuck_in_time() {
    let broker = faulty_broker().await;
    let arguments = [("x-single-active-consumer", AMQPValue::Boolean(true))];
    let other = Other::declare(&broker.url(), "theirs", &arguments).await;
    let _theirs = other.consume(&[]).await;
    other.publish(5).await;
    let pool = Watched::start(
        &broker.url(),
        &other.queue,
        Policy::fixed(3),
        Duration::ZERO,
    )
    .await;
    pool.is_stuck("single active consumer").await;
    assert_eq!(pool.runs().len(), 0);
    // The other client ends, and ours takes over.
    other.end().await;
    pool.until("well", |pool| {
        pool.jobs.done == 5 && pool.state != PoolState::Stuck
    })
    .await;
    pool.stop().await;
}

/// If a queue has a single active consumer, RabbitMQ 4 selects the consumer with the highest priority. Elsewhere a
/// message is ready only while those of higher priority have no room for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_behind_a_consumer_of_higher_priority_is_stuck_if_that_consumer_takes_all() {
    let broker = faulty_broker().await;
    let version = task::block_in_place(|| broker.ctl(&["version"]));
    let arguments = [
        ("x-queue-type", text("quorum")),
        ("x-single-active-consumer", AMQPValue::Boolean(true)),
    ];
    let other = Other::declare(&broker.url(), "priority", &arguments).await;
    let keep = Policy::fixed(1);
    let pool = Watched::start(&broker.url(), &other.queue, keep, Duration::ZERO).await;
    other.publish(1).await;
    pool.until("ours at first", |pool| pool.jobs.done == 1)
        .await;
    let mut theirs = other.consume(&[("x-priority", number(10))]).await;
    other.publish(5).await;
    if version.starts_with("3.") {
        pool.until("ours still", |pool| pool.jobs.done == 6).await;
    } else {
        // One that they hold, as long as they like.
        let held = futures_util::StreamExt::next(&mut theirs).await;
        let held = held.expect("theirs").expect("a delivery");
        pool.is_stuck("the consumer with the highest priority")
            .await;
        assert_eq!(pool.runs().len(), 1);
        held.ack(BasicAckOptions::default()).await.unwrap();
    }
    other.end().await;
    pool.until("well", |pool| {
        pool.state != PoolState::Stuck && pool.depth.ready == 0 && pool.jobs.done >= 4
    })
    .await;
    pool.stop().await;
}

/// Give-backs are copies, which a full queue refuses. They wait beside it.
async fn gives_back_to_a_full_queue(kind: &str) {
    let broker = faulty_broker().await;
    let arguments = [
        ("x-queue-type", text(kind)),
        ("x-max-length", number(4)),
        ("x-overflow", text("reject-publish")),
    ];
    let other = Other::declare(&broker.url(), "full", &arguments).await;
    let (pool, leave) = Watched::start_held(&broker.url(), &other.queue, Policy::fixed(3)).await;
    other.publish(3).await;
    pool.until("busy", |pool| pool.runners.busy == 3).await;
    // A queue of this kind takes one or two beyond its limit.
    while other.publish_confirmed().await {}
    let waiting = u64::from(other.ready().await);
    assert!(waiting >= 4, "{waiting}");
    pool.supervisor.pause(&pool.name()).await.unwrap();
    pool.give_back_all().await;
    let given = pool
        .until("given back", |pool| {
            pool.jobs.requeued == 3 && pool.workers.live + pool.workers.draining == 0
        })
        .await;
    assert_eq!((given.jobs.lost, given.jobs.dead), (0, 0));
    leave.add_permits(100);
    pool.supervisor.resume(&pool.name()).await.unwrap();
    let all = 3 + waiting;
    let after = pool.until("done", |pool| pool.jobs.done == all).await;
    assert_eq!((after.jobs.lost, after.jobs.dead), (0, 0));
    assert_eq!(pool.runs().len() as u64, all, "each of them ran");
    pool.stop().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_are_given_back_to_a_full_classic_queue_are_not_lost() {
    gives_back_to_a_full_queue("classic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_are_given_back_to_a_full_quorum_queue_are_not_lost() {
    gives_back_to_a_full_queue("quorum").await;
}
