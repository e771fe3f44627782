//! Publishes in bulk: one channel of one connection, with many messages in flight. Each message is confirmed. A second
//! connection reads the depth of a queue, because the first may be full of messages or blocked.
//!
//! For a load generator, not for a pool. A pool must know which message was returned, so it waits for one confirm at a
//! time on each channel. Here the message's id identifies the returned message. A lost connection is not replaced:
//! messages in flight on it end with an error, and the sender decides what to do.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use lapin::{
    Channel, Confirmation, Connection,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
    },
    types::FieldTable,
};
use tokio::time;

use super::{
    address::{Address, SocketShutdown},
    convert::{message, short, to_lapin},
    error::{classify, rpc},
    pool::RPC_TIMEOUT,
};
use crate::{
    config::BrokerSettings,
    decide::QueueName,
    queue::{Message, NoRoute, Outgoing, QueueDepth, QueueError},
};

/// The broker's own queue for replies to the channel that consumes it.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Time to close a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// A publisher with many messages in flight.
///
/// **On drop** its connection is shut down, and messages in flight end with an error.
pub struct BulkPublisher {
    connection: Wired,
    channel: Channel,
}

/// The result of a sent message.
#[derive(Debug)]
pub enum PublishOutcome {
    /// The broker has it.
    Confirmed,
    /// No queue accepts it.
    Returned {
        /// The id of the returned message, which may differ from the message of this confirm.
        message_id: Option<String>,
    },
    /// The broker refused it.
    Refused,
    /// Not known: the channel or the connection ended first.
    Unknown(QueueError),
}

/// A message in flight. Completes with its result. **On drop** the result is lost, but the message is still sent.
#[must_use = "the message is sent, and its result is lost"]
pub struct InFlight(Flight);

enum Flight {
    Over(Option<PublishOutcome>),
    On(BoxFuture<'static, PublishOutcome>),
}

/// Answers to the messages of a [`BulkPublisher`], by direct reply-to.
pub struct BulkAnswers(lapin::Consumer);

/// A connection that reads the depth of a queue.
pub struct DepthProbe {
    connection: Wired,
    channel: Option<Channel>,
    queue: QueueName,
}

/// A connection, and the handle to shut it down.
struct Wired {
    connection: Connection,
    shutdown: SocketShutdown,
}

impl BulkPublisher {
    /// Makes one connection attempt, with the name `tidegate ROLE`.
    ///
    /// # Errors
    /// The URL is invalid, or the broker is not reachable or refuses the login.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    pub async fn connect(settings: &BrokerSettings, role: &str) -> Result<Self, QueueError> {
        let connection = Wired::connect(settings, role).await?;
        let open = async {
            let channel = connection.connection.create_channel().await?;
            let confirms = ConfirmSelectOptions::default();
            channel.confirm_select(confirms).await?;
            Ok(channel)
        };
        let channel = rpc("open a channel to publish on", RPC_TIMEOUT, open).await?;
        Ok(Self {
            connection,
            channel,
        })
    }

    /// Starts to listen for answers. From now on, the answer to a message whose `reply_to` is [`BulkAnswers::ADDRESS`]
    /// arrives here. Call it once for each publisher: the broker allows one listener per channel.
    ///
    /// # Errors
    /// The broker does not answer, or refuses.
    pub async fn answers(&self) -> Result<BulkAnswers, QueueError> {
        // The broker requires this: it does not keep answers.
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consume = self.channel.basic_consume(
            DIRECT_REPLY_TO.into(),
            "".into(),
            options,
            FieldTable::default(),
        );
        let consumer = rpc("listen for answers", RPC_TIMEOUT, consume).await?;
        Ok(BulkAnswers(consumer))
    }

    /// Sends a message. When this returns, the message is queued behind all earlier ones.
    ///
    /// # Errors
    /// The message cannot be encoded.
    pub fn send(&self, message: &Outgoing) -> Result<InFlight, QueueError> {
        let exchange = short("name of an exchange", &message.exchange)?;
        let routing_key = short("routing key", &message.routing_key)?;
        let properties = to_lapin(&message.properties, &message.headers)?;
        let options = BasicPublishOptions {
            mandatory: message.no_route == NoRoute::Fail,
            immediate: false,
        };
        let (channel, body) = (self.channel.clone(), message.body.clone());
        let mut flight = async move {
            let publish = channel.basic_publish(exchange, routing_key, options, &body, properties);
            match publish.await {
                Ok(confirm) => drop_body(body, confirm).await,
                Err(error) => PublishOutcome::Unknown(classify("publish", error)),
            }
        }
        .boxed();
        // At its first poll, lapin takes a number for the message and queues its frames. So the messages keep the order
        // in which they are sent, and the order of waiting does not matter.
        let first = flight
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        Ok(InFlight(match first {
            Poll::Ready(outcome) => Flight::Over(Some(outcome)),
            Poll::Pending => Flight::On(flight),
        }))
    }

    /// Whether the broker currently accepts no messages, and so sends no confirms: an alarm of memory or disk.
    pub fn is_blocked(&self) -> bool {
        self.connection.connection.status().blocked()
    }

    /// Whether the connection and its channel are open.
    pub fn is_up(&self) -> bool {
        self.connection.is_up() && self.channel.status().connected()
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.connection.close().await;
    }
}

/// Waits for a confirm without the message's body, which was already handed over.
async fn drop_body(body: bytes::Bytes, confirm: lapin::PublisherConfirm) -> PublishOutcome {
    drop(body);
    match confirm.await {
        Ok(Confirmation::Ack(None)) => PublishOutcome::Confirmed,
        Ok(Confirmation::Nack(None) | Confirmation::NotRequested) => PublishOutcome::Refused,
        Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) => {
            let id = returned.delivery.properties.message_id();
            PublishOutcome::Returned {
                message_id: id.as_ref().map(|id| id.as_str().to_owned()),
            }
        }
        Err(error) => PublishOutcome::Unknown(classify("hear of a message", error)),
    }
}

impl Future for InFlight {
    type Output = PublishOutcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<PublishOutcome> {
        match &mut self.0 {
            Flight::Over(outcome) => {
                Poll::Ready(outcome.take().expect("it is polled until it is ready"))
            }
            Flight::On(flight) => flight.as_mut().poll(context),
        }
    }
}

impl BulkAnswers {
    /// The value of `reply_to` for messages whose answers should arrive here.
    pub const ADDRESS: &str = DIRECT_REPLY_TO;

    /// The next answer. `None` if no more can arrive.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Message> {
        Some(message(self.0.next().await?.ok()?))
    }
}

impl DepthProbe {
    /// Makes one connection attempt, with the name `tidegate ROLE`.
    ///
    /// # Errors
    /// As for [`BulkPublisher::connect`].
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    pub async fn connect(
        settings: &BrokerSettings,
        role: &str,
        queue: QueueName,
    ) -> Result<Self, QueueError> {
        Ok(Self {
            connection: Wired::connect(settings, role).await?,
            channel: None,
            queue,
        })
    }

    /// Reads the depth of the queue.
    ///
    /// # Errors
    /// The queue does not exist, or the broker does not answer.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    pub async fn look(&mut self) -> Result<QueueDepth, QueueError> {
        let operation = format!("look at the queue {}", self.queue);
        let channel = match self.channel.take().filter(|it| it.status().connected()) {
            Some(channel) => channel,
            None => {
                let open = self.connection.connection.create_channel();
                rpc(&operation, RPC_TIMEOUT, open).await?
            }
        };
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let name = short("name of a queue", self.queue.as_str())?;
        let declare = channel.queue_declare(name, options, FieldTable::default());
        let answer = rpc(&operation, RPC_TIMEOUT, declare).await?;
        let depth = QueueDepth {
            ready: answer.message_count().into(),
            consumers: answer.consumer_count(),
        };
        self.channel = Some(channel);
        Ok(depth)
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.connection.close().await;
    }
}

impl Wired {
    async fn connect(settings: &BrokerSettings, role: &str) -> Result<Self, QueueError> {
        let address = Arc::new(Address::new(settings)?);
        let (connection, shutdown, _) = address.connect(role).await?;
        Ok(Self {
            connection,
            shutdown,
        })
    }

    fn is_up(&self) -> bool {
        self.connection.status().connected()
    }

    async fn close(self) {
        // On a blocked connection lapin writes nothing, not even the close.
        if self.is_up() && !self.connection.status().blocked() {
            let close = self.connection.close(200, "OK".into());
            let _ = time::timeout(CLOSE_TIMEOUT, close).await;
        }
    }
}

impl Drop for Wired {
    fn drop(&mut self) {
        self.shutdown.shut_down();
    }
}

macro_rules! opaque {
    ($($name:ident),+) => { $(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )+ };
}
opaque!(BulkPublisher, InFlight, BulkAnswers, DepthProbe);
