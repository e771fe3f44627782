//! What is left of a death: messages that were held when a daemon, a connection or a channel died, and come back.
//!
//! One of them may have been the cause. All are made new before any of them runs again, and those that came back too
//! often, the suspects, run one at a time. One for all pools of a supervisor, because they die together.

use std::{
    sync::{Arc, Mutex, PoisonError},
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
pub(crate) struct Aftermath {
    /// When a message last came back or was made new. Written by workers, read by them before they run one that had.
    last: Mutex<Option<Instant>>,
    /// Held by the worker that runs a suspect.
    turn: Arc<Semaphore>,
}

impl Default for Aftermath {
    fn default() -> Self {
        Self {
            last: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Aftermath {
    /// A message came back, or was made new.
    pub(crate) fn note(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// When a message that had come back, and is taken now, may run; later still if others come back until then.
    pub(crate) fn may_run_at(&self, taken: Instant) -> Instant {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.map_or(taken, |last| (last + QUIET).min(taken + LONGEST))
    }

    /// The right to run a suspect, unless another one runs.
    pub(crate) fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.turn.clone().try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_message_waits_until_nothing_comes_back_but_not_for_ever() {
        let aftermath = Aftermath::default();
        let taken = Instant::now();
        assert_eq!(aftermath.may_run_at(taken), taken);
        for _ in 0..100 {
            aftermath.note();
            let at = aftermath.may_run_at(taken);
            assert!(at <= taken + LONGEST);
            assert_eq!(at, (Instant::now() + QUIET).min(taken + LONGEST));
            tokio::time::advance(Duration::from_millis(100)).await;
        }
    }

    #[test]
    fn one_suspect_runs_at_a_time() {
        let aftermath = Aftermath::default();
        let turn = aftermath.turn();
        assert!(turn.is_some() && aftermath.turn().is_none());
        drop(turn);
        assert!(aftermath.turn().is_some());
    }
}
