//! The gate: whether a pool takes messages, and why not.
//!
//! Written by workers (a runner that cannot start, a copy that cannot be published, jobs that fail) and by the pool
//! (drain); read by both. What the operator orders is handed in. Everything is decided synchronously under one lock; whoever closes or opens the gate
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

use crate::decide::{Breaker, BreakerRules, BreakerState, Ending, Intake, JobId, Moment};

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
    /// Whether there is a breaker: without one, a job's end costs it nothing. Written by the pool.
    breaks: AtomicBool,
    /// Wakes the pool. Written on each change of the gate, read by the pool alone.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    draining: bool,
    /// Why the pool's own task failed, until it works again.
    pool_failed: Option<String>,
    fault: Option<Fault>,
    breaker: Option<Breaker>,
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
    /// Whether messages may be taken at `now`. `ordered`: what the operator makes of it.
    pub(crate) fn intake(&self, now: Moment, ordered: Option<Intake>) -> Intake {
        let state = self.state();
        if state.draining {
            Intake::Draining
        } else if state.pool_failed.is_some() {
            // Not even a pause is carried out meanwhile.
            Intake::Faulted
        } else if let Some(ordered) = ordered {
            ordered
        } else if state.blocked > 0 {
            Intake::Blocked
        } else {
            state.trouble(now)
        }
    }

    /// Why the pool is faulted or blocked, in one line.
    pub(crate) fn cause(&self) -> Option<String> {
        let state = self.state();
        if let Some(cause) = &state.pool_failed {
            return Some(cause.clone());
        }
        if state.blocked > 0 {
            return Some(state.blocked_by.clone());
        }
        match &state.fault {
            Some(fault) => Some(fault.cause.clone()),
            None => Some(state.breaker.as_ref()?.cause()?.to_owned()),
        }
    }

    /// When the pool should look again by itself: the end of a fault's or the breaker's pause.
    pub(crate) fn look_again(&self, now: Moment) -> Option<Duration> {
        let state = self.state();
        let fault = state.fault.as_ref().map(|fault| fault.until);
        let until = fault.max(state.breaker_until(now))?;
        (now < until).then(|| until.since(now))
    }

    /// Ends the pauses of a fault and of the breaker: what went wrong may have been mended.
    pub(crate) fn try_now(&self, now: Moment) {
        let mut state = self.state();
        if let Some(fault) = &mut state.fault {
            fault.until = now;
            fault.failures = 0;
        }
        if let Some(breaker) = &mut state.breaker {
            breaker.try_now(now);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Waits until the gate has changed. Cancel-safe: a change that nobody waited for is kept.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The pool's own task failed. Nobody is woken: the pool is not there to hear it.
    pub(crate) fn pool_failed(&self, cause: String) {
        self.state().pool_failed = Some(cause);
    }

    /// The pool's own task does its work again.
    pub(crate) fn pool_works(&self) {
        if self.state().pool_failed.take().is_some() {
            self.changed.notify_one();
        }
    }

    /// Why the pool's own task failed, where it has.
    pub(crate) fn pool_failure(&self) -> Option<String> {
        self.state().pool_failed.clone()
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

    /// Has a breaker by these rules, or none. One that is open stays so unless it goes.
    pub(crate) fn set_breaker(&self, rules: Option<BreakerRules>) {
        let mut state = self.state();
        match (&mut state.breaker, rules) {
            (Some(breaker), Some(rules)) => breaker.set_rules(rules),
            (breaker, rules) => *breaker = rules.map(Breaker::new),
        }
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
        ending: Ending<'_>,
    ) -> bool {
        if !self.breaks.load(Ordering::Acquire) {
            return true;
        }
        let now = now();
        let mut state = self.state();
        let Some(breaker) = &mut state.breaker else {
            return true;
        };
        let before = breaker.state(now);
        breaker.ended(now.before(took), now, ending);
        let after = breaker.state(now);
        drop(state);
        if after != before {
            self.changed.notify_one();
        }
        !matches!(after, BreakerState::Open { .. })
    }

    /// Whether the breaker is open, trials included.
    pub(crate) fn is_broken(&self) -> bool {
        let state = self.state();
        state.breaker.as_ref().and_then(Breaker::cause).is_some()
    }

    /// Whether it is closed for good.
    pub(crate) fn is_draining(&self) -> bool {
        self.state().draining
    }

    /// Closes the gate for good.
    pub(crate) fn set_draining(&self) {
        self.state().draining = true;
        self.changed.notify_one();
    }

    /// Closes the gate for as long as the guard lives: a copy or an answer cannot be published.
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

impl State {
    /// What fault and breaker make of intake. A pause of either comes before a trial of the other.
    fn trouble(&self, now: Moment) -> Intake {
        let fault = self.fault.as_ref();
        let breaker = self.breaker.as_ref().map(|breaker| breaker.state(now));
        match (fault, breaker) {
            (Some(fault), _) if now < fault.until => Intake::Faulted,
            (_, Some(BreakerState::Open { .. })) => Intake::BreakerOpen,
            (Some(_), _) => Intake::Trial,
            (None, Some(BreakerState::Trial)) => Intake::BreakerTrial,
            (None, Some(BreakerState::Closed) | None) => Intake::Open,
        }
    }

    fn breaker_until(&self, now: Moment) -> Option<Moment> {
        match self.breaker.as_ref()?.state(now) {
            BreakerState::Open { until } => Some(until),
            BreakerState::Closed | BreakerState::Trial => None,
        }
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
            assert_eq!(gate.intake(at(now), None), Intake::Faulted);
            assert_eq!(gate.look_again(at(now)), Some(Duration::from_secs(pause)));
            now += pause;
            assert_eq!(gate.intake(at(now), None), Intake::Trial);
        }
        gate.started();
        assert_eq!(gate.intake(at(now), None), Intake::Open);
    }

    #[test]
    fn a_change_of_configuration_is_tried_at_once() {
        let gate = Gate::default();
        for now in [0, 1, 3, 7] {
            gate.start_failed(at(now), String::from("no such program"));
        }
        assert_eq!(gate.intake(at(8), None), Intake::Faulted);
        gate.try_now(at(8));
        assert_eq!(gate.intake(at(8), None), Intake::Trial);
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
        assert_eq!(gate.intake(at(0), None), Intake::Open);
        gate.launch_failed(at(0), &JobId::from("second"), "exit 127");
        gate.launched();
        gate.launch_failed(at(0), &JobId::from("third"), "exit 127");
        gate.launch_failed(at(0), &JobId::from("fourth"), "exit 127");
        assert_eq!(gate.intake(at(0), None), Intake::Open);
        gate.launch_failed(at(0), &JobId::from("fifth"), "exit 127");
        assert_eq!(gate.intake(at(0), None), Intake::Faulted);
        // The wrapper does start, which proves nothing of the command behind it.
        gate.started();
        assert_eq!(gate.intake(at(1), None), Intake::Trial);
        gate.launched();
        assert_eq!(gate.intake(at(1), None), Intake::Open);
    }

    #[test]
    fn a_breaker_and_a_fault_are_each_waited_out_and_tried() {
        let gate = Gate::default();
        gate.set_breaker(Some(BreakerRules {
            min_jobs: 1,
            pause: Duration::from_secs(10),
            ..BreakerRules::default()
        }));
        let ended = |now, ending| gate.job_ended(|| at(now), Duration::ZERO, ending);
        assert!(ended(0, Ending::Answered));
        assert!(ended(0, Ending::Answered));
        assert!(ended(0, Ending::Failed("exit code 1")));
        assert!(!ended(0, Ending::Failed("exit code 1")));
        assert_eq!(gate.intake(at(0), None), Intake::BreakerOpen);
        assert!(gate.is_broken());
        assert_eq!(gate.look_again(at(1)), Some(Duration::from_secs(9)));
        assert_eq!(gate.intake(at(10), None), Intake::BreakerTrial);

        // The trial's runner does not start: that is tried first.
        gate.start_failed(at(10), String::from("no such program"));
        assert_eq!(gate.intake(at(10), None), Intake::Faulted);
        assert_eq!(gate.cause().as_deref(), Some("no such program"));
        assert_eq!(gate.intake(at(11), None), Intake::Trial);
        gate.started();
        assert_eq!(gate.intake(at(11), None), Intake::BreakerTrial);
        assert!(
            gate.cause()
                .is_some_and(|cause| cause.contains("2 of the last 4"))
        );
        assert!(ended(12, Ending::Answered));
        assert_eq!(gate.intake(at(12), None), Intake::Open);
        assert!(!gate.is_broken());
    }

    #[test]
    fn taking_the_breaker_away_opens_the_gate() {
        let gate = Gate::default();
        let rules = BreakerRules {
            min_jobs: 1,
            ..BreakerRules::default()
        };
        gate.set_breaker(Some(rules));
        assert!(!gate.job_ended(|| at(1), Duration::ZERO, Ending::Failed("exit code 1")));
        gate.set_breaker(Some(BreakerRules {
            pause: Duration::from_secs(60),
            ..rules
        }));
        assert_eq!(gate.look_again(at(1)), Some(Duration::from_secs(60)));
        gate.set_breaker(None);
        assert_eq!(gate.intake(at(1), None), Intake::Open);
        let unasked = || unreachable!("without a breaker nobody asks for the time");
        assert!(gate.job_ended(unasked, Duration::ZERO, Ending::Failed("exit code 1")));
    }

    #[test]
    fn the_gate_is_blocked_until_the_last_holder_lets_go() {
        let gate = Gate::default();
        let first = gate.block(String::from("no route"));
        let second = gate.block(String::from("alarm"));
        drop(first);
        assert_eq!(gate.intake(at(0), None), Intake::Blocked);
        assert_eq!(gate.cause().as_deref(), Some("alarm"));
        drop(second);
        assert_eq!(gate.intake(at(0), None), Intake::Open);
    }

    #[test]
    fn draining_beats_a_pause_which_beats_trouble() {
        let gate = Gate::default();
        gate.start_failed(at(0), String::new());
        assert_eq!(gate.intake(at(0), Some(Intake::Paused)), Intake::Paused);
        gate.set_draining();
        assert_eq!(gate.intake(at(0), Some(Intake::Paused)), Intake::Draining);
        assert_eq!(gate.intake(at(0), None), Intake::Draining);
    }
}
