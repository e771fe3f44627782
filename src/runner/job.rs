//! A job: the work that a delivery asks for, as a runner sees it.

use std::{borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::{
    decide::{JobId, PoolName, QueueName},
    queue::{Headers, Message, Properties},
};

/// A job. Cheap to clone: the message is shared.
#[derive(Clone)]
pub struct Job {
    id: JobId,
    pool: PoolName,
    queue: QueueName,
    attempt: u32,
    message: Arc<Message>,
    cancelled: CancellationToken,
}

impl Job {
    /// A job made of `message`. Its id is the message's `message-id` where that is set, `fallback_id` otherwise.
    pub fn new(
        pool: PoolName,
        queue: QueueName,
        message: Arc<Message>,
        attempt: u32,
        fallback_id: impl FnOnce() -> JobId,
    ) -> Self {
        let id = match message.properties.message_id.as_deref() {
            Some(id) if !id.is_empty() => JobId::from(id),
            _ => fallback_id(),
        };
        Self {
            id,
            pool,
            queue,
            attempt,
            message,
            cancelled: CancellationToken::new(),
        }
    }

    /// The same job, whose [`cancelled`](Self::cancelled) follows `token`.
    #[must_use]
    pub fn cancelled_by(mut self, token: CancellationToken) -> Self {
        self.cancelled = token;
        self
    }

    /// The message's id, or one made up. Others' text: escape it where it is shown.
    pub fn id(&self) -> &JobId {
        &self.id
    }

    /// The pool that runs it.
    pub fn pool(&self) -> &PoolName {
        &self.pool
    }

    /// The queue that it came from.
    pub fn queue(&self) -> &QueueName {
        &self.queue
    }

    /// Which attempt this is: 1 is the first.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The exchange that it was first published to, also on a later attempt; empty for the default exchange.
    /// See [`Message::origin`] for when a message is believed.
    pub fn exchange(&self) -> Cow<'_, str> {
        self.message.origin().exchange
    }

    /// The routing key that it was first published with, also on a later attempt.
    pub fn routing_key(&self) -> Cow<'_, str> {
        self.message.origin().routing_key
    }

    /// The message's properties: type, priority, timestamp and the like.
    pub fn properties(&self) -> &Properties {
        &self.message.properties
    }

    /// The body, byte for byte.
    pub fn body(&self) -> &Bytes {
        &self.message.body
    }

    /// The message's headers.
    pub fn headers(&self) -> &Headers {
        &self.message.headers
    }

    /// The whole message, as it came this time.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Fires when the supervisor wants the job to end: at the drain's deadline, at a timeout, or when it is
    /// preempted. A handler that returns soon after keeps its outcome; one that does not is dropped.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }
}

impl fmt::Debug for Job {
    // Never the payload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.id)
            .field("pool", &self.pool)
            .field("attempt", &self.attempt)
            .field("bytes", &self.message.body.len())
            .finish_non_exhaustive()
    }
}
