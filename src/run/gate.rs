//! The gate: whether a pool takes messages, and why not.
//!
//! Written by workers (a runner that cannot start, a copy that cannot be published) and by the pool (pause,
//! drain); read by both. Everything is decided synchronously under one lock; whoever closes or opens the gate
//! also wakes the pool, which then stops or starts workers.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::decide::{Intake, JobId, Moment};

/// First pause after a runner could not start.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Different messages whose commands did not start in a row, from which it is the pool's fault.
const LAUNCH_FAILURES: usize = 3;

/// Whether a pool takes messages.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    /// Whether a fault is being waited out or launches have failed: lets each job's start and end skip the lock.
    troubled: AtomicBool,
    /// Wakes the pool. Written by whoever changes the gate, read by the pool alone.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    paused: bool,
    draining: bool,
    fault: Option<Fault>,
    /// Different messages whose command did not start, since one last did.
    launch_failures: VecDeque<JobId>,
    /// Deliveries held because their copies cannot be published.
    blocked: u32,
    blocked_by: String,
}

#[derive(Debug, Clone)]
struct Fault {
    kind: FaultKind,
    cause: String,
    failures: u32,
    until: Moment,
}

/// What cannot start, and so what proves that it can again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FaultKind {
    /// A runner: proved by one that starts.
    Start,
    /// The command behind a wrapper: proved by a job that ends in another way.
    Launch,
}

impl Gate {
    /// Whether messages may be taken at `now`.
    pub(crate) fn intake(&self, now: Moment) -> Intake {
        let state = self.state();
        if state.draining {
            Intake::Draining
        } else if state.paused {
            Intake::Paused
        } else if state.blocked > 0 {
            Intake::Blocked
        } else {
            match &state.fault {
                Some(fault) if now < fault.until => Intake::Faulted,
                Some(_) => Intake::Trial,
                None => Intake::Open,
            }
        }
    }

    /// Why the pool is faulted or blocked, in one line.
    pub(crate) fn cause(&self) -> Option<String> {
        let state = self.state();
        if state.blocked > 0 {
            return Some(state.blocked_by.clone());
        }
        state.fault.as_ref().map(|fault| fault.cause.clone())
    }

    /// When the pool should look again by itself: the end of a fault's pause.
    pub(crate) fn look_again(&self, now: Moment) -> Option<Duration> {
        let state = self.state();
        let fault = state.fault.as_ref()?;
        (now < fault.until).then(|| fault.until.since(now))
    }

    /// Ends a fault's pause: what could not start may have been mended.
    pub(crate) fn try_now(&self, now: Moment) {
        if let Some(fault) = &mut self.state().fault {
            fault.until = now;
            fault.failures = 0;
        }
        self.changed.notify_one();
    }

    /// Waits until the gate has changed. Cancel-safe: a change that nobody waited for is kept.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// A runner could not be started.
    pub(crate) fn start_failed(&self, now: Moment, cause: String) {
        self.fault(now, FaultKind::Start, cause);
    }

    /// A runner has started.
    pub(crate) fn started(&self) {
        self.clear(FaultKind::Start);
    }

    /// The command behind a wrapper did not start. One message's trouble, until different messages meet it.
    pub(crate) fn launch_failed(&self, now: Moment, job: &JobId, cause: &str) {
        let enough = {
            let mut state = self.state();
            if !state.launch_failures.contains(job) {
                state.launch_failures.push_back(job.clone());
                if state.launch_failures.len() > LAUNCH_FAILURES {
                    state.launch_failures.pop_front();
                }
            }
            self.troubled.store(true, Ordering::Release);
            state.launch_failures.len() >= LAUNCH_FAILURES
        };
        if enough {
            self.fault(now, FaultKind::Launch, cause.to_owned());
        }
    }

    /// A job came to an end that shows that its command had started.
    pub(crate) fn launched(&self) {
        self.clear(FaultKind::Launch);
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.state().paused = paused;
        self.changed.notify_one();
    }

    /// Closes the gate for good.
    pub(crate) fn set_draining(&self) {
        self.state().draining = true;
        self.changed.notify_one();
    }

    /// Closes the gate for as long as the guard lives: a copy cannot be published.
    pub(crate) fn block(&self, cause: String) -> BlockedGuard<'_> {
        let mut state = self.state();
        state.blocked += 1;
        state.blocked_by = cause;
        drop(state);
        self.changed.notify_one();
        BlockedGuard { gate: self }
    }

    fn fault(&self, now: Moment, kind: FaultKind, cause: String) {
        {
            let mut state = self.state();
            self.troubled.store(true, Ordering::Release);
            let failures = match &state.fault {
                // Another worker of the same burst: the pause it caused is already running.
                Some(fault) if now < fault.until => return,
                Some(fault) => fault.failures + 1,
                None => 1,
            };
            let pause = FIRST_PAUSE
                .saturating_mul(2u32.saturating_pow(failures - 1))
                .min(LONGEST_PAUSE);
            state.fault = Some(Fault {
                kind,
                cause,
                failures,
                until: now + pause,
            });
        }
        self.changed.notify_one();
    }

    fn clear(&self, kind: FaultKind) {
        if !self.troubled.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state();
        if kind == FaultKind::Launch {
            state.launch_failures.clear();
        }
        let cleared = state.fault.take_if(|fault| fault.kind == kind).is_some();
        let calm = state.fault.is_none() && state.launch_failures.is_empty();
        self.troubled.store(!calm, Ordering::Release);
        drop(state);
        if cleared {
            self.changed.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code of ours panics while it holds the lock, and the state is whole between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a gate closed. **On drop** it opens, unless others still hold it.
#[derive(Debug)]
#[must_use = "the gate opens when the guard is dropped"]
pub(crate) struct BlockedGuard<'a> {
    gate: &'a Gate,
}

impl BlockedGuard<'_> {
    /// Replaces the cause that is shown.
    pub(crate) fn because(&self, cause: String) {
        self.gate.state().blocked_by = cause;
    }
}

impl Drop for BlockedGuard<'_> {
    fn drop(&mut self) {
        self.gate.state().blocked -= 1;
        self.gate.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    #[test]
    fn a_fault_is_waited_out_then_tried_and_each_failed_trial_waits_twice_as_long() {
        let gate = Gate::default();
        let mut now = 0;
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            gate.start_failed(at(now), String::from("no such program"));
            assert_eq!(gate.intake(at(now)), Intake::Faulted);
            assert_eq!(gate.look_again(at(now)), Some(Duration::from_secs(pause)));
            now += pause;
            assert_eq!(gate.intake(at(now)), Intake::Trial);
        }
        gate.started();
        assert_eq!(gate.intake(at(now)), Intake::Open);
    }

    #[test]
    fn a_change_of_configuration_is_tried_at_once() {
        let gate = Gate::default();
        for now in [0, 1, 3, 7] {
            gate.start_failed(at(now), String::from("no such program"));
        }
        assert_eq!(gate.intake(at(8)), Intake::Faulted);
        gate.try_now(at(8));
        assert_eq!(gate.intake(at(8)), Intake::Trial);
        gate.start_failed(at(8), String::from("no such program"));
        assert_eq!(gate.look_again(at(8)), Some(FIRST_PAUSE));
    }

    #[test]
    fn a_burst_of_failures_is_one_fault() {
        let gate = Gate::default();
        for _ in 0..50 {
            gate.start_failed(at(0), String::from("no such program"));
        }
        assert_eq!(gate.look_again(at(0)), Some(FIRST_PAUSE));
    }

    #[test]
    fn launches_that_fail_for_different_messages_in_a_row_are_the_pools_fault() {
        let gate = Gate::default();
        for _ in 0..9 {
            gate.launch_failed(at(0), &JobId::from("same"), "exit 127");
        }
        assert_eq!(gate.intake(at(0)), Intake::Open);
        gate.launch_failed(at(0), &JobId::from("second"), "exit 127");
        gate.launched();
        gate.launch_failed(at(0), &JobId::from("third"), "exit 127");
        gate.launch_failed(at(0), &JobId::from("fourth"), "exit 127");
        assert_eq!(gate.intake(at(0)), Intake::Open);
        gate.launch_failed(at(0), &JobId::from("fifth"), "exit 127");
        assert_eq!(gate.intake(at(0)), Intake::Faulted);
        // The wrapper does start, which proves nothing of the command behind it.
        gate.started();
        assert_eq!(gate.intake(at(1)), Intake::Trial);
        gate.launched();
        assert_eq!(gate.intake(at(1)), Intake::Open);
    }

    #[test]
    fn the_gate_is_blocked_until_the_last_holder_lets_go() {
        let gate = Gate::default();
        let first = gate.block(String::from("no route"));
        let second = gate.block(String::from("alarm"));
        drop(first);
        assert_eq!(gate.intake(at(0)), Intake::Blocked);
        assert_eq!(gate.cause().as_deref(), Some("alarm"));
        drop(second);
        assert_eq!(gate.intake(at(0)), Intake::Open);
    }

    #[test]
    fn draining_beats_a_pause_which_beats_trouble() {
        let gate = Gate::default();
        gate.start_failed(at(0), String::new());
        gate.set_paused(true);
        assert_eq!(gate.intake(at(0)), Intake::Paused);
        gate.set_draining();
        assert_eq!(gate.intake(at(0)), Intake::Draining);
        gate.set_paused(false);
        assert_eq!(gate.intake(at(0)), Intake::Draining);
    }
}
