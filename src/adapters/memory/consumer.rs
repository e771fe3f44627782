//! Consumers, browsers and deliveries of the in-memory broker.

use std::task::{Context, Poll};

use async_trait::async_trait;
use tokio::{sync::mpsc, time::Instant};

use super::{
    broker::MemoryBroker,
    core::{ConsumerMessage, SettleKind},
};
use crate::queue::{Browser, Consumer, Delivery, QueueError, QueueErrorKind, Settle, SettleError};

pub(super) struct MemoryConsumer {
    broker: MemoryBroker,
    id: u64,
    deliveries: mpsc::UnboundedReceiver<ConsumerMessage>,
    lost: bool,
    clock: tokio::task::JoinHandle<()>,
}

impl MemoryConsumer {
    /// Starts the clock that expires messages while the consumer exists.
    pub(super) fn new(
        broker: MemoryBroker,
        id: u64,
        deliveries: mpsc::UnboundedReceiver<ConsumerMessage>,
    ) -> Self {
        let clock = {
            let broker = broker.clone();
            tokio::spawn(async move { broker.clock().await })
        };
        Self {
            broker,
            id,
            deliveries,
            lost: false,
            clock,
        }
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery, QueueError>>> {
        if self.lost {
            return Poll::Ready(None);
        }
        self.deliveries.poll_recv(cx).map(|handed| {
            Some(match handed? {
                ConsumerMessage::Delivery(tag, message) => Ok(Delivery::new(
                    *message,
                    Box::new(MemorySettle {
                        broker: self.broker.clone(),
                        consumer: self.id,
                        tag,
                        holds: false,
                    }),
                )),
                ConsumerMessage::Lost => {
                    self.lost = true;
                    Err(QueueError::new(QueueErrorKind::Disconnected, "consume"))
                }
            })
        })
    }

    async fn cancel(&mut self) -> Result<(), QueueError> {
        let result = self
            .broker
            .connected("cancel a consumer")
            .map(|mut core| core.cancel(self.id));
        // Buffered deliveries still arrive, then the stream ends.
        self.deliveries.close();
        result
    }

    async fn close(self: Box<Self>) {
        // Dropped here.
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        self.clock.abort();
        self.broker.core().close(self.id, Instant::now());
        self.broker.notify_clock();
    }
}

pub(super) struct MemoryBrowser {
    broker: MemoryBroker,
    id: u64,
}

impl MemoryBrowser {
    pub(super) fn new(broker: MemoryBroker, id: u64) -> Self {
        Self { broker, id }
    }
}

#[async_trait]
impl Browser for MemoryBrowser {
    async fn next(&mut self) -> Result<Option<Delivery>, QueueError> {
        let fetched = self.broker.core().fetch(self.id, Instant::now())?;
        Ok(fetched.map(|(tag, message)| {
            let settle = MemorySettle {
                broker: self.broker.clone(),
                consumer: self.id,
                tag,
                holds: true,
            };
            Delivery::new(message, Box::new(settle))
        }))
    }

    async fn close(self: Box<Self>) -> Result<(), QueueError> {
        // Dropped here.
        self.broker.connected("look through a queue").map(drop)
    }
}

impl Drop for MemoryBrowser {
    fn drop(&mut self) {
        self.broker.core().close(self.id, Instant::now());
        self.broker.notify_clock();
    }
}

struct MemorySettle {
    broker: MemoryBroker,
    consumer: u64,
    tag: u64,
    /// Whether a delivery that is dropped unsettled stays out of its queue until its channel is closed.
    holds: bool,
}

impl MemorySettle {
    fn settle(&self, settling: SettleKind) -> Result<(), SettleError> {
        let settled = self
            .broker
            .core()
            .settle(self.consumer, self.tag, settling, Instant::now());
        self.broker.notify_clock();
        if settled {
            Ok(())
        } else {
            Err(SettleError { source: None })
        }
    }
}

#[async_trait]
impl Settle for MemorySettle {
    async fn ack(self: Box<Self>) -> Result<(), SettleError> {
        self.settle(SettleKind::Ack)
    }

    async fn requeue(self: Box<Self>) -> Result<(), SettleError> {
        self.settle(SettleKind::Requeue)
    }

    async fn reject(self: Box<Self>) -> Result<(), SettleError> {
        self.settle(SettleKind::Reject)
    }

    fn abandon(self: Box<Self>) {
        if self.holds {
            return;
        }
        // If the channel is closed, the delivery has returned to its queue already.
        let _ = self.settle(SettleKind::Requeue);
    }
}
