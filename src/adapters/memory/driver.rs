//! The traits of `queue`, implemented on the broker's state.

use std::{sync::PoisonError, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::{broadcast, watch},
    time::{self, Instant},
};

use super::{
    broker::MemoryBroker,
    consumer::{MemoryBrowser, MemoryConsumer},
    group::MemoryGroup,
};
use crate::{
    decide::QueueName,
    queue::{
        Browser, Connectivity, ConsumeRequest, Consumer, GroupChannel, Outgoing, QueueDepth,
        QueueDriver, QueueError, QueueErrorKind, QueueSpec, header_size, short_texts_fit,
    },
};

/// The limit of a RabbitMQ connection with the default frame size, in bytes.
const HEADER_LIMIT: usize = 130_000;

/// Messages that wait for one member of a group.
const GROUP_MESSAGES: usize = 1_000;

/// Time after which an unconfirmed publish fails.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

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
