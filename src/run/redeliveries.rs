//! What is left of a death: messages that were held when a daemon, a connection or a channel died, and come back.
//!
//! One of them may have been the cause. All are made new before any of them runs again, and those that came back too
//! often, the suspects, run one at a time. One for all pools of a supervisor, because they die together.

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

/// How long nothing may have come back before a message runs that had: whatever is still under way is made new by
/// then, and does not count once more if that message takes everything with it.
pub(crate) const QUIET: Duration = Duration::from_millis(250);
/// How long a message waits for that at most.
const LONGEST: Duration = Duration::from_secs(5);

/// What the pools of a supervisor know of messages that came back.
#[derive(Debug)]
pub(crate) struct RedeliveryTracker {
    /// When a message last came back or was made new. Written by workers, read by them before they run one that had.
    last: Mutex<Option<Instant>>,
    /// Messages that are being made new. Written by who makes them new, read as `last` is.
    under_way: AtomicUsize,
    /// Whether anything has come back since all was quiet: lets each job's start skip the lock.
    is_disturbed: AtomicBool,
    /// Held by the worker that runs a suspect.
    turn: Arc<Semaphore>,
}

impl Default for RedeliveryTracker {
    fn default() -> Self {
        Self {
            last: Mutex::default(),
            under_way: AtomicUsize::new(0),
            is_disturbed: AtomicBool::new(false),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

impl RedeliveryTracker {
    /// A message came back. It is under way until the guard is dropped: then it is made new, or has its end.
    pub(crate) fn begin(self: &Arc<Self>) -> RenewalGuard {
        self.under_way.fetch_add(1, Ordering::Release);
        self.note();
        RenewalGuard(self.clone())
    }

    fn note(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.is_disturbed.store(true, Ordering::Release);
    }

    /// Whether nothing has come back of late, so that a message which never did may run at once.
    pub(crate) fn is_quiet(&self) -> bool {
        if !self.is_disturbed.load(Ordering::Acquire) {
            return true;
        }
        let now = Instant::now();
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_quiet = self.under_way.load(Ordering::Acquire) == 0
            && last.is_none_or(|last| last + QUIET <= now);
        if is_quiet {
            self.is_disturbed.store(false, Ordering::Release);
        }
        is_quiet
    }

    /// When a message that is taken now may run, one that had come back or another; later still if others come back
    /// until then.
    pub(crate) fn may_run_at(&self, taken: Instant) -> Instant {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let last = match self.under_way.load(Ordering::Acquire) {
            0 => last,
            _ => Some(Instant::now()),
        };
        last.map_or(taken, |last| (last + QUIET).min(taken + LONGEST))
    }

    /// The right to run a suspect, unless another one runs.
    pub(crate) fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.turn.clone().try_acquire_owned().ok()
    }
}

/// A message that came back and is being made new. On drop that is over.
#[derive(Debug)]
#[must_use = "it is over when the guard is dropped"]
pub(crate) struct RenewalGuard(Arc<RedeliveryTracker>);

impl Drop for RenewalGuard {
    fn drop(&mut self) {
        // Noted first: nobody finds it over and quiet.
        self.0.note();
        self.0.under_way.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_message_waits_until_nothing_comes_back_but_not_for_ever() {
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
    async fn it_is_not_quiet_while_a_message_is_made_new_however_long_that_takes() {
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
    fn one_suspect_runs_at_a_time() {
        let redeliveries = RedeliveryTracker::default();
        let turn = redeliveries.turn();
        assert!(turn.is_some() && redeliveries.turn().is_none());
        drop(turn);
        assert!(redeliveries.turn().is_some());
    }
}
