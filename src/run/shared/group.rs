//! A pool's knowledge of the daemons that share its queue.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::decide::{Group, MemberNumbers, Members, Moment};

/// The known state of the group.
#[derive(Debug, Default)]
pub(crate) struct PoolGroup {
    /// `None` while the pool does not share its queue. Written by the group's task and the pool, read by the pool.
    members: Mutex<Option<Members>>,
    /// Why the group cannot be joined. Written by the group's task, read for the status.
    cause: Mutex<Option<String>>,
    /// Wakes the pool. Written by the group's task.
    pub(crate) heard: Notify,
    /// Wakes the group's task. Written by the pool when its numbers or settings change.
    pub(crate) told: Notify,
    /// Ends the group's task with a last beat. Cancelled by the pool at its end.
    pub(crate) ending: CancellationToken,
}

impl PoolGroup {
    /// Completes when the group changed, so that the pool must reconcile. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.heard.notified().await;
    }

    /// The pool's numbers or settings changed, so the other members must be informed.
    pub(crate) fn tell(&self) {
        self.told.notify_one();
    }

    /// Ends the task in an orderly way.
    pub(crate) fn end(&self) {
        self.ending.cancel();
    }

    /// The group at `now`, with the pool's own policy and numbers. `None` if the pool does not share its queue: then it
    /// needs no numbers.
    pub(crate) fn group(
        &self,
        now: Moment,
        policy: impl FnOnce() -> u64,
        numbers: impl FnOnce() -> MemberNumbers,
    ) -> Option<Group> {
        if self.members().is_none() {
            return None;
        }
        // Read before the lock is taken, because it takes other locks.
        let (policy, numbers) = (policy(), numbers());
        let mut members = self.members();
        let members = members.as_mut()?;
        members.set_policy(policy);
        Some(members.group(now, numbers))
    }

    /// Why the group cannot be heard, in one line.
    pub(crate) fn cause(&self) -> Option<String> {
        self.cause
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Sets or clears why the group cannot be heard. Returns whether that is new, so that it is logged once.
    pub(crate) fn set_cause(&self, cause: Option<String>) -> bool {
        let mut known = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *known != cause;
        *known = cause;
        is_new
    }

    pub(crate) fn members(&self) -> MutexGuard<'_, Option<Members>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_counts_as_new_only_once() {
        let group = PoolGroup::default();
        let cause = || Some(String::from("no connection"));
        assert!(!group.set_cause(None));
        assert!(group.set_cause(cause()));
        assert!(!group.set_cause(cause()));
        assert_eq!(group.cause(), cause());
        assert!(group.set_cause(None));
    }
}
