//! One connection, kept up by one task.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use lapin::{Channel, Connection, Event};
use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::address::{Address, Plug};
use crate::{
    escape::Escaped,
    queue::{QueueError, QueueErrorKind},
};
use tidegate_core::text;

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(15);
/// A connection that lived this long was a good one: the next loss starts over with the first backoff.
const STABLE: Duration = Duration::from_secs(30);
/// How often a connection's state is looked at beside its events, which lapin drops before anyone listens.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest that a request waits for the first attempt, or for a connection that is being replaced.
const REPLACED_WITHIN: Duration = Duration::from_secs(15);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection's place: whatever connection is there at the moment, and what became of the last.
#[derive(Debug)]
pub(super) struct Link {
    role: String,
    address: Arc<Address>,
    /// Written by the keeper alone; read by every operation, and by the driver's connectivity.
    state: watch::Sender<LinkState>,
    /// Whether the broker takes no publishes. Written by the keeper, read by publishers.
    blocked: watch::Sender<bool>,
    stop: CancellationToken,
}

/// What the keeper last saw.
#[derive(Debug, Clone)]
pub(super) enum LinkState {
    /// The first attempt is under way.
    Connecting,
    /// Connected, as far as we know.
    Up(Arc<Live>),
    /// Lost or never had; the keeper tries again. Holds the whole chain of causes as text.
    Down(Arc<str>),
}

/// A connection that was made.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) connection: Connection,
    plug: Plug,
    /// Whether the broker takes no publishes from it: the link's own.
    blocked: watch::Sender<bool>,
    /// Channels that were opened on it. Written when a channel is opened.
    opened: AtomicUsize,
    /// Wakes the keeper to replace it. Written when one channel too many is opened.
    worn: Notify,
    /// Whether there is no other to be had. Written by the keeper, read when a channel is opened.
    is_irreplaceable: AtomicBool,
}

impl Live {
    fn new(connection: Connection, plug: Plug, blocked: watch::Sender<bool>) -> Self {
        Self {
            blocked,
            connection,
            plug,
            opened: AtomicUsize::new(0),
            worn: Notify::new(),
            is_irreplaceable: AtomicBool::new(false),
        }
    }

    /// Opens a channel.
    ///
    /// lapin numbers channels one after the other, and keeps what the broker closed one with: the number's next channel
    /// fails with the error of the one before, and the number is lost. A queue that is not there for hours uses them
    /// all up, and then another queue seems not to be there. So no number is used twice: a connection that has used
    /// most of them is replaced, and goes once its channels have.
    pub(super) async fn create_channel(&self) -> lapin::Result<Channel> {
        let opened = self.opened.fetch_add(1, Ordering::Relaxed) + 1;
        if opened >= wears_at(self.connection.configuration().channel_max()) {
            self.worn.notify_one();
        }
        self.connection.create_channel().await
    }

    fn is_used_up(&self) -> bool {
        let numbers = numbers(self.connection.configuration().channel_max());
        self.opened.load(Ordering::Relaxed) >= numbers
            && !self.is_irreplaceable.load(Ordering::Relaxed)
    }

    pub(super) fn is_up(&self) -> bool {
        self.connection.status().connected()
    }

    /// Completes when the broker blocks the connection; at once where it already does.
    pub(super) async fn until_blocked(&self) {
        let mut blocked = self.blocked.subscribe();
        // `self` keeps the sender, so this cannot end by its loss.
        let _ = blocked.wait_for(|blocked| *blocked).await;
    }

    /// Whether the broker blocks the connection, and when that changes.
    pub(super) fn blocked(&self) -> watch::Receiver<bool> {
        self.blocked.subscribe()
    }

    /// Completes when that changes. Cancel-safe.
    pub(super) async fn blocks_or_unblocks(&self, blocked: &mut watch::Receiver<bool>) {
        // As above: `self` keeps the sender.
        let _ = blocked.changed().await;
    }

    pub(super) fn is_blocked(&self) -> bool {
        // lapin's own flag is set before the event reaches the keeper.
        self.connection.status().blocked()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // lapin asks a connection to close when its last handle goes, but writes nothing where it is blocked.
        if !self.is_up() || self.is_blocked() {
            self.plug.pull();
        }
    }
}

impl Link {
    /// A link, and the task that keeps it until `stop`.
    pub(super) fn open(role: String, address: Arc<Address>, stop: &CancellationToken) -> Arc<Self> {
        let link = Arc::new(Self {
            role,
            address: address.clone(),
            state: watch::Sender::new(LinkState::Connecting),
            blocked: watch::Sender::new(false),
            stop: stop.child_token(),
        });
        tokio::spawn(keep(link.clone(), address));
        link
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// Whether the broker takes no publishes on whatever connection is there.
    pub(super) fn blocked(&self) -> watch::Receiver<bool> {
        self.blocked.subscribe()
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(&*self.state.borrow(), LinkState::Down(_))
    }

    /// The connection.
    ///
    /// Waits for the first attempt, whose outcome nobody knows yet, and for one that is being replaced: a link that is
    /// down is an error at once.
    pub(super) async fn live(&self, operation: &str) -> Result<Arc<Live>, QueueError> {
        let mut state = self.state.subscribe();
        // One that has no number left is being replaced.
        let is_known = |state: &LinkState| match state {
            LinkState::Connecting => false,
            LinkState::Up(live) => !live.is_up() || !live.is_used_up(),
            LinkState::Down(_) => true,
        };
        let seen = time::timeout(REPLACED_WITHIN, state.wait_for(is_known)).await;
        let seen = match seen {
            Ok(seen) => seen.map(|state| state.clone()),
            Err(_) => return Err(QueueError::new(QueueErrorKind::ChannelLimit, operation)),
        };
        match seen {
            Ok(LinkState::Up(live)) if live.is_up() => Ok(live),
            Ok(LinkState::Down(why)) => Err(disconnected(operation).with_source(why.as_ref())),
            _ => Err(disconnected(operation)),
        }
    }

    /// Ends the keeper, which closes the connection.
    pub(super) fn close(&self) {
        self.stop.cancel();
    }

    /// Completes once the keeper has closed the connection.
    pub(super) async fn closed(&self) {
        let mut state = self.state.subscribe();
        let _ = state
            .wait_for(|state| matches!(state, LinkState::Down(_)))
            .await;
    }

    fn set(&self, state: LinkState) {
        self.state.send_replace(state);
    }
}

pub(super) fn disconnected(operation: &str) -> QueueError {
    QueueError::new(QueueErrorKind::Disconnected, operation)
}

/// The keeper: the only place that connects.
async fn keep(link: Arc<Link>, address: Arc<Address>) {
    let mut backoff = Backoff::default();
    let stop = link.stop.clone();
    let _ = stop
        .run_until_cancelled(keep_connecting(&link, &address, &mut backoff))
        .await;
    let last = link.state.borrow().clone();
    if let LinkState::Up(live) = last {
        let close = live.connection.close(200, "OK".into());
        if !matches!(time::timeout(CLOSE_TIMEOUT, close).await, Ok(Ok(()))) {
            live.plug.pull();
        }
    }
    link.set(LinkState::Down("closed".into()));
}

/// Cancel-safe: an attempt that is dropped closes its socket, and a connection that was made is in the link.
async fn keep_connecting(link: &Link, address: &Address, backoff: &mut Backoff) {
    // One that is being replaced, and does until then.
    let mut worn: Option<Arc<Live>> = None;
    loop {
        let why = match address.connect(&link.role).await {
            Ok((connection, plug)) => {
                worn = None;
                let events = connection.events_listener();
                link.blocked.send_replace(connection.status().blocked());
                let live = Arc::new(Live::new(connection, plug, link.blocked.clone()));
                let since = Instant::now();
                tracing::debug!(link = link.role, "connected to the broker");
                link.set(LinkState::Up(live.clone()));
                let lost = tokio::select! {
                    why = until_lost(&live, events) => Some(why),
                    () = live.worn.notified() => None,
                };
                if since.elapsed() >= STABLE {
                    *backoff = Backoff::default();
                }
                let Some(why) = lost else {
                    tracing::debug!(
                        link = link.role,
                        "connection is replaced: its channel numbers run out"
                    );
                    worn = Some(live);
                    continue;
                };
                live.plug.pull();
                link.blocked.send_replace(false);
                why
            }
            Err(error) => chain(&error),
        };
        if let Some(live) = worn.as_ref().filter(|live| live.is_up()) {
            // Numbers used twice are better than no channel at all.
            live.is_irreplaceable.store(true, Ordering::Relaxed);
            tracing::debug!(
                link = link.role,
                error = why,
                "connection cannot be replaced"
            );
            time::sleep(backoff.next_pause()).await;
            continue;
        }
        worn = None;
        let pause = backoff.next_pause();
        tracing::debug!(
            link = link.role,
            error = why,
            ?pause,
            "not connected to the broker"
        );
        link.set(LinkState::Down(why.into()));
        time::sleep(pause).await;
    }
}

/// Follows a connection's events until it is lost, and says why.
async fn until_lost(live: &Live, events: impl futures_util::Stream<Item = Event>) -> String {
    let mut events = std::pin::pin!(events);
    let mut look = time::interval(LOOK_EVERY);
    let mut why = None;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::Error(error)) => why = Some(chain(&error)),
                Some(Event::ConnectionBlocked(_) | Event::ConnectionUnblocked) => {
                    note_block(live);
                }
                Some(_) => {}
                None => return why.unwrap_or_else(lost),
            },
            _ = look.tick() => note_block(live),
        }
        if !live.is_up() {
            return why.unwrap_or_else(lost);
        }
    }
}

fn note_block(live: &Live) {
    live.blocked
        .send_if_modified(|blocked| std::mem::replace(blocked, live.is_blocked()) != *blocked);
}

fn lost() -> String {
    String::from("the connection was lost")
}

/// An error with its causes, in one line and escaped: brokers' texts are others' data.
fn chain(error: &dyn std::error::Error) -> String {
    Escaped(&text::chain(error)).to_string()
}

/// Channels that a connection of this `channel_max` can number. 0 is its word for no limit.
fn numbers(channel_max: u16) -> usize {
    match channel_max {
        0 => usize::from(u16::MAX),
        limit => usize::from(limit),
    }
}

/// Channels after which such a connection is replaced.
fn wears_at(channel_max: u16) -> usize {
    (numbers(channel_max) * 3 / 4).max(1)
}

/// Exponential with jitter: links that lost the same broker do not come back in step.
#[derive(Debug, Default)]
struct Backoff {
    attempts: u32,
}

impl Backoff {
    fn next_pause(&mut self) -> Duration {
        let ceiling = BACKOFF_FIRST
            .saturating_mul(2_u32.saturating_pow(self.attempts))
            .min(BACKOFF_LAST);
        self.attempts = self.attempts.saturating_add(1);
        ceiling.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_grows_to_its_last_step_and_stays_there() {
        let mut backoff = Backoff::default();
        let mut ceiling = BACKOFF_FIRST;
        for _ in 0..100 {
            let pause = backoff.next_pause();
            assert!(
                pause >= ceiling / 2 && pause <= ceiling,
                "{pause:?} of {ceiling:?}"
            );
            ceiling = (ceiling * 2).min(BACKOFF_LAST);
        }
        assert_eq!(ceiling, BACKOFF_LAST);
    }
}
