//! A queue of the in-memory broker, and the messages in it.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::queue::{HeaderValue, Message, QueueKind, QueueSpec};

/// The header in which a quorum queue counts unfinished deliveries.
pub(super) const DELIVERY_COUNT: &str = "x-delivery-count";

#[derive(Debug)]
pub(super) struct StoredQueue {
    pub(super) spec: QueueSpec,
    /// How often a message may be returned; `None` is without limit.
    pub(super) delivery_limit: Option<u32>,
    pub(super) ready: VecDeque<StoredMessage>,
    /// Consumers in the order of their next turn.
    pub(super) turns: VecDeque<u64>,
}

/// A message in a queue.
#[derive(Debug, Clone)]
pub(super) struct StoredMessage {
    pub(super) message: Message,
    /// Its position in the queue. A returned message takes the same position again.
    pub(super) place: u64,
    /// Number of unfinished deliveries.
    pub(super) returned: i64,
    pub(super) expires: Option<Instant>,
}

impl StoredQueue {
    /// An empty queue.
    pub(super) fn new(spec: QueueSpec) -> Self {
        Self {
            spec,
            delivery_limit: None,
            ready: VecDeque::new(),
            turns: VecDeque::new(),
        }
    }

    /// When a message expires that is published now.
    pub(super) fn expiry(&self, message: &Message, now: Instant) -> Option<Instant> {
        let own = message
            .properties
            .expiration
            .as_deref()
            .and_then(|ms| ms.parse().ok())
            .map(Duration::from_millis);
        let ttl = match (own, self.spec.message_ttl) {
            (Some(own), Some(queues)) => Some(own.min(queues)),
            (own, queues) => own.or(queues),
        };
        ttl.map(|ttl| now + ttl)
    }

    pub(super) fn is_head_expired(&self, now: Instant) -> bool {
        let expires = self.ready.front().and_then(|head| head.expires);
        expires.is_some_and(|at| at <= now)
    }

    /// Removes the message at the head if it has expired. As in RabbitMQ, only the head of a queue can expire.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<StoredMessage> {
        match self.is_head_expired(now) {
            true => self.ready.pop_front(),
            false => None,
        }
    }

    /// Whether a message was returned more often than the queue allows. Only quorum queues count returns.
    pub(super) fn is_over_limit(&self, stored: &StoredMessage) -> bool {
        self.delivery_limit
            .filter(|_| self.spec.kind == QueueKind::Quorum)
            .is_some_and(|limit| stored.returned > i64::from(limit))
    }

    /// Puts a returned message at the position that it had.
    pub(super) fn put_back(&mut self, stored: StoredMessage) {
        let index = self
            .ready
            .partition_point(|other| other.place < stored.place);
        self.ready.insert(index, stored);
    }
}

impl StoredMessage {
    /// The message as a consumer sees it.
    pub(super) fn shown(&self, kind: QueueKind) -> Message {
        let mut message = self.message.clone();
        if kind == QueueKind::Quorum && self.returned > 0 {
            message
                .headers
                .insert(DELIVERY_COUNT.to_owned(), HeaderValue::I64(self.returned));
        }
        message
    }
}
