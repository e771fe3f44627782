//! Errors of a queue. The adapter that sees an error classifies it once.

use std::error::Error;

use thiserror::Error;

/// The kind of an error. Callers decide on the kind, never on a message's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QueueErrorKind {
    /// The queue does not exist.
    NotFound,
    /// There is no connection, or it was lost.
    Disconnected,
    /// The broker closed the channel because a delivery was not settled before the broker's consumer timeout.
    HeldTooLong,
    /// The broker refused the user, the password or the permission.
    AccessRefused,
    /// Another connection holds the queue exclusively, or the broker refuses a message because of one of its
    /// properties.
    Conflict,
    /// A queue of this name exists, but its type or arguments differ from the declared ones.
    Mismatch,
    /// A limit of the broker is reached, for example on the number of queues.
    LimitReached,
    /// The queue is a stream. Its messages cannot be settled one by one.
    Unsuitable,
    /// The broker allows no more channels on this connection.
    ChannelLimit,
    /// The broker did not answer in time.
    Timeout,
    /// The broker blocks publishers (memory or disk alarm).
    Blocked,
    /// A publish reached no queue, so the broker returned it.
    Unroutable,
    /// The broker refused a publish with a nack (the queue is full, or a node is lost).
    Refused,
    /// The operation caused an internal error in the broker, and the broker closed the connection.
    BrokerFailed,
    /// The message does not fit the connection's limits, or is larger than the broker accepts.
    TooLarge,
    /// Any other error.
    Other,
}

/// An operation on a queue failed.
#[derive(Debug, Error)]
#[error("failed to {operation}")]
pub struct QueueError {
    /// The kind of the error.
    pub kind: QueueErrorKind,
    /// The operation, as a fragment that reads after "failed to".
    pub operation: String,
    /// The cause. Contains no credential.
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

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether a retry may succeed without any change by an operator.
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

/// A settlement did not reach the broker. The broker will deliver the message again.
#[derive(Debug, Error)]
#[error("failed to settle a delivery: its channel is closed")]
pub struct SettleError {
    /// The client library's error, if it gave one.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}
