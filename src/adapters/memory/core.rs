//! The broker's state and operations, all synchronous. The caller holds the lock; nothing here waits.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use super::stored::{DELIVERY_COUNT, StoredMessage, StoredQueue};
use crate::{
    decide::QueueName,
    queue::{
        HeaderValue, Message, NoRoute, Outgoing, QueueDepth, QueueError, QueueErrorKind, QueueSpec,
    },
};

/// All queues and consumers.
#[derive(Debug, Default)]
pub(super) struct BrokerState {
    queues: BTreeMap<QueueName, StoredQueue>,
    consumers: BTreeMap<u64, ConsumerState>,
    next_consumer: u64,
    next_place: u64,
    pub(super) connected: bool,
    pub(super) blocked: bool,
    pub(super) probes_fail: bool,
    pub(super) refusals: HashMap<QueueName, QueueErrorKind>,
    pub(super) takes_no_queue: bool,
    pub(super) max_message_size: Option<usize>,
    /// Whether all deliveries are withheld.
    pub(super) withholds: bool,
    /// The error for new consumers.
    pub(super) refuses: Option<QueueErrorKind>,
}

#[derive(Debug)]
struct ConsumerState {
    /// `None` after the queue was deleted: its deliveries cannot be returned.
    queue: Option<QueueName>,
    prefetch: usize,
    /// Deliveries that are not settled, by tag.
    unsettled: BTreeMap<u64, StoredMessage>,
    next_tag: u64,
    /// `None` ends the stream. A consumer whose stream has ended may still settle.
    sender: Option<mpsc::UnboundedSender<ConsumerMessage>>,
}

/// The deliveries of a consumer. The channel is unbounded because prefetch bounds its content.
#[derive(Debug)]
pub(super) enum ConsumerMessage {
    /// A message and its tag.
    Delivery(u64, Box<Message>),
    /// The connection is lost.
    Lost,
}

/// How an unsettled delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SettleKind {
    Ack,
    Requeue,
    Reject,
}

impl BrokerState {
    pub(super) fn has(&self, queue: &QueueName) -> bool {
        self.queues.contains_key(queue)
    }

    /// Declares a queue. If it exists with another declaration, it stays unchanged and this is an error.
    pub(super) fn declare(&mut self, mut spec: QueueSpec) -> Result<(), QueueError> {
        let text = |name: &str| spec.arguments.get(name).and_then(HeaderValue::as_text);
        if let (Some(""), Some(key)) = (
            text("x-dead-letter-exchange"),
            text("x-dead-letter-routing-key"),
        ) {
            spec.dead_letter_to = Some(key.into());
        }
        let ttl = spec.arguments.get("x-message-ttl");
        if let Some(ms) = ttl.and_then(HeaderValue::as_integer) {
            spec.message_ttl = Some(Duration::from_millis(ms.unsigned_abs()));
        }
        if let Some(found) = self.queues.get(&spec.name) {
            // Bindings are not part of a queue's declaration. There are no exchanges here to bind to.
            let same = QueueSpec {
                bindings: found.spec.bindings.clone(),
                ..spec.clone()
            };
            if found.spec == same {
                return Ok(());
            }
            let what = format!(
                "declare the queue {}: it exists with other arguments",
                spec.name
            );
            return Err(QueueError::new(QueueErrorKind::Mismatch, what));
        }
        self.queues
            .insert(spec.name.clone(), StoredQueue::new(spec));
        Ok(())
    }

    /// Sets a queue's delivery limit. Only quorum queues count deliveries.
    pub(super) fn limit_deliveries(&mut self, queue: &QueueName, limit: u32) {
        if let Some(found) = self.queues.get_mut(queue) {
            found.delivery_limit = Some(limit);
        }
    }

    /// Deletes a queue. The streams of its consumers end.
    pub(super) fn delete(&mut self, queue: &QueueName) -> bool {
        let was_there = self.queues.remove(queue).is_some();
        for consumer in self.consumers.values_mut() {
            if consumer.queue.as_ref() == Some(queue) {
                consumer.queue = None;
                consumer.sender = None;
            }
        }
        was_there
    }

    pub(super) fn depth(
        &mut self,
        queue: &QueueName,
        now: Instant,
    ) -> Result<QueueDepth, QueueError> {
        self.expire(now);
        let found = self.queues.get(queue).ok_or_else(|| not_found(queue))?;
        Ok(QueueDepth {
            ready: found.ready.len() as u64,
            consumers: u32::try_from(found.turns.len()).unwrap_or(u32::MAX),
        })
    }

    /// Removes and returns all ready messages.
    pub(super) fn take_ready(&mut self, queue: &QueueName, now: Instant) -> Vec<Message> {
        self.expire(now);
        let Some(found) = self.queues.get_mut(queue) else {
            return Vec::new();
        };
        let kind = found.spec.kind;
        found
            .ready
            .drain(..)
            .map(|stored| stored.shown(kind))
            .collect()
    }

    /// Puts a removed message back, with the delivery count in its headers.
    pub(super) fn put_in_again(&mut self, queue: &QueueName, mut message: Message, now: Instant) {
        let count = message.headers.remove(DELIVERY_COUNT);
        let place = self.new_place();
        let Some(found) = self.queues.get_mut(queue) else {
            return;
        };
        found.ready.push_back(StoredMessage {
            message,
            place,
            returned: count.and_then(|count| count.as_integer()).unwrap_or(0),
            expires: None,
        });
        self.dispatch(queue, now);
    }

    /// Publishes through the default exchange, which routes by queue name. It is the only exchange.
    pub(super) fn publish(&mut self, outgoing: Outgoing, now: Instant) -> Result<(), QueueError> {
        if !outgoing.exchange.is_empty() {
            let what = format!("publish to the exchange {:?}", outgoing.exchange);
            return Err(QueueError::new(QueueErrorKind::NotFound, what));
        }
        let queue = QueueName::from(outgoing.routing_key.as_str());
        if !self.has(&queue) {
            if outgoing.no_route == NoRoute::Drop {
                return Ok(());
            }
            let what = format!("publish to {queue}: no queue takes it");
            return Err(QueueError::new(QueueErrorKind::Unroutable, what));
        }
        let message = Message {
            exchange: outgoing.exchange,
            routing_key: outgoing.routing_key,
            redelivered: false,
            properties: outgoing.properties,
            headers: outgoing.headers,
            body: outgoing.body,
        };
        self.enqueue(&queue, message, now);
        Ok(())
    }

    pub(super) fn consume(
        &mut self,
        queue: &QueueName,
        prefetch: u16,
        now: Instant,
    ) -> Result<(u64, mpsc::UnboundedReceiver<ConsumerMessage>), QueueError> {
        let found = self.queues.get_mut(queue).ok_or_else(|| not_found(queue))?;
        if let Some(kind) = self.refuses {
            return Err(QueueError::new(
                kind,
                "open a consumer: the test refuses it",
            ));
        }
        let id = self.next_consumer;
        self.next_consumer += 1;
        found.turns.push_back(id);
        let (sender, receiver) = mpsc::unbounded_channel();
        self.consumers.insert(
            id,
            ConsumerState {
                queue: Some(queue.clone()),
                prefetch: usize::from(prefetch),
                unsettled: BTreeMap::new(),
                next_tag: 1,
                sender: Some(sender),
            },
        );
        self.dispatch(queue, now);
        Ok((id, receiver))
    }

    /// Begins browsing a queue: a consumer without a turn, which fetches instead. A missing queue is reported by the
    /// first fetch.
    pub(super) fn browse(&mut self, queue: &QueueName) -> u64 {
        let id = self.next_consumer;
        self.next_consumer += 1;
        self.consumers.insert(
            id,
            ConsumerState {
                queue: Some(queue.clone()),
                prefetch: usize::MAX,
                unsettled: BTreeMap::new(),
                next_tag: 1,
                sender: None,
            },
        );
        id
    }

    /// Delivers the head of the queue to a browser. Fails if the browser's connection or queue no longer exists.
    pub(super) fn fetch(
        &mut self,
        id: u64,
        now: Instant,
    ) -> Result<Option<(u64, Message)>, QueueError> {
        self.expire(now);
        let lost = || QueueError::new(QueueErrorKind::Disconnected, "look through a queue");
        let consumer = self.consumers.get_mut(&id).ok_or_else(lost)?;
        let queue = consumer.queue.as_ref().ok_or_else(lost)?;
        let found = self.queues.get_mut(queue).ok_or_else(|| not_found(queue))?;
        let Some(stored) = found.ready.pop_front() else {
            return Ok(None);
        };
        let tag = consumer.next_tag;
        consumer.next_tag += 1;
        let message = stored.shown(found.spec.kind);
        consumer.unsettled.insert(tag, stored);
        Ok(Some((tag, message)))
    }

    /// Stops deliveries to a consumer. It may still settle the deliveries it has.
    pub(super) fn cancel(&mut self, id: u64) {
        let queue = self
            .consumers
            .get(&id)
            .and_then(|consumer| consumer.queue.as_ref());
        if let Some(queue) = queue.and_then(|queue| self.queues.get_mut(queue)) {
            queue.turns.retain(|turn| *turn != id);
        }
    }

    /// Closes a consumer's channel. Its unsettled deliveries return to the queue.
    pub(super) fn close(&mut self, id: u64, now: Instant) {
        self.cancel(id);
        let Some(consumer) = self.consumers.remove(&id) else {
            return;
        };
        let Some(queue) = consumer.queue else {
            return;
        };
        for stored in consumer.unsettled.into_values() {
            self.put_back(&queue, stored, now);
        }
        self.dispatch(&queue, now);
    }

    /// Settles one delivery. `false` if its channel is closed or it was settled before.
    pub(super) fn settle(&mut self, id: u64, tag: u64, settling: SettleKind, now: Instant) -> bool {
        let Some(consumer) = self.consumers.get_mut(&id) else {
            return false;
        };
        let Some(stored) = consumer.unsettled.remove(&tag) else {
            return false;
        };
        let Some(queue) = consumer.queue.clone() else {
            return true;
        };
        match settling {
            SettleKind::Ack => {}
            SettleKind::Requeue => self.put_back(&queue, stored, now),
            SettleKind::Reject => self.dead_letter(&queue, stored.message, now),
        }
        self.dispatch(&queue, now);
        true
    }

    /// Disconnects every consumer.
    pub(super) fn disconnect(&mut self, now: Instant) {
        self.connected = false;
        let ids: Vec<u64> = self.consumers.keys().copied().collect();
        for id in &ids {
            self.cancel(*id);
        }
        for id in ids {
            let consumer = self.consumers.get(&id);
            if let Some(sender) = consumer.and_then(|consumer| consumer.sender.as_ref()) {
                // A consumer whose worker has ended needs no message.
                let _ = sender.send(ConsumerMessage::Lost);
            }
            self.close(id, now);
        }
    }

    /// When the next message expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.queues
            .values()
            .filter_map(|queue| queue.ready.front()?.expires)
            .min()
    }

    /// Moves expired messages to the dead-letter queues.
    pub(super) fn expire(&mut self, now: Instant) {
        loop {
            let due = self
                .queues
                .iter_mut()
                .find_map(|(name, queue)| Some((name.clone(), queue.take_expired(now)?)));
            let Some((queue, stored)) = due else { return };
            self.dead_letter(&queue, stored.message, now);
        }
    }

    /// Delivers waiting messages in every queue.
    pub(super) fn dispatch_all(&mut self, now: Instant) {
        let names: Vec<QueueName> = self.queues.keys().cloned().collect();
        for name in names {
            self.dispatch(&name, now);
        }
    }

    fn new_place(&mut self) -> u64 {
        self.next_place += 1;
        self.next_place
    }

    fn enqueue(&mut self, queue: &QueueName, message: Message, now: Instant) {
        let place = self.new_place();
        let Some(found) = self.queues.get_mut(queue) else {
            return;
        };
        let expires = found.expiry(&message, now);
        found.ready.push_back(StoredMessage {
            message,
            place,
            returned: 0,
            expires,
        });
        self.dispatch(queue, now);
    }

    /// Returns a message to its position. If it has reached the queue's delivery limit, it is dead-lettered or
    /// dropped.
    fn put_back(&mut self, queue: &QueueName, mut stored: StoredMessage, now: Instant) {
        stored.returned += 1;
        stored.message.redelivered = true;
        if let Some(found) = self.queues.get_mut(queue) {
            if found.is_over_limit(&stored) {
                self.dead_letter(queue, stored.message, now);
            } else {
                found.put_back(stored);
            }
        }
    }

    fn dead_letter(&mut self, queue: &QueueName, mut message: Message, now: Instant) {
        let target = self
            .queues
            .get(queue)
            .and_then(|found| found.spec.dead_letter_to.clone());
        let Some(target) = target else { return };
        message.properties.expiration = None;
        message.redelivered = false;
        message.exchange = String::new();
        message.routing_key = target.as_str().to_owned();
        self.enqueue(&target, message, now);
    }

    /// Delivers ready messages to the consumers in turn, up to their prefetch.
    fn dispatch(&mut self, queue: &QueueName, now: Instant) {
        let found = self.queues.get(queue);
        if found.is_some_and(|found| found.is_head_expired(now)) {
            self.expire(now);
        }
        if self.withholds {
            return;
        }
        let Some(found) = self.queues.get_mut(queue) else {
            return;
        };
        let mut full = 0;
        while !found.ready.is_empty() && full < found.turns.len() {
            let Some(id) = found.turns.pop_front() else {
                return;
            };
            found.turns.push_back(id);
            let Some(consumer) = self.consumers.get_mut(&id) else {
                continue;
            };
            if consumer.unsettled.len() >= consumer.prefetch {
                full += 1;
                continue;
            }
            full = 0;
            let Some(stored) = found.ready.pop_front() else {
                return;
            };
            let tag = consumer.next_tag;
            consumer.next_tag += 1;
            let message = stored.shown(found.spec.kind);
            consumer.unsettled.insert(tag, stored);
            if let Some(sender) = &consumer.sender {
                // If the receiver was dropped, closing the consumer returns all its deliveries.
                let _ = sender.send(ConsumerMessage::Delivery(tag, Box::new(message)));
            }
        }
    }
}

pub(super) fn not_found(queue: &QueueName) -> QueueError {
    QueueError::new(QueueErrorKind::NotFound, format!("find the queue {queue}"))
}
