//! Channels that consumers of one queue share, where the queue counts returns.
//!
//! The broker takes the channels of a dead connection down one after the other, and hands what the first returns to
//! consumers on those that it has not closed yet. A quorum queue counts each such return, and gives a message up after so
//! many. What one channel holds comes back at once. So consumers of such a queue sit together, on as few channels as can
//! be, and one death is at most as many returns as the queue has channels.
//!
//! What that costs, and what is done about it:
//!
//! - An error on a channel ends it for all who sit on it. What is refused for the queue's sake (it is missing, or
//!   forbidden) is refused to the first who sits down, before anybody works. Once the broker has ended a consumer by itself,
//!   nobody sits down beside the others any more, for the next consumer may be refused. What remains: a permission that is
//!   taken away while the pool grows, and the consumer timeout, which ends the jobs beside the one that took too long.
//! - Nothing here closes a channel that others work on. An opening runs in a task of its own to its end, and a consumer that
//!   nobody wants any more is cancelled by its tag.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

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
    lanes::{Lanes, Place},
    link::disconnected,
    pool::RPC_TIMEOUT,
};
use crate::{
    config::CONSUMERS_PER_CHANNEL,
    decide::QueueName,
    queue::{ConsumeRequest, QueueError, QueueErrorKind},
};

/// Who sits where. One for all connections of a driver.
#[derive(Debug)]
pub(super) struct JointChannels {
    lanes: Arc<Lanes>,
    /// Channels that take newcomers. Written when a consumer is opened, and when the last of a channel goes.
    queues: Mutex<HashMap<QueueName, Vec<Arc<JointChannel>>>>,
}

/// One channel of one queue.
#[derive(Debug)]
pub(super) struct JointChannel {
    queue: QueueName,
    /// One at a time opens the channel, or changes its prefetch. Before its seats, so that a lane is never fuller than it
    /// counts.
    door: tokio::sync::Mutex<Door>,
    /// Never held with an `await`. Where both are, the registry is locked first.
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    /// Consumers that are open, being opened or being cancelled, by their tags.
    tags: HashSet<String>,
    /// Once it is open.
    channel: Option<Channel>,
    /// Until the channel is lost: a job that runs on does not keep it from others.
    place: Option<Place>,
}

#[derive(Debug, Default)]
enum Door {
    #[default]
    Closed,
    Open {
        channel: OwnChannel,
        /// For consumers made from now on.
        prefetch: u16,
        /// A consumer was confirmed on it.
        is_proven: bool,
    },
    /// The channel, or its first consumer, was refused: so are all who waited for it.
    Refused(QueueError),
}

/// One consumer's place on a channel. **On drop** it is free, and with the last the channel is closed.
#[derive(Debug)]
pub(super) struct Seat {
    channels: Arc<JointChannels>,
    channel: Arc<JointChannel>,
    tag: String,
    is_left: bool,
}

impl JointChannels {
    pub(super) fn new(lanes: Arc<Lanes>) -> Arc<Self> {
        Arc::new(Self {
            lanes,
            queues: Mutex::default(),
        })
    }

    /// Opens a consumer.
    ///
    /// # Cancel-safety
    /// Cancel-safe: what is being opened is cancelled once it is open.
    pub(super) async fn open(
        self: &Arc<Self>,
        request: ConsumeRequest,
    ) -> Result<JointConsumer, QueueError> {
        let operation = format!("consume from the queue {}", request.queue);
        let queue = short("name of a queue", request.queue.as_str())?;
        let seat = self.seat(&request.queue, &request.tag);
        let tag = short("consumer tag", &seat.tag)?;
        let (sender, receiver) = oneshot::channel();
        let lanes = self.lanes.clone();
        // Given up half way, a `basic_consume` would leave a consumer that nobody reads.
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
        // The task says something before it ends.
        let gone = |_| Err(disconnected("consume: the program ends"));
        receiver.await.unwrap_or_else(gone)
    }

    /// A seat on the first channel that has one, or on a new one.
    fn seat(self: &Arc<Self>, queue: &QueueName, tag: &str) -> Seat {
        let mut queues = self.lock();
        let channels = queues.entry(queue.clone()).or_default();
        channels.retain(|channel| !channel.seats().is_lost());
        let with_room = channels.iter().find(|channel| !channel.seats().is_full());
        let channel = match with_room {
            Some(channel) => channel.clone(),
            None => {
                let channel = Arc::new(JointChannel {
                    queue: queue.clone(),
                    door: tokio::sync::Mutex::default(),
                    seats: Mutex::default(),
                });
                channels.push(channel.clone());
                channel
            }
        };
        let tag = channel.seats().take(tag);
        Seat {
            channels: self.clone(),
            channel,
            tag,
            is_left: false,
        }
    }

    /// No one sits down on that channel any more.
    fn retire(&self, channel: &Arc<JointChannel>) {
        let mut queues = self.lock();
        forget(&mut queues, channel);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<QueueName, Vec<Arc<JointChannel>>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget(queues: &mut HashMap<QueueName, Vec<Arc<JointChannel>>>, channel: &Arc<JointChannel>) {
    if let Some(channels) = queues.get_mut(&channel.queue) {
        channels.retain(|other| !Arc::ptr_eq(other, channel));
        if channels.is_empty() {
            queues.remove(&channel.queue);
        }
    }
}

impl JointChannel {
    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    /// The channel was closed, and nobody who sits on it has noticed yet.
    fn is_lost(&self) -> bool {
        let channel = self.channel.as_ref();
        channel.is_some_and(|channel| !channel.status().connected())
    }

    fn is_full(&self) -> bool {
        self.tags.len() >= CONSUMERS_PER_CHANNEL
    }

    /// Takes a seat under that tag, or under one made of it: a tag that is used twice costs the connection.
    fn take(&mut self, tag: &str) -> String {
        let mut own = tag.to_owned();
        let mut again = 1;
        while !self.tags.insert(own.clone()) {
            again += 1;
            own = format!("{tag}.{again}");
        }
        own
    }
}

impl Seat {
    /// No one sits down beside it any more: the next consumer of the queue may be refused, which would end this channel.
    pub(super) fn retire(&self) {
        self.channels.retire(&self.channel);
    }

    /// The channel is lost: it counts for nothing.
    pub(super) fn lost(&self) {
        self.retire();
        let place = self.channel.seats().place.take();
        // It locks its lanes.
        drop(place);
    }

    /// Gets up. `true`: it was the last, and nobody sits down there any more.
    pub(super) fn leave(&mut self) -> bool {
        if self.is_left {
            return false;
        }
        self.is_left = true;
        let mut queues = self.channels.lock();
        let is_last = {
            let mut seats = self.channel.seats();
            seats.tags.remove(&self.tag);
            seats.tags.is_empty()
        };
        if is_last {
            forget(&mut queues, &self.channel);
        }
        is_last
    }

    /// Gets up where nobody else sits there: then nobody sits down there any more. `false`: it stays.
    pub(super) fn leave_alone(&mut self) -> bool {
        if self.is_left {
            return false;
        }
        let mut queues = self.channels.lock();
        let is_alone = self.channel.seats().tags.len() == 1;
        if is_alone {
            self.is_left = true;
            self.channel.seats().tags.clear();
            forget(&mut queues, &self.channel);
        }
        is_alone
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A consumer that is being opened.
struct Opening {
    lanes: Arc<Lanes>,
    operation: String,
    queue: ShortString,
    tag: ShortString,
    prefetch: u16,
    /// Who wants it, if still anybody.
    asker: oneshot::Sender<Result<JointConsumer, QueueError>>,
}

impl Opening {
    async fn run(self, seat: Seat) {
        let mut door = seat.channel.door.lock().await;
        if self.asker.is_closed() {
            return;
        }
        if matches!(*door, Door::Closed) {
            *door = match self.open_channel(&seat).await {
                Ok(channel) => Door::Open {
                    channel,
                    prefetch: 0,
                    is_proven: false,
                },
                Err(error) => {
                    seat.retire();
                    Door::Refused(error)
                }
            };
        }
        let (channel, prefetch, is_proven) = match &mut *door {
            Door::Open {
                channel,
                prefetch,
                is_proven,
            } => (channel.0.clone(), prefetch, is_proven),
            Door::Refused(error) => {
                let error = again(error);
                drop(door);
                drop(seat);
                let _ = self.asker.send(Err(error));
                return;
            }
            Door::Closed => unreachable!("it was opened or refused"),
        };
        if !*is_proven {
            // Alone: what is refused for the queue's sake ends the channel, and nobody works on it yet.
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
                    drop(door);
                    Ok(JointConsumer::new(seat, channel, stream))
                }
                Err(error) => {
                    seat.retire();
                    if let Some(place) = &mut seat.channel.seats().place {
                        place.ticket.note(&error);
                    }
                    // With the channel: one whose answer did not come may be confirmed yet.
                    *door = Door::Refused(again(&error));
                    drop(door);
                    Err(error)
                }
            };
            let _ = self.asker.send(answer);
            return;
        }
        // Beside others, so without a bound of its own: the broker answers, or the channel is lost. The asker waits no
        // longer than for any answer.
        if *prefetch != self.prefetch {
            // Unknown until it is confirmed.
            *prefetch = 0;
            let qos = BasicQosOptions { global: false };
            let set = rpc(
                &self.operation,
                RPC_TIMEOUT,
                channel.basic_qos(self.prefetch, qos),
            )
            .await;
            if let Err(error) = set {
                drop(door);
                drop(seat);
                let _ = self.asker.send(Err(error));
                return;
            }
            *prefetch = self.prefetch;
        }
        let mut consume = Box::pin(self.consume(&channel));
        // It is sent by the first poll, in the order of the prefetch; the answer is waited for outside.
        let early = consume.as_mut().now_or_never();
        drop(door);
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
            // Where nobody waits any more, it is dropped, and so cancelled.
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

/// Why a consumer was not opened beside others. The channel may have been lost by their doing.
fn refused(operation: &str, error: lapin::Error) -> QueueError {
    match is_consumer_timeout(&error) {
        true => disconnected(operation).with_source(error),
        false => named(operation, classify(operation, error)),
    }
}

/// The same error, for one more who waited for the same thing.
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
