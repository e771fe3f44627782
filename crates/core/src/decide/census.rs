//! The census: the workers and runners at one instant.

use serde::{Deserialize, Serialize};

use super::{RunnerId, WorkerId};

/// Workers and idle runners at one instant, both sorted by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    workers: Vec<CensusWorker>,
    idle_runners: Vec<RunnerId>,
}

/// One worker of a [`Census`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CensusWorker {
    /// Its id.
    pub id: WorkerId,
    /// The activity of the worker.
    pub phase: Phase,
}

/// The activity of a worker, as planning sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Opens its consumer, or waits for a delivery.
    Waiting,
    /// Holds a delivery.
    Busy,
    /// Holds a delivery, and leaves after that delivery is settled. Still live, and its job still counts as demand.
    Retiring,
    /// Was told to leave. It counts neither as demand nor as capacity, but it still counts towards `max`.
    Draining,
}

/// A [`Census`] in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Waiting workers without an idle runner.
    pub bare: u32,
    /// Runners without a job.
    pub idle: u32,
    /// Workers that hold a delivery and stay.
    pub busy: u32,
    /// Workers that hold a delivery and leave after it is settled.
    pub retiring: u32,
    /// Workers that were told to leave.
    pub draining: u32,
    /// Waiting workers, with a runner or without.
    pub waiting: u32,
}

impl Counts {
    /// Live workers: all but the draining.
    pub fn live(&self) -> u32 {
        self.waiting + self.busy + self.retiring
    }

    /// Live workers that are not marked to retire. This number is compared with the expected number.
    pub fn staying(&self) -> u32 {
        self.waiting + self.busy
    }

    /// All workers that count towards `max`.
    pub fn towards_max(&self) -> u32 {
        self.live() + self.draining
    }
}

impl Census {
    /// A census of these workers and idle runners, in any order.
    pub fn new(mut workers: Vec<CensusWorker>, mut idle_runners: Vec<RunnerId>) -> Self {
        // Ids are handed out in rising order, so the list is usually sorted already: then this is one pass.
        workers.sort_unstable_by_key(|worker| worker.id);
        idle_runners.sort_unstable();
        Self {
            workers,
            idle_runners,
        }
    }

    /// The workers, oldest first.
    pub fn workers(&self) -> &[CensusWorker] {
        &self.workers
    }

    /// The idle runners, oldest first.
    pub fn idle_runners(&self) -> &[RunnerId] {
        &self.idle_runners
    }

    /// The numbers.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for worker in &self.workers {
            match worker.phase {
                Phase::Waiting => counts.waiting += 1,
                Phase::Busy => counts.busy += 1,
                Phase::Retiring => counts.retiring += 1,
                Phase::Draining => counts.draining += 1,
            }
        }
        counts.idle = u32::try_from(self.idle_runners.len()).unwrap_or(u32::MAX);
        // A worker that has just taken a delivery has not yet picked up its runner. For that moment there may be one
        // more idle runner than waiting workers.
        counts.bare = counts.waiting.saturating_sub(counts.idle);
        counts
    }
}
