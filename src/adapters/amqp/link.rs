//! One connection, kept open by one task.

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

use super::{
    address::{Address, Node, SocketShutdown},
    quota::Quota,
};
use crate::queue::{QueueError, QueueErrorKind};
use tidegate_core::text::escaped_chain;

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(15);
/// A connection that lasted this long was stable: after its loss the backoff starts from the beginning.
const STABLE: Duration = Duration::from_secs(30);
/// Time between two checks of a connection's state. Needed in addition to its events, because lapin drops events before
/// the first listener.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest time that a request waits for the first attempt, or for the replacement of a connection.
const REPLACED_WITHIN: Duration = Duration::from_secs(15);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// A slot for a connection: the current one, if any, and the result of the last attempt.
#[derive(Debug)]
pub(super) struct BrokerLink {
    role: String,
    quota: Arc<Quota>,
    /// Written only by the keeper. Read by every operation, and by the driver's connectivity.
    state: watch::Sender<LinkState>,
    /// Whether the broker accepts no publishes. Written by the keeper, read by publishers.
    blocked: watch::Sender<bool>,
    stop: CancellationToken,
}

/// The last state that the keeper saw.
#[derive(Debug, Clone)]
pub(super) enum LinkState {
    /// The first attempt is in progress.
    Connecting,
    /// Connected, as far as we know.
    Up(Arc<Live>),
    /// Not connected, and the keeper tries again. Holds the chain of causes as text.
    Down(Arc<str>),
}

/// An established connection.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) connection: Connection,
    /// Where it leads.
    node: Node,
    shutdown: SocketShutdown,
    /// Whether the broker accepts no publishes from it. Shared with the link.
    blocked: watch::Sender<bool>,
    /// Number of channels that were ever opened on it. Written when a channel is opened.
    opened: AtomicUsize,
    /// Wakes the keeper to replace the connection. Written when too many channels were opened.
    worn: Notify,
    /// Whether no replacement can be made. Written by the keeper, read when a channel is opened.
    is_irreplaceable: AtomicBool,
}

impl Live {
    fn new(
        connection: Connection,
        shutdown: SocketShutdown,
        node: Node,
        blocked: watch::Sender<bool>,
    ) -> Self {
        Self {
            blocked,
            connection,
            node,
            shutdown,
            opened: AtomicUsize::new(0),
            worn: Notify::new(),
            is_irreplaceable: AtomicBool::new(false),
        }
    }

    /// Opens a channel.
    ///
    /// lapin numbers channels in order, and keeps the error with which the broker closed one. The next channel with
    /// that number fails with the old error, and the number is lost. If a queue is missing for hours, all numbers are
    /// used up, and then other queues seem to be missing too. So no number is used twice: a connection that has used
    /// most of its numbers is replaced, and is closed when its channels have ended.
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

    /// Completes when the broker blocks the connection. Completes at once if it is already blocked.
    pub(super) async fn until_blocked(&self) {
        let mut blocked = self.blocked.subscribe();
        // `self` keeps the sender, so this cannot fail.
        let _ = blocked.wait_for(|blocked| *blocked).await;
    }

    /// Whether the broker blocks the connection, and when that changes.
    pub(super) fn blocked(&self) -> watch::Receiver<bool> {
        self.blocked.subscribe()
    }

    /// Completes when the block begins or ends. Cancel-safe.
    pub(super) async fn blocks_or_unblocks(&self, blocked: &mut watch::Receiver<bool>) {
        // `self` keeps the sender, so this cannot fail.
        let _ = blocked.changed().await;
    }

    pub(super) fn is_blocked(&self) -> bool {
        // lapin's own flag is set before the event reaches the keeper.
        self.connection.status().blocked()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // lapin closes a connection when its last handle is dropped, but writes nothing if it is blocked.
        if !self.is_up() || self.is_blocked() {
            self.shutdown.shut_down();
        }
    }
}

impl BrokerLink {
    /// A link, and the task that keeps it open until `stop`.
    pub(super) fn open(role: String, quota: Arc<Quota>, stop: &CancellationToken) -> Arc<Self> {
        let link = Arc::new(Self {
            role,
            quota: quota.clone(),
            state: watch::Sender::new(LinkState::Connecting),
            blocked: watch::Sender::new(false),
            stop: stop.child_token(),
        });
        tokio::spawn(keep(link.clone(), quota.address().clone()));
        link
    }

    pub(super) fn quota(&self) -> &Arc<Quota> {
        &self.quota
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// Whether the broker accepts no publishes on the current connection.
    pub(super) fn blocked(&self) -> watch::Receiver<bool> {
        self.blocked.subscribe()
    }

    /// Host and port of the node to which it is connected.
    pub(super) fn node(&self) -> Option<String> {
        match &*self.state.borrow() {
            LinkState::Up(live) => Some(live.node.name.clone()),
            _ => None,
        }
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(&*self.state.borrow(), LinkState::Down(_))
    }

    /// The current connection.
    ///
    /// Waits for the result of the first attempt, and for a connection that is being replaced. If the link is down,
    /// this is an error at once.
    pub(super) async fn live(&self, operation: &str) -> Result<Arc<Live>, QueueError> {
        let mut state = self.state.subscribe();
        // A connection without free numbers is being replaced.
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

    /// Completes when the keeper has closed the connection.
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

/// The keeper: the only task that connects.
async fn keep(link: Arc<BrokerLink>, address: Arc<Address>) {
    let mut backoff = Backoff::default();
    let stop = link.stop.clone();
    let _ = stop
        .run_until_cancelled(keep_connecting(&link, &address, &mut backoff))
        .await;
    let last = link.state.borrow().clone();
    if let LinkState::Up(live) = last {
        let close = live.connection.close(200, "OK".into());
        if !matches!(time::timeout(CLOSE_TIMEOUT, close).await, Ok(Ok(()))) {
            live.shutdown.shut_down();
        }
    }
    link.set(LinkState::Down("closed".into()));
}

/// Cancel-safe: a dropped attempt closes its socket, and an established connection is stored in the link.
async fn keep_connecting(link: &BrokerLink, address: &Address, backoff: &mut Backoff) {
    // The connection that is being replaced, which is used until then.
    let mut worn: Option<Arc<Live>> = None;
    loop {
        let why = match address.connect(&link.role).await {
            Ok((connection, shutdown, node)) => {
                worn = None;
                let events = connection.events_listener();
                link.blocked.send_replace(connection.status().blocked());
                let live = Live::new(connection, shutdown, node, link.blocked.clone());
                let live = Arc::new(live);
                let since = Instant::now();
                tracing::debug!(
                    link = link.role,
                    node = live.node.name,
                    "connected to the broker"
                );
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
                live.shutdown.shut_down();
                address.lost(&live.node);
                link.blocked.send_replace(false);
                why
            }
            Err(error) => escaped_chain(&error),
        };
        if let Some(live) = worn.as_ref().filter(|live| live.is_up()) {
            // Reusing numbers is better than no channel at all.
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

/// Follows a connection's events until it is lost, and returns the cause.
async fn until_lost(live: &Live, events: impl futures_util::Stream<Item = Event>) -> String {
    let mut events = std::pin::pin!(events);
    let mut look = time::interval(LOOK_EVERY);
    let mut why = None;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::Error(error)) => why = Some(escaped_chain(&error)),
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

/// Number of channels that a connection with this `channel_max` can have. 0 means no limit.
fn numbers(channel_max: u16) -> usize {
    match channel_max {
        0 => usize::from(u16::MAX),
        limit => usize::from(limit),
    }
}

/// Number of channels after which the connection is replaced.
fn wears_at(channel_max: u16) -> usize {
    (numbers(channel_max) * 3 / 4).max(1)
}

/// Exponential with jitter, so that links that lost the same broker do not reconnect at the same time.
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
