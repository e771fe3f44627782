//! Channels for requests that are over in one round trip, leased for one request each.
//!
//! One request at a time per channel, because a channel that the broker closes (a missing queue is enough) takes
//! every request on it along, and because lapin gives a returned message to the *next* confirm of its channel,
//! whichever publish that belongs to.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lapin::{Channel, options::ConfirmSelectOptions};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    error::rpc,
    link::{Link, Live, disconnected},
};
use crate::queue::QueueError;

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
    idle: Mutex<Vec<(Arc<Live>, Channel)>>,
    permits: Semaphore,
}

/// A channel of our own. **On drop** it is closed, since nobody knows what is still under way on it; a request
/// that ended cleanly gives it back.
#[must_use]
pub(super) struct Lease<'a> {
    pub(super) channel: Channel,
    live: Arc<Live>,
    pool: &'a ChannelPool,
    _permit: SemaphorePermit<'a>,
}

impl ChannelPool {
    /// At most `size` requests at a time; more wait for their turn.
    pub(super) fn new(link: Arc<Link>, purpose: Purpose, size: usize) -> Self {
        Self {
            link,
            purpose,
            idle: Mutex::new(Vec::new()),
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
        let channel = match self.take_idle(&live) {
            Some(channel) => channel,
            None => self.open(&live, operation).await?,
        };
        Ok(Lease {
            channel,
            live,
            pool: self,
            _permit: permit,
        })
    }

    fn take_idle(&self, live: &Arc<Live>) -> Option<Channel> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(of, channel)| Arc::ptr_eq(of, live) && channel.status().connected());
        idle.pop().map(|(_, channel)| channel)
    }

    async fn open(&self, live: &Live, operation: &str) -> Result<Channel, QueueError> {
        let open = async {
            let channel = live.connection.create_channel().await?;
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
        let mut idle = self
            .pool
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        idle.push((self.live, self.channel));
    }
}
