//! Which consumers sit on which shared channel. Nothing here waits, and nothing is sent.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lapin::Channel;

use super::{consumer::OwnChannel, lanes::LaneSlot};
use crate::{config::CONSUMERS_PER_CHANNEL, decide::QueueName, queue::QueueError};

/// The shared channels that accept new consumers, by queue. Written when a consumer is opened, and when the last
/// consumer of a channel goes.
#[derive(Debug, Default)]
pub(super) struct Seating(Mutex<HashMap<QueueName, Vec<Arc<JointChannel>>>>);

/// One channel of one queue.
#[derive(Debug)]
pub(super) struct JointChannel {
    queue: QueueName,
    /// Only one task at a time opens the channel, or changes its prefetch. Declared before the seats, so that a lane
    /// never has more channels than it counts.
    pub(super) state: tokio::sync::Mutex<ChannelState>,
    /// Never held across an `await`. If both locks are held, the registry is locked first.
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
pub(super) struct Seats {
    /// Tags of the consumers that are open, being opened or being cancelled.
    tags: HashSet<String>,
    /// Set when the channel is open.
    pub(super) channel: Option<Channel>,
    /// Held until the channel is lost. After that a job that still runs does not occupy the slot.
    pub(super) place: Option<LaneSlot>,
}

#[derive(Debug, Default)]
pub(super) enum ChannelState {
    #[default]
    Closed,
    Open {
        channel: OwnChannel,
        /// Applies to consumers that are opened from now on.
        prefetch: u16,
        /// Whether the broker has confirmed a consumer on it.
        is_proven: bool,
    },
    /// The channel, or its first consumer, was refused. All that waited for it get the same error.
    Refused(QueueError),
}

/// One consumer's seat on a channel. **On drop** the seat becomes free. After the last one, the channel is closed.
#[derive(Debug)]
pub(super) struct Seat {
    seating: Arc<Seating>,
    pub(super) channel: Arc<JointChannel>,
    pub(super) tag: String,
    is_left: bool,
}

impl Seating {
    /// A seat on the first channel with a free one, or on a new channel.
    pub(super) fn seat(self: &Arc<Self>, queue: &QueueName, tag: &str) -> Seat {
        let mut queues = self.lock();
        let channels = queues.entry(queue.clone()).or_default();
        channels.retain(|channel| !channel.seats().is_lost());
        let not_full = channels.iter().find(|channel| !channel.seats().is_full());
        let channel = match not_full {
            Some(channel) => channel.clone(),
            None => {
                let channel = Arc::new(JointChannel {
                    queue: queue.clone(),
                    state: tokio::sync::Mutex::default(),
                    seats: Mutex::default(),
                });
                channels.push(channel.clone());
                channel
            }
        };
        let tag = channel.seats().take(tag);
        Seat {
            seating: self.clone(),
            channel,
            tag,
            is_left: false,
        }
    }

    /// Adds no more consumers to that channel.
    fn retire(&self, channel: &Arc<JointChannel>) {
        let mut queues = self.lock();
        forget(&mut queues, channel);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<QueueName, Vec<Arc<JointChannel>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    pub(super) fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    /// Whether the channel was closed, before any of its consumers has noticed it.
    fn is_lost(&self) -> bool {
        let channel = self.channel.as_ref();
        channel.is_some_and(|channel| !channel.status().connected())
    }

    fn is_full(&self) -> bool {
        self.tags.len() >= CONSUMERS_PER_CHANNEL
    }

    /// Takes a seat with that tag, or with a tag made from it. A tag that is used twice ends the connection.
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
    /// Adds no more consumers to this channel: the broker may refuse the next consumer of the queue, which would end
    /// the channel.
    pub(super) fn retire(&self) {
        self.seating.retire(&self.channel);
    }

    /// Marks the channel as lost: it no longer counts.
    pub(super) fn lost(&self) {
        self.retire();
        let place = self.channel.seats().place.take();
        // Dropping the slot locks its lanes.
        drop(place);
    }

    /// Frees the seat. Returns `true` if it was the last one. Then no consumer can join the channel any more.
    pub(super) fn leave(&mut self) -> bool {
        if self.is_left {
            return false;
        }
        self.is_left = true;
        let mut queues = self.seating.lock();
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

    /// Frees the seat if it is the only one. Then no consumer can join the channel any more. Returns `false` if there
    /// are others.
    pub(super) fn leave_if_only(&mut self) -> bool {
        if self.is_left {
            return false;
        }
        let mut queues = self.seating.lock();
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
