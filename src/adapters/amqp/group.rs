//! Groups of daemons: a durable fanout exchange for each queue, and one queue of its own for each member.
//!
//! A member's queue is named by the server, exclusive to the member's connection and deleted with it. Its messages
//! expire, and their number is limited, so a member that does not read costs the broker nothing. The connection serves
//! nothing else, because the broker blocks a connection that publishes during an alarm.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Channel, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};

use super::{
    convert::short,
    error::{classify, rpc},
    link::{BrokerLink, Live, disconnected},
    pool::RPC_TIMEOUT,
};
use crate::{
    decide::{FORGET_AFTER, QueueName, share_exchange},
    queue::{GroupChannel, QueueError, QueueErrorKind},
};

/// The maximum number of messages that wait for one member.
const MAX_WAITING: i64 = 1_000;
const LOST: &str = "hear the group";

/// A member's channel.
pub(super) struct AmqpGroup {
    /// Closed when the last handle is dropped.
    channel: Channel,
    messages: lapin::Consumer,
    live: Arc<Live>,
    exchange: String,
}

impl AmqpGroup {
    /// Joins the group of a queue.
    ///
    /// # Cancel-safety
    /// Cancel-safe: lapin closes a channel that was opened for a dropped future.
    pub(super) async fn join(link: &BrokerLink, queue: &QueueName) -> Result<Self, QueueError> {
        let exchange = share_exchange(queue);
        let operation = format!("join the group of the queue {queue}");
        let live = link.live(&operation).await?;
        let name = short("name of an exchange", &exchange)?;
        let open = async {
            let channel = live.create_channel().await?;
            let durable = ExchangeDeclareOptions {
                durable: true,
                ..ExchangeDeclareOptions::default()
            };
            channel
                .exchange_declare(
                    name.clone(),
                    ExchangeKind::Fanout,
                    durable,
                    FieldTable::default(),
                )
                .await?;
            let own = QueueDeclareOptions {
                exclusive: true,
                auto_delete: true,
                ..QueueDeclareOptions::default()
            };
            let own = channel.queue_declare("".into(), own, arguments()).await?;
            channel
                .queue_bind(
                    own.name().clone(),
                    name,
                    "".into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await?;
            let unacknowledged = BasicConsumeOptions {
                no_ack: true,
                exclusive: true,
                ..BasicConsumeOptions::default()
            };
            let messages = channel
                .basic_consume(
                    own.name().clone(),
                    "".into(),
                    unacknowledged,
                    FieldTable::default(),
                )
                .await?;
            Ok((channel, messages))
        };
        let (channel, messages) = rpc(&operation, RPC_TIMEOUT, open).await?;
        Ok(Self {
            channel,
            messages,
            live,
            exchange,
        })
    }
}

/// A classic queue with a limit on its messages and on their age.
fn arguments() -> FieldTable {
    let mut table = FieldTable::default();
    let expires = i64::try_from(FORGET_AFTER.as_millis()).unwrap_or(i64::MAX);
    let text = AMQPValue::LongString("classic".into());
    table.insert("x-queue-type".into(), text);
    table.insert("x-message-ttl".into(), AMQPValue::LongLongInt(expires));
    table.insert("x-max-length".into(), AMQPValue::LongLongInt(MAX_WAITING));
    table
}

#[async_trait]
impl GroupChannel for AmqpGroup {
    async fn send(&mut self, message: Bytes) -> Result<(), QueueError> {
        let operation = "send to the group";
        // lapin keeps what is published on a blocked connection, and sends it when the block ends.
        if self.live.is_blocked() {
            return Err(QueueError::new(QueueErrorKind::Blocked, operation));
        }
        let exchange = short("name of an exchange", &self.exchange)?;
        let properties = BasicProperties::default().with_content_type("application/json".into());
        let publish = self.channel.basic_publish(
            exchange,
            "".into(),
            BasicPublishOptions::default(),
            &message,
            properties,
        );
        rpc(operation, RPC_TIMEOUT, async { publish.await.map(drop) }).await
    }

    async fn next(&mut self) -> Result<Bytes, QueueError> {
        match self.messages.next().await {
            Some(Ok(delivery)) => Ok(delivery.data.into()),
            Some(Err(error)) => Err(classify(LOST, error)),
            // The broker ended the consumer, or the channel.
            None => Err(disconnected(LOST)),
        }
    }
}
