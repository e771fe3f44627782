//! The handles of a fleet's metrics.

use metrics::{Counter, counter, gauge};

use super::{GONE, RUNNER_PANICS, RUNNER_STATES, RUNNERS, RUNNERS_STARTED, RUNNERS_STOPPED};
use crate::decide::PoolName;

/// The metrics of a pool's runners. Written by the fleet.
pub(crate) struct RunnerMetrics {
    pool: String,
}

/// Counters of one kind of runner.
pub(crate) struct RunnerCounters {
    pub(crate) started: Counter,
    pub(crate) finished: Counter,
}

impl RunnerMetrics {
    pub(crate) fn new(pool: &PoolName) -> Self {
        let pool = pool.as_str().to_owned();
        Self { pool }
    }

    pub(crate) fn counters(&self, kind: &'static str) -> RunnerCounters {
        let started = counter!(RUNNERS_STARTED, "pool" => self.pool.clone(), "kind" => kind);
        // Every process job increments this counter, so its handle is created in advance.
        let finished = counter!(
            RUNNERS_STOPPED, "pool" => self.pool.clone(), "kind" => kind, "reason" => "finished"
        );
        RunnerCounters { started, finished }
    }

    pub(crate) fn stopped(&self, kind: &'static str, reason: &'static str) {
        counter!(RUNNERS_STOPPED, "pool" => self.pool.clone(), "kind" => kind, "reason" => reason)
            .increment(1);
    }

    pub(crate) fn sizes(&self, kind: &'static str, idle: u32, busy: u32) {
        for (state, n) in RUNNER_STATES.into_iter().zip([idle, busy]) {
            gauge!(RUNNERS, "pool" => self.pool.clone(), "kind" => kind, "state" => state)
                .set(f64::from(n));
        }
    }

    /// The pool no longer has runners of this kind: their gauges are removed.
    pub(crate) fn forget(&self, kind: &'static str) {
        for state in RUNNER_STATES {
            gauge!(RUNNERS, "pool" => self.pool.clone(), "kind" => kind, "state" => state)
                .set(GONE);
        }
    }
}

/// Counts a panic. Panics are rare, so the counter is looked up each time.
pub(crate) fn runner_panicked(pool: &PoolName, place: &'static str) {
    counter!(RUNNER_PANICS, "pool" => pool.as_str().to_owned(), "place" => place).increment(1);
}
