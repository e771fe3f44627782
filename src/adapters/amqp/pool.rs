//! Channels for requests that are over in one round trip, leased for one request each.
//!
//! One request at a time per channel, because a channel that the broker closes (a missing queue is enough) takes
//! every request on it along, and because lapin gives a returned message to the *next* confirm of its channel,
//! whichever publish that belongs to. Where the broker grants no more channels, one that is there serves them all.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapin::{Channel, options::ConfirmSelectOptions};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use super::{
    error::rpc,
    link::{Link, Live, disconnected},
    quota::RequestTicket,
};
use crate::queue::{QueueError, QueueErrorKind};

/// Time for one answer of the broker.
pub(super) const RPC_TIMEOUT: Duration = Duration::from_secs(10);

/// What a pool's channels are for.
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
    link: Arc<Link>,
    purpose: Purpose,
    idle: Mutex<Vec<Held>>,
    slots: Arc<Slots>,
    permits: Semaphore,
}

/// The pool's channels, in number.
#[derive(Debug, Default)]
struct Slots {
    /// Those that are open or being opened.
    open: AtomicUsize,
    /// Wakes one request that waits for a channel. Written when a channel is given back, closed or not opened.
    freed: Notify,
}

/// A channel of the pool.
#[derive(Debug)]
struct Held {
    live: Arc<Live>,
    channel: Channel,
    counted: Counted,
}

/// A channel in the pool's count and in what the broker grants.
#[derive(Debug)]
struct Counted {
    ticket: RequestTicket,
    slots: Arc<Slots>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.slots.open.fetch_sub(1, Ordering::Relaxed);
        self.slots.freed.notify_one();
    }
}

/// A channel of our own. **On drop** it is closed, since nobody knows what is still under way on it; a request
/// that ended cleanly gives it back.
#[must_use]
pub(super) struct Lease<'a> {
    pub(super) channel: Channel,
    live: Arc<Live>,
    pool: &'a ChannelPool,
    /// Goes with the channel.
    counted: Counted,
    _permit: SemaphorePermit<'a>,
}

impl ChannelPool {
    /// At most `size` requests at a time; more wait for their turn.
    pub(super) fn new(link: Arc<Link>, purpose: Purpose, size: usize) -> Self {
        Self {
            link,
            purpose,
            idle: Mutex::new(Vec::new()),
            slots: Arc::default(),
            permits: Semaphore::new(size),
        }
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// A channel for one request, opened where none is idle.
    pub(super) async fn lease(&self, operation: &str) -> Result<Lease<'_>, QueueError> {
        // Before the turn as well: a lost link fails at once, however many wait.
        self.link.live(operation).await?;
        let permit = self.permits.acquire().await;
        let permit = permit.map_err(|_| disconnected(operation))?;
        let live = self.link.live(operation).await?;
        let (channel, counted) = loop {
            let freed = self.slots.freed.notified();
            if let Some(held) = self.take_idle(&live) {
                break (held.channel, held.counted);
            }
            if let Some(opened) = self.open_another(&live, operation).await? {
                break opened;
            }
            freed.await;
            if !live.is_up() {
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

    fn take_idle(&self, live: &Arc<Live>) -> Option<Held> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|held| Arc::ptr_eq(&held.live, live) && held.channel.status().connected());
        idle.pop()
    }

    /// One channel more. `None` where there is to be none beside those that are open.
    async fn open_another(
        &self,
        live: &Live,
        operation: &str,
    ) -> Result<Option<(Channel, Counted)>, QueueError> {
        let own = self.slots.open.load(Ordering::Relaxed);
        let address = self.link.address();
        let Some(ticket) = address.quota().request(address, own).await else {
            return Ok(None);
        };
        self.slots.open.fetch_add(1, Ordering::Relaxed);
        let counted = Counted {
            ticket,
            slots: self.slots.clone(),
        };
        match self.open(live, operation).await {
            Ok(channel) => {
                counted.ticket.opened();
                Ok(Some((channel, counted)))
            }
            Err(error) => {
                address.quota().note(&error);
                // The client's own limit costs nothing.
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
    /// Puts the channel back for the next request.
    pub(super) fn give_back(self) {
        let pool = self.pool;
        // Where channels are few, one is enough for what can wait.
        let is_spare = pool.slots.open.load(Ordering::Relaxed) > 1;
        if is_spare && pool.link.address().quota().is_limited() {
            return;
        }
        let mut idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(Held {
            live: self.live,
            channel: self.channel,
            counted: self.counted,
        });
        drop(idle);
        pool.slots.freed.notify_one();
    }
}
