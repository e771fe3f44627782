//! Which queues count returns. Asked once for each queue and connection.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::{kind::QueueFacts, link::Live};
use crate::{
    decide::QueueName,
    queue::{QueueError, QueueErrorKind},
};

/// The known queues. An entry is removed as soon as an error shows that its queue was deleted. It is also invalid after
/// the loss of the connection on which the question was asked.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    /// Written and read when a consumer is opened.
    known: Mutex<HashMap<QueueName, (Weak<Live>, bool)>>,
    /// One question at a time: each writes an error to the broker's log, and a task that waits finds the answer of the
    /// first.
    question: tokio::sync::Mutex<()>,
}

impl Kinds {
    /// Whether the queue may count returns. Any queue that is not known to be classic may.
    pub(super) async fn counts_returns<Asked>(
        &self,
        queue: &QueueName,
        live: Option<Arc<Live>>,
        ask: impl FnOnce() -> Asked,
    ) -> bool
    where
        Asked: Future<Output = Result<QueueFacts, QueueError>>,
    {
        if let Some(counts) = self.get(queue, live.as_ref()) {
            return counts;
        }
        let _one = self.question.lock().await;
        if let Some(counts) = self.get(queue, live.as_ref()) {
            return counts;
        }
        let (counts, is_certain) = judge(&ask().await);
        if let Some(live) = live.filter(|_| is_certain) {
            let known = (Arc::downgrade(&live), counts);
            self.lock().insert(queue.clone(), known);
        }
        counts
    }

    pub(super) fn forget(&self, queue: &QueueName) {
        self.lock().remove(queue);
    }

    fn get(&self, queue: &QueueName, live: Option<&Arc<Live>>) -> Option<bool> {
        let known = self.lock();
        let (since, counts) = known.get(queue)?;
        let is_same = Arc::ptr_eq(&since.upgrade()?, live?);
        is_same.then_some(*counts)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<QueueName, (Weak<Live>, bool)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the queue may count returns, and whether to ask again next time.
fn judge(asked: &Result<QueueFacts, QueueError>) -> (bool, bool) {
    match asked {
        Ok(facts) => match facts.kind.as_deref() {
            // A pool never consumes a stream.
            Some("classic" | "stream") => (false, true),
            _ => (true, true),
        },
        Err(error) => (true, error.kind == QueueErrorKind::AccessRefused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_is_not_known_to_be_classic_may_count_deliveries() {
        let of = |kind: Option<&str>| {
            judge(&Ok(QueueFacts {
                kind: kind.map(str::to_owned),
                ..QueueFacts::default()
            }))
        };
        assert_eq!(of(Some("classic")), (false, true));
        assert_eq!(of(Some("stream")), (false, true));
        assert_eq!(of(Some("quorum")), (true, true));
        assert_eq!(of(None), (true, true));
        let failed = |kind| judge(&Err(QueueError::new(kind, "ask")));
        // A user without the permission now may not have it later either.
        assert_eq!(failed(QueueErrorKind::AccessRefused), (true, true));
        assert_eq!(failed(QueueErrorKind::NotFound), (true, false));
        assert_eq!(failed(QueueErrorKind::Disconnected), (true, false));
    }
}
