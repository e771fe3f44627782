//! The number of channels that the broker grants us, and how to find it without loss of a job.
//!
//! RabbitMQ limits channels for a user (`max-channels`) and on a node (`channel_max_per_node`). It does not report how
//! many are left, and it ends the *connection* that asks for one too many. Therefore:
//!
//! - While jobs run, a number of channels above the earlier maximum is first tried on a separate connection.
//! - While no jobs run, the channels are opened directly, but nothing is consumed before the broker has answered all of
//!   them.
//! - A refusal is remembered. A few channels are reserved for requests and copies, and workers use the others. From
//!   time to time a trial on a separate connection tests whether more channels are free.
//!
//! Other users of the same limit can still take a channel in between. Then a connection is lost, as with any other
//! fault.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{self, Instant},
};

use super::{
    address::Address,
    channel_counts::{ChannelCounts, ChannelDecision, ChannelTrial},
    error::classify,
    refusal::channel_limit,
};
use crate::queue::{QueueError, QueueErrorKind};

/// The same after a trial, before its channels are opened on other connections.
const SETTLE: Duration = Duration::from_millis(100);
/// Channels that are opened at once if no limit is known: the broker may grant this many above its limit.
const MAX_PARALLEL_TRIALS: usize = 4;
/// Longest time that a first consumer waits for other channels that are being opened.
const OPEN_TOGETHER_TIMEOUT: Duration = Duration::from_secs(1);
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The channels that this user may have at the broker. One for all connections of a driver.
#[derive(Debug)]
pub(super) struct Quota {
    /// The broker of the trials.
    address: Arc<Address>,
    /// Written when a channel is opened or closed. Held only while counting.
    ledger: Mutex<ChannelCounts>,
    /// Number of consumers' channels that are being opened. Written with the ledger. Read by first consumers, which
    /// wait for zero.
    opening: watch::Sender<usize>,
    /// Limits the channels that are opened at once if no limit is known.
    turns: Arc<Semaphore>,
    /// One trial at a time. A task that waits uses the result of the first.
    trial: tokio::sync::Mutex<()>,
}

impl Quota {
    pub(super) fn new(address: Address) -> Arc<Self> {
        Arc::new(Self {
            address: Arc::new(address),
            ledger: Mutex::default(),
            opening: watch::Sender::new(0),
            turns: Arc::new(Semaphore::new(MAX_PARALLEL_TRIALS)),
            trial: tokio::sync::Mutex::default(),
        })
    }

    /// The broker.
    pub(super) fn address(&self) -> &Arc<Address> {
        &self.address
    }

    /// Permission to open a consumer's channel.
    ///
    /// # Errors
    /// [`ChannelLimit`](QueueErrorKind::ChannelLimit).
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    pub(super) async fn consumer(
        self: &Arc<Self>,
        operation: &str,
    ) -> Result<ConsumerTicket, QueueError> {
        loop {
            {
                let mut ledger = self.ledger();
                let answer = ledger.ask_consumer(Instant::now());
                match answer {
                    ChannelDecision::Open | ChannelDecision::OpenTogether => {
                        ledger.consumers += 1;
                        ledger.opening += 1;
                        self.opening.send_replace(ledger.opening);
                        return Ok(ConsumerTicket {
                            quota: self.clone(),
                            together: answer == ChannelDecision::OpenTogether,
                            turn: None,
                            is_opening: true,
                            is_consuming: false,
                        });
                    }
                    ChannelDecision::Full => {
                        let what = format!("{operation}: {}", ledger.why_full());
                        return Err(QueueError::new(QueueErrorKind::ChannelLimit, what));
                    }
                    ChannelDecision::Try => {}
                }
            }
            let wants = |ledger: &mut ChannelCounts| ledger.ask_consumer(Instant::now());
            self.try_more(wants).await;
        }
    }

    /// Permission to open a channel for requests, in addition to `own` of its kind. `None` if the request must use one
    /// of those.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    pub(super) async fn request(self: &Arc<Self>, own: usize) -> Option<RequestTicket> {
        loop {
            {
                let mut ledger = self.ledger();
                match ledger.ask_request(own, Instant::now()) {
                    ChannelDecision::Open | ChannelDecision::OpenTogether => {
                        ledger.requests += 1;
                        return Some(RequestTicket(self.clone()));
                    }
                    ChannelDecision::Full => return None,
                    ChannelDecision::Try => {}
                }
            }
            let wants = |ledger: &mut ChannelCounts| ledger.ask_request(own, Instant::now());
            self.try_more(wants).await;
        }
    }

    /// Whether channels are known to be limited. Then none is kept without need.
    pub(super) fn is_limited(&self) -> bool {
        self.ledger().is_limited()
    }

    /// Records a refused channel, which has ended its connection.
    pub(super) fn note(&self, error: &QueueError) {
        let source = error.source.as_deref();
        let message = source.and_then(|source| channel_limit(source));
        if let Some(message) = message {
            self.ledger().refused(message, Instant::now());
        }
    }

    async fn try_more(&self, wants: impl Fn(&mut ChannelCounts) -> ChannelDecision) {
        let _one = self.trial.lock().await;
        let channels = {
            let mut ledger = self.ledger();
            if wants(&mut ledger) != ChannelDecision::Try {
                return;
            }
            ledger.to_try()
        };
        let trial = time::timeout(TRIAL_TIMEOUT, attempt(&self.address, channels)).await;
        let trial = trial.unwrap_or(ChannelTrial::Unknown);
        tracing::debug!(channels, ?trial, "tried for more channels");
        self.ledger().tried(trial, Instant::now());
    }

    fn ledger(&self) -> MutexGuard<'_, ChannelCounts> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A consumer's channel, counted in the quota. **On drop** it no longer counts.
#[derive(Debug)]
pub(super) struct ConsumerTicket {
    quota: Arc<Quota>,
    together: bool,
    turn: Option<OwnedSemaphorePermit>,
    is_opening: bool,
    is_consuming: bool,
}

impl ConsumerTicket {
    /// Waits for its turn to open the channel.
    pub(super) async fn turn(&mut self) {
        if self.together {
            // The semaphore is never closed.
            self.turn = self.quota.turns.clone().acquire_owned().await.ok();
        }
    }

    /// The broker has answered: the channel is open.
    pub(super) fn opened(&mut self) {
        self.answer();
        self.quota.ledger().opened();
    }

    /// Called before the consumer starts. If no jobs run yet, this waits for other channels that are being opened.
    pub(super) async fn consuming(&mut self) {
        if self.together {
            let mut opening = self.quota.opening.subscribe();
            let _ = time::timeout(
                OPEN_TOGETHER_TIMEOUT,
                opening.wait_for(|opening| *opening == 0),
            )
            .await;
        }
        if !self.is_consuming {
            self.is_consuming = true;
            self.quota.ledger().consuming += 1;
        }
    }

    /// Records an error of the opening.
    pub(super) fn note(&self, error: &QueueError) {
        self.quota.note(error);
    }

    fn answer(&mut self) {
        self.turn = None;
        if std::mem::take(&mut self.is_opening) {
            let mut ledger = self.quota.ledger();
            ledger.opening -= 1;
            self.quota.opening.send_replace(ledger.opening);
        }
    }
}

impl Drop for ConsumerTicket {
    fn drop(&mut self) {
        self.answer();
        let mut ledger = self.quota.ledger();
        ledger.consumers -= 1;
        ledger.consuming -= usize::from(self.is_consuming);
        ledger.closed(Instant::now());
    }
}

/// A channel for requests, counted in the quota. **On drop** it no longer counts.
#[derive(Debug)]
pub(super) struct RequestTicket(Arc<Quota>);

impl RequestTicket {
    /// The broker has answered: the channel is open.
    pub(super) fn opened(&self) {
        self.0.ledger().opened();
    }
}

impl Drop for RequestTicket {
    fn drop(&mut self) {
        let mut ledger = self.0.ledger();
        ledger.requests -= 1;
        ledger.closed(Instant::now());
    }
}

/// Opens this many channels on a separate connection, and closes them.
///
/// # Cancel-safety
/// Cancel-safe: the connection's socket is shut down.
async fn attempt(address: &Address, channels: usize) -> ChannelTrial {
    let Ok((connection, shutdown, _)) = address.connect("trial").await else {
        return ChannelTrial::Unknown;
    };
    let _shut = shutdown.shut_on_drop();
    // One after the other: the broker counts in the background, and grants too many channels if they are requested all
    // at once. So at the end the broker gets time to count, and one more channel is requested.
    let mut granted = Vec::new();
    for n in 0..=channels {
        if n == channels {
            time::sleep(SETTLE).await;
        }
        match connection.create_channel().await {
            Ok(channel) => granted.push(channel),
            Err(error) => {
                let error = classify("open a channel", error);
                let source = error.source.as_deref();
                match source.and_then(|source| channel_limit(source)) {
                    Some(message) => {
                        return ChannelTrial::Refused {
                            granted: granted.len(),
                            message,
                        };
                    }
                    // lapin's own limit, for this connection only. It is not an answer of the broker.
                    None if error.kind == QueueErrorKind::ChannelLimit => break,
                    None => return ChannelTrial::Unknown,
                }
            }
        }
    }
    let count = granted.len().min(channels);
    if count == 0 {
        return ChannelTrial::Unknown;
    }
    // Each close is answered, so that the broker no longer counts the channels when they are needed on other
    // connections.
    join_all(
        granted
            .iter()
            .map(|channel| channel.close(200, "OK".into())),
    )
    .await;
    let _ = connection.close(200, "OK".into()).await;
    time::sleep(SETTLE).await;
    ChannelTrial::Granted(count)
}
