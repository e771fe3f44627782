//! Snapshots: what a running supervisor shows. Plain data, as the command line and the API print it.

use serde::{Deserialize, Serialize};

use crate::decide::{Member, Orders, PoolName, QueueName, TakenAhead};
pub use crate::decide::{PoolState, Rates};

/// A pool at one instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PoolStatus {
    /// Its name.
    pub name: PoolName,
    /// Its queue.
    pub queue: QueueName,
    /// Whether its runners are programs that consume the queue themselves. Then jobs, waits and run times are unknown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub consumes: bool,
    /// Its state.
    pub state: PoolState,
    /// Why the state needs attention, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The queue's depth.
    pub depth: DepthStatus,
    /// Messages that wait in the retry queues.
    pub delayed: u64,
    /// Messages that wait in the pool's dead-letter queue, `<queue>.dead`, from any source and any time.
    #[serde(default)]
    pub dead_waiting: u64,
    /// Ready plus held, and what the pool has taken ahead, in jobs.
    pub demand: u64,
    /// With `key`: messages that the pool has taken and no worker holds. Those that wait for a job of their key are
    /// `blocked`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_ahead: Option<TakenAhead>,
    /// How many workers there should be.
    pub expected: u32,
    /// Whether it takes messages, as the operator or the supervisor ordered. Faults are not shown here, but in `state`.
    #[serde(default)]
    pub intake: IntakeStatus,
    /// The number of workers that the pool is pinned to, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<u32>,
    /// The policy in force, in words.
    #[serde(default)]
    pub policy: String,
    /// The operator's orders: by whom, since when and until when.
    #[serde(default, skip_serializing_if = "Orders::is_empty")]
    pub orders: Orders,
    /// Workers.
    pub workers: WorkerStatus,
    /// Runners.
    pub runners: RunnerStatus,
    /// The results of jobs since the supervisor started.
    pub jobs: JobTotals,
    /// How fast messages arrive and jobs end, over the last minute.
    #[serde(default)]
    pub rates: Rates,
    /// How long the oldest message that is ready has waited at most, in seconds. Absent if none is ready, or if messages do
    /// not say when they were published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_s: Option<f64>,
    /// How long the jobs of the last minutes waited in the queue, in seconds. Absent if their messages do not say when they
    /// were published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_s: Option<Quantiles>,
    /// How long the jobs of the last minutes ran, in seconds. Absent if none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_s: Option<Quantiles>,
    /// The nodes of the broker to which the daemon is connected, as `host:port`. One, unless connections were lost one by
    /// one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// The daemons that share the queue, this one included. Empty if the queue is not shared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberStatus>,
    /// The results of replies since the supervisor started.
    #[serde(default)]
    pub replies: ReplyTotals,
}

/// Whether a pool takes messages, as ordered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntakeStatus {
    /// It takes messages.
    #[default]
    Open,
    /// An operator paused it.
    Paused,
    /// An operator drained it, or it is ending.
    Draining,
}

/// A queue's depth as last read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepthStatus {
    /// Messages ready.
    pub ready: u64,
    /// Age of the reading in milliseconds; `None` before the first.
    pub age_ms: Option<u64>,
    /// Whether the last probe gave no valid answer.
    pub stale: bool,
}

/// Workers of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Live workers without an idle runner.
    pub bare: u32,
    /// All live workers.
    pub live: u32,
    /// Workers that were told to leave.
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

/// The results of a pool's jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTotals {
    /// Done and acknowledged.
    pub done: u64,
    /// Put in a retry queue.
    pub retried: u64,
    /// Dead-lettered.
    pub dead: u64,
    /// Messages that were given back to the queue. Some of their jobs never began.
    pub requeued: u64,
    /// Not settled, because the channel was closed: the broker delivers them again.
    pub lost: u64,
}

/// Quantiles of durations, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half of the durations are not longer.
    pub p50: f64,
    /// 95 % of the durations are not longer.
    pub p95: f64,
}

/// The results of a pool's replies to messages with a `reply_to`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTotals {
    /// Sent, for jobs that are done.
    pub done: u64,
    /// Sent, for jobs that have finally failed, or whose reply is too long.
    pub failed: u64,
    /// Not sent: the requested address is not allowed.
    pub refused: u64,
    /// Not delivered: there is no such queue, or the broker refuses it.
    pub undeliverable: u64,
}

/// Whether a supervisor can work, for `/readyz`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Why it is not ready; empty if it is.
    pub reasons: Vec<String>,
}

impl Readiness {
    /// Whether it is connected and every pool can work.
    pub fn is_ready(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// A daemon that shares the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The daemon and its workers, by its last beat.
    #[serde(flatten)]
    pub member: Member,
    /// Its part of the policy's number. `None` if the policy was not asked, because the queue is empty or unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<u32>,
}
