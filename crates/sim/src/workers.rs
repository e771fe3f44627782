//! The workers of a run, and the order in which the broker serves them.

use std::collections::VecDeque;

use tidegate_core::decide::{Moment, Phase, RunnerId, WorkerId};

use crate::events::SimJob;

/// An attempt that runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) job: SimJob,
    /// The number of this start: it distinguishes an outdated end from a current one.
    pub(crate) start: u64,
    /// When the delivery was taken.
    pub(crate) taken: Moment,
    /// When the job itself begins, after the start of its runner.
    pub(crate) begins: Moment,
    pub(crate) runner: RunnerId,
    /// Whether the attempt will fail.
    pub(crate) fails: bool,
}

/// A worker.
#[derive(Debug)]
pub(crate) struct SimWorker {
    pub(crate) id: WorkerId,
    /// When it was started.
    pub(crate) since: Moment,
    /// Whether it may take jobs: it is up.
    pub(crate) is_up: bool,
    /// Whether it stops after its job.
    pub(crate) retires: bool,
    /// Whether no job has begun on it yet.
    pub(crate) is_new: bool,
    /// Whether it does not need the start of a runner.
    pub(crate) is_warm: bool,
    pub(crate) running: Option<Attempt>,
    /// Deliveries that wait behind the running job.
    pub(crate) ahead: VecDeque<SimJob>,
    /// Whether it is in the ring.
    in_ring: bool,
}

impl SimWorker {
    /// Deliveries that it holds.
    pub(crate) fn held(&self) -> u64 {
        u64::from(self.running.is_some()) + self.ahead.len() as u64
    }

    pub(crate) fn phase(&self) -> Phase {
        match (&self.running, self.retires) {
            (None, _) => Phase::Waiting,
            (Some(_), false) => Phase::Busy,
            (Some(_), true) => Phase::Retiring,
        }
    }
}

/// All workers.
#[derive(Debug)]
pub(crate) struct SimWorkers {
    slots: Vec<Option<SimWorker>>,
    free: Vec<usize>,
    /// The slots, oldest worker first.
    order: Vec<usize>,
    /// Workers that may take a message, in the order in which the broker serves them. Some may have ended by now.
    ring: VecDeque<(usize, WorkerId)>,
    next: u64,
    prefetch: u64,
}

impl SimWorkers {
    pub(crate) fn new(prefetch: u16) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            order: Vec::new(),
            ring: VecDeque::new(),
            next: 0,
            prefetch: u64::from(prefetch.max(1)),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// The workers with their slots, oldest first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (usize, &SimWorker)> {
        self.order.iter().map(|slot| (*slot, self.at(*slot)))
    }

    pub(crate) fn at(&self, slot: usize) -> &SimWorker {
        self.slots[slot].as_ref().expect("the slot has a worker")
    }

    pub(crate) fn at_mut(&mut self, slot: usize) -> &mut SimWorker {
        self.slots[slot].as_mut().expect("the slot has a worker")
    }

    /// The worker of a slot, if it has one.
    pub(crate) fn get_mut(&mut self, slot: usize) -> Option<&mut SimWorker> {
        self.slots[slot].as_mut()
    }

    /// The worker of a slot, if it is still this one.
    pub(crate) fn still(&self, slot: usize, id: WorkerId) -> Option<&SimWorker> {
        self.slots[slot].as_ref().filter(|worker| worker.id == id)
    }

    pub(crate) fn slot_of(&self, id: WorkerId) -> Option<usize> {
        let place = self.place(id).ok()?;
        Some(self.order[place])
    }

    fn place(&self, id: WorkerId) -> Result<usize, usize> {
        self.order
            .binary_search_by_key(&id, |slot| self.at(*slot).id)
    }

    pub(crate) fn add(&mut self, now: Moment) -> (usize, WorkerId) {
        let id = WorkerId(self.next);
        self.next += 1;
        let worker = SimWorker {
            id,
            since: now,
            is_up: false,
            retires: false,
            is_new: true,
            is_warm: false,
            running: None,
            ahead: VecDeque::new(),
            in_ring: false,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(worker);
                slot
            }
            None => {
                self.slots.push(Some(worker));
                self.slots.len() - 1
            }
        };
        self.order.push(slot);
        (slot, id)
    }

    pub(crate) fn remove(&mut self, slot: usize) -> SimWorker {
        let place = self.place(self.at(slot).id);
        self.order
            .remove(place.expect("a worker of a slot is in the order"));
        self.free.push(slot);
        self.slots[slot].take().expect("the slot has a worker")
    }

    /// Lets a worker take messages, as far as its prefetch allows.
    pub(crate) fn offer(&mut self, slot: usize) {
        let prefetch = self.prefetch;
        let worker = self.at_mut(slot);
        if worker.is_up && !worker.in_ring && worker.held() < prefetch {
            worker.in_ring = true;
            let id = worker.id;
            self.ring.push_back((slot, id));
        }
    }

    /// The worker that the broker serves next.
    pub(crate) fn next_free(&mut self) -> Option<usize> {
        while let Some((slot, id)) = self.ring.pop_front() {
            if let Some(worker) = self.slots[slot].as_mut().filter(|worker| worker.id == id) {
                worker.in_ring = false;
                return Some(slot);
            }
        }
        None
    }
}
