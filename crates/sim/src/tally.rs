//! The counts of a run.

use std::time::Duration;

use hdrhistogram::Histogram;
use tidegate_core::decide::Moment;

use crate::{
    curve::Curve,
    report::{Report, Waits},
};

/// The longest wait that is recorded exactly: a hundred years.
const LONGEST_US: u64 = 100 * 366 * 86_400 * 1_000_000;

/// The counts of a run.
#[derive(Debug)]
pub(crate) struct Tally {
    target: Duration,
    waits: Histogram<u64>,
    /// Seconds.
    wait_sum: f64,
    wait_max: Duration,
    over_target: u64,
    pub(crate) jobs: u64,
    pub(crate) done: u64,
    pub(crate) dead: u64,
    pub(crate) retried: u64,
    pub(crate) interrupted: u64,
    pub(crate) starts: u64,
    pub(crate) stops: u64,
    peak: u64,
    worker_time: Duration,
    busy_time: Duration,
    pub(crate) curve: Curve,
}

impl Tally {
    pub(crate) fn new(target: Duration) -> Self {
        Self {
            target,
            waits: Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are in order"),
            wait_sum: 0.0,
            wait_max: Duration::ZERO,
            over_target: 0,
            jobs: 0,
            done: 0,
            dead: 0,
            retried: 0,
            interrupted: 0,
            starts: 0,
            stops: 0,
            peak: 0,
            worker_time: Duration::ZERO,
            busy_time: Duration::ZERO,
            curve: Curve::default(),
        }
    }

    /// A job was started for the first time, after this wait.
    pub(crate) fn waited(&mut self, at: Moment, wait: Duration) {
        let us = u64::try_from(wait.as_micros()).unwrap_or(LONGEST_US);
        self.waits.saturating_record(us);
        self.wait_sum += wait.as_secs_f64();
        self.wait_max = self.wait_max.max(wait);
        self.over_target += u64::from(wait > self.target);
        self.curve.waited(at, us);
    }

    /// The number of workers changed to this.
    pub(crate) fn workers(&mut self, at: Moment, workers: usize) {
        self.peak = self.peak.max(workers as u64);
        self.curve.workers(at, workers as u64);
    }

    /// A worker existed for this long.
    pub(crate) fn worked(&mut self, time: Duration) {
        self.worker_time += time;
    }

    /// A job ran for this long.
    pub(crate) fn ran(&mut self, time: Duration) {
        self.busy_time += time;
    }

    /// The counts in the form of the contract. `left` jobs are not settled.
    pub(crate) fn report(&self, name: &str, seconds: Duration, left: u64) -> Report {
        let recorded = self.waits.len();
        let at = |quantile| match recorded {
            0 => 0.0,
            // A bucket's upper end may be above the longest wait.
            _ => (self.waits.value_at_quantile(quantile) as f64 / 1e6)
                .min(self.wait_max.as_secs_f64()),
        };
        Report {
            name: name.to_owned(),
            jobs: self.jobs,
            wait_s: Waits {
                mean: self.wait_sum / recorded.max(1) as f64,
                p50: at(0.5),
                p95: at(0.95),
                p99: at(0.99),
                max: self.wait_max.as_secs_f64(),
            },
            over_target: self.over_target,
            worker_seconds: self.worker_time.as_secs_f64(),
            busy_seconds: self.busy_time.as_secs_f64(),
            starts: self.starts,
            stops: self.stops,
            peak: self.peak,
            done: self.done,
            dead: self.dead,
            left,
            retried: self.retried,
            interrupted: self.interrupted,
            seconds: seconds.as_secs_f64(),
        }
    }
}
