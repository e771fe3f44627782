//! The channels that a driver has open, and whether it may open one more. Pure: each decision takes the time.

use std::{collections::VecDeque, time::Duration};

use tidegate_core::text::counted;
use tokio::time::Instant;

use super::refusal::number_in;

/// Channels that workers do not use if there is a limit: one to probe, one to publish, one for answers.
const RESERVED: usize = 3;
/// Limit on the channels of one trial.
const MAX_TRIED: usize = 256;
/// Time from a refusal to the first trial: the broker still counts the channels of a lost connection for a moment.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest time between two trials.
const LAST_PAUSE: Duration = Duration::from_secs(300);
/// How long a closed channel still counts if there is a limit: the broker updates its count in the background.
const LINGER: Duration = Duration::from_millis(500);
/// Time after which a trial that could not run is repeated.
const TRIAL_RETRY: Duration = Duration::from_secs(60);

/// The counts, and the decisions from them. Pure.
#[derive(Debug, Default)]
pub(super) struct ChannelCounts {
    /// Channels for requests and publishes.
    pub(super) requests: usize,
    /// Channels of consumers, including those that are being opened.
    pub(super) consumers: usize,
    /// Channels of `consumers` that the broker has not answered yet.
    pub(super) opening: usize,
    /// Consumers that may hold jobs.
    pub(super) consuming: usize,
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
    message: String,
    at: Instant,
    /// The earliest time of the next trial.
    until: Instant,
    pause: Duration,
    /// Number of channels that the next trial asks for.
    step: usize,
}

/// Whether a channel may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChannelDecision {
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
pub(super) enum ChannelTrial {
    Granted(usize),
    Refused {
        granted: usize,
        message: String,
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

    pub(super) fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Whether one more consumer may open its channel.
    pub(super) fn ask_consumer(&mut self, now: Instant) -> ChannelDecision {
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
    pub(super) fn ask_request(&mut self, own: usize, now: Instant) -> ChannelDecision {
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
    pub(super) fn to_try(&self) -> usize {
        let more = match &self.limit {
            Some(limit) => limit.step,
            // As many again as are open: then growth in single steps needs few trials.
            None => self.open().max(8),
        };
        more.min(MAX_TRIED)
    }

    pub(super) fn tried(&mut self, trial: ChannelTrial, now: Instant) {
        match (trial, &mut self.limit) {
            (ChannelTrial::Granted(granted), None) => self.proven = self.answered() + granted,
            (ChannelTrial::Granted(granted), Some(_)) => {
                let channels = self.answered() + granted;
                if let Some(limit) = &mut self.limit {
                    limit.channels = limit.channels.max(channels);
                    limit.step = limit.step.saturating_mul(2);
                    limit.pause = FIRST_PAUSE;
                    limit.until = now;
                }
            }
            (ChannelTrial::Refused { granted, message }, limit) => {
                let before = limit.as_ref().map(|limit| limit.pause);
                let pause = before.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LAST_PAUSE));
                self.set_limit(self.answered() + granted, message, now, pause, 1);
            }
            (ChannelTrial::Unknown, Some(limit)) => {
                limit.pause = (limit.pause * 2).min(LAST_PAUSE);
                limit.until = now + limit.pause;
            }
            (ChannelTrial::Unknown, None) => self.untried_until = Some(now + TRIAL_RETRY),
        }
    }

    /// A connection was lost because it asked for one channel too many. At this moment the number of open channels is
    /// not known: one worker continues, and a trial finds the number after the broker has forgotten the lost channels.
    pub(super) fn refused(&mut self, message: String, now: Instant) {
        // All channels that were being opened on that connection report the same refusal.
        let known = self.limit.as_ref();
        if known.is_some_and(|limit| now < limit.at + FIRST_PAUSE) {
            return;
        }
        let step = number_in(&message).unwrap_or(8).clamp(1, MAX_TRIED);
        self.set_limit(RESERVED + 1, message, now, FIRST_PAUSE, step);
    }

    fn set_limit(
        &mut self,
        channels: usize,
        message: String,
        now: Instant,
        pause: Duration,
        step: usize,
    ) {
        let most = number_in(&message).unwrap_or(usize::MAX);
        self.proven = 0;
        self.limit = Some(Limit {
            channels: channels.min(most),
            message,
            at: now,
            until: now + pause,
            pause,
            step,
        });
    }

    /// A channel was opened.
    pub(super) fn opened(&mut self) {
        self.proven = match self.limit {
            None => self.proven.max(self.answered()),
            Some(_) => 0,
        };
    }

    pub(super) fn closed(&mut self, now: Instant) {
        if self.limit.is_some() {
            self.lingering.push_back(now + LINGER);
        }
    }

    pub(super) fn why_full(&self) -> String {
        let Some(limit) = &self.limit else {
            return String::new();
        };
        format!(
            "the broker grants us {}, {} of them for workers, and more are tried from time to time: {}",
            counted(limit.channels, "channel"),
            limit.channels.saturating_sub(RESERVED).max(1),
            limit.message
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str =
        "channels opened for user 'u' has reached the maximum allowed user limit of (10)";

    fn refused(granted: usize) -> ChannelTrial {
        ChannelTrial::Refused {
            granted,
            message: SAID.to_owned(),
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
    fn beyond_the_highest_count_channels_are_tried_while_jobs_run_and_opened_together_otherwise() {
        let now = Instant::now();
        let mut idle = ledger(0);
        assert_eq!(idle.ask_consumer(now), ChannelDecision::OpenTogether);
        let mut busy = ledger(5);
        assert_eq!(busy.ask_consumer(now), ChannelDecision::Try);
        let tried = busy.to_try();
        busy.tried(ChannelTrial::Granted(tried), now);
        assert_eq!(fill(&mut busy, now), (tried, ChannelDecision::Try));
        // As many channels as were open before may be open again.
        busy.consumers = 1;
        assert_eq!(busy.ask_consumer(now), ChannelDecision::Open);
    }

    #[test]
    fn a_refused_trial_leaves_a_few_channels_free_for_others() {
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
    fn failed_trials_are_repeated_less_and_less_often_and_successful_ones_at_once() {
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
            ledger.tried(ChannelTrial::Granted(step), now);
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
    fn a_closed_channel_still_counts_towards_a_limit_for_a_short_time() {
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
    fn a_trial_that_cannot_be_made_does_not_stop_consumers_from_opening() {
        let now = Instant::now();
        let mut ledger = ledger(5);
        ledger.tried(ChannelTrial::Unknown, now);
        assert_eq!(ledger.ask_consumer(now), ChannelDecision::Open);
        assert_eq!(ledger.ask_consumer(now + TRIAL_RETRY), ChannelDecision::Try);
    }
}
