//! Every metric's name, in one file, and the handles of a pool.
//!
//! The code uses only the `metrics` facade: the library installs no recorder, the daemon does. A pool's handles are made
//! once, so that a job needs no look-up, and so that counters show zero before anything has happened.

mod labels;
mod pool;
mod runners;

use metrics::{Counter, Unit, counter, describe_counter, describe_gauge, describe_histogram};

use super::worker_state::WorkerStopReason;
use crate::decide::{PoolState, SteeringAct, SteeringOutcome};

pub(crate) use self::{
    labels::{JobOutcome, PanicSite, ReconcileOutcome, ReplyOutcome, Settlement},
    pool::{BrokerMetrics, PoolMetrics},
    runners::{KindMetrics, RunnerMetrics, runner_panicked},
};

/// The states of workers, in the order of the handles.
const WORKER_STATES: [&str; 4] = ["waiting", "busy", "retiring", "draining"];
/// The states of runners.
const RUNNER_STATES: [&str; 2] = ["idle", "busy"];

const DEPTH: &str = "tidegate_queue_depth_messages";
const DEPTH_AGE: &str = "tidegate_queue_depth_age_seconds";
const DELAYED: &str = "tidegate_delayed_messages";
const DEAD_LETTERS: &str = "tidegate_dead_letters";
const DEMAND: &str = "tidegate_demand_jobs";
const TAKEN_AHEAD: &str = "tidegate_taken_ahead_messages";
const KEY_BLOCKED: &str = "tidegate_key_blocked_messages";
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

/// The value of a gauge whose pool or kind of runner was removed. The `metrics` facade cannot remove a gauge, so
/// recorders get this value, and the daemon's recorder leaves the gauge out.
pub const GONE: f64 = f64::NAN;

/// Describes every metric to the installed recorder.
pub fn describe() {
    describe_queue();
    describe_state();
    describe_workers_and_runners();
    describe_jobs();
    describe_process();
}

/// The queue, and the number of workers that it needs.
fn describe_queue() {
    describe_gauge!(
        DEPTH,
        Unit::Count,
        "Messages ready in the queue, as last read."
    );
    describe_gauge!(
        DEPTH_AGE,
        Unit::Seconds,
        "Age of the last reading of the depth."
    );
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
        "Ready messages plus deliveries that live workers hold, and with key those taken ahead."
    );
    describe_gauge!(
        TAKEN_AHEAD,
        Unit::Count,
        "With key: messages that the pool has taken and no worker holds; otherwise 0."
    );
    describe_gauge!(
        KEY_BLOCKED,
        Unit::Count,
        "With key: messages that the pool has taken and that wait for a running job of their key; otherwise 0."
    );
    describe_gauge!(EXPECTED, Unit::Count, "The expected number of workers.");
}

/// Whether the pool can work, and why not.
fn describe_state() {
    describe_gauge!(
        BREAKER_OPEN,
        Unit::Count,
        "1 while intake is closed because too many jobs fail, and during trials; otherwise 0."
    );
    describe_gauge!(
        STUCK,
        Unit::Count,
        "1 while there are messages that the pool cannot get: its consumers are refused or get nothing; otherwise 0."
    );
    describe_gauge!(
        STUCK_SECONDS,
        Unit::Seconds,
        "For how long the pool has not been able to get its messages; 0 while it can."
    );
    describe_gauge!(
        STATE,
        Unit::Count,
        "1 for the state that the pool is in, 0 for the others; as of its last reading of the queue."
    );
    describe_counter!(
        BREAKER_OPENED,
        Unit::Count,
        "How often the breaker opened; failed trials are not counted."
    );
}

/// Workers and runners, and the reconciles that start and stop them.
fn describe_workers_and_runners() {
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
    describe_counter!(RUNNERS_STARTED, Unit::Count, "Runners started.");
    describe_counter!(
        RUNNERS_STOPPED,
        Unit::Count,
        "Runners that ended, by reason."
    );
    describe_counter!(
        RUNNER_PANICS,
        Unit::Count,
        "Panics in the code of a runner, its manager or an event sink, by the place of the call."
    );
    describe_counter!(
        POOL_RESTARTS,
        Unit::Count,
        "How often a pool's task failed because of a bug in tidegate and was started again."
    );
    describe_counter!(RECONCILES, Unit::Count, "Reconciles, by outcome.");
    describe_histogram!(
        RECONCILE_DURATION,
        Unit::Seconds,
        "Time from a reconcile's start to its applied plan."
    );
}

/// Jobs, and what becomes of their messages.
fn describe_jobs() {
    describe_counter!(JOBS, Unit::Count, "Runs of jobs, by outcome.");
    describe_histogram!(JOB_DURATION, Unit::Seconds, "Time that a job ran.");
    describe_histogram!(
        JOB_WAIT,
        Unit::Seconds,
        "Time from a message's publishing to its job's start. Only for messages with the header timestamp_in_ms or the property timestamp."
    );
    describe_counter!(
        SETTLEMENTS,
        Unit::Count,
        "Settlements of deliveries; 'lost' never reached the broker; of 'lost_copy' only the copy reached it."
    );
    describe_counter!(
        REPLIES,
        Unit::Count,
        "Replies to messages with a reply_to: 'done', 'failed' and 'too_large' were sent, 'refused' and 'undeliverable' were not."
    );
    describe_counter!(
        DETOURS,
        Unit::Count,
        "Copies that one of the pool's own queues did not accept. They went to another queue or were held."
    );
}

/// The whole process: orders, the broker, and lines that were not written.
fn describe_process() {
    describe_counter!(
        STEERING,
        Unit::Count,
        "What was done by hand, by act; 'denied' is an act of a caller without the right to it."
    );
    describe_gauge!(
        CONNECTED,
        Unit::Count,
        "1 while connected to the broker, otherwise 0."
    );
    describe_counter!(
        RECONNECTS,
        Unit::Count,
        "Reconnections to the broker after a loss."
    );
    describe_counter!(
        LOG_LINES_DROPPED,
        Unit::Count,
        "Log lines that were dropped instead of being written to standard error."
    );
    describe_counter!(
        LOG_LINES_LEFT_OUT,
        Unit::Count,
        "Warnings that were not logged because there were too many of their kind within a second."
    );
    describe_counter!(
        EVENTS_DROPPED,
        Unit::Count,
        "Metric events that were dropped instead of being written to the events file."
    );
}

/// Counts what someone has done by hand.
pub fn steered(act: SteeringAct, outcome: SteeringOutcome) {
    counter!(STEERING, "act" => act.as_str(), "outcome" => outcome.as_str()).increment(1);
}

/// The labels of a metric of this crate that have fixed values, each with all of its values. For the reference page.
#[doc(hidden)]
pub fn fixed_labels(name: &str) -> Vec<(&'static str, Vec<&'static str>)> {
    fn label<T: Copy>(
        label: &'static str,
        all: &[T],
        word: impl Fn(T) -> &'static str,
    ) -> (&'static str, Vec<&'static str>) {
        (label, all.iter().copied().map(word).collect())
    }
    match name {
        WORKERS => vec![label("state", &WORKER_STATES, |state| state)],
        RUNNERS => vec![label("state", &RUNNER_STATES, |state| state)],
        STATE => vec![label("state", &PoolState::ALL, PoolState::as_str)],
        WORKERS_STOPPED => {
            let all = WorkerStopReason::ALL;
            vec![label("reason", &all, WorkerStopReason::as_str)]
        }
        RUNNER_PANICS => vec![label("place", &PanicSite::ALL, PanicSite::as_str)],
        RECONCILES => {
            let all = ReconcileOutcome::ALL;
            vec![label("outcome", &all, ReconcileOutcome::as_str)]
        }
        JOBS => vec![label("outcome", &JobOutcome::ALL, JobOutcome::as_str)],
        SETTLEMENTS => vec![label("settlement", &Settlement::ALL, Settlement::as_str)],
        REPLIES => vec![label("outcome", &ReplyOutcome::ALL, ReplyOutcome::as_str)],
        STEERING => vec![
            label("act", &SteeringAct::ALL, SteeringAct::as_str),
            label("outcome", &SteeringOutcome::ALL, SteeringOutcome::as_str),
        ],
        _ => Vec::new(),
    }
}

/// Sets the counts of log lines that were not written.
pub fn log_lines(dropped: u64, left_out: u64) {
    counter!(LOG_LINES_DROPPED).absolute(dropped);
    counter!(LOG_LINES_LEFT_OUT).absolute(left_out);
}

/// The counter of events that were dropped. Call it after the recorder is installed.
pub fn events_dropped() -> Counter {
    counter!(EVENTS_DROPPED)
}
