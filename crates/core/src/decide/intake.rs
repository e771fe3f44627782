//! Intake: whether a pool takes messages, and why not.
//!
//! [`IntakeState`] holds what has gone wrong: runners that cannot start, commands behind wrappers that do not, jobs that
//! fail, copies that cannot be published, and the end of the pool. A fault is waited out with backoff, then tried by one
//! worker. Each method is told the time, and says whether whoever follows intake should look again.

use std::{collections::VecDeque, time::Duration};

use super::{Breaker, BreakerRules, BreakerState, Ending, Intake, JobId, Moment};

/// First pause after a runner could not start.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Different messages whose commands did not start in a row, from which it is the pool's fault.
const LAUNCH_FAILURES: usize = 3;

/// The pause after so many failures in a row: 1 s, doubled for each further one, up to a minute.
pub fn fault_pause(failures: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)))
        .min(LONGEST_PAUSE)
}

/// What keeps a pool from taking messages.
#[derive(Debug, Clone, Default)]
pub struct IntakeState {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// A runner: proved by one that starts.
    Start,
    /// The command behind a wrapper: proved by a job that ends in another way.
    Launch,
}

impl IntakeState {
    /// Whether messages may be taken at `now`. `ordered`: what the operator makes of it.
    pub fn intake(&self, now: Moment, ordered: Option<Intake>) -> Intake {
        if self.draining {
            Intake::Draining
        } else if self.pool_failed.is_some() {
            // Not even a pause is carried out meanwhile.
            Intake::Faulted
        } else if let Some(ordered) = ordered {
            ordered
        } else if self.blocked > 0 {
            Intake::Blocked
        } else {
            self.trouble(now)
        }
    }

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

    /// Ends the pauses of a fault and of the breaker: what went wrong may have been mended.
    pub fn try_now(&mut self, now: Moment) {
        if let Some(fault) = &mut self.fault {
            fault.until = now;
            fault.failures = 0;
        }
        if let Some(breaker) = &mut self.breaker {
            breaker.try_now(now);
        }
    }

    /// The pool's own task failed, for this cause, or works again. Returns whether that is news.
    pub fn set_pool_failed(&mut self, cause: Option<String>) -> bool {
        let was_failed = self.pool_failed.is_some();
        self.pool_failed = cause;
        was_failed != self.pool_failed.is_some()
    }

    /// Why the pool's own task failed, where it has.
    pub fn pool_failure(&self) -> Option<&str> {
        self.pool_failed.as_deref()
    }

    /// The pool is on its way out, for good.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether the pool is on its way out.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// One delivery more is held because its copy cannot be published.
    pub fn block(&mut self, cause: String) {
        self.blocked += 1;
        self.blocked_by = cause;
    }

    /// The cause of that is another one now.
    pub fn blocked_by(&mut self, cause: String) {
        self.blocked_by = cause;
    }

    /// One delivery less is held.
    pub fn unblock(&mut self) {
        self.blocked = self.blocked.saturating_sub(1);
    }

    /// Something could not be started. Returns whether that begins a pause: a burst of failures is one fault.
    pub fn failed(&mut self, now: Moment, kind: FaultKind, cause: String) -> bool {
        let failures = match &self.fault {
            // Another worker of the same burst: the pause it caused is already running.
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

    /// The command behind a wrapper did not start. One message's trouble, until different messages meet it: returns
    /// whether they have.
    pub fn launch_failed(&mut self, job: &JobId) -> bool {
        if !self.launch_failures.contains(job) {
            self.launch_failures.push_back(job.clone());
            if self.launch_failures.len() > LAUNCH_FAILURES {
                self.launch_failures.pop_front();
            }
        }
        self.launch_failures.len() >= LAUNCH_FAILURES
    }

    /// Something has started, which ends a fault of its kind. Returns whether there was one.
    pub fn started(&mut self, kind: FaultKind) -> bool {
        if kind == FaultKind::Launch {
            self.launch_failures.clear();
        }
        self.fault.take_if(|fault| fault.kind == kind).is_some()
    }

    /// Whether a fault is being waited out, or launches have failed.
    pub fn is_troubled(&self) -> bool {
        self.fault.is_some() || !self.launch_failures.is_empty()
    }

    /// Has a breaker by these rules, or none. One that is open stays so unless it goes.
    pub fn set_breaker(&mut self, rules: Option<BreakerRules>) {
        match (&mut self.breaker, rules) {
            (Some(breaker), Some(rules)) => breaker.set_rules(rules),
            (breaker, rules) => *breaker = rules.map(Breaker::new),
        }
    }

    /// A job has ended at `now` that ran for `took`. Says whether its worker may take another, and whether intake has
    /// changed.
    pub fn job_ended(&mut self, now: Moment, took: Duration, ending: Ending<'_>) -> JobEnded {
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

/// What a job's end means for intake.
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
