//! The roster: a pool's workers, and how many of them wait for a delivery.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{
    decide::{CensusWorker, Moment, Phase, STEADY_AFTER, WorkerId},
    run::worker_state::{WorkerState, WorkerStopReason},
};

/// The workers of a pool.
pub(crate) struct Roster {
    /// Written by the pool, which alone adds and removes. Read by each request for a status.
    workers: Mutex<BTreeMap<WorkerId, Arc<WorkerState>>>,
    /// Workers that wait for a delivery with an open consumer. Written by workers. Read by a worker that must give a
    /// message back without another worker of the pool getting it at once.
    waiting: watch::Sender<u32>,
}

/// Counts of the deliveries and consumers of a pool's live workers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HeldCounts {
    /// Deliveries that they hold.
    pub(crate) held: u64,
    /// Workers that hold any.
    pub(crate) holders: u32,
    /// Consumers that the broker must know.
    pub(crate) consumers: u32,
    /// Programs that are up and consume the queue themselves.
    pub(crate) programs: u32,
    /// Those of them that have been up for [`STEADY_AFTER`].
    pub(crate) steady: u32,
    /// Programs that hold a message, also those that were told to end.
    pub(crate) busy_programs: u32,
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            workers: Mutex::default(),
            waiting: watch::Sender::new(0),
        }
    }
}

impl Roster {
    pub(crate) fn workers(&self) -> MutexGuard<'_, BTreeMap<WorkerId, Arc<WorkerState>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Orders every worker to leave: a waiting one at once, a busy one after its job.
    pub(crate) fn order_all_to_leave(&self, why: WorkerStopReason) {
        for worker in self.workers().values() {
            worker.order_to_leave(why);
        }
    }

    /// A worker begins to wait for a delivery.
    pub(crate) fn begin_waiting(&self) {
        self.waiting.send_modify(|n| *n += 1);
    }

    /// A worker no longer waits for a delivery.
    pub(crate) fn end_waiting(&self) {
        self.waiting.send_modify(|n| *n -= 1);
    }

    /// Waits until no worker of the pool waits for a delivery.
    pub(crate) async fn until_none_waits(&self) {
        let mut waiting = self.waiting.subscribe();
        // The sender lives as long as this borrow of it, so `wait_for` cannot fail.
        let _ = waiting.wait_for(|n| *n == 0).await;
    }

    /// Every worker, and what the live ones hold. Consumers are counted if they were opened before `before`.
    pub(crate) fn census(&self, before: Moment) -> (Vec<CensusWorker>, HeldCounts) {
        let mut held = HeldCounts::default();
        let workers = self.workers();
        let census = workers.iter().map(|(id, worker)| {
            let worker = worker.snapshot();
            if worker.phase != Phase::Draining && worker.held > 0 {
                held.held += u64::from(worker.held);
                held.holders += 1;
            }
            if worker.consuming.is_some_and(|since| since <= before) {
                held.consumers += 1;
            }
            held.busy_programs += u32::from(worker.up.is_some() && worker.held > 0);
            if let Some(since) = worker.up.filter(|_| worker.phase != Phase::Draining) {
                held.programs += 1;
                held.steady += u32::from(before.since(since) >= STEADY_AFTER);
            }
            CensusWorker {
                id: *id,
                phase: worker.phase,
            }
        });
        let census = census.collect();
        (census, held)
    }
}
