//! What can keep a pool from its work on a real broker, and how the pool reports it: limits of users, permissions,
//! other clients' queues, streams.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use tidegate::{
    Job, Outcome, Policy, Pool, Supervisor,
    adapters::amqp::AmqpDriver,
    decide::{PoolName, QueueName},
    queue::{ConsumeRequest, QueueDriver, QueueErrorKind},
    run::{PoolState, PoolStatus},
};
use tokio::{task, time::Instant};

use crate::support::broker::{PrivateBroker, faulty_broker, settings};

const PATIENCE: Duration = Duration::from_secs(90);

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

/// Another client, and its queue.
struct Other {
    connection: Connection,
    channel: Channel,
    queue: String,
}

impl Other {
    async fn declare(url: &str, queue: &str, arguments: &[(&str, AMQPValue)]) -> Self {
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        Self::declare_with(url, queue, arguments, options).await
    }

    async fn declare_with(
        url: &str,
        queue: &str,
        arguments: &[(&str, AMQPValue)],
        options: QueueDeclareOptions,
    ) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let queue = format!("{queue}-{:08x}", rand::random::<u32>());
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        channel
            .queue_declare(queue.as_str().into(), options, table)
            .await
            .unwrap();
        Self {
            connection,
            channel,
            queue,
        }
    }

    async fn publish(&self, messages: usize) {
        for _ in 0..messages {
            let (exchange, queue) = ("".into(), self.queue.as_str().into());
            let options = BasicPublishOptions::default();
            let properties = lapin::BasicProperties::default()
                .with_delivery_mode(2)
                .with_message_id(format!("m-{:016x}", rand::random::<u64>()).into());
            self.channel
                .basic_publish(exchange, queue, options, b"job", properties)
                .await
                .unwrap();
        }
    }

    async fn ready(&self) -> u32 {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = self.queue.as_str().into();
        let seen = self
            .channel
            .queue_declare(queue, options, FieldTable::default())
            .await
            .unwrap();
        seen.message_count()
    }

    async fn end(self) {
        self.connection.close(200, "OK".into()).await.unwrap();
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// How often each job ran.
type Runs = Arc<Mutex<HashMap<String, u32>>>;

async fn start(url: &str, queue: &str, policy: Policy, takes: Duration) -> (Supervisor, Runs) {
    let runs = Runs::default();
    let handler = {
        let runs = runs.clone();
        move |job: Job| {
            *runs
                .lock()
                .unwrap()
                .entry(job.id().to_string())
                .or_default() += 1;
            async move {
                tokio::time::sleep(takes).await;
                Ok(Outcome::Done)
            }
        }
    };
    let supervisor = Supervisor::builder()
        .broker(url)
        .pool(
            Pool::new("test")
                .queue(queue)
                .policy(policy)
                .poll_interval(Duration::from_millis(100))
                .handler(handler),
        )
        .start()
        .await
        .unwrap();
    (supervisor, runs)
}

async fn until(
    supervisor: &Supervisor,
    what: &str,
    looks: impl Fn(&PoolStatus) -> bool,
) -> PoolStatus {
    let patience = Instant::now() + PATIENCE;
    loop {
        let pool = supervisor.pool(&PoolName::from("test")).unwrap();
        if looks(&pool) {
            return pool;
        }
        assert!(Instant::now() < patience, "never {what}: {pool:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the pool is stuck with this text in its cause, and not ready.
async fn is_stuck(supervisor: &Supervisor, why: &str) {
    let stuck = until(supervisor, "stuck", |pool| pool.state == PoolState::Stuck).await;
    let cause = stuck.cause.unwrap();
    assert!(cause.contains(why), "{cause}");
    let reasons = supervisor.readiness().reasons;
    assert!(reasons[0].contains(why), "{reasons:?}");
}

async fn stop(supervisor: Supervisor) {
    supervisor.drain(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_works_with_the_channels_that_its_user_may_have_and_runs_each_job_once() {
    let mut broker = faulty_broker().await;
    let user = User::new(&mut broker, "few", r#"{"max-channels": 10}"#, ".*");
    let other = Other::declare(&broker.url(), "few", &[]).await;
    // The pool first grows one worker at a time while jobs run. This must lose none of them.
    let policy = Policy::backlog(1).max(20);
    let takes = Duration::from_secs(1);
    let (supervisor, runs) = start(&user.url(&broker), &other.queue, policy, takes).await;
    for nth in 1..=12 {
        other.publish(1).await;
        // Its job begins while earlier ones run, or on the channel that one of them frees.
        until(&supervisor, "taken", |_| runs.lock().unwrap().len() >= nth).await;
    }
    // Then a burst.
    other.publish(24).await;
    let limited = until(&supervisor, "limited", |pool| {
        pool.workers.live >= 7 && pool.cause.is_some()
    })
    .await;
    let cause = limited.cause.unwrap();
    assert!(
        cause.contains("10 channels, 7 of them for workers"),
        "{cause}"
    );
    let done = until(&supervisor, "done", |pool| pool.jobs.done == 36).await;
    assert_eq!((done.jobs.lost, done.jobs.requeued), (0, 0));
    let runs = runs.lock().unwrap().clone();
    assert_eq!(runs.len(), 36);
    assert!(runs.values().all(|runs| *runs == 1), "{runs:?}");
    stop(supervisor).await;
    other.end().await;
    user.delete(&mut broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_on_a_limited_user_costs_no_job() {
    let mut broker = faulty_broker().await;
    let user = User::new(&mut broker, "burst", r#"{"max-channels": 10}"#, ".*");
    let other = Other::declare(&broker.url(), "burst", &[]).await;
    other.publish(24).await;
    let policy = Policy::backlog(1).max(20);
    let takes = Duration::from_secs(1);
    let (supervisor, runs) = start(&user.url(&broker), &other.queue, policy, takes).await;
    let done = until(&supervisor, "done", |pool| pool.jobs.done == 24).await;
    assert_eq!((done.jobs.lost, done.jobs.requeued), (0, 0));
    let runs = runs.lock().unwrap().clone();
    assert!(runs.values().all(|runs| *runs == 1), "{runs:?}");
    stop(supervisor).await;
    other.end().await;
    user.delete(&mut broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_a_cause() {
    let mut broker = faulty_broker().await;
    let user = User::new(&mut broker, "two", r#"{"max-connections": 2}"#, ".*");
    let other = Other::declare(&broker.url(), "two", &[]).await;
    let policy = Policy::fixed(1);
    let (supervisor, _) = start(&user.url(&broker), &other.queue, policy, Duration::ZERO).await;
    let seen = until(&supervisor, "refused", |pool| pool.cause.is_some()).await;
    assert_eq!(seen.state, PoolState::Disconnected);
    let cause = seen.cause.unwrap();
    assert!(cause.contains("connection limit (2)"), "{cause}");
    assert!(!supervisor.readiness().is_ready());
    stop(supervisor).await;
    other.end().await;
    user.delete(&mut broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_read_is_told() {
    let mut broker = faulty_broker().await;
    let user = User::new(&mut broker, "blind", "", "^$");
    let other = Other::declare(&broker.url(), "blind", &[]).await;
    other.publish(3).await;
    let policy = Policy::fixed(2);
    let (supervisor, _) = start(&user.url(&broker), &other.queue, policy, Duration::ZERO).await;
    is_stuck(&supervisor, "ACCESS_REFUSED").await;
    stop(supervisor).await;
    assert_eq!(other.ready().await, 3);
    other.end().await;
    user.delete(&mut broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn someone_elses_exclusive_queue_is_told() {
    let broker = faulty_broker().await;
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let other = Other::declare_with(&broker.url(), "exclusive", &[], options).await;
    let (supervisor, _) = start(
        &broker.url(),
        &other.queue,
        Policy::fixed(1),
        Duration::ZERO,
    )
    .await;
    is_stuck(&supervisor, "RESOURCE_LOCKED").await;
    stop(supervisor).await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_never_consumed() {
    let broker = faulty_broker().await;
    let arguments = [("x-queue-type", text("stream"))];
    let other = Other::declare(&broker.url(), "stream", &arguments).await;
    other.publish(5).await;
    // The broker counts the message a moment later.
    let patience = Instant::now() + PATIENCE;
    while other.ready().await == 0 && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (supervisor, runs) = start(
        &broker.url(),
        &other.queue,
        Policy::fixed(3),
        Duration::ZERO,
    )
    .await;
    is_stuck(&supervisor, "it is a stream").await;
    stop(supervisor).await;
    assert_eq!(runs.lock().unwrap().len(), 0);
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
    let (supervisor, _) = start(
        &broker.url(),
        &other.queue,
        Policy::fixed(5),
        Duration::ZERO,
    )
    .await;
    other.publish(20).await;
    until(&supervisor, "done", |pool| pool.jobs.done == 20).await;
    let idle = until(&supervisor, "drained", |pool| pool.workers.live == 0).await;
    assert_eq!((idle.state, idle.depth.stale), (PoolState::Idle, false));
    stop(supervisor).await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_says_what_it_is() {
    let broker = faulty_broker().await;
    let driver = AmqpDriver::connect_lazily(&settings(&broker.url())).unwrap();
    driver.until_connected(PATIENCE).await.unwrap();
    let number = |n: i64| AMQPValue::LongLongInt(n);
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
async fn a_queue_that_stays_missing_uses_no_channels_up_and_takes_no_other_queue_along() {
    let broker = faulty_broker().await;
    let url = format!("{}?channel_max=8", broker.url());
    let driver = AmqpDriver::connect_lazily(&settings(&url)).unwrap();
    driver.until_connected(PATIENCE).await.unwrap();
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
    let queue = other.queue.as_str();
    other
        .channel
        .basic_qos(1, lapin::options::BasicQosOptions::default())
        .await
        .unwrap();
    let _theirs = other
        .channel
        .basic_consume(
            queue.into(),
            "theirs".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    other.publish(5).await;
    let (supervisor, runs) = start(
        &broker.url(),
        &other.queue,
        Policy::fixed(3),
        Duration::ZERO,
    )
    .await;
    is_stuck(&supervisor, "single active consumer").await;
    assert_eq!(runs.lock().unwrap().len(), 0);
    // The other client ends, and ours takes over.
    other.end().await;
    until(&supervisor, "well", |pool| {
        pool.jobs.done == 5 && pool.state != PoolState::Stuck
    })
    .await;
    stop(supervisor).await;
}
