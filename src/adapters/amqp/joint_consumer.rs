//! One consumer on a shared channel.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use lapin::{
    Acker, Channel,
    options::{BasicAckOptions, BasicCancelOptions, BasicRejectOptions},
    types::ShortString,
};
use tokio::{runtime::Handle, time};

use super::{
    consumer::{lost, requeue, settled},
    convert::message,
    error::rpc,
    link::disconnected,
    pool::RPC_TIMEOUT,
    seats::Seat,
};
use crate::queue::{Consumer, Delivery, QueueError, Settle, SettleError};

/// An open consumer.
///
/// **On drop** it is cancelled in the background, and all its deliveries are given back. Other consumers of the channel
/// are not affected.
pub(super) struct JointConsumer {
    /// Set until the consumer is closed.
    open: Option<OpenConsumer>,
    runtime: Handle,
}

struct OpenConsumer {
    stream: lapin::Consumer,
    channel: Channel,
    held: Arc<UnsettledDeliveries>,
    /// We cancelled the consumer.
    cancelled: bool,
    /// The stream has ended. lapin's own stream would then stay pending forever.
    ended: bool,
    seat: Seat,
}

/// Unsettled deliveries of one consumer, by their tags. Written when a delivery is handed out or settled, and when the
/// consumer ends, which gives them back.
#[derive(Debug, Default)]
struct UnsettledDeliveries(Mutex<Option<BTreeMap<u64, Acker>>>);

impl UnsettledDeliveries {
    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<u64, Acker>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a delivery out to settle it. `None` if its consumer has ended, which gave the delivery back.
    fn take(&self, tag: u64) -> Option<Acker> {
        self.lock().as_mut()?.remove(&tag)
    }
}

impl JointConsumer {
    pub(super) fn new(seat: Seat, channel: Channel, stream: lapin::Consumer) -> Self {
        let open = OpenConsumer {
            stream,
            channel,
            held: Arc::new(UnsettledDeliveries(Mutex::new(Some(BTreeMap::new())))),
            cancelled: false,
            ended: false,
            seat,
        };
        Self {
            open: Some(open),
            runtime: Handle::current(),
        }
    }
}

impl OpenConsumer {
    fn tag(&self) -> ShortString {
        self.stream.tag()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery, QueueError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            return Poll::Ready(match ready!(self.stream.poll_next_unpin(cx)) {
                // Buffered before the channel was lost: the broker delivers it again, on a channel that can settle it.
                Some(Ok(delivery)) if !delivery.acker.usable() => continue,
                Some(Ok(delivery)) => {
                    let tag = delivery.delivery_tag;
                    let held = self.held.clone();
                    if let Some(held) = held.lock().as_mut() {
                        held.insert(tag, delivery.acker.clone());
                    }
                    let settle = Box::new(JointSettle { tag, held });
                    Some(Ok(Delivery::new(message(delivery), settle)))
                }
                Some(Err(error)) => {
                    self.ended = true;
                    self.seat.lost();
                    Some(Err(lost(error)))
                }
                None => {
                    self.ended = true;
                    let is_lost = !self.cancelled && !self.channel.status().connected();
                    if is_lost {
                        self.seat.lost();
                    } else if !self.cancelled {
                        self.seat.retire();
                    }
                    is_lost.then(|| Err(disconnected("consume: the channel was lost")))
                }
            });
        }
    }

    /// Ends the consumer and gives back its deliveries.
    async fn end(mut self, held: BTreeMap<u64, Acker>) {
        if !self.channel.status().connected() {
            return;
        }
        // Closing the channel gives everything back at once. A quorum queue of RabbitMQ 3 puts the messages at its
        // head.
        if self.seat.leave_if_only() {
            return close(&self.channel).await;
        }
        // First the cancel: a message that is given back earlier could be delivered to this consumer again.
        if !self.ended {
            // Without a time limit: the broker answers, or the channel is lost, and no caller waits for this.
            let options = BasicCancelOptions::default();
            if self
                .channel
                .basic_cancel(self.tag(), options)
                .await
                .is_err()
            {
                return;
            }
        }
        for acker in held.into_values() {
            let _ = acker.nack(requeue()).await;
        }
        while !self.ended
            && let Some(Ok(delivery)) = self.stream.next().await
        {
            let _ = delivery.acker.nack(requeue()).await;
        }
        if self.seat.leave() {
            close(&self.channel).await;
        }
    }
}

async fn close(channel: &Channel) {
    let close = channel.close(200, "OK".into());
    let _ = rpc("close a channel", RPC_TIMEOUT, close).await;
}

impl JointConsumer {
    /// From now on no delivery of this consumer can be settled. Returns the remaining work.
    fn go(&mut self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let open = self.open.take()?;
        let held = open.held.lock().take().unwrap_or_default();
        Some(open.end(held))
    }
}

#[async_trait]
impl Consumer for JointConsumer {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery, QueueError>>> {
        match &mut self.open {
            Some(open) => open.poll_next(cx),
            None => Poll::Ready(None),
        }
    }

    async fn cancel(&mut self) -> Result<(), QueueError> {
        let Some(open) = self.open.as_mut().filter(|open| !open.ended) else {
            return Ok(());
        };
        open.cancelled = true;
        let cancel = open
            .channel
            .basic_cancel(open.tag(), BasicCancelOptions::default());
        rpc("cancel a consumer", RPC_TIMEOUT, cancel).await
    }

    async fn close(mut self: Box<Self>) {
        if let Some(end) = self.go() {
            // In a task, so that it runs to its end even if the caller stops waiting.
            let _ = time::timeout(RPC_TIMEOUT, self.runtime.spawn(end)).await;
        }
    }
}

impl Drop for JointConsumer {
    fn drop(&mut self) {
        if let Some(end) = self.go() {
            self.runtime.spawn(end);
        }
    }
}

struct JointSettle {
    tag: u64,
    held: Arc<UnsettledDeliveries>,
}

impl JointSettle {
    fn take(&self) -> Result<Acker, SettleError> {
        self.held.take(self.tag).ok_or(SettleError { source: None })
    }
}

#[async_trait]
impl Settle for JointSettle {
    async fn ack(self: Box<Self>) -> Result<(), SettleError> {
        settled(self.take()?.ack(BasicAckOptions::default())).await
    }

    async fn requeue(self: Box<Self>) -> Result<(), SettleError> {
        settled(self.take()?.nack(requeue())).await
    }

    async fn reject(self: Box<Self>) -> Result<(), SettleError> {
        let options = BasicRejectOptions { requeue: false };
        settled(self.take()?.reject(options)).await
    }

    fn abandon(self: Box<Self>) {
        use futures_util::FutureExt as _;
        if let Ok(acker) = self.take() {
            // The first poll hands the frame to lapin's own task. Only the wait for the socket is omitted.
            let _ = acker.nack(requeue()).now_or_never();
        }
    }
}
