//! One worker's consumer on a channel of its own, for queues that count no returns: its stream of deliveries, and their
//! settlement.

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
    lanes::{Lanes, Place},
    link::disconnected,
    pool::RPC_TIMEOUT,
};
use crate::{
    decide::QueueName,
    queue::{ConsumeRequest, Consumer, Delivery, QueueError, QueueErrorKind, Settle, SettleError},
};

/// An open consumer. Its place drops last where the channel is not lost, so that a lane is never fuller than it counts.
pub(super) struct AmqpConsumer {
    channel: OwnChannel,
    stream: lapin::Consumer,
    queue: QueueName,
    /// What the queue is may have changed when the broker ends a consumer by itself.
    kinds: Arc<Kinds>,
    /// We asked for no more.
    cancelled: bool,
    /// The stream has said its last; lapin's own would be pending for ever after.
    ended: bool,
    /// Until the channel is lost: a job that runs on does not keep it from others.
    place: Option<Place>,
}

impl AmqpConsumer {
    /// Opens a channel and a consumer on it.
    ///
    /// # Cancel-safety
    /// Cancel-safe: a channel that nobody waits for any more is closed by lapin, and from then on by us.
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
            // Before the consumer: it counts for those that come after. Zero would be an unbounded buffer.
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
                // Buffered before the channel was lost: the broker delivers it again, to someone who can settle.
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
                    // A connection that the broker closes in good order ends its streams without an error.
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
        // A channel that is gone is as closed as can be.
        let close = self.channel.0.close(200, "OK".into());
        let _ = rpc("close a channel", RPC_TIMEOUT, close).await;
    }
}

const LOST: &str = "consume: the channel was lost";

/// What a worker is told of the loss of its channel, whatever the reply code. The one that its settings can mend has a
/// kind of its own.
pub(super) fn lost(error: lapin::Error) -> QueueError {
    let lost = match is_consumer_timeout(&error) {
        true => QueueError::new(QueueErrorKind::HeldTooLong, LOST),
        false => disconnected(LOST),
    };
    lost.with_source(error)
}

/// What a worker is told of a consumer that was refused.
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

/// What each consumer asks for: the priority that it would have anyway. A stream refuses that for its own sake, and so
/// is never consumed: it would hand every message to every worker, and none that was there before.
pub(super) fn arguments() -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("x-priority".into(), AMQPValue::LongInt(0));
    table
}

/// A channel that is closed when it is dropped, with all that it has not settled.
///
/// lapin closes a channel that nobody holds, but counts a consumer that is registered with it as a holder. One
/// whose `basic_consume` was given up half way would stay for ever, and with it the messages that it is sent.
#[derive(Debug)]
pub(super) struct OwnChannel(pub(super) Channel);

impl Drop for OwnChannel {
    fn drop(&mut self) {
        // The first poll sends; the answer is nobody's concern. An error is a channel that is closed.
        let _ = self.0.close(200, "OK".into()).now_or_never();
    }
}

pub(super) struct AmqpSettle {
    pub(super) acker: Acker,
    pub(super) when_dropped: WhenDropped,
}

/// What becomes of a delivery that nobody settled.
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
        // The first poll hands the frame to lapin's own task; what is left out is waiting for the socket.
        let _ = self.acker.nack(requeue()).now_or_never();
    }
}

pub(super) fn requeue() -> BasicNackOptions {
    BasicNackOptions {
        multiple: false,
        requeue: true,
    }
}

/// `Ok(false)` is lapin's word for a delivery whose channel is gone: the settlement is lost, not done.
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
