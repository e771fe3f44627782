//! Events that are to come, in the order of their times.

use std::{cmp::Reverse, collections::BinaryHeap};

use tidegate_core::decide::{Moment, WorkerId};

/// A job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SimJob {
    /// Its number: 0 for the first arrival.
    pub(crate) number: u64,
    /// When it arrived.
    pub(crate) came: Moment,
    /// The attempt, 1 for the first.
    pub(crate) attempt: u32,
    /// Whether it was started before.
    pub(crate) was_started: bool,
}

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// The attempt with this number begins on its runner.
    Began { slot: usize, start: u64 },
    /// The attempt with this number ends.
    Ended { slot: usize, start: u64 },
    /// A worker is up, and may take jobs.
    Up { slot: usize, worker: WorkerId },
    /// A job comes back from its backoff.
    Back(SimJob),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ScheduledEvent {
    at: Moment,
    /// Events of one time happen in the order in which they were planned.
    number: u64,
    what: What,
}

impl Ord for ScheduledEvent {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for ScheduledEvent {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The events to come.
#[derive(Debug, Default)]
pub(crate) struct EventQueue {
    heap: BinaryHeap<Reverse<ScheduledEvent>>,
    planned: u64,
}

impl EventQueue {
    pub(crate) fn plan(&mut self, at: Moment, what: What) {
        let number = self.planned;
        self.planned += 1;
        self.heap.push(Reverse(ScheduledEvent { at, number, what }));
    }

    /// When the next one is.
    pub(crate) fn next_at(&self) -> Option<Moment> {
        self.heap.peek().map(|Reverse(event)| event.at)
    }

    pub(crate) fn pop(&mut self) -> Option<What> {
        self.heap.pop().map(|Reverse(event)| event.what)
    }
}
