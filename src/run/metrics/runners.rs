//! The handles of a fleet's metrics.

use metrics::{Counter, Gauge, counter, gauge};

use super::{GONE, RUNNER_PANICS, RUNNER_STATES, RUNNERS, RUNNERS_STARTED, RUNNERS_STOPPED};
use crate::decide::PoolName;

/// The metrics of a pool's runners. Written by the fleet.
pub(crate) struct RunnerMetrics {
    pool: String,
}

/// The handles of one kind of runner, made ahead: each reconcile sets the gauges, and each process job counts.
pub(crate) struct KindMetrics {
    pub(crate) started: Counter,
    pub(crate) finished: Counter,
    idle: Gauge,
    busy: Gauge,
}

impl KindMetrics {
    pub(crate) fn sizes(&self, idle: u32, busy: u32) {
        self.idle.set(f64::from(idle));
        self.busy.set(f64::from(busy));
    }

    /// The pool no longer has runners of this kind: their gauges show nothing any more.
    pub(crate) fn forget(&self) {
        self.idle.set(GONE);
        self.busy.set(GONE);
    }
}

impl RunnerMetrics {
    pub(crate) fn new(pool: &PoolName) -> Self {
        let pool = pool.as_str().to_owned();
        Self { pool }
    }

    pub(crate) fn of_kind(&self, kind: &'static str) -> KindMetrics {
        let pool = || self.pool.clone();
        let size = |state: &'static str| gauge!(RUNNERS, "pool" => pool(), "kind" => kind, "state" => state);
        let [idle, busy] = RUNNER_STATES.map(size);
        KindMetrics {
            started: counter!(RUNNERS_STARTED, "pool" => pool(), "kind" => kind),
            finished: counter!(
                RUNNERS_STOPPED, "pool" => pool(), "kind" => kind, "reason" => "finished"
            ),
            idle,
            busy,
        }
    }

    pub(crate) fn stopped(&self, kind: &'static str, reason: &'static str) {
        counter!(RUNNERS_STOPPED, "pool" => self.pool.clone(), "kind" => kind, "reason" => reason)
            .increment(1);
    }
}

/// Counts a panic. Panics are rare, so the counter is looked up each time.
pub(crate) fn runner_panicked(pool: &PoolName, place: &'static str) {
    counter!(RUNNER_PANICS, "pool" => pool.as_str().to_owned(), "place" => place).increment(1);
}
