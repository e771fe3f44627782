//! Intake: whether a pool takes messages, and why not.
//!
//! [`IntakeState`] holds the problems: runners that cannot start, commands behind wrappers that do not start, jobs that
//! fail, copies that cannot be published, and the end of the pool. After a fault, the pool waits with backoff, and then
//! one worker tries. Each method takes the time as an argument, and returns whether the reader of intake must read it
//! again.

use std::{collections::VecDeque, time::Duration};

use super::{
    Breaker, BreakerRules, BreakerSignal, BreakerState, Intake, JobId, Moment, fault_pause,
};

/// The pool is faulted after this many different messages in a row whose command did not start.
const LAUNCH_FAILURES: usize = 3;

/// The causes that keep a pool from taking messages.
#[derive(Debug, Clone, Default)]
pub struct IntakeState {
    draining: bool,
    /// Why the pool's own task failed, until it works again.
    pool_failed: Option<String>,
    fault: Option<Fault>,
    breaker: Option<Breaker>,
    /// Different messages whose command did not start, since the last command that did.
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

/// What cannot start. When something of the same kind starts, the fault ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A runner. A runner that starts ends the fault.
    Start,
    /// The command behind a wrapper. A job that ends in another way ends the fault.
    Launch,
}

impl IntakeState {
    /// Whether messages may be taken at `now`. `ordered` is the operator's order.
    pub fn intake(&self, now: Moment, ordered: Option<Intake>) -> Intake {
        if self.draining {
            Intake::Draining
        } else if self.pool_failed.is_some() {
            // A failed pool does not even carry out a pause.
            Intake::Faulted
        } else if let Some(ordered) = ordered {
            ordered
        } else if self.blocked > 0 {
            Intake::Blocked
        } else {
            self.intake_after_failures(now)
        }
    }

    /// The intake that fault and breaker allow. A pause of one comes before a trial of the other.
    fn intake_after_failures(&self, now: Moment) -> Intake {
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

    /// Why the pool is faulted or blocked, in one line.
    pub fn cause(&self) -> Option<&str> {
        if let Some(cause) = &self.pool_failed {
            return Some(cause);
        }
        if self.blocked > 0 {
            return Some(&self.blocked_by);
        }
        match &self.fault {
            Some(fault) => Some(&fault.cause),
            None => self.breaker.as_ref()?.cause(),
        }
    }

    /// Time from `now` to the end of a fault's or the breaker's pause.
    pub fn look_again(&self, now: Moment) -> Option<Duration> {
        let fault = self.fault.as_ref().map(|fault| fault.until);
        let breaker = self.breaker.as_ref().map(|breaker| breaker.state(now));
        let breaker = match breaker {
            Some(BreakerState::Open { until }) => Some(until),
            Some(BreakerState::Closed | BreakerState::Trial) | None => None,
        };
        let until = fault.max(breaker)?;
        (now < until).then(|| until.since(now))
    }

    /// Ends the pauses of a fault and of the breaker. Called when the cause may have been fixed.
    pub fn try_now(&mut self, now: Moment) {
        if let Some(fault) = &mut self.fault {
            fault.until = now;
            fault.failures = 0;
        }
        if let Some(breaker) = &mut self.breaker {
            breaker.try_now(now);
        }
    }

    /// Sets or clears the failure of the pool's own task. Returns whether that changes anything.
    pub fn set_pool_failed(&mut self, cause: Option<String>) -> bool {
        let was_failed = self.pool_failed.is_some();
        self.pool_failed = cause;
        was_failed != self.pool_failed.is_some()
    }

    /// Why the pool's own task failed, if it has.
    pub fn pool_failure(&self) -> Option<&str> {
        self.pool_failed.as_deref()
    }

    /// Marks the pool as ending. This cannot be undone.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether the pool is ending.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// One more delivery is held because its copy cannot be published.
    pub fn block(&mut self, cause: String) {
        self.blocked += 1;
        self.blocked_by = cause;
    }

    /// Replaces the cause of the block.
    pub fn blocked_by(&mut self, cause: String) {
        self.blocked_by = cause;
    }

    /// One delivery fewer is held.
    pub fn unblock(&mut self) {
        self.blocked = self.blocked.saturating_sub(1);
    }

    /// Something could not be started. Returns whether that begins a pause: a burst of failures is one fault.
    pub fn failed(&mut self, now: Moment, kind: FaultKind, cause: String) -> bool {
        let failures = match &self.fault {
            // Another worker of the same burst: its pause is already running.
            Some(fault) if now < fault.until => return false,
            Some(fault) => fault.failures + 1,
            None => 1,
        };
        self.fault = Some(Fault {
            kind,
            cause,
            failures,
            until: now + fault_pause(failures),
        });
        true
    }

    /// The command behind a wrapper did not start. This counts as a problem of the message, until it happens to several
    /// different messages. Returns whether the pool is now faulted.
    pub fn launch_failed(&mut self, job: &JobId) -> bool {
        if !self.launch_failures.contains(job) {
            self.launch_failures.push_back(job.clone());
            if self.launch_failures.len() > LAUNCH_FAILURES {
                self.launch_failures.pop_front();
            }
        }
        self.launch_failures.len() >= LAUNCH_FAILURES
    }

    /// Something has started, which ends a fault of its kind. Returns whether there was a fault.
    pub fn started(&mut self, kind: FaultKind) -> bool {
        if kind == FaultKind::Launch {
            self.launch_failures.clear();
        }
        self.fault.take_if(|fault| fault.kind == kind).is_some()
    }

    /// Whether there is a fault, or launches have failed.
    pub fn has_failures(&self) -> bool {
        self.fault.is_some() || !self.launch_failures.is_empty()
    }

    /// Sets or removes the breaker. An open breaker stays open with the new rules.
    pub fn set_breaker(&mut self, rules: Option<BreakerRules>) {
        match (&mut self.breaker, rules) {
            (Some(breaker), Some(rules)) => breaker.set_rules(rules),
            (breaker, rules) => *breaker = rules.map(Breaker::new),
        }
    }

    /// A job that ran for `took` has ended at `now`. Returns whether its worker may take another message, and whether
    /// intake has changed.
    pub fn job_ended(
        &mut self,
        now: Moment,
        took: Duration,
        ending: BreakerSignal<'_>,
    ) -> JobEnded {
        let Some(breaker) = &mut self.breaker else {
            return JobEnded {
                may_take: true,
                moved: false,
            };
        };
        let before = breaker.state(now);
        breaker.ended(now.before(took), now, ending);
        let after = breaker.state(now);
        JobEnded {
            may_take: !matches!(after, BreakerState::Open { .. }),
            moved: after != before,
        }
    }

    /// Whether the breaker is open, trials included.
    pub fn is_broken(&self) -> bool {
        self.breaker.as_ref().and_then(Breaker::cause).is_some()
    }
}

/// The effect of a job's end on intake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a worker must not take messages that the breaker wants left in the queue"]
pub struct JobEnded {
    /// Whether its worker may take another message.
    pub may_take: bool,
    /// Whether intake has changed.
    pub moved: bool,
}

#[cfg(test)]
mod tests;
