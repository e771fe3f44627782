//! The gate: a pool's [`IntakeState`] under a lock. Each change wakes the pool.
//!
//! Written by workers (a runner that cannot start, a copy that cannot be published, jobs that fail) and by the pool (its
//! end); read by both. The core decides what a state means. A caller that closes or opens the gate also wakes the pool,
//! which then stops or starts workers. The operator's order is an argument.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::decide::{BreakerRules, BreakerSignal, FaultKind, Intake, IntakeState, JobId, Moment};

/// Whether a pool takes messages.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<IntakeState>,
    /// Whether there is a fault, or launches have failed. If not, the start and end of a job need no lock.
    has_failures: AtomicBool,
    /// Whether there is a breaker. If not, the end of a job needs no lock. Written by the pool.
    breaks: AtomicBool,
    /// Wakes the pool. Written on each change of the gate, read by the pool alone.
    changed: Notify,
}

impl Gate {
    /// Whether messages may be taken at `now`. `ordered`: the operator's order.
    pub(crate) fn intake(&self, now: Moment, ordered: Option<Intake>) -> Intake {
        self.state().intake(now, ordered)
    }

    /// Why the pool is faulted or blocked, in one line.
    pub(crate) fn cause(&self) -> Option<String> {
        self.state().cause().map(str::to_owned)
    }

    /// When the pool should reconcile again: at the end of the pause of a fault or of the breaker.
    pub(crate) fn next_look(&self, now: Moment) -> Option<Duration> {
        self.state().look_again(now)
    }

    /// Ends the pauses of a fault and of the breaker, because the cause may have been repaired.
    pub(crate) fn try_now(&self, now: Moment) {
        self.state().try_now(now);
        self.changed.notify_one();
    }

    /// Waits until the gate has changed. Cancel-safe: a change between two calls is kept for the second.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The pool's own task failed. Wakes no task, because that task is the one that would be woken.
    pub(crate) fn pool_failed(&self, cause: String) {
        self.state().set_pool_failed(Some(cause));
    }

    /// The pool's own task works again.
    pub(crate) fn pool_works(&self) {
        if self.state().set_pool_failed(None) {
            self.changed.notify_one();
        }
    }

    /// Why the pool's own task failed, if it has.
    pub(crate) fn pool_failure(&self) -> Option<String> {
        self.state().pool_failure().map(str::to_owned)
    }

    /// A runner could not be started.
    pub(crate) fn start_failed(&self, now: Moment, cause: String) {
        self.fault(now, FaultKind::Start, cause);
    }

    /// A runner has started.
    pub(crate) fn started(&self) {
        self.clear(FaultKind::Start);
    }

    /// The command behind a wrapper did not start. It counts as a problem of one message until it happens to different ones.
    pub(crate) fn launch_failed(&self, now: Moment, job: &JobId, cause: &str) {
        let enough = {
            let mut state = self.state();
            self.has_failures.store(true, Ordering::Release);
            state.launch_failed(job)
        };
        if enough {
            self.fault(now, FaultKind::Launch, cause.to_owned());
        }
    }

    /// A job came to an end that shows that its command had started.
    pub(crate) fn launched(&self) {
        self.clear(FaultKind::Launch);
    }

    /// Sets the rules of the breaker, or removes it. An open breaker stays open unless it is removed.
    pub(crate) fn set_breaker(&self, rules: Option<BreakerRules>) {
        let mut state = self.state();
        state.set_breaker(rules);
        self.breaks.store(rules.is_some(), Ordering::Release);
        drop(state);
        self.changed.notify_one();
    }

    /// A job has ended that ran for `took`. Returns whether its worker may take another.
    #[must_use = "a worker must not take messages that the breaker wants left in the queue"]
    pub(crate) fn job_ended(
        &self,
        now: impl FnOnce() -> Moment,
        took: Duration,
        ending: BreakerSignal<'_>,
    ) -> bool {
        if !self.breaks.load(Ordering::Acquire) {
            return true;
        }
        let now = now();
        let ended = self.state().job_ended(now, took, ending);
        if ended.moved {
            self.changed.notify_one();
        }
        ended.may_take
    }

    /// Whether the breaker is open, trials included.
    pub(crate) fn is_broken(&self) -> bool {
        self.state().is_broken()
    }

    /// Whether it is closed permanently.
    pub(crate) fn is_draining(&self) -> bool {
        self.state().is_draining()
    }

    /// Closes the gate permanently.
    pub(crate) fn set_draining(&self) {
        self.state().drain();
        self.changed.notify_one();
    }

    /// Closes the gate while the guard lives, because a copy or a reply cannot be published.
    pub(crate) fn block(&self, cause: String) -> BlockedGuard<'_> {
        self.state().block(cause);
        self.changed.notify_one();
        BlockedGuard { gate: self }
    }

    fn fault(&self, now: Moment, kind: FaultKind, cause: String) {
        let begins = {
            let mut state = self.state();
            self.has_failures.store(true, Ordering::Release);
            state.failed(now, kind, cause)
        };
        if begins {
            self.changed.notify_one();
        }
    }

    fn clear(&self, kind: FaultKind) {
        if !self.has_failures.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state();
        let cleared = state.started(kind);
        self.has_failures
            .store(state.has_failures(), Ordering::Release);
        drop(state);
        if cleared {
            self.changed.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, IntakeState> {
        // No code of ours panics while it holds the lock, and the state is consistent after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a gate closed. **On drop** the gate opens, unless another guard holds it.
#[derive(Debug)]
#[must_use = "the gate opens when the guard is dropped"]
pub(crate) struct BlockedGuard<'a> {
    gate: &'a Gate,
}

impl BlockedGuard<'_> {
    /// Replaces the cause that is shown.
    pub(crate) fn because(&self, cause: String) {
        self.gate.state().blocked_by(cause);
    }
}

impl Drop for BlockedGuard<'_> {
    fn drop(&mut self) {
        self.gate.state().unblock();
        self.gate.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    /// Whether the pool was woken since it was last asked.
    fn was_woken(gate: &Gate) -> bool {
        gate.changed().now_or_never().is_some()
    }

    #[test]
    fn closing_or_opening_the_gate_wakes_the_pool_once() {
        let gate = Gate::default();
        let cause = || String::from("no such program");
        gate.start_failed(at(0), cause());
        assert!(was_woken(&gate));
        gate.start_failed(at(0), cause());
        assert!(!was_woken(&gate), "the same burst");
        gate.launched();
        assert!(!was_woken(&gate), "not what failed");
        gate.started();
        assert!(was_woken(&gate));
        gate.started();
        assert!(!was_woken(&gate));
        let first = gate.block(cause());
        let second = gate.block(cause());
        assert!(was_woken(&gate));
        drop((first, second));
        assert!(was_woken(&gate));
        assert_eq!(gate.intake(at(0), None), Intake::Open);
    }

    #[test]
    fn without_a_breaker_the_end_of_a_job_does_not_read_the_clock() {
        let gate = Gate::default();
        let unasked = || unreachable!("nobody asks for the time");
        assert!(gate.job_ended(
            unasked,
            Duration::ZERO,
            BreakerSignal::Failed("exit code 1")
        ));
    }
}
