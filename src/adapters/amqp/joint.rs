//! Channels that several consumers of one queue share, if the queue counts returns.
//!
//! When a connection dies, the broker closes its channels one after the other, and delivers the messages of the first
//! channel to consumers on channels that it has not closed yet. A quorum queue counts each such return, and drops a
//! message after a number of them. All messages of one channel come back at once. So the consumers of such a queue
//! share as few channels as possible, and the loss of one connection causes at most as many returns as the queue has
//! channels.
//!
//! The disadvantages, and how this module limits them:
//!
//! - An error on a channel ends it for all its consumers. If the broker refuses the queue itself (it is missing, or
//!   forbidden), it refuses the first consumer of the channel, before any job runs there. After the broker has ended a
//!   consumer by itself, no consumer is added to its channel, because the broker may refuse the next one. Two cases
//!   remain: a permission that is removed while the pool grows, and the consumer timeout, which also ends the other
//!   jobs on the channel.
//! - This module never closes a channel that other consumers use. Opening a consumer runs to its end in a task of its
//!   own, and a consumer that is no longer wanted is cancelled by its tag.

use std::sync::Arc;

use futures_util::FutureExt as _;
use lapin::{
    Channel,
    options::{BasicConsumeOptions, BasicQosOptions},
    types::ShortString,
};
use tokio::{sync::oneshot, time};

use super::{
    consumer::{OwnChannel, arguments, named},
    convert::short,
    error::{classify, is_consumer_timeout, rpc},
    joint_consumer::JointConsumer,
    lanes::Lanes,
    link::disconnected,
    pool::RPC_TIMEOUT,
    seats::{ChannelState, Seat, Seating},
};
use crate::queue::{ConsumeRequest, QueueError, QueueErrorKind};

/// The consumers of each channel. One for all connections of a driver.
#[derive(Debug)]
pub(super) struct JointChannels {
    lanes: Arc<Lanes>,
    seating: Arc<Seating>,
}

impl JointChannels {
    pub(super) fn new(lanes: Arc<Lanes>) -> Arc<Self> {
        Arc::new(Self {
            lanes,
            seating: Arc::default(),
        })
    }

    /// Opens a consumer.
    ///
    /// # Cancel-safety
    /// Cancel-safe: a consumer that is being opened is cancelled when it is open.
    pub(super) async fn open(&self, request: ConsumeRequest) -> Result<JointConsumer, QueueError> {
        let operation = format!("consume from the queue {}", request.queue);
        let queue = short("name of a queue", request.queue.as_str())?;
        let seat = self.seating.seat(&request.queue, &request.tag);
        let tag = short("consumer tag", &seat.tag)?;
        let (sender, receiver) = oneshot::channel();
        let lanes = self.lanes.clone();
        // If `basic_consume` were dropped halfway, it would leave a consumer that nothing reads.
        tokio::spawn(async move {
            let opening = Opening {
                lanes,
                operation,
                queue,
                tag,
                prefetch: request.prefetch.max(1),
                asker: sender,
            };
            opening.run(seat).await;
        });
        // The task sends a result before it ends.
        let gone = |_| Err(disconnected("consume: the program ends"));
        receiver.await.unwrap_or_else(gone)
    }
}

/// A consumer that is being opened.
struct Opening {
    lanes: Arc<Lanes>,
    operation: String,
    queue: ShortString,
    tag: ShortString,
    prefetch: u16,
    /// The receiver of the consumer. It may be gone.
    asker: oneshot::Sender<Result<JointConsumer, QueueError>>,
}

impl Opening {
    async fn run(self, seat: Seat) {
        let mut state = seat.channel.state.lock().await;
        if self.asker.is_closed() {
            return;
        }
        if matches!(*state, ChannelState::Closed) {
            *state = match self.open_channel(&seat).await {
                Ok(channel) => ChannelState::Open {
                    channel,
                    prefetch: 0,
                    is_proven: false,
                },
                Err(error) => {
                    seat.retire();
                    ChannelState::Refused(error)
                }
            };
        }
        let (channel, prefetch, is_proven) = match &mut *state {
            ChannelState::Open {
                channel,
                prefetch,
                is_proven,
            } => (channel.0.clone(), prefetch, is_proven),
            ChannelState::Refused(error) => {
                let error = again(error);
                drop(state);
                drop(seat);
                let _ = self.asker.send(Err(error));
                return;
            }
            ChannelState::Closed => unreachable!("it was opened or refused"),
        };
        if !*is_proven {
            // It is the only consumer on the channel: if the broker refuses the queue, the channel ends, and no job
            // runs on it yet.
            let consume = async {
                let qos = BasicQosOptions { global: false };
                channel.basic_qos(self.prefetch, qos).await?;
                self.consume(&channel).await
            };
            let opened = rpc(&self.operation, RPC_TIMEOUT, consume).await;
            let answer = match opened.map_err(|error| named(&self.operation, error)) {
                Ok(stream) => {
                    *prefetch = self.prefetch;
                    *is_proven = true;
                    drop(state);
                    Ok(JointConsumer::new(seat, channel, stream))
                }
                Err(error) => {
                    seat.retire();
                    if let Some(place) = &mut seat.channel.seats().place {
                        place.ticket.note(&error);
                    }
                    // The channel is dropped too: the broker may still confirm a consumer whose answer did not come in
                    // time.
                    *state = ChannelState::Refused(again(&error));
                    drop(state);
                    Err(error)
                }
            };
            let _ = self.asker.send(answer);
            return;
        }
        // The channel has other consumers, so there is no time limit here: the broker answers, or the channel is lost.
        // The caller waits only as long as for any other answer.
        if *prefetch != self.prefetch {
            // Unknown until the broker confirms it.
            *prefetch = 0;
            let qos = BasicQosOptions { global: false };
            let set = rpc(
                &self.operation,
                RPC_TIMEOUT,
                channel.basic_qos(self.prefetch, qos),
            )
            .await;
            if let Err(error) = set {
                drop(state);
                drop(seat);
                let _ = self.asker.send(Err(error));
                return;
            }
            *prefetch = self.prefetch;
        }
        let mut consume = Box::pin(self.consume(&channel));
        // The first poll sends it, in order after the prefetch. The answer is awaited outside the lock.
        let early = consume.as_mut().now_or_never();
        drop(state);
        let mut asker = Some(self.asker);
        let answer = match early {
            Some(answer) => answer,
            None => match time::timeout(RPC_TIMEOUT, consume.as_mut()).await {
                Ok(answer) => answer,
                Err(_) => {
                    let error = QueueError::new(QueueErrorKind::Timeout, &self.operation);
                    if let Some(asker) = asker.take() {
                        let _ = asker.send(Err(error));
                    }
                    consume.await
                }
            },
        };
        let opened = answer
            .map(|stream| JointConsumer::new(seat, channel, stream))
            .map_err(|error| refused(&self.operation, error));
        if let Some(asker) = asker {
            // If the receiver was dropped, the consumer is dropped, and so cancelled.
            let _ = asker.send(opened);
        }
    }

    async fn open_channel(&self, seat: &Seat) -> Result<OwnChannel, QueueError> {
        let (mut place, live) = self.lanes.place(&self.operation).await?;
        place.ticket.turn().await;
        let opened = rpc(&self.operation, RPC_TIMEOUT, live.create_channel()).await;
        let channel = OwnChannel(opened.inspect_err(|error| place.ticket.note(error))?);
        place.ticket.opened();
        place.ticket.consuming().await;
        let mut seats = seat.channel.seats();
        seats.place = Some(place);
        seats.channel = Some(channel.0.clone());
        drop(seats);
        Ok(channel)
    }

    fn consume(
        &self,
        channel: &Channel,
    ) -> impl Future<Output = lapin::Result<lapin::Consumer>> + Send + 'static {
        let (channel, queue, tag) = (channel.clone(), self.queue.clone(), self.tag.clone());
        let options = BasicConsumeOptions::default();
        async move {
            channel
                .basic_consume(queue, tag, options, arguments())
                .await
        }
    }
}

/// Why a consumer was not opened on a shared channel. Another consumer may have caused the loss of the channel.
fn refused(operation: &str, error: lapin::Error) -> QueueError {
    match is_consumer_timeout(&error) {
        true => disconnected(operation).with_source(error),
        false => named(operation, classify(operation, error)),
    }
}

/// The same error, for another task that waited for the same thing.
fn again(error: &QueueError) -> QueueError {
    let copy = QueueError::new(error.kind, &error.operation);
    let Some(source) = &error.source else {
        return copy;
    };
    match source.downcast_ref::<lapin::Error>() {
        Some(source) => copy.with_source(source.clone()),
        None => copy.with_source(source.to_string()),
    }
}
