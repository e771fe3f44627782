//! Declaring: the broker's answers, and the effect on other clients.

use tidegate::{
    decide::QueueName,
    queue::{Connectivity, QueueDriver, QueueErrorKind, QueueKind, QueueSpec},
};

use super::{connect, consume, declare, publish, to};
use crate::support::broker::{TestQueue, broker_url, faulty_broker, unique_queue};

fn spec(name: &QueueName) -> QueueSpec {
    QueueSpec::new(name.clone(), QueueKind::Classic)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_limit_of_a_virtual_host_is_named_in_the_error() {
    let mut broker = faulty_broker().await;
    to(&mut broker, |broker| {
        broker.ctl(&["add_vhost", "small"]);
        broker.ctl(&["set_permissions", "-p", "small", "guest", ".*", ".*", ".*"]);
        broker.ctl(&["set_vhost_limits", "-p", "small", r#"{"max-queues": 1}"#]);
    });
    let driver = connect(&broker.url().replace("%2f", "small")).await;
    let there = declare(&driver, "first").await;
    let error = driver.declare(&spec(&QueueName::from("second"))).await;
    let error = error.expect_err("the limit is reached");
    assert_eq!(error.kind, QueueErrorKind::LimitReached, "{error:?}");
    // Declaring an existing queue is allowed nevertheless.
    let newcomer = connect(&broker.url().replace("%2f", "small")).await;
    newcomer.declare(&spec(&there)).await.expect("it is there");
    to(&mut broker, |broker| broker.ctl(&["delete_vhost", "small"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_permission_to_declare_uses_a_queue_as_it_is() {
    let mut broker = faulty_broker().await;
    to(&mut broker, |broker| {
        broker.ctl(&["add_user", "reader", "secret"]);
        broker.ctl(&["set_permissions", "reader", "^$", ".*", ".*"]);
    });
    let owner = connect(&broker.url()).await;
    let theirs = declare(&owner, "operators").await;
    let driver = connect(&broker.url().replace("guest:guest", "reader:secret")).await;
    driver.declare(&spec(&theirs)).await.expect("it is there");
    publish(&driver, &theirs, "a").await.expect("a publish");
    let error = driver.declare(&spec(&QueueName::from("missing"))).await;
    let error = error.expect_err("it is not there");
    assert_eq!(error.kind, QueueErrorKind::AccessRefused, "{error:?}");
    to(&mut broker, |broker| broker.ctl(&["delete_user", "reader"]));
}

#[tokio::test]
async fn a_queue_is_declared_again_after_a_publish_to_it_was_returned() {
    let queue = unique_queue("again");
    let driver = connect(&broker_url()).await;
    let name = queue.name();
    driver.declare(&spec(&name)).await.expect("a declare");
    let newcomer = connect(&broker_url()).await;
    newcomer.delete(&name).await.expect("a delete");
    let error = publish(&driver, &name, "a").await.expect_err("it is gone");
    assert_eq!(error.kind, QueueErrorKind::Unroutable);
    driver.declare(&spec(&name)).await.expect("a declare");
    publish(&driver, &name, "a").await.expect("a publish");
}

/// RabbitMQ 4.0 fails when it shortens an error text with characters beyond ASCII, and closes the connection.
#[tokio::test]
async fn a_name_that_breaks_the_broker_closes_no_connection() {
    let driver = connect(&broker_url()).await;
    let short = TestQueue::at(&broker_url(), "plain");
    let short = declare(&driver, short.name().as_str()).await;
    let mut consumer = consume(&driver, &short).await.expect("a consumer");
    for bytes in [64, 150, 218, 220, 231, 254] {
        let name = QueueName::from(format!(
            "{:08x}{}",
            rand::random::<u32>(),
            "é".repeat((bytes - 8) / 2)
        ));
        let error = driver.probe(&name).await.expect_err("it is missing");
        assert_eq!(error.kind, QueueErrorKind::NotFound, "{bytes} bytes");
        driver.declare(&spec(&name)).await.expect("a declare");
        let other = QueueSpec {
            kind: QueueKind::Quorum,
            ..spec(&name)
        };
        let newcomer = connect(&broker_url()).await;
        let error = newcomer.declare(&other).await;
        let error = error.expect_err("it exists with other arguments");
        assert!(
            matches!(
                error.kind,
                QueueErrorKind::Mismatch | QueueErrorKind::BrokerFailed
            ),
            "{error:?}"
        );
        for driver in [&driver, &newcomer] {
            assert_eq!(*driver.connectivity().borrow(), Connectivity::Connected);
            assert_eq!(driver.probe(&name).await.expect("a probe").ready, 0);
            driver.probe(&short).await.expect("a probe");
        }
        driver.delete(&name).await.expect("a delete");
    }
    publish(&driver, &short, "a").await.expect("a publish");
    let delivery = super::delivery(&mut consumer).await;
    delivery.ack().await.expect("an ack");
}
