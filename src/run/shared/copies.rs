//! The state of a pool's own queues: the retry queues, their spares and the dead-letter queue.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::run::{
    copy_queues::CopyQueues,
    own_queues::{OutstandingRetries, ReceivedQueues},
};

/// The state of a pool's own queues. Written by workers and by the task that counts their messages.
#[derive(Debug, Default)]
pub(crate) struct CopyState {
    pub(crate) queues: CopyQueues,
    pub(crate) received: ReceivedQueues,
    pub(crate) outstanding: OutstandingRetries,
    /// Written by the task that counts, read for the status.
    counts: Mutex<OwnQueueCounts>,
}

/// Messages in a pool's own queues, as last counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OwnQueueCounts {
    /// Messages that wait for their retry.
    pub(crate) delayed: u64,
    /// Of these, the messages whose time is over.
    pub(crate) overdue: u64,
    /// Messages in the pool's dead-letter queue.
    pub(crate) dead: u64,
}

impl CopyState {
    pub(crate) fn counts(&self) -> MutexGuard<'_, OwnQueueCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A problem with copies, although the pool works.
    pub(crate) fn cause(&self) -> Option<String> {
        let overdue = match self.counts().overdue {
            0 => None,
            n => Some(format!(
                "{n} {} due, but not back: the queue is full or was deleted, and the broker tries again only every 3 \
                 minutes; or their retry queue was deleted, and they with it",
                if n == 1 { "retry is" } else { "retries are" }
            )),
        };
        let causes = [self.queues.cause(Instant::now()), overdue];
        let causes: Vec<_> = causes.into_iter().flatten().collect();
        (!causes.is_empty()).then(|| causes.join("; "))
    }
}
