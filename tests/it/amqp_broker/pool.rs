//! A whole pool whose broker is killed.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{BasicConsumeOptions, BasicPublishOptions},
    types::{FieldTable, ShortString},
};
use tidegate::{
    Job, Outcome, Policy, Pool, Supervisor,
    decide::PoolName,
    queue::{Outgoing, Properties, QueueDriver},
    run::{PoolState, PoolStatus},
};
use tokio::sync::{Semaphore, mpsc};

use super::{connect, declare, to, within};
use crate::support::broker::faulty_broker;

async fn until(supervisor: &Supervisor, what: &str, looks: impl Fn(&PoolStatus) -> bool) {
    let name = PoolName::from("test");
    within(what, async {
        while !supervisor.pool(&name).is_some_and(|pool| looks(&pool)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_loses_a_settlement_but_no_job_when_its_broker_is_killed_and_comes_back_by_itself() {
    let mut broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    let queue = declare(&driver, "pool").await;
    let (say, mut started) = mpsc::unbounded_channel();
    let leave = Arc::new(Semaphore::new(0));
    let handler = {
        let leave = leave.clone();
        move |job: Job| {
            say.send(job).ok();
            let leave = leave.clone();
            async move {
                leave.acquire().await?.forget();
                Ok(Outcome::Done)
            }
        }
    };
    let supervisor = Supervisor::builder()
        .broker(broker.url())
        .pool(
            Pool::new("test")
                .queue(queue.as_str())
                .policy(Policy::fixed(2))
                .poll_interval(Duration::from_millis(100))
                .handler(handler),
        )
        .start()
        .await
        .expect("a supervisor");
    let message = Outgoing {
        routing_key: queue.as_str().to_owned(),
        properties: Properties {
            delivery_mode: Some(2),
            ..Properties::default()
        },
        ..Outgoing::default()
    };
    driver.publish(message).await.expect("a publish");
    within("a job", started.recv()).await.expect("a job");

    to(&mut broker, |broker| broker.kill());
    until(&supervisor, "disconnected", |pool| {
        pool.state == PoolState::Disconnected
    })
    .await;
    leave.add_permits(1);
    until(&supervisor, "lost", |pool| pool.jobs.lost == 1).await;

    to(&mut broker, |broker| broker.restart());
    let again = within("the job again", started.recv())
        .await
        .expect("a job");
    assert!(again.message().redelivered);
    leave.add_permits(1);
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    supervisor
        .drain(Duration::from_secs(10))
        .await
        .expect("drained");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_stopped_before_the_broker_closes_its_channel() {
    let mut broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    let queue = declare(&driver, "long").await;
    to(&mut broker, |broker| {
        broker.set_consumer_timeout(Some(Duration::from_secs(4)))
    });
    let (say, mut started) = mpsc::unbounded_channel();
    let handler = move |job: Job| {
        say.send(()).ok();
        async move {
            // As long as it may run.
            job.cancelled().cancelled().await;
            Err("stopped".into())
        }
    };
    let supervisor = Supervisor::builder()
        .broker(broker.url())
        .pool(
            Pool::new("test")
                .queue(queue.as_str())
                .policy(Policy::fixed(1))
                .poll_interval(Duration::from_millis(100))
                .ack_deadline(Duration::from_secs(3))
                .handler(handler),
        )
        .start()
        .await
        .expect("a supervisor");
    let message = Outgoing {
        routing_key: queue.as_str().to_owned(),
        ..Outgoing::default()
    };
    driver.publish(message).await.expect("a publish");
    // The third delivery shows that the message came back twice as we gave it back, not as the broker returned it.
    for _ in 0..3 {
        within("a job", started.recv()).await.expect("a job");
    }
    let jobs = supervisor.pool(&PoolName::from("test")).expect("it").jobs;
    assert_eq!((jobs.lost, jobs.requeued, jobs.retried), (0, 2, 0));
    let _ = supervisor.stop_now().await;
    to(&mut broker, |broker| broker.set_consumer_timeout(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_held_while_the_broker_blocks_publishers_and_then_sent_before_the_ack() {
    let mut broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    let queue = declare(&driver, "asked").await;
    let (say, mut started) = mpsc::unbounded_channel();
    let leave = Arc::new(Semaphore::new(0));
    let handler = {
        let leave = leave.clone();
        move |job: Job| {
            say.send(()).ok();
            let leave = leave.clone();
            async move {
                leave.acquire().await?.forget();
                Ok(Outcome::reply(job.body().clone()))
            }
        }
    };
    let supervisor = Supervisor::builder()
        .broker(broker.url())
        .pool(
            Pool::new("test")
                .queue(queue.as_str())
                .policy(Policy::fixed(1))
                .poll_interval(Duration::from_millis(100))
                .handler(handler),
        )
        .start()
        .await
        .expect("a supervisor");
    let direct = || ShortString::from("amq.rabbitmq.reply-to");
    let caller = Connection::connect(&broker.url(), ConnectionProperties::default())
        .await
        .expect("a connection");
    let channel = caller.create_channel().await.expect("a channel");
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let mut answers = channel
        .basic_consume(direct(), "".into(), options, FieldTable::default())
        .await
        .expect("a consumer");
    channel
        .basic_publish(
            "".into(),
            queue.as_str().into(),
            BasicPublishOptions::default(),
            b"question",
            BasicProperties::default().with_reply_to(direct()),
        )
        .await
        .expect("a publish");
    within("a job", started.recv()).await.expect("a job");

    to(&mut broker, |broker| broker.set_alarm(true));
    leave.add_permits(1);
    until(&supervisor, "blocked", |pool| {
        pool.state == PoolState::Blocked && pool.jobs.done == 0
    })
    .await;
    to(&mut broker, |broker| broker.set_alarm(false));
    let answer = within("an answer", answers.next()).await;
    assert_eq!(
        answer.expect("a consumer").expect("an answer").data,
        b"question"
    );
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    supervisor
        .drain(Duration::from_secs(10))
        .await
        .expect("drained");
}
