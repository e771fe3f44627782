//! A queue for one test at the broker of `AMQP_URL`, used through a plain client like a user's program.

use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    message::Delivery,
    options::{
        BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
        ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::{runtime::Runtime, time::timeout};

use super::{
    broker::broker_url,
    daemon::{DEADLINE, poll},
};

/// A durable queue with a unique name. On drop it is deleted, with the queues that a pool makes for it.
pub(crate) struct Queue {
    runtime: Runtime,
    channel: Channel,
    connection: Connection,
    name: String,
}

impl Queue {
    pub(crate) fn new() -> Self {
        let queue = Self::undeclared();
        queue.declare();
        queue
    }

    /// The name only: nothing is declared.
    pub(crate) fn undeclared() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (connection, channel) = runtime.block_on(async {
            let properties = ConnectionProperties::default();
            let connection = Connection::connect(&broker_url(), properties)
                .await
                .unwrap();
            let channel = connection.create_channel().await.unwrap();
            let confirm = ConfirmSelectOptions::default();
            channel.confirm_select(confirm).await.unwrap();
            (connection, channel)
        });
        Self {
            runtime,
            channel,
            connection,
            name: format!("tidegate-test-{:016x}", rand::random::<u64>()),
        }
    }

    pub(crate) fn declare(&self) {
        self.declare_beside("");
    }

    /// Declares a quorum queue that dead-letters a message after `limit` returns. Its dead letters go to the queue named
    /// this plus `.given-up`.
    pub(crate) fn declare_with_delivery_limit(&self, limit: u32) {
        self.declare_beside(".given-up");
        let target = format!("{}.given-up", self.name);
        let mut arguments = FieldTable::default();
        for (name, value) in [
            ("x-queue-type", "quorum"),
            ("x-dead-letter-exchange", ""),
            ("x-dead-letter-routing-key", target.as_str()),
        ] {
            arguments.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongUInt(limit));
        self.declare_with("", arguments);
    }

    /// Declares a quorum queue with a delivery limit and no dead-letter exchange. Its name is this one plus `suffix`.
    pub(crate) fn declare_limited(&self, suffix: &str, limit: u32) {
        let mut arguments = FieldTable::default();
        let kind = AMQPValue::LongString("quorum".into());
        arguments.insert("x-queue-type".into(), kind);
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongUInt(limit));
        self.declare_with(suffix, arguments);
    }

    /// Declares a classic queue that refuses messages beyond this number.
    pub(crate) fn declare_bounded(&self, messages: i32) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(messages));
        let overflow = AMQPValue::LongString("reject-publish".into());
        arguments.insert("x-overflow".into(), overflow);
        self.declare_with("", arguments);
    }

    /// Declares a durable classic queue. Its name is this one plus `suffix`.
    pub(crate) fn declare_beside(&self, suffix: &str) {
        self.declare_with(suffix, FieldTable::default());
    }

    fn declare_with(&self, suffix: &str, arguments: FieldTable) {
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let name = format!("{}{suffix}", self.name);
        let declare = self
            .channel
            .queue_declare(name.as_str().into(), options, arguments);
        self.runtime.block_on(declare).unwrap();
    }

    /// Messages ready in the queue named this plus `suffix`. It must exist.
    pub(crate) fn ready(&self, suffix: &str) -> u32 {
        let name = format!("{}{suffix}", self.name);
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let look = self
            .channel
            .queue_declare(name.as_str().into(), options, FieldTable::default());
        self.runtime.block_on(look).unwrap().message_count()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn publish(&self, body: &str) {
        self.publish_with(body, BasicProperties::default());
    }

    /// Publishes a message that says when it was published, in milliseconds since 1970.
    pub(crate) fn publish_at(&self, body: &str, ms: i64) {
        let mut headers = FieldTable::default();
        headers.insert("timestamp_in_ms".into(), AMQPValue::LongLongInt(ms));
        self.publish_with(body, BasicProperties::default().with_headers(headers));
    }

    /// Publishes a request for a reply to another queue. Does not wait for the reply.
    pub(crate) fn ask_to(&self, reply_to: &str, body: &str) {
        self.publish_with(
            body,
            BasicProperties::default().with_reply_to(reply_to.into()),
        );
    }

    fn publish_with(&self, body: &str, properties: BasicProperties) {
        self.publish_to("", body, properties);
    }

    /// Publishes to the queue named this plus `suffix`.
    pub(crate) fn publish_to(&self, suffix: &str, body: &str, properties: BasicProperties) {
        let name = format!("{}{suffix}", self.name);
        let publish = async {
            let properties = properties.with_message_id(body.into());
            let options = BasicPublishOptions::default();
            let routing_key = name.as_str().into();
            let confirm = self
                .channel
                .basic_publish("".into(), routing_key, options, body.as_bytes(), properties)
                .await
                .unwrap();
            confirm.await.unwrap();
        };
        self.runtime.block_on(publish);
    }

    /// Publishes a request with direct reply-to, and waits for the reply.
    pub(crate) fn ask(&self, body: &str) -> Delivery {
        const DIRECT: &str = "amq.rabbitmq.reply-to";
        let ask = async {
            let options = BasicConsumeOptions {
                no_ack: true,
                ..BasicConsumeOptions::default()
            };
            // The broker identifies the caller by its channel, and allows one reply consumer per channel.
            let channel = self.connection.create_channel().await.unwrap();
            let consume =
                channel.basic_consume(DIRECT.into(), "".into(), options, FieldTable::default());
            let mut answers = consume.await.unwrap();
            let properties = BasicProperties::default()
                .with_reply_to(DIRECT.into())
                .with_correlation_id(body.into());
            let options = BasicPublishOptions::default();
            channel
                .basic_publish(
                    "".into(),
                    self.name.as_str().into(),
                    options,
                    body.as_bytes(),
                    properties,
                )
                .await
                .unwrap();
            let answer = timeout(DEADLINE, answers.next()).await;
            answer.expect("an answer comes").unwrap().unwrap()
        };
        self.runtime.block_on(ask)
    }

    /// Whether the broker has a queue of this name.
    pub(crate) fn exists(name: &str) -> bool {
        let probe = Self::undeclared();
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let declare = probe
            .channel
            .queue_declare(name.into(), options, FieldTable::default());
        probe.runtime.block_on(declare).is_ok()
    }

    /// Takes a message from the queue; `None` if none arrives.
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        self.take_from("").map(|message| message.data)
    }

    /// Takes a message with all its properties from the queue named this plus `suffix`.
    pub(crate) fn take_from(&self, suffix: &str) -> Option<Delivery> {
        let name = format!("{}{suffix}", self.name);
        let options = BasicGetOptions { no_ack: true };
        poll(|| {
            let get = self.channel.basic_get(name.as_str().into(), options);
            let message = self.runtime.block_on(get).unwrap();
            message.map(|message| message.delivery)
        })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let delete = async {
            let exchange = format!("{}.share", self.name);
            let options = ExchangeDeleteOptions::default();
            let _ = self
                .channel
                .exchange_delete(exchange.as_str().into(), options)
                .await;
            for suffix in ["", ".dead", ".retry.200", ".retry.1000"] {
                let name = format!("{}{suffix}", self.name);
                let options = QueueDeleteOptions::default();
                let _ = self
                    .channel
                    .queue_delete(name.as_str().into(), options)
                    .await;
            }
        };
        self.runtime.block_on(delete);
    }
}
