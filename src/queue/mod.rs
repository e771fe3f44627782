//! The queue seam: what a pool needs from a broker, and nothing else.
//!
//! Two adapters implement it: [`amqp`](crate::adapters::amqp) for RabbitMQ and
//! [`memory`](crate::adapters::memory) for tests, doc tests and simulation. One conformance suite runs against
//! both. This module holds no adapter's types and does no I/O.

mod delivery;
mod group;
mod holdings;

use std::{
    fmt,
    task::{Context, Poll},
};

use async_trait::async_trait;
use tokio::sync::watch;

pub use tidegate_core::queue::{
    HeaderValue, Headers, Message, MessageOrigin, NoRoute, ORIGINAL_EXCHANGE, ORIGINAL_ROUTING_KEY,
    Outgoing, Properties, QueueBinding, QueueError, QueueErrorKind, QueueKind, QueueSpec, RawTexts,
    SettleError, TRACEPARENT, TRACESTATE, TraceContext, UnreadValue, entry_size, header_size,
    short_texts_fit,
};

pub use self::{
    delivery::{Delivery, Settle},
    group::GroupChannel,
    holdings::{ConsumerHolding, Holdings, HoldingsView},
};
use crate::decide::QueueName;

/// The result of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueDepth {
    /// Messages ready for delivery. Never includes unacknowledged ones.
    pub ready: u64,
    /// Consumers of this queue that the broker counts: ours and others.
    pub consumers: u32,
}

/// The settings of a consumer.
#[derive(Debug, Clone)]
pub struct ConsumeRequest {
    /// The queue.
    pub queue: QueueName,
    /// Limit on unsettled deliveries of this consumer. At least 1.
    pub prefetch: u16,
    /// Consumer tag: unique, and with the pool and worker in its name for operators who look at the broker.
    pub tag: String,
}

/// The driver's link to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Connectivity {
    /// No connection attempt has succeeded or failed yet.
    Connecting,
    /// Connected.
    Connected,
    /// Not connected; a new attempt follows with backoff.
    Disconnected {
        /// The cause, without credentials.
        error: String,
    },
}

/// A link to a broker.
///
/// Implementations reconnect by themselves, with jittered exponential backoff. An operation on a lost connection fails
/// at once with [`QueueErrorKind::Disconnected`] and never waits for the reconnection.
#[async_trait]
pub trait QueueDriver: Send + Sync + fmt::Debug + 'static {
    /// Reads the depth of `queue` without changing it.
    ///
    /// # Errors
    /// [`NotFound`](QueueErrorKind::NotFound) if the queue does not exist.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    async fn probe(&self, queue: &QueueName) -> Result<QueueDepth, QueueError>;

    /// Makes sure that the queue exists as described. It is declared and not only read, so that a queue with a
    /// different declaration is an error. An implementation may remember the answer until the connection is lost or
    /// something says that the queue no longer exists.
    ///
    /// If the user has no permission to declare the queue, an existing queue is accepted as it is.
    ///
    /// # Errors
    /// [`Mismatch`](QueueErrorKind::Mismatch) if a queue with this name has a different declaration, and
    /// [`LimitReached`](QueueErrorKind::LimitReached) if the limit on queues is reached.
    async fn declare(&self, queue: &QueueSpec) -> Result<(), QueueError>;

    /// Deletes a queue with all its messages. A missing queue is not an error. For demos and tests, which must leave
    /// nothing behind.
    async fn delete(&self, queue: &QueueName) -> Result<(), QueueError>;

    /// Opens a consumer. Its end and its deliveries are independent of other consumers, even if they share a channel.
    /// Returns after the broker has confirmed the consumer.
    ///
    /// # Cancel-safety
    /// Cancel-safe: a consumer that was being opened is cancelled.
    async fn consume(&self, request: ConsumeRequest) -> Result<Box<dyn Consumer>, QueueError>;

    /// Opens a browser at the head of a queue. A missing queue is reported by the first request for a message.
    ///
    /// # Cancel-safety
    /// Cancel-safe: a channel that was being opened is closed.
    async fn browse(&self, queue: &QueueName) -> Result<Box<dyn Browser>, QueueError>;

    /// Publishes with `mandatory`, and waits for the confirm. When this returns `Ok`, the broker has the message in a
    /// queue, or has dropped it if it [may](NoRoute::Drop).
    ///
    /// # Errors
    /// [`Unroutable`](QueueErrorKind::Unroutable), [`Refused`](QueueErrorKind::Refused),
    /// [`Blocked`](QueueErrorKind::Blocked) (nothing was sent), [`TooLarge`](QueueErrorKind::TooLarge),
    /// [`Timeout`](QueueErrorKind::Timeout) if no confirm came within about 30 s without a block, and all connection
    /// errors. If the broker blocks publishers after the message was sent, this waits until the broker accepts messages
    /// again. After an error the message may still have arrived: only `Ok` is certain.
    ///
    /// # Cancel-safety
    /// Not cancel-safe: if the future is dropped, the message may or may not have been published.
    async fn publish(&self, message: Outgoing) -> Result<(), QueueError>;

    /// The ways in which a queue that others declared loses messages by itself, such as a length limit or a time to
    /// live. Each text is read after the word "it". Empty if none is known, or if the driver cannot know.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    async fn losses(&self, _queue: &QueueName) -> Vec<String> {
        Vec::new()
    }

    /// Prepares what a publish needs, so that the next publish only waits for its confirm. For callers that will soon
    /// take messages and may have to copy them at once. A driver that needs no preparation does nothing.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    async fn prepare_to_publish(&self) -> Result<(), QueueError> {
        Ok(())
    }

    /// Limit on the encoded bytes of a message's properties and headers. A copy with added headers must stay below it.
    fn header_limit(&self) -> usize;

    /// Whether the broker accepts no publishes for now (memory or disk alarm). Written by the driver, read by workers
    /// that wait for a publish. A message that was sent before the block may be confirmed late, so the worker continues
    /// to wait and reports it. A driver that cannot know is never blocked.
    fn blocked(&self) -> watch::Receiver<bool> {
        watch::channel(false).1
    }

    /// Joins the daemons that share a queue.
    ///
    /// # Errors
    /// [`AccessRefused`](QueueErrorKind::AccessRefused) if the user may not declare what the group needs, or
    /// [`Disconnected`](QueueErrorKind::Disconnected). A driver without groups answers with
    /// [`Other`](QueueErrorKind::Other).
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    async fn join_group(&self, queue: &QueueName) -> Result<Box<dyn GroupChannel>, QueueError> {
        let what = format!("join the group of the queue {queue}: this kind of broker has none");
        Err(QueueError::new(QueueErrorKind::Other, what))
    }

    /// The link's state. Written by the driver, read by pools and by readiness.
    fn connectivity(&self) -> watch::Receiver<Connectivity>;

    /// The nodes of the broker to which there are connections now, as `host:port`, without credentials. One, unless
    /// connections were lost one by one. Empty if the driver has no nodes.
    fn nodes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Closes all connections. Unsettled deliveries return to their queues.
    async fn close(&self);
}

/// An open consumer: a stream of deliveries.
///
/// **On drop**, the consumer is cancelled without waiting. Buffered deliveries and unsettled deliveries go back.
#[async_trait]
pub trait Consumer: Send {
    /// The next delivery. `None` is the end: expected after [`cancel`](Self::cancel), otherwise a cancel by the broker
    /// (queue deleted, node lost). An error means that the channel or connection is lost, and `None` follows.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery, QueueError>>>;

    /// Tells the broker to send no more deliveries, and waits for the confirm. Deliveries that are buffered by then
    /// still come from [`poll_next`](Self::poll_next), and then `None`.
    async fn cancel(&mut self) -> Result<(), QueueError>;

    /// Ends the consumer after its deliveries were settled. Unsettled deliveries go back.
    async fn close(self: Box<Self>);
}

/// Reads a queue message by message from its head.
///
/// While the browser is open, its messages are not ready for other consumers. When it closes, each unsettled delivery
/// goes back to its old position, as far as the broker keeps the order, marked as redelivered. A delivery that is
/// dropped earlier is skipped: this browser does not hand it out again. On a quorum queue, going back may count towards
/// the delivery limit.
///
/// **On drop**, and when the process dies, the channel is closed and all unsettled messages go back.
#[async_trait]
pub trait Browser: Send {
    /// The next message. `None` if no message is ready.
    ///
    /// # Cancel-safety
    /// Not cancel-safe: a message that a dropped future received is skipped.
    async fn next(&mut self) -> Result<Option<Delivery>, QueueError>;

    /// Closes the browser. After `Ok` the broker has every settlement, and the other messages are ready in the queue
    /// again. Waits a few seconds at most for those messages, because other consumers may take them, or they may
    /// expire.
    async fn close(self: Box<Self>) -> Result<(), QueueError>;
}
