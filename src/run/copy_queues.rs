//! Which of the pool's own queues accept no copies at present, and how many deliveries are held because of that.
//!
//! Written by workers, read by them and for the pool's state. This never closes intake, because jobs that succeed need no
//! copy.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use crate::{
    decide::QueueName,
    queue::{QueueErrorKind, QueueSpec},
    settle::{rest, what_is_wrong},
};

/// The known state of a pool's own queues.
#[derive(Debug, Default)]
pub(crate) struct CopyQueues(Mutex<CopyQueuesState>);

#[derive(Debug, Default)]
struct CopyQueuesState {
    resting: BTreeMap<QueueName, Resting>,
    /// Queues that were declared with other arguments and are used as they are. Until this time that is not checked again.
    as_they_are: BTreeMap<QueueName, Instant>,
    /// Deliveries that are held because no queue accepts their copy.
    held: u32,
    held_for: String,
}

/// A queue that accepted nothing.
#[derive(Debug)]
struct Resting {
    kind: QueueErrorKind,
    why: String,
    failures: u32,
    until: Instant,
}

/// A delivery that is held because no queue accepts its copy. **On drop** it is no longer held.
#[derive(Debug)]
pub(crate) struct HeldGuard<'a>(&'a CopyQueues);

impl CopyQueues {
    /// The first of these queues that may accept a copy.
    pub(crate) fn choose<'q>(
        &self,
        queues: &'q [QueueSpec],
        now: Instant,
    ) -> Option<&'q QueueSpec> {
        let state = self.state();
        queues.iter().find(|queue| {
            let resting = state.resting.get(&queue.name);
            resting.is_none_or(|resting| resting.until <= now)
        })
    }

    /// Whether a queue accepted nothing when it was last tried.
    pub(crate) fn has_failed(&self, queue: &QueueName) -> bool {
        self.state().resting.contains_key(queue)
    }

    /// A queue accepted nothing. Returns whether that is new.
    pub(crate) fn took_nothing(
        &self,
        queue: &QueueName,
        kind: QueueErrorKind,
        why: String,
        now: Instant,
    ) -> bool {
        let mut state = self.state();
        let before = state.resting.get(queue);
        // Another worker has reported the same a moment ago.
        if before.is_some_and(|resting| now < resting.until) {
            return false;
        }
        let failures = before.map_or(0, |resting| resting.failures) + 1;
        let is_news = failures == 1;
        let resting = Resting {
            kind,
            why,
            failures,
            until: now + rest(kind, failures),
        };
        state.resting.insert(queue.clone(), resting);
        is_news
    }

    /// A queue accepted a copy. Returns whether it had accepted nothing before.
    pub(crate) fn took(&self, queue: &QueueName) -> bool {
        let mut state = self.state();
        !state.resting.is_empty() && state.resting.remove(queue).is_some()
    }

    /// Whether a queue is known to have other arguments, and is used as it is.
    pub(crate) fn is_as_it_is(&self, queue: &QueueName, now: Instant) -> bool {
        let state = self.state();
        state
            .as_they_are
            .get(queue)
            .is_some_and(|until| now < *until)
    }

    /// A queue has other arguments, and is used as it is. Returns whether that is new.
    pub(crate) fn use_as_it_is(&self, queue: &QueueName, now: Instant) -> bool {
        let until = now + rest(QueueErrorKind::Mismatch, 1);
        let before = self.state().as_they_are.insert(queue.clone(), until);
        before.is_none()
    }

    /// A delivery is held while the guard lives.
    pub(crate) fn hold(&self, why: String) -> HeldGuard<'_> {
        let mut state = self.state();
        state.held += 1;
        state.held_for = why;
        HeldGuard(self)
    }

    /// Deliveries that are held.
    pub(crate) fn held(&self) -> u32 {
        self.state().held
    }

    /// The problem, in one line.
    pub(crate) fn cause(&self, now: Instant) -> Option<String> {
        let state = self.state();
        let mut causes = Vec::new();
        if state.held > 0 {
            let jobs = if state.held == 1 {
                "job is"
            } else {
                "jobs are"
            };
            causes.push(format!(
                "{} {jobs} held, because no queue accepts its copy: {}",
                state.held, state.held_for
            ));
        }
        for (queue, resting) in &state.resting {
            if now < resting.until {
                let wrong = what_is_wrong(resting.kind);
                let why = &resting.why;
                causes.push(format!(
                    "queue {queue} {wrong}: copies wait or go to another queue ({why})"
                ));
            }
        }
        (!causes.is_empty()).then(|| causes.join("; "))
    }

    fn state(&self) -> MutexGuard<'_, CopyQueuesState> {
        // No code of ours panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HeldGuard<'_> {
    fn drop(&mut self) {
        self.0.state().held -= 1;
    }
}

impl HeldGuard<'_> {
    /// Replaces the cause that is shown.
    pub(crate) fn because(&self, why: String) {
        self.0.state().held_for = why;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::settle::Route;

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_accepts_nothing_is_skipped_until_the_next_trial() {
        let copy_queues = CopyQueues::default();
        let route = Route::retry(&QueueName::from("jobs"), Duration::from_secs(1));
        let chosen = |copy_queues: &CopyQueues| {
            let chosen = copy_queues.choose(&route.queues, Instant::now());
            chosen.map(|queue| queue.name.to_string())
        };
        assert_eq!(chosen(&copy_queues).as_deref(), Some("jobs.retry.1000"));
        let own = &route.queues[0].name;
        let fails = || {
            let why = String::from("no confirm");
            copy_queues.took_nothing(own, QueueErrorKind::Timeout, why, Instant::now())
        };
        assert!(fails());
        assert!(!fails(), "the same burst");
        assert_eq!(chosen(&copy_queues).as_deref(), Some("jobs.retry.1000.2"));
        let cause = copy_queues.cause(Instant::now()).expect("a cause");
        assert!(
            cause.contains("jobs.retry.1000 does not confirm"),
            "{cause}"
        );

        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(chosen(&copy_queues).as_deref(), Some("jobs.retry.1000"));
        assert!(!fails(), "it was said before");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(chosen(&copy_queues).as_deref(), Some("jobs.retry.1000.2"));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(copy_queues.took(own) && !copy_queues.took(own));
        assert_eq!(copy_queues.cause(Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_copy_is_reported_for_as_long_as_it_is_held() {
        let copy_queues = CopyQueues::default();
        let held = copy_queues.hold(String::from("too large"));
        let cause = copy_queues.cause(Instant::now()).expect("a cause");
        assert!(cause.starts_with("1 job is held"), "{cause}");
        drop(held);
        assert_eq!(copy_queues.cause(Instant::now()), None);
    }
}
