//! The answer of a dry run of a policy: what it would do now, and what it would have done on the pool's recording.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::decide::Term;

/// What a pool would decide now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialNow {
    /// Live workers.
    pub workers: u32,
    /// With the old policy.
    pub before: TrialDecision,
    /// With the new policy.
    pub after: TrialDecision,
}

/// A decision that is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialDecision {
    /// How many workers there should be.
    pub expected: u32,
    /// The calculation, term by term. All limits and orders that hold now apply.
    pub terms: Vec<Term>,
    /// The steps that would follow.
    pub plan: String,
}

/// Both policies on the pool's last day, in virtual time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialOnRecording {
    /// The beginning of the recording that was used.
    pub from: Timestamp,
    /// Its length in seconds.
    pub seconds: f64,
    /// Messages that arrived in it.
    pub jobs: u64,
    /// What was assumed.
    pub assumed: TrialAssumptions,
    /// With the old policy.
    pub before: TrialRun,
    /// With the new policy.
    pub after: TrialRun,
}

/// What a recording does not say, and is assumed for a dry run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialAssumptions {
    /// How long jobs take, as `tidegate simulate --service` takes it.
    pub service: String,
    /// Jobs that this was measured from. Zero if it was not measured.
    pub service_samples: u64,
    /// How long a runner takes to start, in seconds.
    pub start_up_s: f64,
    /// Starts that this was measured from. Zero if it was not measured.
    pub start_up_samples: u64,
    /// Share of the attempts that fail, 0 to 1.
    pub failures: f64,
    /// Attempts that this was counted from. Zero if it was not counted.
    pub attempts: u64,
    /// The longest good wait in seconds. Absent if no target is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_s: Option<f64>,
    /// All of it in sentences, with what is not simulated.
    pub text: Vec<String>,
}

/// A policy on a recording: its numbers, named as those of `tidegate simulate`, and its course.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialRun {
    /// Messages that arrived.
    pub jobs: u64,
    /// How long they waited until they ran for the first time, in seconds.
    pub wait_s: TrialWaits,
    /// Jobs that waited longer than the target. Absent without a target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_target: Option<u64>,
    /// Seconds that workers were there, added up: the cost.
    pub worker_seconds: f64,
    /// Seconds that jobs ran, added up.
    pub busy_seconds: f64,
    /// Workers started.
    pub starts: u64,
    /// Workers stopped.
    pub stops: u64,
    /// Most workers at a time.
    pub peak: u64,
    /// Jobs that failed at every attempt.
    pub dead: u64,
    /// Jobs that were never done.
    pub left: u64,
    /// Attempts that failed and were followed by another.
    pub retried: u64,
    /// Jobs that were stopped while they ran, and ran again.
    pub interrupted: u64,
    /// Length of the run in seconds: until the last job is settled.
    pub seconds: f64,
    /// Its course.
    pub curve: TrialCurve,
}

/// Waits in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are what they are called")]
pub struct TrialWaits {
    pub mean: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

/// The course of a run, as lists of one length: a few hundred spans of time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrialCurve {
    /// Seconds from the beginning to the end of each span.
    pub at: Vec<f64>,
    /// Messages a second that arrived.
    pub arrivals: Vec<f64>,
    /// Most messages that were ready.
    pub ready: Vec<u64>,
    /// Most workers.
    pub workers: Vec<u64>,
    /// The 95th percentile of the waits that ended, in seconds. `null` if none ended.
    pub wait: Vec<Option<f64>>,
}
