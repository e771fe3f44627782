//! Measurements of a pool's jobs: how long they waited and ran, and how long workers took to start.
//!
//! A lock around the core's [`Meter`]. Written by workers. Read by the pool at each reconcile, and for the status.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::status::Quantiles;
use crate::decide::{Meter, Moment, Spread, Timings};

/// How long measurements count for the status.
const FRESH: Duration = Duration::from_secs(300);

/// Measurements of a pool's jobs.
#[derive(Debug, Default)]
pub(crate) struct RecentStats {
    meter: Mutex<Meter>,
    oldest: Mutex<OldestMessage>,
}

/// What is known about the oldest message in the queue.
#[derive(Debug, Default)]
struct OldestMessage {
    /// The message that was last taken for the first time: when, and how long it had waited by then.
    head: Option<(Moment, Duration)>,
    /// Whether messages were ready at the last reading.
    has_ready: bool,
    /// When the queue was last seen empty.
    empty: Option<Moment>,
}

impl RecentStats {
    /// A job began. `waited` is the time since its message was published, if the message says when.
    pub(crate) fn job_began(&self, now: Moment, waited: Option<Duration>) {
        self.meter().taken(now, waited);
    }

    /// A job ended by itself after this run time.
    pub(crate) fn job_ended(&self, now: Moment, took: Duration, is_success: bool) {
        self.meter().finished(now, took, is_success);
    }

    /// A message was taken for the first time. It had waited this long, if it says when it was published.
    pub(crate) fn head(&self, now: Moment, waited: Option<Duration>) {
        self.oldest_message().head = waited.map(|waited| (now, waited));
    }

    /// A worker could run its first job this long after its start.
    pub(crate) fn worker_ready(&self, now: Moment, took: Duration) {
        self.meter().ready(now, took);
    }

    /// The measurements, while the pool's workers hold this many deliveries.
    pub(crate) fn timings(&self, now: Moment, held: u64) -> Timings {
        self.meter().timings(now, held)
    }

    /// The depth was read: this many messages were ready.
    pub(crate) fn ready_read(&self, now: Moment, ready: u64) {
        let mut state = self.oldest_message();
        state.has_ready = ready > 0;
        if ready == 0 {
            state.empty = Some(now);
        }
    }

    /// How long the oldest message has waited, at most. `None` if none waits, or if that is not known.
    ///
    /// A queue gives its messages in order. So its head was published after the message that was last taken, and after
    /// the queue was last empty.
    pub(crate) fn oldest(&self, now: Moment) -> Option<Duration> {
        let state = self.oldest_message();
        let (taken, waited) = state.head.filter(|_| state.has_ready)?;
        let since_head = waited.saturating_add(now.since(taken));
        Some(match state.empty {
            Some(empty) => since_head.min(now.since(empty)),
            None => since_head,
        })
    }

    /// How long jobs waited. `None` if that was not measured lately.
    pub(crate) fn waits(&self, now: Moment) -> Option<Quantiles> {
        quantiles(self.meter().wait(now))
    }

    /// How long jobs that succeeded ran. `None` if none did lately.
    pub(crate) fn runs(&self, now: Moment) -> Option<Quantiles> {
        quantiles(self.meter().service(now))
    }

    fn meter(&self) -> MutexGuard<'_, Meter> {
        // No code of ours panics while it holds the lock.
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn oldest_message(&self) -> MutexGuard<'_, OldestMessage> {
        self.oldest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn quantiles(spread: Option<Spread>) -> Option<Quantiles> {
    let spread = spread.filter(|spread| spread.age <= FRESH)?;
    let seconds = |time: Duration| (time.as_secs_f64() * 1000.0).round() / 1000.0;
    Some(Quantiles {
        p50: seconds(spread.p50),
        p95: seconds(spread.p95),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    #[test]
    fn half_of_the_jobs_took_no_longer_than_the_median() {
        let recent = RecentStats::default();
        assert_eq!(recent.runs(at(0)), None);
        for ms in 1..=100 {
            recent.job_ended(at(1), Duration::from_millis(ms), true);
        }
        let runs = recent.runs(at(2)).unwrap();
        assert!((0.049..=0.051).contains(&runs.p50), "{runs:?}");
        assert!((0.094..=0.096).contains(&runs.p95), "{runs:?}");
        recent.job_began(at(1), Some(Duration::from_secs(7)));
        let waits = recent.waits(at(2)).unwrap();
        assert!((6.9..=7.1).contains(&waits.p95), "{waits:?}");
        // Old measurements are not counted.
        assert_eq!(recent.runs(at(400)), None);
    }

    #[test]
    fn the_oldest_message_is_no_older_than_the_last_one_taken_and_than_the_last_empty_queue() {
        let recent = RecentStats::default();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        recent.ready_read(at(10), 5);
        assert_eq!(recent.oldest(at(10)), None, "nothing was taken");
        recent.head(at(10), seconds(7));
        assert_eq!(recent.oldest(at(10)), seconds(7));
        assert_eq!(recent.oldest(at(13)), seconds(10));
        recent.head(at(14), seconds(2));
        assert_eq!(recent.oldest(at(15)), seconds(3));
        recent.ready_read(at(20), 0);
        assert_eq!(recent.oldest(at(21)), None, "none waits");
        recent.ready_read(at(24), 3);
        assert_eq!(recent.oldest(at(25)), seconds(5));
        recent.head(at(25), None);
        assert_eq!(recent.oldest(at(25)), None, "its message does not say");
    }
}
