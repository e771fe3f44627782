//! Channels for requests of one round trip, leased for one request each.
//!
//! One request at a time per channel, for two reasons. If the broker closes a channel (a missing queue is enough),
//! every request on it fails. And lapin gives a returned message to the *next* confirm of its channel, even if the
//! message belongs to another publish. If the broker grants no more channels, an existing channel serves all requests.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapin::{Channel, options::ConfirmSelectOptions};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use super::{
    error::rpc,
    link::{BrokerLink, Live, disconnected},
    quota::RequestTicket,
};
use crate::queue::{QueueError, QueueErrorKind};

/// Time limit for one answer of the broker.
pub(super) const RPC_TIMEOUT: Duration = Duration::from_secs(10);

/// The purpose of a pool's channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Declares and deletes.
    Requests,
    /// Publishes, each of them confirmed.
    Publishing,
}

/// Channels of one link.
#[derive(Debug)]
pub(super) struct ChannelPool {
    channels: Arc<Channels>,
    permits: Semaphore,
}

/// The state that requests share with the task that opens more channels.
#[derive(Debug)]
struct Channels {
    link: Arc<BrokerLink>,
    purpose: Purpose,
    idle: Mutex<Vec<HeldChannel>>,
    slots: Arc<Slots>,
    /// Number of requests that wait for a channel. Written by the requests, read by the task.
    waiting: AtomicUsize,
    /// Whether the task runs. Written by the request that starts it and by the task.
    grows: AtomicBool,
}

/// The number of the pool's channels.
#[derive(Debug, Default)]
struct Slots {
    /// Channels that are open or being opened.
    open: AtomicUsize,
    /// Wakes one request that waits for a channel. Written when a channel is given back, when one is closed, and when
    /// one could not be opened.
    freed: Notify,
}

/// A channel of the pool.
#[derive(Debug)]
struct HeldChannel {
    live: Arc<Live>,
    channel: Channel,
    counted: CountedChannel,
}

/// A channel, counted in the pool and in the broker's quota.
#[derive(Debug)]
struct CountedChannel {
    ticket: RequestTicket,
    slots: Arc<Slots>,
}

impl Drop for CountedChannel {
    fn drop(&mut self) {
        self.slots.open.fetch_sub(1, Ordering::Relaxed);
        self.slots.freed.notify_one();
    }
}

/// A leased channel. **On drop** it is closed, because requests on it may still be in progress. A request that ended
/// cleanly gives it back.
#[must_use]
pub(super) struct Lease<'a> {
    pub(super) channel: Channel,
    live: Arc<Live>,
    pool: &'a ChannelPool,
    /// Dropped with the channel.
    counted: CountedChannel,
    _permit: SemaphorePermit<'a>,
}

impl ChannelPool {
    /// A pool for at most `size` requests at a time. Further requests wait.
    pub(super) fn new(link: Arc<BrokerLink>, purpose: Purpose, size: usize) -> Self {
        Self {
            channels: Arc::new(Channels {
                link,
                purpose,
                idle: Mutex::new(Vec::new()),
                slots: Arc::default(),
                waiting: AtomicUsize::new(0),
                grows: AtomicBool::new(false),
            }),
            permits: Semaphore::new(size),
        }
    }

    pub(super) fn link(&self) -> &Arc<BrokerLink> {
        &self.channels.link
    }

    /// A channel for one request: an idle one, or the first one, which is opened for the request. Further channels are
    /// opened in the background, and the request takes the first channel that is free. Opening one more can be slow,
    /// because it may need a trial on a separate connection.
    pub(super) async fn lease(&self, operation: &str) -> Result<Lease<'_>, QueueError> {
        let channels = &self.channels;
        // Also before waiting for a turn: with a lost link, every request fails at once, even if many wait.
        channels.link.live(operation).await?;
        let permit = self.permits.acquire().await;
        let permit = permit.map_err(|_| disconnected(operation))?;
        let live = channels.link.live(operation).await?;
        let (channel, counted) = loop {
            let freed = channels.slots.freed.notified();
            if let Some(held) = channels.take_idle(&live) {
                break (held.channel, held.counted);
            }
            let _waiting = Waiting::new(&channels.waiting);
            if channels.slots.open.load(Ordering::Relaxed) > 0 {
                channels.clone().grow(&live);
            } else if let Some(opened) = channels.open_another(&live, operation).await? {
                break opened;
            }
            freed.await;
            if !live.is_up() {
                // Wakes the next waiting request, which must see the loss too. There may be more requests than channels.
                channels.slots.freed.notify_one();
                return Err(disconnected(operation));
            }
        };
        Ok(Lease {
            channel,
            live,
            pool: self,
            counted,
            _permit: permit,
        })
    }
}

impl Channels {
    fn idle(&self) -> MutexGuard<'_, Vec<HeldChannel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_idle(&self, live: &Arc<Live>) -> Option<HeldChannel> {
        let mut idle = self.idle();
        idle.retain(|held| Arc::ptr_eq(&held.live, live) && held.channel.status().connected());
        idle.pop()
    }

    fn put_idle(&self, held: HeldChannel) {
        self.idle().push(held);
        self.slots.freed.notify_one();
    }

    /// Opens channels for as long as requests wait for one. Does nothing if the task already runs.
    fn grow(self: Arc<Self>, live: &Arc<Live>) {
        if self.grows.swap(true, Ordering::AcqRel) {
            return;
        }
        let live = live.clone();
        tokio::spawn(async move {
            loop {
                let is_over = !self.open_while_wanted(&live).await;
                self.grows.store(false, Ordering::Release);
                // A request that started to wait in between has seen the task running.
                let is_wanted = !is_over && self.waiting.load(Ordering::Acquire) > 0;
                if !is_wanted || self.grows.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        });
    }

    /// Returns `false` if no more channels can be opened. The requests then share the open ones.
    async fn open_while_wanted(&self, live: &Arc<Live>) -> bool {
        while self.waiting.load(Ordering::Acquire) > 0 {
            match self.open_another(live, "open a channel").await {
                Ok(Some((channel, counted))) => self.put_idle(HeldChannel {
                    live: live.clone(),
                    channel,
                    counted,
                }),
                Ok(None) => return false,
                Err(error) => {
                    tracing::debug!(error = %error, "no further channel for requests");
                    return false;
                }
            }
        }
        true
    }

    /// Opens one more channel. `None` if no channel may be added to the open ones.
    async fn open_another(
        &self,
        live: &Live,
        operation: &str,
    ) -> Result<Option<(Channel, CountedChannel)>, QueueError> {
        let own = self.slots.open.load(Ordering::Relaxed);
        let quota = self.link.quota();
        let Some(ticket) = quota.request(own).await else {
            return Ok(None);
        };
        self.slots.open.fetch_add(1, Ordering::Relaxed);
        let counted = CountedChannel {
            ticket,
            slots: self.slots.clone(),
        };
        match self.open(live, operation).await {
            Ok(channel) => {
                counted.ticket.opened();
                Ok(Some((channel, counted)))
            }
            Err(error) => {
                quota.note(&error);
                // The client's own limit does not end the connection.
                let is_spare = own > 0 && live.is_up();
                match error.kind == QueueErrorKind::ChannelLimit && is_spare {
                    true => Ok(None),
                    false => Err(error),
                }
            }
        }
    }

    async fn open(&self, live: &Live, operation: &str) -> Result<Channel, QueueError> {
        let open = async {
            let channel = live.create_channel().await?;
            if self.purpose == Purpose::Publishing {
                channel
                    .confirm_select(ConfirmSelectOptions::default())
                    .await?;
            }
            Ok(channel)
        };
        rpc(operation, RPC_TIMEOUT, open).await
    }
}

impl Lease<'_> {
    /// Returns the channel for the next request.
    pub(super) fn give_back(self) {
        let channels = &self.pool.channels;
        // If channels are limited, one is enough for requests that can wait.
        let is_spare = channels.slots.open.load(Ordering::Relaxed) > 1;
        if is_spare && channels.link.quota().is_limited() {
            return;
        }
        channels.put_idle(HeldChannel {
            live: self.live,
            channel: self.channel,
            counted: self.counted,
        });
    }
}

/// A waiting request, counted while this value exists.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
