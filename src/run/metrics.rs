//! Every metric's name, in one file, and the handles of a pool.
//!
//! Only the `metrics` facade is used here: the library installs no recorder, the daemon does. A pool's handles
//! are made once, so that a job costs no look-up, and so that counters show zero before anything happened.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

use crate::decide::{Counts, PoolName, PoolState};

const DEPTH: &str = "tidegate_queue_depth_messages";
const DEPTH_AGE: &str = "tidegate_queue_depth_age_seconds";
const DELAYED: &str = "tidegate_delayed_messages";
const DEAD_LETTERS: &str = "tidegate_dead_letters";
const DEMAND: &str = "tidegate_demand_jobs";
const EXPECTED: &str = "tidegate_expected_workers";
const BREAKER_OPEN: &str = "tidegate_breaker_open";
const STATE: &str = "tidegate_pool_state";
const STUCK_SECONDS: &str = "tidegate_pool_stuck_seconds";
const STUCK: &str = "tidegate_pool_stuck";
const BREAKER_OPENED: &str = "tidegate_breaker_opened_total";
const WORKERS: &str = "tidegate_workers";
const RUNNERS: &str = "tidegate_runners";
const WORKERS_STARTED: &str = "tidegate_workers_started_total";
const WORKERS_STOPPED: &str = "tidegate_workers_stopped_total";
const RUNNERS_STARTED: &str = "tidegate_runners_started_total";
const RUNNERS_STOPPED: &str = "tidegate_runners_stopped_total";
const RUNNER_PANICS: &str = "tidegate_runner_panics_total";
const POOL_RESTARTS: &str = "tidegate_pool_restarts_total";
const RECONCILES: &str = "tidegate_reconciles_total";
const RECONCILE_DURATION: &str = "tidegate_reconcile_duration_seconds";
const JOBS: &str = "tidegate_jobs_total";
const JOB_DURATION: &str = "tidegate_job_duration_seconds";
const JOB_WAIT: &str = "tidegate_job_wait_seconds";
const SETTLEMENTS: &str = "tidegate_settlements_total";
const REPLIES: &str = "tidegate_replies_total";
const DETOURS: &str = "tidegate_copy_detours_total";
const STEERING: &str = "tidegate_steering_total";
const CONNECTED: &str = "tidegate_broker_connected";
const RECONNECTS: &str = "tidegate_broker_reconnects_total";
const LOG_LINES_DROPPED: &str = "tidegate_log_lines_dropped_total";
const LOG_LINES_LEFT_OUT: &str = "tidegate_log_lines_left_out_total";
const EVENTS_DROPPED: &str = "tidegate_events_dropped_total";

/// What a gauge says whose pool, or kind of runner, is gone. The `metrics` facade has no way to take a gauge back, so
/// recorders are told that there is no number, and the daemon's own leaves it out.
pub const GONE: f64 = f64::NAN;

/// Describes every metric to the installed recorder.
pub fn describe() {
    describe_gauge!(
        DEPTH,
        Unit::Count,
        "Messages ready in the queue, as last read."
    );
    describe_gauge!(DEPTH_AGE, Unit::Seconds, "Age of that reading.");
    describe_gauge!(
        DELAYED,
        Unit::Count,
        "Messages that wait in the retry queues."
    );
    describe_gauge!(
        DEAD_LETTERS,
        Unit::Count,
        "Messages that wait in the pool's dead-letter queue."
    );
    describe_gauge!(
        DEMAND,
        Unit::Count,
        "Ready messages plus deliveries that live workers hold."
    );
    describe_gauge!(EXPECTED, Unit::Count, "Workers that there should be.");
    describe_gauge!(
        BREAKER_OPEN,
        Unit::Count,
        "1 while too many jobs fail and intake is closed for it, trials included, else 0."
    );
    describe_gauge!(
        STUCK,
        Unit::Count,
        "1 while there is work that the pool cannot get at: its consumers are refused or given nothing, else 0."
    );
    describe_gauge!(
        STUCK_SECONDS,
        Unit::Seconds,
        "Time since the pool cannot get at its work; 0 while it can."
    );
    describe_gauge!(
        STATE,
        Unit::Count,
        "1 for the state that the pool is in, 0 for the others; as of its last look at the queue."
    );
    describe_counter!(
        BREAKER_OPENED,
        Unit::Count,
        "Times that the breaker opened; trials that failed are not among them."
    );
    describe_gauge!(
        WORKERS,
        Unit::Count,
        "Workers by state; the states sum to all workers."
    );
    describe_gauge!(
        RUNNERS,
        Unit::Count,
        "Runners by state; the states sum to all runners."
    );
    describe_counter!(WORKERS_STARTED, Unit::Count, "Workers started.");
    describe_counter!(
        WORKERS_STOPPED,
        Unit::Count,
        "Workers that ended, by reason."
    );
    describe_counter!(RUNNERS_STARTED, Unit::Count, "Runners brought up.");
    describe_counter!(
        RUNNERS_STOPPED,
        Unit::Count,
        "Runners that ended, by reason."
    );
    describe_counter!(
        RUNNER_PANICS,
        Unit::Count,
        "Panics in the code of a runner, its manager or an event sink, by where they were called."
    );
    describe_counter!(
        POOL_RESTARTS,
        Unit::Count,
        "Times that a pool's task failed by a fault of ours and was started again."
    );
    describe_counter!(RECONCILES, Unit::Count, "Reconciles, by what they came to.");
    describe_histogram!(
        RECONCILE_DURATION,
        Unit::Seconds,
        "Time from a reconcile's start to its applied plan."
    );
    describe_counter!(JOBS, Unit::Count, "Runs of jobs, by outcome.");
    describe_histogram!(JOB_DURATION, Unit::Seconds, "Time that a job ran.");
    describe_histogram!(
        JOB_WAIT,
        Unit::Seconds,
        "Time from a message's header timestamp_in_ms, or its timestamp in whole seconds, to its job's start; only where it has one."
    );
    describe_counter!(
        SETTLEMENTS,
        Unit::Count,
        "Settlements of deliveries; 'lost' never reached the broker, 'lost_copy' did not after its copy had."
    );
    describe_counter!(
        REPLIES,
        Unit::Count,
        "Answers to messages with a reply_to: 'done', 'failed' and 'too_large' were sent, 'refused' and 'undeliverable' were not."
    );
    describe_counter!(
        DETOURS,
        Unit::Count,
        "Copies that a queue of ours did not take, so that they went another way or were held."
    );
    describe_counter!(
        STEERING,
        Unit::Count,
        "Orders of operators by act; the outcome is 'changed', 'unchanged' or 'refused'."
    );
    describe_gauge!(
        CONNECTED,
        Unit::Count,
        "1 while connected to the broker, else 0."
    );
    describe_counter!(
        RECONNECTS,
        Unit::Count,
        "Connections to the broker that were made again after a loss."
    );
    describe_counter!(
        LOG_LINES_DROPPED,
        Unit::Count,
        "Log lines that standard error did not take."
    );
    describe_counter!(
        LOG_LINES_LEFT_OUT,
        Unit::Count,
        "Warnings that were not logged because there were too many of their kind within a second."
    );
    describe_counter!(
        EVENTS_DROPPED,
        Unit::Count,
        "Metric events that the events file did not take."
    );
}

/// Counts an order of an operator: `act` is a word of a fixed few, `outcome` is `changed`, `unchanged` or `refused`.
pub fn steered(act: &'static str, outcome: &'static str) {
    counter!(STEERING, "act" => act, "outcome" => outcome).increment(1);
}

/// Sets the log's own counts.
pub fn log_lines(dropped: u64, left_out: u64) {
    counter!(LOG_LINES_DROPPED).absolute(dropped);
    counter!(LOG_LINES_LEFT_OUT).absolute(left_out);
}

/// The count of events that were dropped. Made once the recorder is there.
pub fn events_dropped() -> Counter {
    counter!(EVENTS_DROPPED)
}

/// How a run of a job came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobOutcome {
    Done,
    Failed,
    Timeout,
    Retry,
    Rejected,
    LaunchFailed,
    NotStarted,
    Stopped,
    /// Stopped too, because its delivery could be held no longer.
    Deadline,
}

impl JobOutcome {
    const ALL: [Self; 9] = [
        Self::Done,
        Self::Failed,
        Self::Timeout,
        Self::Retry,
        Self::Rejected,
        Self::LaunchFailed,
        Self::NotStarted,
        Self::Stopped,
        Self::Deadline,
    ];

    /// Whether a run with this outcome is an error to those who look at traces. One that asks for a later attempt, or
    /// that we stopped, is not.
    pub(crate) fn is_error(self) -> bool {
        !matches!(self, Self::Done | Self::Retry | Self::Stopped)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Retry => "retry",
            Self::Rejected => "rejected",
            Self::LaunchFailed => "launch_failed",
            Self::NotStarted => "not_started",
            Self::Stopped => "stopped",
            Self::Deadline => "deadline",
        }
    }
}

/// How a delivery was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settlement {
    Ack,
    Retry,
    DeadLetter,
    Reject,
    Requeue,
    RequeueCopy,
    /// Made new before its job was begun, because its queue counts deliveries.
    Renewed,
    /// Put aside until no other message runs alone.
    Parked,
    Lost,
    /// The same, after the copy was confirmed: both will run, or lie in wait.
    LostCopy,
}

impl Settlement {
    pub(crate) const ALL: [Self; 10] = [
        Self::Ack,
        Self::Retry,
        Self::DeadLetter,
        Self::Reject,
        Self::Requeue,
        Self::RequeueCopy,
        Self::Renewed,
        Self::Parked,
        Self::Lost,
        Self::LostCopy,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Retry => "retry",
            Self::DeadLetter => "dead_letter",
            Self::Reject => "reject",
            Self::Requeue => "requeue",
            Self::RequeueCopy => "requeue_copy",
            Self::Renewed => "renewed",
            Self::Parked => "parked",
            Self::Lost => "lost",
            Self::LostCopy => "lost_copy",
        }
    }
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyOutcome {
    /// The answer was sent.
    Done,
    /// It was said that the job has failed for good.
    Failed,
    /// The same, of an answer that is longer than it may be.
    TooLarge,
    /// It was not sent where the message wants it.
    Refused,
    /// The broker cannot deliver it.
    Undeliverable,
}

impl ReplyOutcome {
    pub(crate) const ALL: [Self; 5] = [
        Self::Done,
        Self::Failed,
        Self::TooLarge,
        Self::Refused,
        Self::Undeliverable,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
            Self::Undeliverable => "undeliverable",
        }
    }
}

/// How a reconcile came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReconcileOutcome {
    Changed,
    Unchanged,
    Stale,
    Missing,
}

impl ReconcileOutcome {
    const ALL: [Self; 4] = [Self::Changed, Self::Unchanged, Self::Stale, Self::Missing];

    fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Stale => "stale",
            Self::Missing => "missing",
        }
    }
}

/// A pool's handles. Written by the pool and its workers.
pub(crate) struct PoolMetrics {
    pool: String,
    depth: Gauge,
    depth_age: Gauge,
    delayed: Gauge,
    dead_letters: Gauge,
    demand: Gauge,
    expected: Gauge,
    breaker_open: Gauge,
    stuck: Gauge,
    stuck_seconds: Gauge,
    states: [Gauge; PoolState::ALL.len()],
    breaker_opened: Counter,
    /// Waiting, busy, retiring, draining.
    workers: [Gauge; 4],
    started: Counter,
    restarts: Counter,
    jobs: [Counter; JobOutcome::ALL.len()],
    settlements: [Counter; Settlement::ALL.len()],
    replies: [Counter; ReplyOutcome::ALL.len()],
    copy_queues: Counter,
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
            expected: gauge!(EXPECTED, "pool" => p()),
            breaker_open: gauge!(BREAKER_OPEN, "pool" => p()),
            stuck: gauge!(STUCK, "pool" => p()),
            stuck_seconds: gauge!(STUCK_SECONDS, "pool" => p()),
            states: PoolState::ALL
                .map(|state| gauge!(STATE, "pool" => p(), "state" => state.as_str())),
            breaker_opened: counter!(BREAKER_OPENED, "pool" => p()),
            workers: ["waiting", "busy", "retiring", "draining"]
                .map(|state| gauge!(WORKERS, "pool" => p(), "state" => state)),
            started: counter!(WORKERS_STARTED, "pool" => p()),
            restarts: counter!(POOL_RESTARTS, "pool" => p()),
            jobs: JobOutcome::ALL
                .map(|outcome| counter!(JOBS, "pool" => p(), "outcome" => outcome.as_str())),
            settlements: Settlement::ALL
                .map(|s| counter!(SETTLEMENTS, "pool" => p(), "settlement" => s.as_str())),
            replies: ReplyOutcome::ALL
                .map(|outcome| counter!(REPLIES, "pool" => p(), "outcome" => outcome.as_str())),
            copy_queues: counter!(DETOURS, "pool" => p()),
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

    pub(crate) fn runners(&self, kind: &'static str, idle: u32, busy: u32) {
        for (state, n) in [("idle", idle), ("busy", busy)] {
            gauge!(RUNNERS, "pool" => self.pool.clone(), "kind" => kind, "state" => state)
                .set(f64::from(n));
        }
    }

    pub(crate) fn pool_restarted(&self) {
        self.restarts.increment(1);
    }

    /// A kind of runner that the pool no longer has says nothing any more.
    pub(crate) fn forget_runners(&self, kind: &'static str) {
        for state in ["idle", "busy"] {
            gauge!(RUNNERS, "pool" => self.pool.clone(), "kind" => kind, "state" => state)
                .set(GONE);
        }
    }

    /// The pool has ended: its gauges say nothing any more. Its counters stay, as counters do.
    pub(crate) fn forget(&self, kind: &'static str) {
        let gauges = [
            &self.depth,
            &self.depth_age,
            &self.delayed,
            &self.dead_letters,
            &self.demand,
            &self.expected,
            &self.breaker_open,
            &self.stuck,
            &self.stuck_seconds,
        ];
        let gauges = gauges.into_iter().chain(&self.workers);
        for gauge in gauges.chain(&self.states) {
            gauge.set(GONE);
        }
        self.forget_runners(kind);
    }

    pub(crate) fn worker_started(&self) {
        self.started.increment(1);
    }

    pub(crate) fn worker_stopped(&self, reason: &'static str) {
        counter!(WORKERS_STOPPED, "pool" => self.pool.clone(), "reason" => reason).increment(1);
    }

    pub(crate) fn runner_counters(&self, kind: &'static str) -> RunnerCounters {
        let started = counter!(RUNNERS_STARTED, "pool" => self.pool.clone(), "kind" => kind);
        // Every process job passes through this one, so its handle is made ahead.
        let finished = counter!(
            RUNNERS_STOPPED, "pool" => self.pool.clone(), "kind" => kind, "reason" => "finished"
        );
        RunnerCounters { started, finished }
    }

    pub(crate) fn runner_stopped(&self, kind: &'static str, reason: &'static str) {
        counter!(RUNNERS_STOPPED, "pool" => self.pool.clone(), "kind" => kind, "reason" => reason)
            .increment(1);
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

    /// A queue of ours took nothing.
    pub(crate) fn detoured(&self) {
        self.copy_queues.increment(1);
    }

    pub(crate) fn replied(&self, outcome: ReplyOutcome) {
        self.replies[outcome as usize].increment(1);
    }
}

/// A panic is rare enough to look its counter up.
pub(crate) fn runner_panicked(pool: &PoolName, place: &'static str) {
    counter!(RUNNER_PANICS, "pool" => pool.as_str().to_owned(), "place" => place).increment(1);
}

/// Handles of one kind of runner.
pub(crate) struct RunnerCounters {
    pub(crate) started: Counter,
    pub(crate) finished: Counter,
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
