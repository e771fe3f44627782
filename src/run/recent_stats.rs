//! What a pool has done lately: rates over the last minute, and how long jobs waited and ran.
//!
//! Written by workers and by the pool, read for the status. A fixed amount of memory, and no work but when someone looks.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::decide::Moment;

use super::status::{Quantiles, Rates};

/// Seconds that rates are taken over.
const SECONDS: usize = 60;

/// Durations that are kept, of waits and of runs each.
const SAMPLES: usize = 512;

/// How long a duration counts.
const FRESH: Duration = Duration::from_secs(300);

/// What a pool has done lately.
#[derive(Debug, Default)]
pub(crate) struct RecentStats(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// One for each of the last seconds that anything happened in, the oldest first.
    seconds: VecDeque<Second>,
    waits: Samples,
    runs: Samples,
}

/// What happened in one second.
#[derive(Debug, Clone, Copy)]
struct Second {
    /// Since the supervisor's start.
    at: u64,
    taken: u64,
    done: u64,
    /// Messages that were ready, where the queue was looked at.
    ready: Option<u64>,
}

#[derive(Debug, Default)]
struct Samples(VecDeque<(Moment, Duration)>);

impl RecentStats {
    /// A delivery was taken.
    pub(crate) fn delivery_taken(&self, now: Moment) {
        self.state().second(now).taken += 1;
    }

    /// A job that began had waited so long since its message was published.
    pub(crate) fn job_waited(&self, now: Moment, wait: Duration) {
        self.state().waits.add(now, wait);
    }

    /// A job has come to its own end after so long.
    pub(crate) fn job_ended(&self, now: Moment, took: Duration) {
        let mut state = self.state();
        state.second(now).done += 1;
        state.runs.add(now, took);
    }

    /// So many messages were ready.
    pub(crate) fn ready_read(&self, now: Moment, ready: u64) {
        self.state().second(now).ready = Some(ready);
    }

    /// Rates of the last minute, and of the time before it where the supervisor is younger.
    pub(crate) fn rates(&self, now: Moment) -> Rates {
        let mut state = self.state();
        state.forget(now);
        let age = now.since(Moment::ZERO).as_secs_f64();
        let span = age.clamp(1.0, SECONDS as f64);
        let sum = |of: fn(&Second) -> u64| state.seconds.iter().map(of).sum::<u64>() as f64;
        let ready = |second: &Second| second.ready;
        let first = state.seconds.iter().find_map(ready);
        let last = state.seconds.iter().rev().find_map(ready);
        let more = match (first, last) {
            (Some(first), Some(last)) => last as f64 - first as f64,
            _ => 0.0,
        };
        let round = |rate: f64| (rate * 1000.0).round() / 1000.0;
        Rates {
            // What was taken had come, and so has what is there more than before. Given back, a message counts twice.
            arrivals: round((sum(|second| second.taken) + more).max(0.0) / span),
            done: round(sum(|second| second.done) / span),
        }
    }

    /// How long jobs waited; `None` where nothing is known of it.
    pub(crate) fn waits(&self, now: Moment) -> Option<Quantiles> {
        self.state().waits.quantiles(now)
    }

    /// How long jobs ran; `None` where none has.
    pub(crate) fn runs(&self, now: Moment) -> Option<Quantiles> {
        self.state().runs.quantiles(now)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code of ours panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The second that it is now.
    fn second(&mut self, now: Moment) -> &mut Second {
        let at = now.since(Moment::ZERO).as_secs();
        // Another thread's clock may be a moment ahead.
        if self.seconds.back().is_none_or(|last| last.at < at) {
            self.seconds.push_back(Second {
                at,
                taken: 0,
                done: 0,
                ready: None,
            });
            self.forget(now);
        }
        self.seconds.back_mut().expect("one was just added")
    }

    fn forget(&mut self, now: Moment) {
        let at = now.since(Moment::ZERO).as_secs();
        let oldest = (at + 1).saturating_sub(SECONDS as u64);
        while self
            .seconds
            .front()
            .is_some_and(|second| second.at < oldest)
        {
            self.seconds.pop_front();
        }
    }
}

impl Samples {
    fn add(&mut self, now: Moment, sample: Duration) {
        if self.0.len() == SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back((now, sample));
    }

    fn quantiles(&mut self, now: Moment) -> Option<Quantiles> {
        while self.0.front().is_some_and(|(at, _)| now.since(*at) > FRESH) {
            self.0.pop_front();
        }
        let mut samples: Vec<Duration> = self.0.iter().map(|(_, sample)| *sample).collect();
        samples.sort_unstable();
        let last = samples.len().checked_sub(1)?;
        // The smallest sample that so many percent are not above.
        let at = |percent: usize| {
            let rank = (samples.len() * percent).div_ceil(100);
            let seconds = samples[rank.saturating_sub(1).min(last)].as_secs_f64();
            (seconds * 1000.0).round() / 1000.0
        };
        Some(Quantiles {
            p50: at(50),
            p95: at(95),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    #[test]
    fn rates_are_those_of_the_last_minute() {
        let recent = RecentStats::default();
        for second in 0..120 {
            recent.ready_read(at(second), 10 * second);
            for _ in 0..6 {
                recent.delivery_taken(at(second));
            }
            for _ in 0..3 {
                recent.job_ended(at(second), Duration::from_secs(1));
            }
        }
        let rates = recent.rates(at(119));
        assert_eq!(rates.done, 3.0);
        // Six taken a second, and 590 more in the queue than 59 s before.
        assert_eq!(rates.arrivals, 6.0 + 9.833);
        let later = recent.rates(at(300));
        assert_eq!((later.arrivals, later.done), (0.0, 0.0));
    }

    #[test]
    fn a_young_supervisor_s_rates_are_over_its_own_age() {
        let recent = RecentStats::default();
        (0..20).for_each(|_| recent.job_ended(at(5), Duration::ZERO));
        assert_eq!(recent.rates(at(10)).done, 2.0);
    }

    #[test]
    fn half_of_the_jobs_took_no_longer_than_the_median() {
        let recent = RecentStats::default();
        assert_eq!(recent.runs(at(0)), None);
        for ms in 1..=100 {
            recent.job_ended(at(1), Duration::from_millis(ms));
        }
        let runs = recent.runs(at(2)).unwrap();
        assert_eq!((runs.p50, runs.p95), (0.05, 0.095));
        recent.job_waited(at(1), Duration::from_secs(7));
        let waits = recent.waits(at(2)).unwrap();
        assert_eq!((waits.p50, waits.p95), (7.0, 7.0));
        // What is long past says nothing of now.
        assert_eq!(recent.runs(at(400)), None);
    }

    #[test]
    fn keeps_no_more_than_its_share_of_memory() {
        let recent = RecentStats::default();
        for second in 0..10_000 {
            recent.job_ended(at(second), Duration::from_secs(second));
        }
        let state = recent.state();
        assert!(state.seconds.len() <= SECONDS && state.runs.0.len() <= SAMPLES);
    }
}
