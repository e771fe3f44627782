//! A delivery: a message that the broker has handed to us, settled exactly once.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Message, SettleError};

/// How an adapter settles one delivery. Each method consumes it, so a delivery cannot be settled twice.
#[async_trait]
pub trait Settle: Send {
    /// Tells the broker that the work is done.
    async fn ack(self: Box<Self>) -> Result<(), SettleError>;
    /// Puts the message back in its queue.
    async fn requeue(self: Box<Self>) -> Result<(), SettleError>;
    /// Refuses the message. The broker dead-letters it if the queue is configured so, and otherwise drops it.
    async fn reject(self: Box<Self>) -> Result<(), SettleError>;
    /// Gives the message back without waiting, from a `Drop`. Must not block.
    fn abandon(self: Box<Self>);
}

/// A message that we hold and must settle.
///
/// Each settling method consumes the delivery. **On drop**, an unsettled delivery is given back to its queue, so that a
/// panic or a cancelled future loses no message. A delivery of a [`Browser`](super::Browser) is given back when the
/// browser closes.
#[must_use = "a delivery that is dropped is given back to the queue"]
pub struct Delivery {
    message: Arc<Message>,
    settle: Option<Box<dyn Settle>>,
    /// When it came, if it waited before it was handed on.
    arrived: Option<Instant>,
}

impl Delivery {
    /// A delivery of `message` that is settled with `settle`.
    pub fn new(message: Message, settle: Box<dyn Settle>) -> Self {
        Self {
            message: Arc::new(message),
            settle: Some(settle),
            arrived: None,
        }
    }

    /// A delivery that came earlier, and waited before it was handed on.
    pub(crate) fn handed_on(
        message: Arc<Message>,
        arrived: Instant,
        settle: Box<dyn Settle>,
    ) -> Self {
        Self {
            message,
            settle: Some(settle),
            arrived: Some(arrived),
        }
    }

    /// When it came, if it waited before it was handed on.
    pub(crate) fn arrived(&self) -> Option<Instant> {
        self.arrived
    }

    /// The same delivery of a message that is marked as delivered before.
    pub(crate) fn redelivered(mut self) -> Self {
        if !self.message.redelivered {
            Arc::make_mut(&mut self.message).redelivered = true;
        }
        self
    }

    /// The message. It is shared, so that a job can hold it until the delivery is settled.
    pub fn message(&self) -> &Arc<Message> {
        &self.message
    }

    /// Tells the broker that the work is done.
    ///
    /// # Errors
    /// The settlement was lost: the channel is closed, and the broker delivers the message again.
    ///
    /// # Cancel-safety
    /// Not cancel-safe: if the future is dropped, the broker may or may not have received the acknowledgement.
    pub async fn ack(mut self) -> Result<(), SettleError> {
        self.take().ack().await
    }

    /// Gives the message back to its queue. Errors and cancel-safety as for [`ack`](Self::ack).
    pub async fn requeue(mut self) -> Result<(), SettleError> {
        self.take().requeue().await
    }

    /// Refuses the message. The broker dead-letters or drops it. Errors and cancel-safety as for [`ack`](Self::ack).
    pub async fn reject(mut self) -> Result<(), SettleError> {
        self.take().reject().await
    }

    fn take(&mut self) -> Box<dyn Settle> {
        self.settle
            .take()
            .expect("a delivery is settled by value, so only once")
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(settle) = self.settle.take() {
            settle.abandon();
        }
    }
}

impl fmt::Debug for Delivery {
    // The payload is private data and must not be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("routing_key", &self.message.routing_key)
            .field("redelivered", &self.message.redelivered)
            .field("bytes", &self.message.body.len())
            .field("settled", &self.settle.is_none())
            .finish()
    }
}
