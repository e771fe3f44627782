//! A whole pool whose copies the broker refuses or confirms late.

use std::{collections::HashMap, sync::Arc, time::Duration};

use lapin::{Connection, ConnectionProperties, options::BasicGetOptions};
use tidegate::{
    Job, Outcome, Policy, Pool, Supervisor,
    config::RetrySettings,
    decide::{PoolName, QueueName},
    queue::{Outgoing, Properties, QueueDriver},
    run::{PoolState, PoolStatus},
    runner::BoxError,
};
use tokio::sync::Semaphore;

use super::{connect, declare, to, within};
use crate::support::broker::{PrivateBroker, faulty_broker};

const POOL: &str = "copies";

/// How a job ends.
type Ended = Result<Outcome, BoxError>;

/// A pool on a new queue of this name. The queue holds this number of messages, each named by its number.
async fn pool<F: Future<Output = Ended> + Send + 'static>(
    broker: &PrivateBroker,
    queue: &str,
    messages: usize,
    policy: Policy,
    handler: impl Fn(Job) -> F + Send + Sync + 'static,
) -> Supervisor {
    pool_with(
        broker,
        queue,
        messages,
        policy,
        Duration::from_millis(200),
        handler,
    )
    .await
}

/// The same, with this backoff.
async fn pool_with<F: Future<Output = Ended> + Send + 'static>(
    broker: &PrivateBroker,
    queue: &str,
    messages: usize,
    policy: Policy,
    backoff: Duration,
    handler: impl Fn(Job) -> F + Send + Sync + 'static,
) -> Supervisor {
    let driver = connect(&broker.url()).await;
    let queue = declare(&driver, queue).await;
    for n in 0..messages {
        let message = Outgoing {
            routing_key: queue.as_str().to_owned(),
            properties: Properties {
                delivery_mode: Some(2),
                message_id: Some(n.to_string()),
                ..Properties::default()
            },
            body: n.to_string().into(),
            ..Outgoing::default()
        };
        driver.publish(message).await.expect("a publish");
    }
    driver.close().await;
    let retry = RetrySettings {
        max_attempts: 2,
        backoff,
        backoff_max: backoff,
        ..RetrySettings::default()
    };
    let pool = Pool::new(POOL)
        .queue(queue.as_str())
        .policy(policy)
        .poll_interval(Duration::from_millis(100))
        .retry(retry)
        .handler(handler);
    let supervisor = Supervisor::builder().broker(broker.url()).pool(pool);
    supervisor.start().await.expect("a supervisor")
}

async fn until(
    supervisor: &Supervisor,
    what: &str,
    mut looks: impl FnMut(&PoolStatus) -> bool,
) -> PoolStatus {
    let name = PoolName::from(POOL);
    within(what, async {
        loop {
            match supervisor.pool(&name) {
                Some(pool) if looks(&pool) => return pool,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await
}

/// Fails at the first attempt.
async fn at_the_second(job: Job) -> Ended {
    match job.attempt() {
        1 => Err("not yet".into()),
        _ => Ok(Outcome::Done),
    }
}

/// Takes all messages from a queue, and counts how often each message id occurs.
async fn drain(url: &str, queue: &str) -> HashMap<String, u32> {
    let properties = ConnectionProperties::default();
    let connection = Connection::connect(url, properties)
        .await
        .expect("a connection");
    let channel = connection.create_channel().await.expect("a channel");
    let mut found = HashMap::new();
    let options = BasicGetOptions { no_ack: true };
    while let Some(message) = channel
        .basic_get(queue.into(), options)
        .await
        .expect("a get")
    {
        let id = message
            .delivery
            .properties
            .message_id()
            .as_ref()
            .expect("an id");
        *found.entry(id.as_str().to_owned()).or_default() += 1;
    }
    connection.close(200, "OK".into()).await.expect("a close");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_duplicates_no_dead_letter() {
    const ROUNDS: usize = 20;
    const WORKERS: usize = 20;
    const JOBS: usize = ROUNDS * WORKERS;
    let mut broker = faulty_broker().await;
    let leave = Arc::new(Semaphore::new(0));
    let handler = {
        let leave = leave.clone();
        move |_| {
            let leave = leave.clone();
            async move {
                leave.acquire().await?.forget();
                Ok(Outcome::reject("never"))
            }
        }
    };
    let policy = Policy::fixed(WORKERS as u32);
    let supervisor = pool(&broker, "alarm", JOBS, policy, handler).await;
    for round in 1..=ROUNDS {
        until(&supervisor, "busy", |pool| {
            pool.runners.busy as usize == WORKERS
        })
        .await;
        // The broker tells publishers about the alarm after it has confirmed earlier publishes.
        to(&mut broker, |broker| broker.set_alarm(true));
        leave.add_permits(WORKERS);
        until(&supervisor, "blocked", |pool| {
            pool.state == PoolState::Blocked
        })
        .await;
        to(&mut broker, |broker| broker.set_alarm(false));
        until(&supervisor, "dead", |pool| {
            pool.jobs.dead as usize == round * WORKERS
        })
        .await;
    }
    let pool = until(&supervisor, "idle", |pool| pool.state == PoolState::Idle).await;
    assert_eq!((pool.jobs.lost, pool.jobs.requeued), (0, 0));
    supervisor
        .drain(Duration::from_secs(10))
        .await
        .expect("drained");
    let found = drain(&broker.url(), "alarm.dead").await;
    assert_eq!(found.len(), JOBS);
    let doubled: Vec<_> = found.iter().filter(|(_, times)| **times > 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_bypass_a_mismatched_queue_and_the_406_is_reported() {
    let broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    let theirs = declare(&driver, "foreign.retry.200").await;
    let supervisor = pool(&broker, "foreign", 50, Policy::fixed(5), at_the_second).await;
    let pool = until(&supervisor, "done", |pool| {
        assert_ne!(pool.state, PoolState::Blocked, "{pool:#?}");
        pool.jobs.done == 50
    })
    .await;
    assert_eq!(driver.probe(&theirs).await.expect("a probe").ready, 0);
    let cause = pool.cause.expect("a cause");
    assert!(
        cause.contains("queue foreign.retry.200 was declared with other arguments"),
        "{cause}"
    );
    assert!(cause.contains("inequivalent arg"), "{cause}");
    assert_eq!((pool.jobs.retried, pool.jobs.lost), (50, 0));
    supervisor
        .drain(Duration::from_secs(10))
        .await
        .expect("drained");
}

/// After a broker is killed within a second of a declare, it has such a queue: the queue exists, but confirms
/// nothing.
#[tokio::test(flavor = "multi_thread")]
async fn retries_bypass_a_queue_without_a_leader() {
    let mut broker = faulty_broker().await;
    let url = broker.url();
    let supervisor = pool(&broker, "headless", 1, Policy::fixed(4), at_the_second).await;
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    to(&mut broker, |broker| {
        broker.ctl(&["eval", "sys:suspend('%2F_headless.retry.200')."])
    });
    let driver = connect(&url).await;
    for n in 1..100 {
        let message = Outgoing {
            routing_key: String::from("headless"),
            body: n.to_string().into(),
            ..Outgoing::default()
        };
        driver.publish(message).await.expect("a publish");
    }
    let mut said = None;
    let pool = until(&supervisor, "done", |pool| {
        assert_ne!(pool.state, PoolState::Blocked, "{pool:#?}");
        said = said.take().or(pool.cause.clone());
        pool.jobs.done == 100
    })
    .await;
    assert_eq!(
        (pool.jobs.retried, pool.jobs.lost, pool.jobs.requeued),
        (100, 0, 0)
    );
    let cause = said.expect("a cause");
    assert!(
        cause.contains("queue headless.retry.200 does not confirm"),
        "{cause}"
    );
    supervisor
        .drain(Duration::from_secs(10))
        .await
        .expect("drained");
    to(&mut broker, |broker| {
        broker.ctl(&["eval", "sys:resume('%2F_headless.retry.200')."])
    });
    let spare = QueueName::from("headless.retry.200.2");
    assert_eq!(driver.probe(&spare).await.expect("it is there").ready, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_message_that_became_too_large_is_held() {
    let mut broker = faulty_broker().await;
    let limit = |broker: &mut PrivateBroker, bytes: u32| {
        // The two places where RabbitMQ 3 and RabbitMQ 4 look.
        let set = format!(
            "application:set_env(rabbit, max_message_size, {bytes}), \
             persistent_term:put(max_message_size, {bytes})."
        );
        to(broker, |broker| broker.ctl(&["eval", &set]));
    };
    let driver = connect(&broker.url()).await;
    let queue = declare(&driver, "outgrown").await;
    let large = Outgoing {
        routing_key: queue.as_str().to_owned(),
        body: "x".repeat(2000).into(),
        ..Outgoing::default()
    };
    driver.publish(large).await.expect("a publish");
    limit(&mut broker, 1000);
    let handler = |job: Job| async move {
        match job.body().len() > 1000 {
            true => at_the_second(job).await,
            false => Ok(Outcome::Done),
        }
    };
    let supervisor = pool(&broker, "outgrown", 50, Policy::fixed(2), handler).await;
    until(&supervisor, "done", |pool| {
        assert_ne!(pool.state, PoolState::Blocked, "{pool:#?}");
        let cause = pool.cause.as_deref().unwrap_or_default();
        pool.jobs.done == 50 && cause.contains("is larger than configured max size")
    })
    .await;
    limit(&mut broker, 128 << 20);
    let pool = until(&supervisor, "done too", |pool| pool.jobs.done == 51).await;
    assert_eq!(
        (pool.jobs.retried, pool.jobs.lost, pool.jobs.requeued),
        (1, 0, 0)
    );
    supervisor
        .drain(Duration::from_secs(10))
        .await
        .expect("drained");
}

/// A retry whose time is over stays at the broker while its queue is gone. No count of the broker includes it, and the
/// broker tries again only after three minutes.
#[tokio::test(flavor = "multi_thread")]
async fn retries_whose_queue_is_gone_are_counted_and_reported() {
    let broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    // Long enough to delete the queue.
    let backoff = Duration::from_secs(3);
    let policy = Policy::fixed(3);
    let supervisor = pool_with(&broker, "vanished", 3, policy, backoff, at_the_second).await;
    until(&supervisor, "retried", |pool| pool.jobs.retried == 3).await;
    driver
        .delete(&QueueName::from("vanished"))
        .await
        .expect("a delete");
    let pool = until(&supervisor, "overdue", |pool| {
        pool.cause
            .as_deref()
            .is_some_and(|cause| cause.contains("3 retries are due"))
    })
    .await;
    assert_eq!(
        (pool.state, pool.delayed, pool.jobs.done),
        (PoolState::Waiting, 3, 0)
    );
    let retries = QueueName::from("vanished.retry.3000");
    assert_eq!(driver.probe(&retries).await.expect("a probe").ready, 0);
    supervisor
        .drain(Duration::from_secs(10))
        .await
        .expect("drained");
}
