//! The queue seam: what a pool needs of a broker, and nothing else.
//!
//! Two adapters implement it: [`amqp`](crate::adapters::amqp) for RabbitMQ and
//! [`memory`](crate::adapters::memory) for tests, doc tests and simulation. One conformance suite runs against
//! both. This module holds no adapter's types and does no I/O.

mod delivery;

use std::{
    fmt,
    task::{Context, Poll},
};

use async_trait::async_trait;
use tokio::sync::watch;

pub use tidegate_core::queue::{
    HeaderValue, Headers, Message, NoRoute, ORIGINAL_EXCHANGE, ORIGINAL_ROUTING_KEY, Origin,
    Outgoing, Properties, QueueBinding, QueueError, QueueErrorKind, QueueKind, QueueSpec, RawTexts,
    SettleError, UnreadValue, entry_size, header_size, short_texts_fit,
};

pub use self::delivery::{Delivery, Settle};
use crate::decide::QueueName;

/// What a probe saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueDepth {
    /// Messages ready for delivery. Never includes unacknowledged ones.
    pub ready: u64,
    /// Consumers that the broker knows of on this queue, ours and others'.
    pub consumers: u32,
}

/// What a consumer is to be.
#[derive(Debug, Clone)]
pub struct ConsumeRequest {
    /// The queue.
    pub queue: QueueName,
    /// Deliveries that the broker may have outstanding on this consumer. At least 1.
    pub prefetch: u16,
    /// Consumer tag: unique, and names pool and worker for whoever looks at the broker.
    pub tag: String,
}

/// The driver's link to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Connectivity {
    /// No connection was made yet, and none has failed.
    Connecting,
    /// Connected.
    Connected,
    /// Not connected; a new attempt follows with backoff.
    Disconnected {
        /// Why, without any credential.
        error: String,
    },
}

/// A link to a broker.
///
/// Implementations reconnect by themselves, with jittered exponential backoff. An operation that meets a lost
/// connection fails at once with [`QueueErrorKind::Disconnected`] and never queues up behind the reconnection.
#[async_trait]
pub trait QueueDriver: Send + Sync + fmt::Debug + 'static {
    /// Reads the depth of `queue` without touching it.
    ///
    /// # Errors
    /// [`NotFound`](QueueErrorKind::NotFound) where there is no such queue.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    async fn probe(&self, queue: &QueueName) -> Result<QueueDepth, QueueError>;

    /// Makes sure that the queue is there as described. It is declared, and not only looked at, so that a queue which
    /// someone else declared in another way is an error. An answer may be remembered for as long as the connection
    /// lasts and nothing says that the queue is gone.
    ///
    /// Where the user may not declare it, a queue that is there is taken as it is.
    ///
    /// # Errors
    /// [`Mismatch`](QueueErrorKind::Mismatch) where a queue of this name is there in another way, and
    /// [`LimitReached`](QueueErrorKind::LimitReached) where there may be no more queues.
    async fn declare(&self, queue: &QueueSpec) -> Result<(), QueueError>;

    /// Deletes a queue, with all that is in it; one that is not there is no error. For demos and tests, which leave nothing behind.
    async fn delete(&self, queue: &QueueName) -> Result<(), QueueError>;

    /// Opens a consumer, whose end and whose deliveries are its own, even where it shares a channel with others. Returns once
    /// the broker has confirmed it.
    ///
    /// # Cancel-safety
    /// Cancel-safe: a consumer that was being opened is cancelled.
    async fn consume(&self, request: ConsumeRequest) -> Result<Box<dyn Consumer>, QueueError>;

    /// Begins to look through a queue from its head. A missing queue shows when the first message is asked for.
    ///
    /// # Cancel-safety
    /// Cancel-safe: a channel that was being opened is closed.
    async fn browse(&self, queue: &QueueName) -> Result<Box<dyn Browser>, QueueError>;

    /// Publishes, `mandatory` and confirmed: when this returns `Ok`, the broker has the message in a queue, or has
    /// dropped it where it [may](NoRoute::Drop).
    ///
    /// # Errors
    /// [`Unroutable`](QueueErrorKind::Unroutable), [`Refused`](QueueErrorKind::Refused),
    /// [`Blocked`](QueueErrorKind::Blocked) (nothing was sent), [`TooLarge`](QueueErrorKind::TooLarge),
    /// [`Timeout`](QueueErrorKind::Timeout) where no confirm came in 30 s or so without a block, and what a connection
    /// can meet. What was sent before the broker blocked publishers is waited for until it takes them again. After an
    /// error the message may still have arrived: only `Ok` is certain.
    ///
    /// # Cancel-safety
    /// Not cancel-safe: a dropped future leaves it unknown whether the message was published.
    async fn publish(&self, message: Outgoing) -> Result<(), QueueError>;

    /// How a queue that is someone else's loses messages by itself, such as by a limit or a time to live: each reads after
    /// "it". Empty where nothing of the kind is known, or the driver cannot know.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    async fn losses(&self, _queue: &QueueName) -> Vec<String> {
        Vec::new()
    }

    /// Has what a publish needs ready, so that the next one waits for nothing but its confirm. For who is about to take
    /// messages that may have to be copied at once. A driver that needs nothing does nothing.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    async fn prepare_to_publish(&self) -> Result<(), QueueError> {
        Ok(())
    }

    /// Bytes that a message's properties and headers may encode to. A copy that adds headers must stay below.
    fn header_limit(&self) -> usize;

    /// Whether the broker takes no publishes for now (memory or disk alarm). Written by the driver, read by workers that
    /// wait for a publish: one that was sent before is waited for, as its confirm may come late, and the worker says
    /// that it waits. A driver that does not know never is blocked.
    fn blocked(&self) -> watch::Receiver<bool> {
        watch::channel(false).1
    }

    /// The link's state. Written by the driver, read by pools and by readiness.
    fn connectivity(&self) -> watch::Receiver<Connectivity>;

    /// Closes all connections. Deliveries that are not settled return to their queues.
    async fn close(&self);
}

/// An open consumer: a stream of deliveries.
///
/// **On drop** the consumer is cancelled without waiting, and what it had buffered or handed out unsettled goes back.
#[async_trait]
pub trait Consumer: Send {
    /// The next delivery. `None` is the end: after [`cancel`](Self::cancel) the expected one, otherwise the
    /// broker's own cancel (queue deleted, node lost). An error is the loss of the channel or connection and is
    /// followed by `None`.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery, QueueError>>>;

    /// Asks the broker for no more deliveries, and waits until it confirms. Deliveries that were buffered by
    /// then still come from [`poll_next`](Self::poll_next), and then `None`.
    async fn cancel(&mut self) -> Result<(), QueueError>;

    /// Ends the consumer, after everything was settled. What was not goes back.
    async fn close(self: Box<Self>);
}

/// A look through a queue, message by message from its head.
///
/// What it hands out is ready for nobody else until the look ends. By then a delivery is settled, or goes back to
/// where it was as far as the broker keeps the order, marked as redelivered; one that is dropped is only passed over, and not handed out again by this
/// look. On a quorum queue, going back may count towards the delivery limit.
///
/// **On drop**, and when the process dies, the channel is closed and everything unsettled goes back.
#[async_trait]
pub trait Browser: Send {
    /// The next message; `None` where none is ready.
    ///
    /// # Cancel-safety
    /// Not cancel-safe: a message that a dropped future was handed is passed over.
    async fn next(&mut self) -> Result<Option<Delivery>, QueueError>;

    /// Ends the look. After `Ok` every settlement has reached the broker, and the rest is ready in the queue again. That
    /// is waited for, but for no longer than a few seconds, since others may take it, or it may expire.
    async fn close(self: Box<Self>) -> Result<(), QueueError>;
}
