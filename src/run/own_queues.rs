//! The queues that belong to the pools, and counts of what was sent to them. Does no I/O.

use std::{
    collections::BTreeSet,
    mem,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::decide::QueueName;

/// The queues of all pools of a supervisor. No reply goes to them. Written by the supervisor before a pool is started or
/// changed, read by workers.
#[derive(Debug, Default)]
pub(crate) struct OwnQueues(RwLock<Arc<[QueueName]>>);

impl OwnQueues {
    pub(crate) fn set(&self, queues: impl IntoIterator<Item = QueueName>) {
        let queues = queues.into_iter().collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = queues;
    }

    pub(super) fn get(&self) -> Arc<[QueueName]> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Own queues that got a message since the last call of `take`, so they exist. Written by workers, read by the task that
/// counts.
#[derive(Debug, Default)]
pub(crate) struct ReceivedQueues(Mutex<BTreeSet<QueueName>>);

impl ReceivedQueues {
    pub(crate) fn add(&self, queue: &QueueName) {
        let mut received = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !received.contains(queue) {
            received.insert(queue.clone());
        }
    }

    pub(super) fn take(&self) -> BTreeSet<QueueName> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Retries that this process sent and that have not come back to it.
///
/// When the time of a retry is over and the broker cannot send it back, no count of the broker includes it. Written by
/// workers, read by the task that counts.
#[derive(Debug, Default)]
pub(crate) struct OutstandingRetries(AtomicU64);

impl OutstandingRetries {
    /// A retry was published.
    pub(crate) fn sent(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// A message that had been retried was finally settled.
    pub(crate) fn came_back(&self) {
        self.forget(1);
    }

    pub(super) fn forget(&self, retries: u64) {
        let less = |n: u64| Some(n.saturating_sub(retries));
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
