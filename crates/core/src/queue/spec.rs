//! Queues that we declare, as data.

use std::time::Duration;

use crate::decide::QueueName;

/// A queue's type, where we declare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueKind {
    /// One node's queue.
    Classic,
    /// Replicated queue with a delivery count.
    Quorum,
}

/// A queue to be declared. Always durable, never exclusive, never auto-delete, never expiring.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}
