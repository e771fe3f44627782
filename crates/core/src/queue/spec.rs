//! Queue declarations, as data.

use std::time::Duration;

use super::Headers;
use crate::decide::QueueName;

/// The type of a declared queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueKind {
    /// A classic queue: it lives on one node.
    Classic,
    /// A replicated queue that counts deliveries.
    Quorum,
}

/// A queue to declare. Always durable, never exclusive, never auto-delete.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueSpec {
    /// Its name.
    pub name: QueueName,
    /// Its type.
    pub kind: QueueKind,
    /// The queue for its dead letters, through the default exchange. On a quorum queue the broker dead-letters at
    /// least once. This requires that the queue rejects publishes on overflow: the adapter declares both.
    pub dead_letter_to: Option<QueueName>,
    /// Time after which the broker removes a message from the queue.
    pub message_ttl: Option<Duration>,
    /// Further arguments, by the broker's names. An argument for the same setting as a field above overrides that
    /// field.
    pub arguments: Headers,
    /// Bindings to make after the declaration.
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
    /// Routing key, or a pattern for routing keys.
    pub routing_key: String,
    /// Arguments for an exchange that matches headers.
    pub arguments: Headers,
}
