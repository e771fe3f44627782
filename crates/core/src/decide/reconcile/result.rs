//! The effects of a reconcile, as numbers. Plain data for callers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The effects of one reconcile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReconcileResult {
    /// *Bare* workers that were started. Negative if they were stopped.
    pub workers_diff: i64,
    /// Number of metric events of each kind that cleanup, flush and delete issued together.
    pub metric_stats: BTreeMap<EventKind, u64>,
    /// Running jobs that a flush told to stop. Each ends later, and its end is an event of its own.
    #[serde(default)]
    pub jobs_told: u64,
}

impl ReconcileResult {
    /// The sum of this report and `later`.
    #[must_use]
    pub fn and(mut self, later: &Self) -> Self {
        self.workers_diff += later.workers_diff;
        self.jobs_told += later.jobs_told;
        for (kind, events) in &later.metric_stats {
            *self.metric_stats.entry(*kind).or_default() += events;
        }
        self
    }
}

/// The kinds of metric events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A runner was created.
    RunnerInstalled,
    /// A runner was given a job.
    RunnerStart,
    /// A runner ended, with its job or without.
    RunnerStop,
    /// A reconcile.
    Reconciliation,
}
