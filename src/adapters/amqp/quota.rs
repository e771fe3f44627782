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
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{self, Instant},
};

use super::{
    address::{Address, Plug},
    error::classify,
    refusal::{channel_limit, number_in},
};
use crate::queue::{QueueError, QueueErrorKind};

/// Channels that workers do not use if there is a limit: one to probe, one to publish, one for answers.
const RESERVED: usize = 3;
/// Limit on the channels of one trial.
const MOST_TRIED: usize = 256;
/// Time from a refusal to the first trial: the broker still counts the channels of a lost connection for a moment.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest time between two trials.
const LAST_PAUSE: Duration = Duration::from_secs(300);
/// How long a closed channel still counts if there is a limit: the broker updates its count in the background.
const LINGER: Duration = Duration::from_millis(500);
/// The same after a trial, before its channels are opened on other connections.
const SETTLE: Duration = Duration::from_millis(100);
/// Time after which a trial that could not run is repeated.
const TRIAL_RETRY: Duration = Duration::from_secs(60);
/// Channels that are opened at once if no limit is known: the broker may grant this many above its limit.
const AT_ONCE: usize = 4;
/// Longest time that a first consumer waits for other channels that are being opened.
const OPEN_TOGETHER_TIMEOUT: Duration = Duration::from_secs(1);
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The broker's quota. One for all connections of a driver.
#[derive(Debug)]
pub(super) struct Quota {
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

/// The counts, and the decisions from them. Pure.
#[derive(Debug, Default)]
struct ChannelCounts {
    /// Channels for requests and publishes.
    requests: usize,
    /// Channels of consumers, including those that are being opened.
    consumers: usize,
    /// Channels of `consumers` that the broker has not answered yet.
    opening: usize,
    /// Consumers that may hold jobs.
    consuming: usize,
    /// This many channels were open at once, and none was refused since.
    proven: usize,
    limit: Option<Limit>,
    /// The instants at which closed channels stop counting, in order.
    lingering: VecDeque<Instant>,
    /// No trial is made before this instant, because the last one could not run.
    untried_until: Option<Instant>,
}

#[derive(Debug)]
struct Limit {
    /// The total number of channels that we may have.
    channels: usize,
    /// The broker's text, and its time.
    said: String,
    at: Instant,
    /// The earliest time of the next trial.
    until: Instant,
    pause: Duration,
    /// Number of channels that the next trial asks for.
    step: usize,
}

/// Whether a channel may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChannelDecision {
    /// Yes.
    Open,
    /// Yes, but nothing is consumed before the broker has answered all channels that are being opened.
    OpenTogether,
    /// After a trial.
    Try,
    /// No.
    Full,
}

/// The result of a trial.
#[derive(Debug, PartialEq, Eq)]
enum Trial {
    Granted(usize),
    Refused {
        granted: usize,
        said: String,
    },
    /// No connection could be made for it.
    Unknown,
}

impl ChannelCounts {
    fn open(&self) -> usize {
        self.requests + self.consumers + self.lingering.len()
    }

    fn answered(&self) -> usize {
        self.open() - self.opening
    }

    fn forget_lingering(&mut self, now: Instant) {
        while self.lingering.front().is_some_and(|until| *until <= now) {
            self.lingering.pop_front();
        }
    }

    /// Whether one more consumer may open its channel.
    fn ask_consumer(&mut self, now: Instant) -> ChannelDecision {
        self.forget_lingering(now);
        match &self.limit {
            Some(limit) => {
                let most = limit.channels.saturating_sub(RESERVED).max(1);
                if self.consumers + self.lingering.len() < most {
                    ChannelDecision::Open
                } else if now >= limit.until {
                    ChannelDecision::Try
                } else {
                    ChannelDecision::Full
                }
            }
            None if self.open() < self.proven => ChannelDecision::Open,
            None if self.consuming == 0 => ChannelDecision::OpenTogether,
            None if self.is_untried(now) => ChannelDecision::Open,
            None => ChannelDecision::Try,
        }
    }

    /// Whether one more channel for requests may be opened, in addition to `own` of its kind.
    fn ask_request(&mut self, own: usize, now: Instant) -> ChannelDecision {
        self.forget_lingering(now);
        if own == 0 {
            return ChannelDecision::Open;
        }
        match &self.limit {
            Some(limit) if self.open() < limit.channels => ChannelDecision::Open,
            // An open channel can serve the request too, but later.
            Some(_) => ChannelDecision::Full,
            None if self.open() < self.proven || self.is_untried(now) => ChannelDecision::Open,
            None => ChannelDecision::Try,
        }
    }

    fn is_untried(&self, now: Instant) -> bool {
        self.untried_until.is_some_and(|until| now < until)
    }

    /// Channels that a trial asks for: one that is needed now, and as many as will be needed soon.
    fn to_try(&self) -> usize {
        let more = match &self.limit {
            Some(limit) => limit.step,
            // As many again as are open: then growth in single steps needs few trials.
            None => self.open().max(8),
        };
        more.min(MOST_TRIED)
    }

    fn tried(&mut self, trial: Trial, now: Instant) {
        match (trial, &mut self.limit) {
            (Trial::Granted(granted), None) => self.proven = self.answered() + granted,
            (Trial::Granted(granted), Some(_)) => {
                let channels = self.answered() + granted;
                if let Some(limit) = &mut self.limit {
                    limit.channels = limit.channels.max(channels);
                    limit.step = limit.step.saturating_mul(2);
                    limit.pause = FIRST_PAUSE;
                    limit.until = now;
                }
            }
            (Trial::Refused { granted, said }, limit) => {
                let before = limit.as_ref().map(|limit| limit.pause);
                let pause = before.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LAST_PAUSE));
                self.set_limit(self.answered() + granted, said, now, pause, 1);
            }
            (Trial::Unknown, Some(limit)) => {
                limit.pause = (limit.pause * 2).min(LAST_PAUSE);
                limit.until = now + limit.pause;
            }
            (Trial::Unknown, None) => self.untried_until = Some(now + TRIAL_RETRY),
        }
    }

    /// A connection was lost because it asked for one channel too many. At this moment the number of open channels is
    /// not known: one worker continues, and a trial finds the number after the broker has forgotten the lost channels.
    fn refused(&mut self, said: String, now: Instant) {
        // All channels that were being opened on that connection report the same refusal.
        let known = self.limit.as_ref();
        if known.is_some_and(|limit| now < limit.at + FIRST_PAUSE) {
            return;
        }
        let step = number_in(&said).unwrap_or(8).clamp(1, MOST_TRIED);
        self.set_limit(RESERVED + 1, said, now, FIRST_PAUSE, step);
    }

    fn set_limit(
        &mut self,
        channels: usize,
        said: String,
        now: Instant,
        pause: Duration,
        step: usize,
    ) {
        let most = number_in(&said).unwrap_or(usize::MAX);
        self.proven = 0;
        self.limit = Some(Limit {
            channels: channels.min(most),
            said,
            at: now,
            until: now + pause,
            pause,
            step,
        });
    }

    /// A channel was opened.
    fn opened(&mut self) {
        self.proven = match self.limit {
            None => self.proven.max(self.answered()),
            Some(_) => 0,
        };
    }

    fn closed(&mut self, now: Instant) {
        if self.limit.is_some() {
            self.lingering.push_back(now + LINGER);
        }
    }

    fn why_full(&self) -> String {
        let Some(limit) = &self.limit else {
            return String::new();
        };
        format!(
            "the broker grants us {} channels, {} of them for workers, and more are tried from time to time: {}",
            limit.channels,
            limit.channels.saturating_sub(RESERVED).max(1),
            limit.said
        )
    }
}

impl Quota {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            ledger: Mutex::default(),
            opening: watch::Sender::new(0),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            trial: tokio::sync::Mutex::default(),
        })
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
        address: &Address,
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
            self.try_more(address, wants).await;
        }
    }

    /// Permission to open a channel for requests, in addition to `own` of its kind. `None` if the request must use one
    /// of those.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    pub(super) async fn request(
        self: &Arc<Self>,
        address: &Address,
        own: usize,
    ) -> Option<RequestTicket> {
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
            self.try_more(address, wants).await;
        }
    }

    /// Whether channels are known to be limited. Then none is kept without need.
    pub(super) fn is_limited(&self) -> bool {
        self.ledger().limit.is_some()
    }

    /// Records a refused channel, which has ended its connection.
    pub(super) fn note(&self, error: &QueueError) {
        let source = error.source.as_deref();
        let said = source.and_then(|source| channel_limit(source));
        if let Some(said) = said {
            self.ledger().refused(said, Instant::now());
        }
    }

    async fn try_more(
        &self,
        address: &Address,
        wants: impl Fn(&mut ChannelCounts) -> ChannelDecision,
    ) {
        let _one = self.trial.lock().await;
        let channels = {
            let mut ledger = self.ledger();
            if wants(&mut ledger) != ChannelDecision::Try {
                return;
            }
            ledger.to_try()
        };
        let trial = time::timeout(TRIAL_TIMEOUT, attempt(address, channels)).await;
        let trial = trial.unwrap_or(Trial::Unknown);
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
async fn attempt(address: &Address, channels: usize) -> Trial {
    let Ok((connection, plug)) = address.connect("trial").await else {
        return Trial::Unknown;
    };
    let _plug = PulledOnDrop(plug);
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
                let said = error.source.as_deref();
                match said.and_then(|source| channel_limit(source)) {
                    Some(said) => {
                        return Trial::Refused {
                            granted: granted.len(),
                            said,
                        };
                    }
                    // lapin's own limit, for this connection only. It is not an answer of the broker.
                    None if error.kind == QueueErrorKind::ChannelLimit => break,
                    None => return Trial::Unknown,
                }
            }
        }
    }
    let count = granted.len().min(channels);
    if count == 0 {
        return Trial::Unknown;
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
    Trial::Granted(count)
}

struct PulledOnDrop(Plug);

impl Drop for PulledOnDrop {
    fn drop(&mut self) {
        self.0.pull();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str =
        "channels opened for user 'u' has reached the maximum allowed user limit of (10)";

    fn refused(granted: usize) -> Trial {
        Trial::Refused {
            granted,
            said: SAID.to_owned(),
        }
    }

    /// The ledger of a driver that probes and publishes, with this many consumers.
    fn ledger(consumers: usize) -> ChannelCounts {
        ChannelCounts {
            requests: 2,
            consumers,
            consuming: consumers,
            proven: 2 + consumers,
            ..ChannelCounts::default()
        }
    }

    /// Adds consumers until one is refused. Returns their number and the refusal.
    fn fill(ledger: &mut ChannelCounts, now: Instant) -> (usize, ChannelDecision) {
        for n in 0.. {
            match ledger.ask_consumer(now) {
                ChannelDecision::Open | ChannelDecision::OpenTogether => ledger.consumers += 1,
                other => return (n, other),
            }
        }
        unreachable!()
    }

    #[test]
    fn more_than_ever_are_tried_first_where_jobs_run_and_opened_together_where_none_do() {
        let now = Instant::now();
        let mut idle = ledger(0);
        assert_eq!(idle.ask_consumer(now), ChannelDecision::OpenTogether);
        let mut busy = ledger(5);
        assert_eq!(busy.ask_consumer(now), ChannelDecision::Try);
        let tried = busy.to_try();
        busy.tried(Trial::Granted(tried), now);
        assert_eq!(fill(&mut busy, now), (tried, ChannelDecision::Try));
        // As many channels as were open before may be open again.
        busy.consumers = 1;
        assert_eq!(busy.ask_consumer(now), ChannelDecision::Open);
    }

    #[test]
    fn a_trial_that_was_refused_leaves_a_few_channels_to_others() {
        let now = Instant::now();
        let mut ledger = ledger(1);
        // Three are open, and seven more are granted.
        ledger.tried(refused(7), now);
        assert_eq!(fill(&mut ledger, now), (6, ChannelDecision::Full));
        assert_eq!(ledger.consumers, 7);
        assert_eq!(ledger.ask_request(0, now), ChannelDecision::Open);
        assert_eq!(ledger.ask_request(1, now), ChannelDecision::Open);
        ledger.requests += 1;
        assert_eq!(ledger.ask_request(1, now), ChannelDecision::Full);
        assert_eq!(ledger.ask_request(0, now), ChannelDecision::Open);
        assert!(
            ledger
                .why_full()
                .contains("10 channels, 7 of them for workers")
        );
    }

    #[test]
    fn trials_come_less_and_less_often_while_they_fail_and_at_once_while_they_do_not() {
        let mut now = Instant::now();
        let mut ledger = ledger(7);
        let mut pause = FIRST_PAUSE;
        for _ in 0..12 {
            ledger.tried(refused(1), now);
            assert_eq!(
                ledger.ask_consumer(now + pause - Duration::from_millis(1)),
                ChannelDecision::Full
            );
            now += pause;
            assert_eq!(ledger.ask_consumer(now), ChannelDecision::Try);
            pause = (pause * 2).min(LAST_PAUSE);
        }
        let mut asked = Vec::new();
        for _ in 0..4 {
            let step = ledger.to_try();
            asked.push(step);
            ledger.tried(Trial::Granted(step), now);
            assert_eq!(fill(&mut ledger, now).1, ChannelDecision::Try);
        }
        assert_eq!(asked, [1, 2, 4, 8]);
    }

    #[test]
    fn a_refusal_that_cost_a_connection_leaves_one_worker_until_a_trial_has_counted() {
        let now = Instant::now();
        let mut ledger = ledger(0);
        // All that were being opened report the refusal.
        for _ in 0..20 {
            ledger.refused(SAID.to_owned(), now);
        }
        assert_eq!(fill(&mut ledger, now), (1, ChannelDecision::Full));
        let later = now + FIRST_PAUSE;
        assert_eq!(ledger.ask_consumer(later), ChannelDecision::Try);
        assert_eq!(ledger.to_try(), 10);
        ledger.tried(refused(7), later);
        assert_eq!(fill(&mut ledger, later), (6, ChannelDecision::Full));
        // Others have taken some in the meantime.
        let later = later + FIRST_PAUSE;
        ledger.refused(SAID.to_owned(), later);
        ledger.consumers = 0;
        assert_eq!(fill(&mut ledger, later), (1, ChannelDecision::Full));
    }

    #[test]
    fn a_channel_that_was_closed_counts_a_little_longer_where_there_is_a_limit() {
        let now = Instant::now();
        let mut ledger = ledger(1);
        ledger.tried(refused(7), now);
        assert_eq!(fill(&mut ledger, now), (6, ChannelDecision::Full));
        ledger.consumers -= 1;
        ledger.closed(now);
        assert_eq!(ledger.ask_consumer(now), ChannelDecision::Full);
        assert_eq!(ledger.ask_consumer(now + LINGER), ChannelDecision::Open);
    }

    #[test]
    fn a_trial_that_cannot_be_made_stands_in_nobodys_way() {
        let now = Instant::now();
        let mut ledger = ledger(5);
        ledger.tried(Trial::Unknown, now);
        assert_eq!(ledger.ask_consumer(now), ChannelDecision::Open);
        assert_eq!(ledger.ask_consumer(now + TRIAL_RETRY), ChannelDecision::Try);
    }
}
