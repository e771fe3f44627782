//! A broker that refuses: passwords, virtual hosts, permissions, messages.

use std::time::Duration;

use lapin::{
    Connection, ConnectionProperties,
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use tidegate::{
    decide::QueueName,
    queue::{Connectivity, NoRoute, QueueDriver, QueueErrorKind, QueueKind, QueueSpec},
};

use super::{
    connect, consume, declare, lazily, outgoing, publish, to, until_connected, until_disconnected,
};
use crate::support::broker::{PrivateBroker, broker_url, faulty_broker, settings, unique_queue};

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_password_is_reported_and_tried_again() {
    let mut broker = faulty_broker().await;
    let url = broker.url().replace("guest:guest", "newcomer:hunter2");
    let driver = lazily(&settings(&url));
    let why = until_disconnected(&driver).await;
    assert!(why.contains("ACCESS_REFUSED"), "{why}");
    let error = driver
        .until_connected(Duration::ZERO)
        .await
        .expect_err("it is refused");
    let queue = QueueName::from("any");
    let shown = format!(
        "{why} {error:?} {driver:?} {:?}",
        driver.probe(&queue).await
    );
    assert!(!shown.contains("hunter2"), "{shown}");

    to(&mut broker, |broker| {
        broker.ctl(&["add_user", "newcomer", "hunter2"]);
        broker.ctl(&["set_permissions", "newcomer", ".*", ".*", ".*"]);
    });
    until_connected(&driver).await;
    to(&mut broker, |broker| {
        broker.ctl(&["delete_user", "newcomer"])
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_virtual_host_is_named_in_the_error() {
    let broker = faulty_broker().await;
    let driver = lazily(&settings(&broker.url().replace("%2f", "nowhere")));
    let why = until_disconnected(&driver).await;
    assert!(why.contains("nowhere"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_is_not_a_missing_queue_and_not_a_lost_connection() {
    let mut broker = faulty_broker().await;
    to(&mut broker, |broker| {
        broker.ctl(&["add_user", "limited", "secret"]);
        broker.ctl(&["set_permissions", "limited", "^mine", "^mine", "^mine"]);
    });
    let owner = connect(&broker.url()).await;
    let theirs = declare(&owner, "theirs").await;
    let driver = connect(&broker.url().replace("guest:guest", "limited:secret")).await;
    let spec = QueueSpec::new(QueueName::from("others"), QueueKind::Classic);
    let errors = [
        driver.declare(&spec).await.err(),
        consume(&driver, &theirs).await.err(),
        driver.delete(&theirs).await.err(),
        // Publishing to the default exchange needs a permission of its own.
        publish(&driver, &theirs, "a").await.err(),
    ];
    for error in errors {
        let error = error.expect("no permission");
        assert_eq!(error.kind, QueueErrorKind::AccessRefused, "{error:?}");
        assert!(!error.is_transient());
    }
    declare(&driver, "mine").await;
    to(&mut broker, |broker| {
        broker.ctl(&["delete_user", "limited"])
    });
}

#[tokio::test]
async fn an_exclusive_queue_of_another_connection_is_a_conflict() {
    let queue = unique_queue("exclusive");
    let holder = Connection::connect(&broker_url(), ConnectionProperties::default())
        .await
        .expect("a connection");
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let channel = holder.create_channel().await.expect("a channel");
    let name = queue.name();
    channel
        .queue_declare(name.as_str().into(), options, FieldTable::default())
        .await
        .expect("a queue");
    let driver = connect(&broker_url()).await;
    let errors = [
        driver.probe(&name).await.err(),
        consume(&driver, &name).await.err(),
    ];
    for error in errors {
        assert_eq!(error.expect("it is held").kind, QueueErrorKind::Conflict);
    }
    holder.close(200, "OK".into()).await.expect("a close");
}

#[tokio::test]
async fn a_foreign_user_id_is_a_conflict_and_costs_only_its_channel() {
    let queue = unique_queue("user-id");
    let driver = connect(&broker_url()).await;
    let name = declare(&driver, queue.name().as_str()).await;
    let mut message = outgoing(&name, "a");
    message.properties.user_id = Some("someone else".to_owned());
    let error = driver.publish(message).await.expect_err("a foreign user");
    assert_eq!(error.kind, QueueErrorKind::Conflict);
    publish(&driver, &name, "b").await.expect("a publish");
}

#[tokio::test]
async fn a_publish_to_a_full_queue_is_refused() {
    let queue = unique_queue("full");
    let name = queue.name();
    let driver = connect(&broker_url()).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments.insert(
        "x-overflow".into(),
        AMQPValue::LongString("reject-publish".into()),
    );
    let operator = Connection::connect(&broker_url(), ConnectionProperties::default())
        .await
        .expect("a connection");
    let channel = operator.create_channel().await.expect("a channel");
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(name.as_str().into(), options, arguments)
        .await
        .expect("a queue");
    publish(&driver, &name, "a").await.expect("a publish");
    let error = publish(&driver, &name, "b").await.expect_err("it is full");
    assert_eq!(error.kind, QueueErrorKind::Refused);
    assert!(error.is_transient());
    assert_eq!(driver.probe(&name).await.expect("a probe").ready, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_beyond_the_brokers_limit_is_refused_and_costs_only_its_channel() {
    let mut broker = faulty_broker().await;
    let limit = |broker: &mut PrivateBroker, bytes: u32| {
        // RabbitMQ 3 reads the first, RabbitMQ 4 the second.
        let set = format!(
            "application:set_env(rabbit, max_message_size, {bytes}), \
             persistent_term:put(max_message_size, {bytes})."
        );
        to(broker, |broker| broker.ctl(&["eval", &set]));
    };
    limit(&mut broker, 1000);
    let driver = connect(&broker.url()).await;
    let queue = declare(&driver, "small").await;
    let error = publish(&driver, &queue, &"x".repeat(1001)).await;
    let error = error.expect_err("it is too large");
    assert_eq!(error.kind, QueueErrorKind::TooLarge, "{error:?}");
    assert!(!error.is_transient());
    publish(&driver, &queue, "x").await.expect("a publish");
    assert_eq!(*driver.connectivity().borrow(), Connectivity::Connected);
    limit(&mut broker, 128 << 20);
}

/// RabbitMQ before 4.2 closes the connection of a client that publishes to an invalid direct reply-to address.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_the_broker_closes_the_connection_of_no_other_publish() {
    let broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    let queue = declare(&driver, "others").await;
    let droppable = |routing_key: &str| {
        let mut message = outgoing(&QueueName::from(routing_key), "a");
        message.no_route = NoRoute::Drop;
        message
    };
    for _ in 0..5 {
        let unreadable = "amq.rabbitmq.reply-to.!!!.???";
        if let Err(error) = driver.publish(droppable(unreadable)).await {
            assert_eq!(error.kind, QueueErrorKind::BrokerFailed, "{error:?}");
            assert!(error.is_transient());
        }
        publish(&driver, &queue, "b").await.expect("a publish");
        // The next reply does not wait for a backoff.
        let next = driver.publish(droppable(queue.as_str())).await;
        next.expect("a publish");
    }
    assert_eq!(*driver.connectivity().borrow(), Connectivity::Connected);
}
