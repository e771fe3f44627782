//! Channels that the consumers of a quorum queue share.

use std::{sync::Arc, task::Poll, time::Duration};

use tidegate::{
    adapters::amqp::AmqpDriver,
    decide::QueueName,
    queue::{ConsumeRequest, HeaderValue, QueueDriver, QueueErrorKind, QueueKind, QueueSpec},
};
use tokio::{task::JoinSet, time::Instant};

use super::{connect, consume, delivery, is_lost_by, publish, to, until_connected, within};
use crate::support::broker::{PrivateBroker, faulty_broker};

async fn quorum(driver: &AmqpDriver, name: &str) -> QueueName {
    let spec = QueueSpec::new(QueueName::from(name), QueueKind::Quorum);
    within("a declare", driver.declare(&spec))
        .await
        .expect("a declare");
    spec.name
}

/// Channels with a consumer, and the consumers on each.
fn loads(broker: &mut PrivateBroker) -> Vec<usize> {
    let listed = broker.ctl(&["list_channels", "consumer_count"]);
    let counts = listed.lines().filter_map(|line| line.trim().parse().ok());
    let mut loads: Vec<usize> = counts.filter(|count| *count > 0).collect();
    loads.sort_unstable();
    loads
}

async fn until_loads(broker: &mut PrivateBroker, wanted: &[usize]) {
    let begun = Instant::now();
    loop {
        let seen = to(broker, loads);
        if seen == wanted {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_workers_of_a_quorum_queue_share_a_channel_and_the_last_closes_it() {
    let mut broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    let queue = quorum(&driver, "shared").await;
    let mut opening = JoinSet::new();
    for _ in 0..250 {
        let (driver, queue) = (driver.clone(), queue.clone());
        opening.spawn(async move { consume(&driver, &queue).await.expect("a consumer") });
    }
    let mut consumers = opening.join_all().await;
    until_loads(&mut broker, &[50, 100, 100]).await;

    // Each of them works.
    for _ in 0..consumers.len() {
        publish(&driver, &queue, "a").await.expect("a publish");
    }
    for consumer in &mut consumers {
        delivery(consumer).await.ack().await.expect("an ack");
    }
    // Who comes takes the place of who went.
    for consumer in consumers.split_off(200) {
        consumer.close().await;
    }
    for _ in 0..50 {
        consumers.push(consume(&driver, &queue).await.expect("a consumer"));
    }
    let seen = to(&mut broker, loads);
    assert!(seen.len() <= 3, "{seen:?}");
    drop(consumers);
    until_loads(&mut broker, &[]).await;
    let channels = to(&mut broker, |broker| broker.ctl(&["list_channels", "name"]));
    // Those of the probe and of the publishes stay.
    assert!(!channels.contains("consume"), "{channels}");
    driver.delete(&queue).await.expect("a delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_opening_leaves_no_consumer_behind() {
    let mut broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    let queue = quorum(&driver, "given up together").await;
    publish(&driver, &queue, "held").await.expect("a publish");
    let mut other = consume(&driver, &queue).await.expect("a consumer");
    let held = delivery(&mut other).await;
    for message in 0..5 {
        let body = format!("m{message}");
        publish(&driver, &queue, &body).await.expect("a publish");
    }
    for polls in 1..40 {
        let mut open = Box::pin(driver.consume(ConsumeRequest {
            queue: queue.clone(),
            prefetch: 1 + polls % 3,
            tag: "the same".to_owned(),
        }));
        let mut left = polls;
        within(
            "an end",
            std::future::poll_fn(|cx| {
                left -= 1;
                match open.as_mut().poll(cx) {
                    Poll::Pending if left > 0 => Poll::Pending,
                    _ => Poll::Ready(()),
                }
            }),
        )
        .await;
    }
    until_loads(&mut broker, &[1]).await;
    held.ack().await.expect("the channel is there still");
    // Everything that they were sent is back.
    for _ in 0..5 {
        delivery(&mut other).await.ack().await.expect("an ack");
    }
    drop(other);
    until_loads(&mut broker, &[]).await;
    driver.delete(&queue).await.expect("a delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_the_broker_closes_is_lost_to_all_its_workers_and_counts_once() {
    let mut broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    let queue = quorum(&driver, "slow together").await;
    to(&mut broker, |broker| {
        broker.set_consumer_timeout(Some(Duration::from_secs(1)))
    });
    let mut consumers = Vec::new();
    for _ in 0..3 {
        consumers.push(consume(&driver, &queue).await.expect("a consumer"));
    }
    // Two are busy, and one is not.
    for body in ["a", "b"] {
        publish(&driver, &queue, body).await.expect("a publish");
    }
    let mut held = Vec::new();
    for consumer in &mut consumers {
        // Those that were handed something are given it, and then the loss.
        let lost = async {
            loop {
                match super::next(consumer).await {
                    Some(Ok(delivery)) => held.push(delivery),
                    Some(Err(error)) => break error.kind,
                    None => panic!("no loss"),
                }
            }
        };
        assert_eq!(within("the loss", lost).await, QueueErrorKind::HeldTooLong);
        assert!(super::next(consumer).await.is_none());
    }
    to(&mut broker, |broker| broker.set_consumer_timeout(None));
    until_connected(&driver).await;
    let mut after = [
        consume(&driver, &queue).await.expect("a consumer"),
        consume(&driver, &queue).await.expect("a consumer"),
    ];
    for consumer in &mut after {
        let again = delivery(consumer).await;
        let count = again.message().headers.get("x-delivery-count");
        assert_eq!(count, Some(&HeaderValue::I64(1)));
        again.ack().await.expect("an ack");
    }
    driver.delete(&queue).await.expect("a delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_told_to_each_worker_once() {
    let mut broker = faulty_broker().await;
    let driver: Arc<AmqpDriver> = connect(&broker.url()).await;
    let queue = quorum(&driver, "lost together").await;
    let mut consumers = Vec::new();
    for _ in 0..3 {
        consumers.push(consume(&driver, &queue).await.expect("a consumer"));
    }
    publish(&driver, &queue, "a").await.expect("a publish");
    to(&mut broker, |broker| {
        broker.ctl(&["close_all_connections", "the test"])
    });
    let mut held = 0;
    for consumer in &mut consumers {
        // One was handed the message, perhaps.
        match super::next(consumer).await {
            Some(Ok(delivery)) => {
                held += 1;
                drop(delivery);
                is_lost_by(consumer, QueueErrorKind::Disconnected).await;
            }
            Some(Err(error)) => {
                assert_eq!(error.kind, QueueErrorKind::Disconnected);
                assert!(super::next(consumer).await.is_none());
            }
            None => panic!("no loss"),
        }
    }
    assert!(held <= 1, "{held}");
    until_connected(&driver).await;
    let mut after = consume(&driver, &queue).await.expect("a consumer");
    delivery(&mut after).await.ack().await.expect("an ack");
    driver.delete(&queue).await.expect("a delete");
}
