//! The handles of a pool's metrics, and those of the broker.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::{
    BREAKER_OPEN, BREAKER_OPENED, CONNECTED, DEAD_LETTERS, DELAYED, DEMAND, DEPTH, DEPTH_AGE,
    DETOURS, EXPECTED, GONE, JOB_DURATION, JOB_WAIT, JOBS, KEY_BLOCKED, POOL_RESTARTS,
    RECONCILE_DURATION, RECONCILES, RECONNECTS, REPLIES, SETTLEMENTS, STATE, STUCK, STUCK_SECONDS,
    TAKEN_AHEAD, WORKER_STATES, WORKERS, WORKERS_STARTED, WORKERS_STOPPED,
    labels::{JobOutcome, ReconcileOutcome, ReplyOutcome, Settlement},
};
use crate::decide::{Counts, PoolName, PoolState, TakenAhead};

/// A pool's handles. Written by the pool and its workers.
pub(crate) struct PoolMetrics {
    pool: String,
    depth: Gauge,
    depth_age: Gauge,
    delayed: Gauge,
    dead_letters: Gauge,
    demand: Gauge,
    taken_ahead: Gauge,
    key_blocked: Gauge,
    expected: Gauge,
    breaker_open: Gauge,
    stuck: Gauge,
    stuck_seconds: Gauge,
    states: [Gauge; PoolState::ALL.len()],
    breaker_opened: Counter,
    workers: [Gauge; WORKER_STATES.len()],
    started: Counter,
    restarts: Counter,
    jobs: [Counter; JobOutcome::ALL.len()],
    settlements: [Counter; Settlement::ALL.len()],
    replies: [Counter; ReplyOutcome::ALL.len()],
    copy_detours: Counter,
    reconciles: [Counter; ReconcileOutcome::ALL.len()],
    reconcile_duration: Histogram,
    job_duration: Histogram,
    job_wait: Histogram,
}

impl PoolMetrics {
    pub(crate) fn new(pool: &PoolName) -> Self {
        let pool = pool.as_str().to_owned();
        let p = || pool.clone();
        Self {
            depth: gauge!(DEPTH, "pool" => p()),
            depth_age: gauge!(DEPTH_AGE, "pool" => p()),
            delayed: gauge!(DELAYED, "pool" => p()),
            dead_letters: gauge!(DEAD_LETTERS, "pool" => p()),
            demand: gauge!(DEMAND, "pool" => p()),
            taken_ahead: gauge!(TAKEN_AHEAD, "pool" => p()),
            key_blocked: gauge!(KEY_BLOCKED, "pool" => p()),
            expected: gauge!(EXPECTED, "pool" => p()),
            breaker_open: gauge!(BREAKER_OPEN, "pool" => p()),
            stuck: gauge!(STUCK, "pool" => p()),
            stuck_seconds: gauge!(STUCK_SECONDS, "pool" => p()),
            states: PoolState::ALL
                .map(|state| gauge!(STATE, "pool" => p(), "state" => state.as_str())),
            breaker_opened: counter!(BREAKER_OPENED, "pool" => p()),
            workers: WORKER_STATES.map(|state| gauge!(WORKERS, "pool" => p(), "state" => state)),
            started: counter!(WORKERS_STARTED, "pool" => p()),
            restarts: counter!(POOL_RESTARTS, "pool" => p()),
            jobs: JobOutcome::ALL
                .map(|outcome| counter!(JOBS, "pool" => p(), "outcome" => outcome.as_str())),
            settlements: Settlement::ALL
                .map(|s| counter!(SETTLEMENTS, "pool" => p(), "settlement" => s.as_str())),
            replies: ReplyOutcome::ALL
                .map(|outcome| counter!(REPLIES, "pool" => p(), "outcome" => outcome.as_str())),
            copy_detours: counter!(DETOURS, "pool" => p()),
            reconciles: ReconcileOutcome::ALL
                .map(|outcome| counter!(RECONCILES, "pool" => p(), "outcome" => outcome.as_str())),
            reconcile_duration: histogram!(RECONCILE_DURATION, "pool" => p()),
            job_duration: histogram!(JOB_DURATION, "pool" => p()),
            job_wait: histogram!(JOB_WAIT, "pool" => p()),
            pool,
        }
    }

    pub(crate) fn depth(&self, ready: u64, age: Option<Duration>) {
        self.depth.set(ready as f64);
        self.depth_age.set(age.unwrap_or_default().as_secs_f64());
    }

    pub(crate) fn ahead(&self, ahead: Option<TakenAhead>) {
        let ahead = ahead.unwrap_or_default();
        self.taken_ahead.set(ahead.taken() as f64);
        self.key_blocked.set(ahead.blocked as f64);
    }

    pub(crate) fn delayed(&self, messages: u64) {
        self.delayed.set(messages as f64);
    }

    pub(crate) fn dead_letters(&self, messages: u64) {
        self.dead_letters.set(messages as f64);
    }

    pub(crate) fn breaker(&self, is_open: bool) {
        self.breaker_open.set(if is_open { 1.0 } else { 0.0 });
    }

    /// For how long the pool has been stuck; `None` if it is not.
    pub(crate) fn stuck(&self, lasted: Option<Duration>) {
        self.stuck.set(if lasted.is_some() { 1.0 } else { 0.0 });
        self.stuck_seconds
            .set(lasted.unwrap_or_default().as_secs_f64());
    }

    pub(crate) fn state(&self, state: PoolState) {
        for (gauge, known) in self.states.iter().zip(PoolState::ALL) {
            gauge.set(if known == state { 1.0 } else { 0.0 });
        }
    }

    pub(crate) fn breaker_opened(&self) {
        self.breaker_opened.increment(1);
    }

    pub(crate) fn reconciled(&self, outcome: ReconcileOutcome, took: Duration) {
        self.reconciles[outcome as usize].increment(1);
        self.reconcile_duration.record(took.as_secs_f64());
    }

    pub(crate) fn sizes(&self, demand: u64, expected: u32, counts: &Counts) {
        self.demand.set(demand as f64);
        self.expected.set(f64::from(expected));
        let states = [
            counts.waiting,
            counts.busy,
            counts.retiring,
            counts.draining,
        ];
        for (gauge, n) in self.workers.iter().zip(states) {
            gauge.set(f64::from(n));
        }
    }

    pub(crate) fn pool_restarted(&self) {
        self.restarts.increment(1);
    }

    /// The pool has ended: its gauges are removed. Its counters stay.
    pub(crate) fn forget(&self) {
        let gauges = [
            &self.depth,
            &self.depth_age,
            &self.delayed,
            &self.dead_letters,
            &self.demand,
            &self.taken_ahead,
            &self.key_blocked,
            &self.expected,
            &self.breaker_open,
            &self.stuck,
            &self.stuck_seconds,
        ];
        let gauges = gauges.into_iter().chain(&self.workers);
        for gauge in gauges.chain(&self.states) {
            gauge.set(GONE);
        }
    }

    pub(crate) fn worker_started(&self) {
        self.started.increment(1);
    }

    pub(crate) fn worker_stopped(&self, reason: &'static str) {
        counter!(WORKERS_STOPPED, "pool" => self.pool.clone(), "reason" => reason).increment(1);
    }

    pub(crate) fn job_waited(&self, wait: Duration) {
        self.job_wait.record(wait.as_secs_f64());
    }

    pub(crate) fn job_ended(&self, outcome: JobOutcome, took: Duration) {
        self.jobs[outcome as usize].increment(1);
        self.job_duration.record(took.as_secs_f64());
    }

    pub(crate) fn settled(&self, settlement: Settlement) {
        self.settlements[settlement as usize].increment(1);
    }

    /// One of the pool's own queues did not accept a copy.
    pub(crate) fn copy_detoured(&self) {
        self.copy_detours.increment(1);
    }

    pub(crate) fn replied(&self, outcome: ReplyOutcome) {
        self.replies[outcome as usize].increment(1);
    }
}

/// The broker's handles. Written by the supervisor.
pub(crate) struct BrokerMetrics {
    pub(crate) connected: Gauge,
    pub(crate) reconnects: Counter,
}

impl BrokerMetrics {
    pub(crate) fn new() -> Self {
        Self {
            connected: gauge!(CONNECTED),
            reconnects: counter!(RECONNECTS),
        }
    }
}
