//! Snapshots: what a running supervisor shows of itself. Plain data, as the command line and the API print it.

use serde::{Deserialize, Serialize};

use crate::decide::{Orders, PoolName, QueueName};
pub use crate::decide::{PoolState, Rates};

/// A pool at one instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Its name.
    pub name: PoolName,
    /// Its queue.
    pub queue: QueueName,
    /// What it is about.
    pub state: PoolState,
    /// Why it is in a state that someone should look at: the cause in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The queue's depth.
    pub depth: DepthStatus,
    /// Messages that wait in the retry queues.
    pub delayed: u64,
    /// Messages that wait in the pool's dead-letter queue, `<queue>.dead`, from any source and any time.
    #[serde(default)]
    pub dead_waiting: u64,
    /// Ready plus held, in jobs.
    pub demand: u64,
    /// How many workers there should be.
    pub expected: u32,
    /// Whether it takes messages, by the operator's will and the supervisor's. Faults are not in here: see `state`.
    #[serde(default)]
    pub intake: IntakeStatus,
    /// The number that the pool is pinned to, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<u32>,
    /// The policy in force, in words.
    #[serde(default)]
    pub policy: String,
    /// What was set by hand, by whom, since when and until when.
    #[serde(default, skip_serializing_if = "Orders::is_empty")]
    pub orders: Orders,
    /// Workers.
    pub workers: WorkerStatus,
    /// Runners.
    pub runners: RunnerStatus,
    /// What became of jobs since the supervisor started.
    pub jobs: JobTotals,
    /// How fast messages come and jobs end, over the last minute.
    #[serde(default)]
    pub rates: Rates,
    /// How long the jobs of the last minutes waited in the queue, in seconds; absent where their messages do not say
    /// when they were published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_s: Option<Quantiles>,
    /// How long the jobs of the last minutes ran, in seconds; absent where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_s: Option<Quantiles>,
    /// What became of answers since then.
    #[serde(default)]
    pub replies: ReplyTotals,
}

/// Whether a pool takes messages, as far as someone has a say in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntakeStatus {
    /// It does.
    #[default]
    Open,
    /// Someone paused it.
    Paused,
    /// Someone drained it, or it is on its way out.
    Draining,
}

/// A queue's depth as last read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepthStatus {
    /// Messages ready.
    pub ready: u64,
    /// Age of the reading in milliseconds; `None` before the first.
    pub age_ms: Option<u64>,
    /// Whether the newest probe gave nothing that can be believed.
    pub stale: bool,
}

/// Workers of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Live workers that no runner stands ready for.
    pub bare: u32,
    /// All live workers.
    pub live: u32,
    /// Workers that were told to go.
    pub draining: u32,
}

/// Runners of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerStatus {
    /// Runners that wait for a job.
    pub idle: u32,
    /// Runners that have one.
    pub busy: u32,
}

/// What became of a pool's jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTotals {
    /// Done and acknowledged.
    pub done: u64,
    /// Put off to a retry queue.
    pub retried: u64,
    /// Dead-lettered.
    pub dead: u64,
    /// Given back to the queue.
    pub requeued: u64,
    /// Not settled, because the channel was gone: the broker delivers them again.
    pub lost: u64,
}

/// Quantiles of durations, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half of them were no longer.
    pub p50: f64,
    /// All but one in twenty were no longer.
    pub p95: f64,
}

/// What became of a pool's answers to messages with a `reply_to`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTotals {
    /// Sent, of jobs that are done.
    pub done: u64,
    /// Sent, saying that the job has failed for good, or that its answer is too long.
    pub failed: u64,
    /// Not sent where the message wants it.
    pub refused: u64,
    /// Not delivered: no such queue, or the broker refuses it.
    pub undeliverable: u64,
}

/// Whether a supervisor is of use, for `/readyz`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// What keeps it from being ready; empty when it is.
    pub reasons: Vec<String>,
}

impl Readiness {
    /// Connected, and every pool either consumes or could.
    pub fn is_ready(&self) -> bool {
        self.reasons.is_empty()
    }
}
