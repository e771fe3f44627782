//! Queues that we declare, as data.

use std::time::Duration;

use super::Headers;
use crate::decide::QueueName;

/// A queue's type, where we declare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueKind {
    /// One node's queue.
    Classic,
    /// Replicated queue with a delivery count.
    Quorum,
}

/// A queue to be declared. Always durable, never exclusive, never auto-delete.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueSpec {
    /// Its name.
    pub name: QueueName,
    /// Its type.
    pub kind: QueueKind,
    /// Queue that its dead letters go to through the default exchange. On a quorum queue the broker transfers
    /// them at least once, which needs publishes to be rejected on overflow: the adapter declares both.
    pub dead_letter_to: Option<QueueName>,
    /// Time after which a message leaves it.
    pub message_ttl: Option<Duration>,
    /// Further arguments, by the broker's own names. One that stands for the same as a field above wins over it.
    pub arguments: Headers,
    /// Bindings to make once it is declared.
    pub bindings: Vec<QueueBinding>,
}

impl QueueSpec {
    /// A queue without dead-lettering, time to live, arguments or bindings.
    pub fn new(name: impl Into<QueueName>, kind: QueueKind) -> Self {
        Self {
            name: name.into(),
            kind,
            dead_letter_to: None,
            message_ttl: None,
            arguments: Headers::new(),
            bindings: Vec::new(),
        }
    }
}

/// A binding of a queue to an exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueBinding {
    /// The exchange.
    pub exchange: String,
    /// Routing key, or a pattern of them.
    pub routing_key: String,
    /// For an exchange that matches headers.
    pub arguments: Headers,
}
