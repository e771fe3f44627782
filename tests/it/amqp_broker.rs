//! The AMQP adapter with a broker that fails, refuses, blocks and comes back.
//!
//! These tests stop and kill a private node, one at a time.

mod copies;
mod declares;
mod faults;
mod joint;
mod limits;
mod pool;
mod refusals;
mod tls;

use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tidegate::{
    adapters::amqp::AmqpDriver,
    config::BrokerSettings,
    decide::QueueName,
    queue::{
        Connectivity, ConsumeRequest, Consumer, Delivery, Outgoing, QueueDriver, QueueError,
        QueueErrorKind, QueueKind, QueueSpec,
    },
};
use tokio::{task, time::timeout};

use crate::support::broker::{PrivateBroker, settings};

/// Longest wait of a test. A killed broker needs about ten seconds to be back.
const TIMEOUT: Duration = Duration::from_secs(90);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = timeout(TIMEOUT, future).await;
    outcome.unwrap_or_else(|_| panic!("{what} did not come about"))
}

/// A connected driver.
async fn connect(url: &str) -> Arc<AmqpDriver> {
    let driver = lazily(&settings(url));
    driver.until_connected(TIMEOUT).await.expect("a broker");
    driver
}

fn lazily(settings: &BrokerSettings) -> Arc<AmqpDriver> {
    AmqpDriver::connect_lazily(settings).expect("a good url")
}

/// Waits until the driver sees the broker in this state.
async fn until(driver: &AmqpDriver, wanted: impl FnMut(&Connectivity) -> bool) -> Connectivity {
    let mut connectivity = driver.connectivity();
    let seen = within("the connectivity", connectivity.wait_for(wanted)).await;
    seen.expect("the driver is there").clone()
}

/// Waits until the driver is disconnected, and returns the cause.
async fn until_disconnected(driver: &AmqpDriver) -> String {
    match until(driver, |seen| {
        matches!(seen, Connectivity::Disconnected { .. })
    })
    .await
    {
        Connectivity::Disconnected { error } => error,
        seen => panic!("{seen:?}"),
    }
}

async fn until_connected(driver: &AmqpDriver) {
    until(driver, |seen| *seen == Connectivity::Connected).await;
}

/// A queue that is deleted with its node's folder.
async fn declare(driver: &AmqpDriver, name: &str) -> QueueName {
    let spec = QueueSpec::new(QueueName::from(name), QueueKind::Classic);
    within("a declare", driver.declare(&spec))
        .await
        .expect("a declare");
    spec.name
}

async fn publish(driver: &AmqpDriver, queue: &QueueName, body: &str) -> Result<(), QueueError> {
    within("a publish", driver.publish(outgoing(queue, body))).await
}

fn outgoing(queue: &QueueName, body: &str) -> Outgoing {
    let mut message = Outgoing {
        routing_key: queue.as_str().to_owned(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        ..Outgoing::default()
    };
    message.properties.delivery_mode = Some(2);
    message
}

async fn consume(driver: &AmqpDriver, queue: &QueueName) -> Result<Box<dyn Consumer>, QueueError> {
    let request = ConsumeRequest {
        queue: queue.clone(),
        prefetch: 1,
        tag: format!("test-{:08x}", rand::random::<u32>()),
    };
    within("a consumer", driver.consume(request)).await
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Option<Result<Delivery, QueueError>> {
    within("a delivery", poll_fn(|cx| consumer.poll_next(cx))).await
}

async fn delivery(consumer: &mut Box<dyn Consumer>) -> Delivery {
    match next(consumer).await {
        Some(Ok(delivery)) => delivery,
        other => panic!("not a delivery: {other:?}"),
    }
}

/// The consumer ends because its connection is lost: one error, then the end of the stream.
async fn is_lost(consumer: &mut Box<dyn Consumer>) {
    is_lost_by(consumer, QueueErrorKind::Disconnected).await;
}

async fn is_lost_by(consumer: &mut Box<dyn Consumer>, kind: QueueErrorKind) {
    match next(consumer).await {
        Some(Err(error)) => assert_eq!(error.kind, kind),
        other => panic!("not a loss: {other:?}"),
    }
    assert!(next(consumer).await.is_none());
}

/// Every operation on a lost connection fails, and none waits until it is connected again.
async fn everything_fails_at_once(driver: &AmqpDriver, queue: &QueueName) {
    let since = Instant::now();
    let errors = [
        driver.probe(queue).await.err(),
        publish(driver, queue, "lost").await.err(),
        consume(driver, queue).await.err(),
        driver.delete(queue).await.err(),
    ];
    assert!(
        since.elapsed() < Duration::from_secs(1),
        "{:?}",
        since.elapsed()
    );
    for error in errors {
        assert_eq!(
            error.expect("no connection").kind,
            QueueErrorKind::Disconnected
        );
    }
}

/// Runs blocking work, such as every change of a node, beside the driver's own tasks.
fn to<T>(broker: &mut PrivateBroker, act: impl FnOnce(&mut PrivateBroker) -> T) -> T {
    task::block_in_place(|| act(broker))
}
