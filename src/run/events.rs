//! Metric events: one object for each start and end of a runner, for each job, and for each reconcile.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

use crate::{
    decide::{EventKind, JobId, PoolName},
    runner::Failure,
};

/// An event, as it is written to the JSON-lines file.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "the fields are those of the file; durations are in seconds"
)]
pub enum Event {
    /// A runner was started.
    RunnerInstalled {
        pool: PoolName,
        #[serde(serialize_with = "seconds")]
        duration: Duration,
    },
    /// A runner was given a job.
    RunnerStart {
        pool: PoolName,
        job_id: JobId,
        /// How long the runner had been idle.
        #[serde(serialize_with = "seconds")]
        idle: Duration,
        /// How long the message had been in the queue, if it has a timestamp.
        #[serde(
            skip_serializing_if = "Option::is_none",
            serialize_with = "some_seconds"
        )]
        queue_duration: Option<Duration>,
    },
    /// A runner ended.
    RunnerStop {
        pool: PoolName,
        #[serde(skip_serializing_if = "Option::is_none")]
        job_id: Option<JobId>,
        /// One of a fixed set of words.
        status: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        status_info: Option<String>,
        #[serde(
            skip_serializing_if = "Option::is_none",
            serialize_with = "some_seconds"
        )]
        job_duration: Option<Duration>,
    },
    /// A reconcile has ended.
    Reconciliation {
        pool: PoolName,
        crashed_runners: u32,
        idle_runners: u32,
        active_runners: u32,
        expected_workers: u32,
        #[serde(serialize_with = "seconds")]
        duration: Duration,
    },
}

impl Event {
    /// The kind of event.
    pub fn kind(&self) -> EventKind {
        match self {
            Self::RunnerInstalled { .. } => EventKind::RunnerInstalled,
            Self::RunnerStart { .. } => EventKind::RunnerStart,
            Self::RunnerStop { .. } => EventKind::RunnerStop,
            Self::Reconciliation { .. } => EventKind::Reconciliation,
        }
    }
}

/// A job that failed, or a message that is dead-lettered without another run. It is shown to people. It is not in the
/// events file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobFailure {
    /// The pool.
    pub pool: PoolName,
    /// The job's id, if it had one already.
    pub job_id: Option<JobId>,
    /// The attempt that failed: 1 is the first.
    pub attempt: u32,
    /// One line for people. Text from the job is not escaped yet.
    pub error: String,
    /// The report of the runner, if one ran.
    pub failure: Option<Failure>,
    /// How the message is settled.
    pub fate: Fate,
}

/// How a message is settled whose job failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It runs again after this delay.
    Retried(Duration),
    /// It is dead-lettered, by this word for the cause.
    Dead(&'static str),
}

/// Takes events. Workers and pools call it, so it must not block: a sink that writes passes events to a task.
pub trait EventSink: Send + Sync + fmt::Debug + 'static {
    /// Takes one event.
    fn emit(&self, event: Event);

    /// Takes one failure. Does nothing by default.
    fn job_failed(&self, failure: JobFailure) {
        drop(failure);
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn some_seconds<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => seconds(duration, serializer),
        None => serializer.serialize_none(),
    }
}
