//! What a pool measures of its own jobs: how long they waited and ran, and how long workers took to start.
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

/// What a pool measures of its jobs.
#[derive(Debug, Default)]
pub(crate) struct RecentStats(Mutex<Meter>);

impl RecentStats {
    /// A job began. `waited` is the time since its message was published, if the message says when.
    pub(crate) fn job_began(&self, now: Moment, waited: Option<Duration>) {
        self.meter().taken(now, waited);
    }

    /// A job came to its own end after this run time.
    pub(crate) fn job_ended(&self, now: Moment, took: Duration, is_success: bool) {
        self.meter().finished(now, took, is_success);
    }

    /// A worker could run its first job this long after its start.
    pub(crate) fn worker_ready(&self, now: Moment, took: Duration) {
        self.meter().ready(now, took);
    }

    /// The measurements, while our workers hold so many deliveries.
    pub(crate) fn timings(&self, now: Moment, held: u64) -> Timings {
        self.meter().timings(now, held)
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        // What is long past says nothing of now.
        assert_eq!(recent.runs(at(400)), None);
    }
}
