//! What can go wrong at a queue, classified once by the adapter that saw it.

use std::error::Error;

use thiserror::Error;

/// What kind of trouble it is. Callers decide on this, never on a message's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QueueErrorKind {
    /// No such queue.
    NotFound,
    /// No connection, or it went away.
    Disconnected,
    /// The broker closed the channel, for a delivery on it was not settled within the broker's own time.
    HeldTooLong,
    /// The broker refused the user, the password or the permission.
    AccessRefused,
    /// The queue is held exclusively by another connection, or the broker refuses a message for a property of it.
    Conflict,
    /// A queue of this name is there, but of another kind or with other arguments than were declared.
    Mismatch,
    /// A limit on the number of queues or the like is reached.
    LimitReached,
    /// The queue is of a kind whose messages cannot be worked on one by one: a stream.
    Unsuitable,
    /// The broker grants no more channels.
    ChannelLimit,
    /// No answer in time.
    Timeout,
    /// The broker blocks publishers (memory or disk alarm).
    Blocked,
    /// A publish reached no queue, so the broker returned it.
    Unroutable,
    /// The broker took a publish and then refused it (a full queue, a lost node).
    Refused,
    /// The broker failed in its own code at this, and ended the connection.
    BrokerFailed,
    /// The message cannot be encoded within the connection's limits, or is larger than the broker takes.
    TooLarge,
    /// Anything else.
    Other,
}

/// An operation on a queue failed.
#[derive(Debug, Error)]
#[error("failed to {operation}")]
pub struct QueueError {
    /// What kind of trouble it is.
    pub kind: QueueErrorKind,
    /// The operation, as a fragment that reads after "failed to".
    pub operation: String,
    /// The cause below it. Holds no credential.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl QueueError {
    /// An error of `kind` in `operation` (a fragment that reads after "failed to").
    pub fn new(kind: QueueErrorKind, operation: impl Into<String>) -> Self {
        Self {
            kind,
            operation: operation.into(),
            source: None,
        }
    }

    /// The same, with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether trying again later may succeed without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        use QueueErrorKind as K;
        match self.kind {
            K::Disconnected
            | K::ChannelLimit
            | K::HeldTooLong
            | K::Timeout
            | K::Blocked
            | K::Refused
            | K::BrokerFailed
            | K::Other => true,
            K::NotFound
            | K::AccessRefused
            | K::Conflict
            | K::Mismatch
            | K::LimitReached
            | K::Unsuitable
            | K::Unroutable
            | K::TooLarge => false,
        }
    }
}

/// A settlement did not reach the broker, which will deliver the message again.
#[derive(Debug, Error)]
#[error("failed to settle a delivery: the channel it came on is gone")]
pub struct SettleError {
    /// What the client library said, where it said anything.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}
