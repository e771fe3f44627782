//! A workload: when jobs arrive, and how long they take.

use std::time::Duration;

use tidegate_core::trace::Trace;

use crate::ServiceTimes;

/// The jobs of a run. All contenders get the same.
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
    /// The longest acceptable wait.
    pub target: Duration,
    /// The seed of all random numbers.
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
