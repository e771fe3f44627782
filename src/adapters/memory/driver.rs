//! The traits of `queue`, implemented on the broker's state.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    sync::{Notify, broadcast, watch},
    time::{self, Instant},
};

use super::{
    consumer::{MemoryBrowser, MemoryConsumer},
    core::BrokerState,
    group::MemoryGroup,
};
use crate::{
    decide::QueueName,
    queue::{
        Browser, Connectivity, ConsumeRequest, Consumer, GroupChannel, Message, Outgoing,
        QueueDepth, QueueDriver, QueueError, QueueErrorKind, QueueSpec, header_size,
        short_texts_fit,
    },
};

/// The limit of a RabbitMQ connection with the default frame size, in bytes.
const HEADER_LIMIT: usize = 130_000;

/// Messages that wait for one member of a group.
const GROUP_MESSAGES: usize = 1_000;

/// Time after which an unconfirmed publish fails.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

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
    shared: Arc<SharedBroker>,
}

struct SharedBroker {
    core: Mutex<BrokerState>,
    connectivity: watch::Sender<Connectivity>,
    /// Whether publishers are blocked and confirms held back. Written by tests, read by publishing tasks.
    blocked: watch::Sender<bool>,
    /// Wakes the clock that expires messages. Written by publishing tasks, read by the clock.
    changed: Notify,
    /// The groups of daemons, by queue. Written and read by their members.
    groups: Mutex<HashMap<QueueName, broadcast::Sender<Bytes>>>,
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

    fn lose(&self, why: &str) {
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

#[async_trait]
impl QueueDriver for MemoryBroker {
    async fn probe(&self, queue: &QueueName) -> Result<QueueDepth, QueueError> {
        let mut core = self.connected("probe the queue")?;
        if core.probes_fail {
            return Err(QueueError::new(QueueErrorKind::Timeout, "probe the queue"));
        }
        core.depth(queue, Instant::now())
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<(), QueueError> {
        let mut core = self.connected("declare a queue")?;
        if core.takes_no_queue && !core.has(&queue.name) {
            let what = format!("declare the queue {}: no more queues", queue.name);
            return Err(QueueError::new(QueueErrorKind::LimitReached, what));
        }
        core.declare(queue.clone())
    }

    async fn delete(&self, queue: &QueueName) -> Result<(), QueueError> {
        // As in RabbitMQ, deleting a queue that does not exist succeeds.
        self.connected("delete a queue")?.delete(queue);
        Ok(())
    }

    async fn consume(&self, request: ConsumeRequest) -> Result<Box<dyn Consumer>, QueueError> {
        let (id, deliveries) = self.connected("open a consumer")?.consume(
            &request.queue,
            request.prefetch,
            Instant::now(),
        )?;
        Ok(Box::new(MemoryConsumer::new(self.clone(), id, deliveries)))
    }

    async fn browse(&self, queue: &QueueName) -> Result<Box<dyn Browser>, QueueError> {
        let id = self.connected("look through a queue")?.browse(queue);
        Ok(Box::new(MemoryBrowser::new(self.clone(), id)))
    }

    async fn publish(&self, message: Outgoing) -> Result<(), QueueError> {
        let taken = self.take_publish(message);
        if let Err(error) = &taken
            && error.kind == QueueErrorKind::Timeout
        {
            time::sleep(CONFIRM_TIMEOUT).await;
        }
        taken?;
        let mut held = self.shared.blocked.subscribe();
        // The sender is in `self`, so the wait cannot fail.
        let _ = held.wait_for(|held| !*held).await;
        Ok(())
    }

    async fn join_group(&self, queue: &QueueName) -> Result<Box<dyn GroupChannel>, QueueError> {
        drop(self.connected("join a group")?);
        let mut groups = self
            .shared
            .groups
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let sender = groups
            .entry(queue.clone())
            .or_insert_with(|| broadcast::Sender::new(GROUP_MESSAGES));
        Ok(Box::new(MemoryGroup {
            messages: sender.subscribe(),
            sender: sender.clone(),
            connectivity: self.shared.connectivity.subscribe(),
            blocked: self.shared.blocked.subscribe(),
        }))
    }

    fn header_limit(&self) -> usize {
        HEADER_LIMIT
    }

    fn blocked(&self) -> watch::Receiver<bool> {
        self.shared.blocked.subscribe()
    }

    fn connectivity(&self) -> watch::Receiver<Connectivity> {
        self.shared.connectivity.subscribe()
    }

    async fn close(&self) {
        self.lose("closed");
    }
}

impl MemoryBroker {
    fn take_publish(&self, message: Outgoing) -> Result<(), QueueError> {
        let mut core = self.connected("publish")?;
        if let Some(kind) = core
            .refusals
            .get(&QueueName::from(message.routing_key.as_str()))
        {
            let what = format!("publish to {:?}: the test refuses it", message.routing_key);
            return Err(QueueError::new(*kind, what));
        }
        if core
            .max_message_size
            .is_some_and(|most| message.body.len() > most)
        {
            return Err(QueueError::new(
                QueueErrorKind::TooLarge,
                "publish: the body exceeds the broker's limit",
            ));
        }
        if core.blocked {
            return Err(QueueError::new(
                QueueErrorKind::Blocked,
                "publish: the broker blocks publishers",
            ));
        }
        if header_size(&message.properties, &message.headers) > HEADER_LIMIT {
            return Err(QueueError::new(
                QueueErrorKind::TooLarge,
                "publish: the headers exceed a frame",
            ));
        }
        if !short_texts_fit(&message.properties, &message.headers) {
            return Err(QueueError::new(
                QueueErrorKind::TooLarge,
                "publish: a text exceeds 255 bytes",
            ));
        }
        core.publish(message, Instant::now())?;
        drop(core);
        self.notify_clock();
        Ok(())
    }
}
