//! The broker: its state, its clock, and the faults that a test can set.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, broadcast, watch},
    time::{self, Instant},
};

use super::core::BrokerState;
use crate::{
    decide::QueueName,
    queue::{Connectivity, Message, Outgoing, QueueError, QueueErrorKind, QueueSpec},
};

/// A broker in the process. Cheap to clone; all clones are the same broker.
///
/// ```
/// use tidegate::{adapters::memory::MemoryBroker, queue::{QueueKind, QueueSpec}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let broker = MemoryBroker::new();
/// broker.declare_queue("thumbnails", QueueKind::Classic);
/// broker.send("thumbnails", "cat.png");
/// assert_eq!(broker.ready("thumbnails"), Some(1));
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryBroker {
    pub(super) shared: Arc<SharedBroker>,
}

pub(super) struct SharedBroker {
    core: Mutex<BrokerState>,
    pub(super) connectivity: watch::Sender<Connectivity>,
    /// Whether publishers are blocked and confirms held back. Written by tests, read by publishing tasks.
    pub(super) blocked: watch::Sender<bool>,
    /// Wakes the clock that expires messages. Written by publishing tasks, read by the clock.
    changed: Notify,
    /// The groups of daemons, by queue. Written and read by their members.
    pub(super) groups: Mutex<HashMap<QueueName, broadcast::Sender<Bytes>>>,
}

impl MemoryBroker {
    /// A connected broker without queues.
    pub fn new() -> Self {
        let mut core = BrokerState::default();
        core.connected = true;
        Self {
            shared: Arc::new(SharedBroker {
                core: Mutex::new(core),
                connectivity: watch::Sender::new(Connectivity::Connected),
                blocked: watch::Sender::new(false),
                changed: Notify::new(),
                groups: Mutex::default(),
            }),
        }
    }

    /// Declares a durable queue without arguments.
    pub fn declare_queue(&self, name: impl Into<QueueName>, kind: crate::queue::QueueKind) {
        // An existing queue stays unchanged.
        let _ = self.core().declare(QueueSpec::new(name.into(), kind));
    }

    /// Sets a quorum queue's delivery limit. As in RabbitMQ, a message that is returned more often is dead-lettered,
    /// or dropped if the queue has no dead-letter queue. Without a limit every message is kept.
    pub fn limit_deliveries(&self, queue: &str, limit: u32) {
        self.core().limit_deliveries(&QueueName::from(queue), limit);
    }

    /// Puts a message with this body into a queue.
    ///
    /// # Panics
    /// If the queue does not exist.
    pub fn send(&self, queue: &str, body: impl Into<Bytes>) {
        self.send_message(Outgoing {
            routing_key: queue.to_owned(),
            body: body.into(),
            ..Outgoing::default()
        });
    }

    /// Puts a message into the queue that its routing key names. Panics like [`send`](Self::send).
    pub fn send_message(&self, message: Outgoing) {
        let sent = self.core().publish(message, Instant::now());
        self.notify_clock();
        sent.expect("a test publishes to a queue that it has declared");
    }

    /// Number of messages ready in a queue; `None` if the queue does not exist.
    pub fn ready(&self, queue: &str) -> Option<u64> {
        let depth = self
            .core()
            .depth(&QueueName::from(queue), Instant::now())
            .ok()?;
        Some(depth.ready)
    }

    /// Removes and returns all ready messages of a queue.
    pub fn take(&self, queue: &str) -> Vec<Message> {
        self.core()
            .take_ready(&QueueName::from(queue), Instant::now())
    }

    /// Puts back a message that [`take`](Self::take) removed, with its delivery count. For tests that look into a
    /// queue.
    pub fn send_back(&self, queue: &str, message: Message) {
        self.core()
            .put_in_again(&QueueName::from(queue), message, Instant::now());
    }

    /// Deletes a queue, also if it has consumers. `false` if it did not exist.
    pub fn delete_queue(&self, queue: &str) -> bool {
        self.core().delete(&QueueName::from(queue))
    }

    /// Sets whether every publish is refused, as during a memory or disk alarm.
    pub fn set_blocked(&self, blocked: bool) {
        self.core().blocked = blocked;
        self.shared.blocked.send_replace(blocked);
    }

    /// Sets whether publishes are accepted without confirms, and publishers are told that they are blocked. An alarm
    /// does this to messages that were sent before it.
    pub fn set_confirms_held(&self, held: bool) {
        self.shared.blocked.send_replace(held);
    }

    /// Makes every publish to a queue fail with this kind of error; `None` ends it. A
    /// [`Timeout`](QueueErrorKind::Timeout) comes after 30 s, as from a quorum queue without a leader.
    pub fn set_refusal(&self, queue: &str, refusal: Option<QueueErrorKind>) {
        let mut core = self.core();
        match refusal {
            Some(kind) => core.refusals.insert(QueueName::from(queue), kind),
            None => core.refusals.remove(&QueueName::from(queue)),
        };
    }

    /// Sets whether declaring a new queue fails, as if the virtual host's limit were reached.
    pub fn set_full_of_queues(&self, full: bool) {
        self.core().takes_no_queue = full;
    }

    /// Sets the largest accepted body, in bytes; `None` is without limit.
    pub fn set_max_message_size(&self, bytes: Option<usize>) {
        self.core().max_message_size = bytes;
    }

    /// Sets whether every probe fails.
    pub fn set_probes_fail(&self, fail: bool) {
        self.core().probes_fail = fail;
    }

    /// Sets whether deliveries are withheld, as if another consumer were the queue's single active consumer.
    pub fn set_withholds(&self, withholds: bool) {
        let mut core = self.core();
        core.withholds = withholds;
        core.dispatch_all(Instant::now());
    }

    /// Refuses every new consumer with this kind of error; `None` ends it.
    pub fn set_refuses(&self, kind: Option<QueueErrorKind>) {
        self.core().refuses = kind;
    }

    /// Drops every connection. Consumers end, and their unsettled deliveries return to their queues.
    pub fn disconnect(&self) {
        self.lose("the test closed the connection");
    }

    /// Connects again.
    pub fn reconnect(&self) {
        self.core().connected = true;
        self.shared
            .connectivity
            .send_replace(Connectivity::Connected);
    }

    pub(super) fn lose(&self, why: &str) {
        self.core().disconnect(Instant::now());
        let error = why.to_owned();
        self.shared
            .connectivity
            .send_replace(Connectivity::Disconnected { error });
    }

    pub(super) fn core(&self) -> MutexGuard<'_, BrokerState> {
        self.shared
            .core
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn connected(
        &self,
        operation: &str,
    ) -> Result<MutexGuard<'_, BrokerState>, QueueError> {
        let core = self.core();
        if core.connected {
            Ok(core)
        } else {
            Err(QueueError::new(QueueErrorKind::Disconnected, operation))
        }
    }

    /// Reports a change of the messages to the clocks.
    pub(super) fn notify_clock(&self) {
        self.shared.changed.notify_one();
    }

    /// Expires messages while there is a consumer. Runs inside a consumer's own task.
    pub(super) async fn clock(&self) {
        loop {
            let next = self.core().next_expiry();
            let changed = self.shared.changed.notified();
            match next {
                Some(at) => tokio::select! {
                    () = time::sleep_until(at) => self.core().expire(Instant::now()),
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }
}

impl Default for MemoryBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker").finish_non_exhaustive()
    }
}
