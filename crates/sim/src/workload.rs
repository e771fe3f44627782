//! A workload: what comes, and how long it takes.

use std::time::Duration;

use tidegate_core::trace::Trace;

use crate::ServiceTimes;

/// What is to be done: the same for all contenders.
#[derive(Debug, Clone)]
pub struct Workload {
    /// When jobs arrive.
    pub trace: Trace,
    /// How long they take.
    pub service: ServiceTimes,
    /// How long the start of a runner takes.
    pub start_up: Duration,
    /// Share of the attempts that fail, 0 to 1.
    pub failures: f64,
    /// Longest wait that is good.
    pub target: Duration,
    /// The seed of all draws.
    pub seed: u64,
}

impl Workload {
    /// A workload with runners that start at once and jobs that do not fail, a target of 30 s, and the seed 1.
    pub fn new(trace: Trace, service: ServiceTimes) -> Self {
        Self {
            trace,
            service,
            start_up: Duration::ZERO,
            failures: 0.0,
            target: Duration::from_secs(30),
            seed: 1,
        }
    }
}
