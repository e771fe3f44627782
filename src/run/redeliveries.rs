//! Redelivered messages: they were held when a daemon, a connection or a channel ended, and the broker delivers them again.
//!
//! One of them may have caused that end. Each is replaced by a new copy before any of them runs again. Messages that
//! came back too often (suspects) run one at a time. All pools of a supervisor share one tracker, because they end
//! together.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// A redelivered message runs only after no other message has come back for this long. By then, every redelivered message
/// has been replaced by a copy. If the job then ends the daemon, those messages are not counted once more.
pub(crate) const QUIET: Duration = Duration::from_millis(250);
/// Longest time that a message waits for that.
const LONGEST: Duration = Duration::from_secs(5);

/// Redelivered messages that the pools of a supervisor know.
#[derive(Debug)]
pub(crate) struct RedeliveryTracker {
    /// When a message last came back, or was replaced by a copy. Written by workers, and read by them before they run a
    /// redelivered message.
    last: Mutex<Option<Instant>>,
    /// Messages that are being replaced by a copy. Written and read by workers.
    renewing: AtomicUsize,
    /// Whether a message has come back recently. If not, the start of a job needs no lock.
    is_disturbed: AtomicBool,
    /// Held by the worker that runs a suspect.
    turn: Arc<Semaphore>,
}

impl Default for RedeliveryTracker {
    fn default() -> Self {
        Self {
            last: Mutex::default(),
            renewing: AtomicUsize::new(0),
            is_disturbed: AtomicBool::new(false),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

impl RedeliveryTracker {
    /// A message came back. The guard is dropped when the message is replaced by a copy, or ended.
    pub(crate) fn begin(self: &Arc<Self>) -> RenewalGuard {
        self.renewing.fetch_add(1, Ordering::Release);
        self.record();
        RenewalGuard(self.clone())
    }

    fn record(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.is_disturbed.store(true, Ordering::Release);
    }

    /// Whether no message has come back recently. A message that was never redelivered may then run at once.
    pub(crate) fn is_quiet(&self) -> bool {
        if !self.is_disturbed.load(Ordering::Acquire) {
            return true;
        }
        let now = Instant::now();
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_quiet = self.renewing.load(Ordering::Acquire) == 0
            && last.is_none_or(|last| last + QUIET <= now);
        if is_quiet {
            self.is_disturbed.store(false, Ordering::Release);
        }
        is_quiet
    }

    /// When a message that is taken now may run. It may be redelivered or not. The time moves if others come back until
    /// then.
    pub(crate) fn may_run_at(&self, taken: Instant) -> Instant {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let last = match self.renewing.load(Ordering::Acquire) {
            0 => last,
            _ => Some(Instant::now()),
        };
        last.map_or(taken, |last| (last + QUIET).min(taken + LONGEST))
    }

    /// The right to run a suspect; `None` if another suspect runs.
    pub(crate) fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.turn.clone().try_acquire_owned().ok()
    }
}

/// A message that came back and is being replaced by a copy. **On drop** that is over.
#[derive(Debug)]
#[must_use = "the renewal is over when the guard is dropped"]
pub(crate) struct RenewalGuard(Arc<RedeliveryTracker>);

impl Drop for RenewalGuard {
    fn drop(&mut self) {
        // Recorded first, so that no reader finds the renewal over before its time is recorded.
        self.0.record();
        self.0.renewing.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_suspect_message_waits_while_others_are_still_returned_but_not_for_ever() {
        let redeliveries = Arc::new(RedeliveryTracker::default());
        let taken = Instant::now();
        assert_eq!(redeliveries.may_run_at(taken), taken);
        for _ in 0..100 {
            drop(redeliveries.begin());
            let at = redeliveries.may_run_at(taken);
            assert!(at <= taken + LONGEST);
            assert_eq!(at, (Instant::now() + QUIET).min(taken + LONGEST));
            tokio::time::advance(Duration::from_millis(100)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_being_replaced_by_a_fresh_copy_counts_as_activity() {
        let redeliveries = Arc::new(RedeliveryTracker::default());
        assert!(redeliveries.is_quiet());
        let first = redeliveries.begin();
        let second = redeliveries.begin();
        for _ in 0..10 {
            tokio::time::advance(QUIET).await;
            assert!(!redeliveries.is_quiet());
            let taken = Instant::now();
            assert_eq!(redeliveries.may_run_at(taken), taken + QUIET);
        }
        drop(first);
        tokio::time::advance(QUIET).await;
        assert!(!redeliveries.is_quiet());
        drop(second);
        assert!(!redeliveries.is_quiet());
        tokio::time::advance(QUIET).await;
        assert!(redeliveries.is_quiet());
    }

    #[test]
    fn only_one_suspect_message_runs_at_a_time() {
        let redeliveries = RedeliveryTracker::default();
        let turn = redeliveries.turn();
        assert!(turn.is_some() && redeliveries.turn().is_none());
        drop(turn);
        assert!(redeliveries.turn().is_some());
    }
}
