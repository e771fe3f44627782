//! Replies, as a caller with a plain client gets them.

use futures_util::StreamExt as _;
use lapin::{
    Consumer,
    options::{BasicConsumeOptions, QueueDeclareOptions},
};
use tidegate::{
    Reply,
    adapters::amqp::AmqpDriver,
    decide::QueueName,
    queue::{Message, Outgoing, Properties, QueueDriver, QueueErrorKind},
    settle::{Copies, History},
};

use super::*;
use crate::support::broker::settings;

/// The `reply_to` of a client that wants its reply without a queue.
const DIRECT: &str = "amq.rabbitmq.reply-to";

/// Replies with its request; fails at "fail".
fn echo(job: &Job) -> Result<Outcome, BoxError> {
    match &job.body()[..] {
        b"fail" => Err("no".into()),
        _ => Ok(Outcome::Reply(
            Reply::new(job.body().clone()).content_type("text/plain"),
        )),
    }
}

fn allowing(pattern: &str) -> ReplySettings {
    ReplySettings {
        allow: vec![pattern.to_owned()],
        ..ReplySettings::default()
    }
}

fn asking(reply_to: &str, correlation_id: &str) -> BasicProperties {
    BasicProperties::default()
        .with_reply_to(reply_to.into())
        .with_correlation_id(correlation_id.into())
}

impl Rig {
    /// Waits for replies by direct reply-to, on the channel that sends the requests.
    async fn caller(&self, queue: &str) -> Consumer {
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        self.channel
            .basic_consume(queue.into(), "".into(), options, FieldTable::default())
            .await
            .unwrap()
    }
}

async fn answer(caller: &mut Consumer) -> lapin::message::Delivery {
    timeout(TIMEOUT, caller.next())
        .await
        .expect("an answer comes")
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn a_caller_by_direct_reply_to_is_answered() {
    let rig = Rig::new("direct", echo).await;
    let mut caller = rig.caller(DIRECT).await;
    rig.publish(asking(DIRECT, "c-\u{e9}"), b"\xff\0").await;
    let done = answer(&mut caller).await;
    assert_eq!(done.data, b"\xff\0");
    let properties = &done.properties;
    let correlation_id = properties.correlation_id().as_ref();
    assert_eq!(correlation_id.map(ShortString::as_str), Some("c-\u{e9}"));
    let content_type = properties.content_type().as_ref();
    assert_eq!(content_type.map(ShortString::as_str), Some("text/plain"));
    assert_eq!(*properties.reply_to(), None);
    assert_eq!(header(&done, "x-tidegate-outcome"), Some(long("done")));

    // The caller's address is kept through the retry queue.
    rig.publish(asking(DIRECT, "c-2"), b"fail").await;
    let failed = answer(&mut caller).await;
    assert_eq!(failed.data, b"");
    assert_eq!(header(&failed, "x-tidegate-outcome"), Some(long("failed")));
    assert_eq!(header(&failed, "x-tidegate-reason"), Some(long("attempts")));
    rig.until("dead", |pool| pool.jobs.dead == 1 && pool.jobs.done == 1)
        .await;
    rig.end(&[]).await;
}

#[tokio::test]
async fn a_caller_with_a_queue_of_its_own_is_answered_where_that_is_allowed() {
    let rig = Rig::answering("exclusive", allowing("amq.gen-*"), echo).await;
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let declare = rig
        .channel
        .queue_declare("".into(), options, FieldTable::default());
    let queue = declare.await.unwrap().name().as_str().to_owned();
    let mut caller = rig.caller(&queue).await;
    rig.publish(asking(&queue, "c-1"), b"question").await;
    assert_eq!(answer(&mut caller).await.data, b"question");

    let delete = QueueDeleteOptions::default();
    rig.channel
        .queue_delete(queue.as_str().into(), delete)
        .await
        .unwrap();
    rig.publish(asking(&queue, "c-2"), b"question").await;
    rig.publish(asking("elsewhere", "c-3"), b"question").await;
    rig.until("all done", |pool| {
        let replies = pool.replies;
        pool.jobs.done == 3 && (replies.done, replies.undeliverable, replies.refused) == (1, 1, 1)
    })
    .await;
    rig.end(&[]).await;
}

#[tokio::test]
async fn an_address_that_breaks_the_broker_delays_no_pool_and_no_other_caller() {
    let rig = Rig::new("forged", echo).await;
    let mut caller = rig.caller(DIRECT).await;
    // RabbitMQ before 4.2 closes the connection of a client that publishes to such an address. It does the same if a
    // message from another cluster has its caller's address.
    rig.publish(asking("amq.rabbitmq.reply-to.!!!.???", "c-1"), b"question")
        .await;
    rig.until("done", |pool| pool.jobs.done == 1).await;
    rig.publish(asking(DIRECT, "c-2"), b"question").await;
    assert_eq!(answer(&mut caller).await.data, b"question");
    rig.until("done", |pool| pool.jobs.done == 2).await;
    // Newer versions drop the message.
    rig.until("counted", |pool| {
        let replies = pool.replies;
        replies.done + replies.undeliverable == 2 && pool.jobs.lost == 0
    })
    .await;
    rig.end(&[]).await;
}

#[tokio::test]
async fn the_placeholder_for_direct_reply_to_does_not_make_a_copy_refused() {
    let url = broker_url();
    let driver = AmqpDriver::connect_lazily(&settings(&url)).unwrap();
    driver.until_connected(TIMEOUT).await.unwrap();
    let rig = Rig::new("fast", echo).await;
    let queue = format!("{}-copies", rig.queue);
    let options = QueueDeclareOptions::default();
    rig.channel
        .queue_declare(queue.as_str().into(), options, FieldTable::default())
        .await
        .unwrap();
    let properties = Properties {
        reply_to: Some(DIRECT.to_owned()),
        ..Properties::default()
    };
    let unchanged = Outgoing {
        routing_key: queue.clone(),
        properties: properties.clone(),
        ..Outgoing::default()
    };
    let refused = driver.publish(unchanged).await.unwrap_err();
    assert_eq!(refused.kind, QueueErrorKind::Conflict);

    let message = Message {
        properties,
        ..Message::default()
    };
    let copies = Copies {
        pool: PoolName::from("test"),
        queue: QueueName::from(queue.as_str()),
        host: "host".to_owned(),
        job: None,
        header_limit: driver.header_limit(),
    };
    let copy = copies.give_back(&message, History::default());
    driver.publish(copy).await.unwrap();
    let copy = rig.get(&queue).await;
    assert_eq!(*copy.properties.reply_to(), None);
    let original = header(&copy, "x-tidegate-original-reply-to");
    assert_eq!(original, Some(long(DIRECT)));
    rig.end(&[&queue]).await;
}
