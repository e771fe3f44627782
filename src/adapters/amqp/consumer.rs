//! One worker's consumer on a channel of its own, for queues that do not count returns: its stream of deliveries, and
//! their settlement.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use lapin::{
    Acker, Channel,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions,
        BasicQosOptions, BasicRejectOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::time;

use super::{
    convert::{message, short},
    error::{is_consumer_timeout, rpc},
    kinds::Kinds,
    lanes::{LaneSlot, Lanes},
    link::disconnected,
    pool::RPC_TIMEOUT,
};
use crate::{
    decide::QueueName,
    queue::{ConsumeRequest, Consumer, Delivery, QueueError, QueueErrorKind, Settle, SettleError},
};

/// An open consumer. If the channel is not lost, its slot is dropped last, so that a lane never has more channels than
/// it counts.
pub(super) struct AmqpConsumer {
    channel: OwnChannel,
    stream: lapin::Consumer,
    queue: QueueName,
    /// If the broker ends a consumer by itself, the queue's type may have changed.
    kinds: Arc<Kinds>,
    /// We cancelled the consumer.
    cancelled: bool,
    /// The stream has ended. lapin's own stream would then stay pending forever.
    ended: bool,
    /// Held until the channel is lost. After that a job that still runs does not occupy the slot.
    place: Option<LaneSlot>,
}

impl AmqpConsumer {
    /// Opens a channel and a consumer on it.
    ///
    /// # Cancel-safety
    /// Cancel-safe: lapin closes a channel that was opened for a dropped future, and later this code does.
    pub(super) async fn open(
        lanes: &Arc<Lanes>,
        kinds: &Arc<Kinds>,
        request: &ConsumeRequest,
    ) -> Result<Self, QueueError> {
        let operation = format!("consume from the queue {}", request.queue);
        let queue = short("name of a queue", request.queue.as_str())?;
        let tag = short("consumer tag", &request.tag)?;
        let (mut place, live) = lanes.place(&operation).await?;
        place.ticket.turn().await;
        let open = async {
            let channel = OwnChannel(live.create_channel().await?);
            place.ticket.opened();
            // Set before the consumer, because it applies to later consumers. Zero would mean an unlimited buffer.
            channel
                .0
                .basic_qos(request.prefetch.max(1), BasicQosOptions { global: false })
                .await?;
            place.ticket.consuming().await;
            let options = BasicConsumeOptions::default();
            let stream = channel
                .0
                .basic_consume(queue, tag, options, arguments())
                .await?;
            Ok((channel, stream))
        };
        let opened = rpc(&operation, RPC_TIMEOUT, open).await;
        let (channel, stream) = opened
            .inspect_err(|error| place.ticket.note(error))
            .map_err(|error| named(&operation, error))?;
        Ok(Self {
            channel,
            stream,
            queue: request.queue.clone(),
            kinds: kinds.clone(),
            cancelled: false,
            ended: false,
            place: Some(place),
        })
    }
}

#[async_trait]
impl Consumer for AmqpConsumer {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Delivery, QueueError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            return Poll::Ready(match ready!(self.stream.poll_next_unpin(cx)) {
                // Buffered before the channel was lost: the broker delivers it again, on a channel that can settle it.
                Some(Ok(delivery)) if !delivery.acker.usable() => continue,
                Some(Ok(delivery)) => {
                    let acker = delivery.acker.clone();
                    let settle = Box::new(AmqpSettle {
                        acker,
                        when_dropped: WhenDropped::GiveBack,
                    });
                    Some(Ok(Delivery::new(message(delivery), settle)))
                }
                Some(Err(error)) => {
                    self.ended = true;
                    self.place = None;
                    Some(Err(lost(error)))
                }
                None => {
                    self.ended = true;
                    // If the broker closes a connection cleanly, lapin's streams end without an error.
                    let is_lost = !self.cancelled && !self.channel.0.status().connected();
                    if is_lost {
                        self.place = None;
                    } else if !self.cancelled {
                        self.kinds.forget(&self.queue);
                    }
                    is_lost.then(|| Err(disconnected(LOST)))
                }
            });
        }
    }

    async fn cancel(&mut self) -> Result<(), QueueError> {
        if self.ended {
            return Ok(());
        }
        self.cancelled = true;
        let tag = self.stream.tag();
        let cancel = self
            .channel
            .0
            .basic_cancel(tag, BasicCancelOptions::default());
        rpc("cancel a consumer", RPC_TIMEOUT, cancel).await
    }

    async fn close(self: Box<Self>) {
        // If the channel is lost, there is nothing to close.
        let close = self.channel.0.close(200, "OK".into());
        let _ = rpc("close a channel", RPC_TIMEOUT, close).await;
    }
}

const LOST: &str = "consume: the channel was lost";

/// The error that a worker gets for the loss of its channel, for any reply code. A loss that the pool's settings can
/// fix has its own kind.
pub(super) fn lost(error: lapin::Error) -> QueueError {
    let lost = match is_consumer_timeout(&error) {
        true => QueueError::new(QueueErrorKind::HeldTooLong, LOST),
        false => disconnected(LOST),
    };
    lost.with_source(error)
}

/// The error that a worker gets for a refused consumer.
pub(super) fn named(operation: &str, error: QueueError) -> QueueError {
    match error.kind {
        QueueErrorKind::Unsuitable => QueueError {
            operation: format!(
                "{operation}: it is a stream, which gives each message to every worker; a pool wants a classic or a \
                 quorum queue"
            ),
            ..error
        },
        _ => error,
    }
}

/// The arguments of each consumer: the default priority. A stream refuses this argument, so a pool never consumes a
/// stream. A stream would deliver every message to every worker, and no message from before the consumer.
pub(super) fn arguments() -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("x-priority".into(), AMQPValue::LongInt(0));
    table
}

/// A channel that is closed when it is dropped, so that its unsettled deliveries go back.
///
/// lapin closes a channel without holders, but counts a registered consumer as a holder. A consumer whose
/// `basic_consume` was dropped halfway would stay forever, and hold the messages that the broker sends it.
#[derive(Debug)]
pub(super) struct OwnChannel(pub(super) Channel);

impl Drop for OwnChannel {
    fn drop(&mut self) {
        // The first poll sends the close. The answer is not needed. An error means that the channel is already closed.
        let _ = self.0.close(200, "OK".into()).now_or_never();
    }
}

pub(super) struct AmqpSettle {
    pub(super) acker: Acker,
    pub(super) when_dropped: WhenDropped,
}

/// What happens to a delivery that was not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenDropped {
    /// It goes back at once.
    GiveBack,
    /// It stays out of the queue until its channel is closed.
    Hold,
}

#[async_trait]
impl Settle for AmqpSettle {
    async fn ack(self: Box<Self>) -> Result<(), SettleError> {
        settled(self.acker.ack(BasicAckOptions::default())).await
    }

    async fn requeue(self: Box<Self>) -> Result<(), SettleError> {
        settled(self.acker.nack(requeue())).await
    }

    async fn reject(self: Box<Self>) -> Result<(), SettleError> {
        let options = BasicRejectOptions { requeue: false };
        settled(self.acker.reject(options)).await
    }

    fn abandon(self: Box<Self>) {
        if self.when_dropped == WhenDropped::Hold {
            return;
        }
        // The first poll hands the frame to lapin's own task. Only the wait for the socket is omitted.
        let _ = self.acker.nack(requeue()).now_or_never();
    }
}

pub(super) fn requeue() -> BasicNackOptions {
    BasicNackOptions {
        multiple: false,
        requeue: true,
    }
}

/// lapin returns `Ok(false)` for a delivery whose channel is closed: the settlement is lost, not done.
pub(super) async fn settled(
    settling: impl Future<Output = lapin::Result<bool>>,
) -> Result<(), SettleError> {
    match time::timeout(RPC_TIMEOUT, settling).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(SettleError { source: None }),
        Ok(Err(error)) => Err(SettleError {
            source: Some(error.into()),
        }),
        Err(elapsed) => Err(SettleError {
            source: Some(elapsed.into()),
        }),
    }
}
