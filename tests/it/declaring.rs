//! Pools that declare their queues on a real broker, compared with a plain client.

use lapin::{
    Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicPublishOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};

use crate::support::{
    broker::{TestQueue, broker_url, unique_queue},
    daemon::{Daemon, Signal},
};

async fn channel() -> (Connection, Channel) {
    let connection = Connection::connect(&broker_url(), ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// Declares like a publisher. Gets error 406 if the queue has other arguments.
async fn declare(channel: &Channel, queue: &TestQueue, arguments: &[(&str, AMQPValue)]) {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let name = queue.name().as_str().into();
    let declared = channel.queue_declare(name, options, table).await;
    declared.unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
}

async fn publish(channel: &Channel, exchange: &str, key: &str) {
    let options = BasicPublishOptions::default();
    let properties = lapin::BasicProperties::default();
    let publish = channel.basic_publish(exchange.into(), key.into(), options, b"a job", properties);
    publish.await.unwrap().await.unwrap();
}

fn pool(queue: &TestQueue, keys: &str) -> String {
    format!(
        "[pools.p]\nqueue = \"{}\"\n{keys}\n[pools.p.runner]\ncommand = [\"true\"]\n",
        queue.name()
    )
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_may_declare_the_queue_of_a_pool_too() {
    let (_connection, channel) = channel().await;
    for kind in ["classic", "quorum"] {
        let queue = unique_queue("declared");
        let daemon = Daemon::start(&broker_url(), &pool(&queue, &format!("declare = {kind:?}")));
        daemon.wait_for_pool("p", |pool| pool["state"] == "idle");
        declare(&channel, &queue, &[("x-queue-type", text(kind))]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_has_the_arguments_and_bindings_that_its_pool_gives_it() {
    let (_connection, channel) = channel().await;
    let queue = unique_queue("bound");
    let exchange = format!("{}.exchange", queue.name());
    let options = ExchangeDeclareOptions::default();
    channel
        .exchange_declare(
            exchange.as_str().into(),
            ExchangeKind::Topic,
            options,
            FieldTable::default(),
        )
        .await
        .unwrap();
    let keys = format!(
        "declare = \"classic\"\narguments = {{ x-max-priority = 7 }}\n\
         bindings = [{{ exchange = \"{exchange}\", routing_key = \"new.*\" }}]"
    );
    let daemon = Daemon::start(&broker_url(), &pool(&queue, &keys));
    daemon.wait_for_pool("p", |pool| pool["state"] == "idle");
    publish(&channel, &exchange, "new.order").await;
    daemon.wait_for_pool("p", |pool| pool["jobs"]["done"] == 1);
    let arguments = [
        ("x-queue-type", text("classic")),
        ("x-max-priority", AMQPValue::LongInt(7)),
    ];
    declare(&channel, &queue, &arguments).await;

    // Another binding, to an exchange that does not exist. The pool reports it and keeps working.
    let elsewhere = keys.replace(&exchange, "tidegate-test-nowhere");
    daemon.configure(&broker_url(), "", &pool(&queue, &elsewhere));
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_pool("p", |pool| {
        let cause = pool["cause"].as_str();
        cause.is_some_and(|cause| cause.contains("tidegate-test-nowhere"))
    });
    publish(&channel, &exchange, "new.order").await;
    daemon.wait_for_pool("p", |pool| pool["jobs"]["done"] == 2);
    let options = ExchangeDeleteOptions::default();
    channel
        .exchange_delete(exchange.as_str().into(), options)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_another_type_is_used_and_reported_everywhere() {
    let (_connection, channel) = channel().await;
    let queue = unique_queue("other-kind");
    declare(&channel, &queue, &[("x-queue-type", text("classic"))]).await;
    publish(&channel, "", queue.name().as_str()).await;
    let daemon = Daemon::start(&broker_url(), &pool(&queue, "declare = \"quorum\""));
    let told = daemon.wait_for_pool("p", |pool| {
        let cause = pool["cause"].as_str().unwrap_or_default();
        pool["jobs"]["done"] == 1 && cause.contains("inequivalent arg 'x-queue-type'")
    });
    let cause = told["cause"].as_str().unwrap();
    assert!(cause.contains("declare the queue"), "{cause}");
    assert_eq!(cause.matches("inequivalent arg").count(), 1, "{cause}");
    let line = daemon.heard("a log line", |line| {
        line["level"] == "ERROR" && line["queue"] == queue.name().as_str()
    });
    assert_eq!(line["pool"], "p");
    let (code, out, err) = daemon.run(&["check", "--broker"]);
    assert_eq!(code, Some(78), "{out}{err}");
    assert!(
        out.contains("exists with other arguments than the pool declares"),
        "{out}"
    );
}
