//! The report of a run.

use serde::Serialize;

/// The result of a run. Its form as JSON is part of the contract: fields are only added.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The contender.
    pub name: String,
    /// Jobs that arrived.
    pub jobs: u64,
    /// How long jobs waited until they ran for the first time, in seconds.
    pub wait_s: Waits,
    /// Jobs that waited longer than the target.
    pub over_target: u64,
    /// Seconds that workers were there, added up: the cost.
    pub worker_seconds: f64,
    /// Seconds that jobs ran, added up. Attempts that failed or were interrupted are included.
    pub busy_seconds: f64,
    /// Workers started.
    pub starts: u64,
    /// Workers stopped.
    pub stops: u64,
    /// The maximum number of workers at a time.
    pub peak: u64,
    /// Jobs that were done.
    pub done: u64,
    /// Jobs that failed at every attempt.
    pub dead: u64,
    /// Jobs that were neither at the end of the run. Above zero only if no worker came for a whole day, or if no job
    /// ended in ten days.
    pub left: u64,
    /// Attempts that failed and were followed by another.
    pub retried: u64,
    /// Jobs that were stopped while they ran, and ran again from the start.
    pub interrupted: u64,
    /// Length of the run.
    pub seconds: f64,
}

/// Waits in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the fields are what they are called")]
pub struct Waits {
    pub mean: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Report {
    /// Starts and stops together.
    pub fn churn(&self) -> u64 {
        self.starts + self.stops
    }
}
