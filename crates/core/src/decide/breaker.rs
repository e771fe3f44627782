//! The breaker: stops intake when so many jobs fail that more jobs would only spend attempts.
//!
//! ```text
//!             a failure makes the share of failures too large
//!    closed ──────────────────────────────────────────────────► open
//!      ▲                                                        │  ▲
//!      │ a trial does not fail                       after its  │  │ a trial fails:
//!      └──────────────────────────── trial ◄──────────── pause ─┘  │ twice the pause
//!                                      └───────────────────────────┘
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Moment;
use crate::text::{counted, duration, first_chars};

/// Parts of the window. Jobs are forgotten one part at a time, so that memory does not depend on the number of jobs.
const PARTS: usize = 16;
/// How many times a pause may double.
const DOUBLINGS: u32 = 3;
/// Limit on the characters of a failure's text that the cause quotes.
const CAUSE_CHARS: usize = 200;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerRules {
    /// Share of failed jobs in the window, in percent, at which the breaker opens: 1 to 100.
    pub failure_percent: u8,
    /// Length of the window. The precision is a sixteenth of it.
    pub window: Duration,
    /// The number of jobs that must be in the window before the breaker may open: 1 or more.
    pub min_jobs: u32,
    /// How long the breaker stays open before a trial. Doubled after each failed trial, up to eight times this pause.
    pub pause: Duration,
}

impl Default for BreakerRules {
    fn default() -> Self {
        Self {
            failure_percent: 50,
            window: Duration::from_secs(30),
            min_jobs: 10,
            pause: Duration::from_secs(30),
        }
    }
}

/// The end of a job, as a breaker counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerSignal<'a> {
    /// The job named its own settlement: done, retry, or reject. For the breaker this is a success.
    Answered,
    /// The job failed, with this cause.
    Failed(&'a str),
    /// The job ended without a result, for a reason that is counted elsewhere: the command behind its wrapper did not
    /// start. It is not counted in the window, but a trial that ends like this has failed.
    Unproven(&'a str),
}

/// Whether jobs may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Yes, one on each worker.
    Closed,
    /// No.
    Open {
        /// When a trial may begin.
        until: Moment,
    },
    /// One at a time, until a trial succeeds.
    Trial,
}

/// A pool's breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    rules: BreakerRules,
    window: Window,
    /// Jobs that began before this instant are not counted, even if they end later.
    since: Moment,
    open: Option<Open>,
}

#[derive(Debug, Clone)]
struct Open {
    at: Moment,
    /// When the pause was ended early.
    cut_short: Option<Moment>,
    failed_trials: u32,
    cause: String,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(rules: BreakerRules) -> Self {
        Self {
            rules,
            window: Window::new(rules.window),
            since: Moment::ZERO,
            open: None,
        }
    }

    /// The rules in force.
    pub fn rules(&self) -> &BreakerRules {
        &self.rules
    }

    /// Changes the rules. A closed breaker starts a new window. An open breaker stays open, and the new rules give the
    /// length of its pause.
    pub fn set_rules(&mut self, rules: BreakerRules) {
        if rules != self.rules {
            self.rules = rules;
            self.window = Window::new(rules.window);
        }
    }

    /// Whether jobs may run at `now`.
    pub fn state(&self, now: Moment) -> BreakerState {
        match &self.open {
            None => BreakerState::Closed,
            Some(open) => match self.until(open) {
                until if now < until => BreakerState::Open { until },
                _ => BreakerState::Trial,
            },
        }
    }

    /// Why the breaker is open, in one line.
    pub fn cause(&self) -> Option<&str> {
        self.open.as_ref().map(|open| open.cause.as_str())
    }

    /// Records that a job, which began at `began`, ended at `now`.
    ///
    /// A job that began before the breaker last closed is not in the window. A job that began before the end of the
    /// pause is not a trial. So jobs that were running when the breaker opened change nothing, however they end.
    pub fn ended(&mut self, began: Moment, now: Moment, ending: BreakerSignal<'_>) {
        match &self.open {
            None if began >= self.since => self.count(now, ending),
            Some(open) if began >= self.until(open) => self.tried(now, ending),
            _ => {}
        }
    }

    /// Ends the pause. Called when the cause may have been fixed.
    pub fn try_now(&mut self, now: Moment) {
        if let Some(open) = &mut self.open {
            open.failed_trials = 0;
            open.cut_short = Some(now);
        }
    }

    fn count(&mut self, now: Moment, ending: BreakerSignal<'_>) {
        let why = match ending {
            BreakerSignal::Answered => return self.window.add(now, false),
            BreakerSignal::Unproven(_) => return,
            BreakerSignal::Failed(why) => why,
        };
        self.window.add(now, true);
        let WindowPart { jobs, failed } = self.window.counted();
        let share = u64::from(self.rules.failure_percent);
        if jobs < u64::from(self.rules.min_jobs) || failed * 100 < share * jobs {
            return;
        }
        let window = duration(self.rules.window);
        self.open = Some(Open {
            at: now,
            cut_short: None,
            failed_trials: 0,
            cause: format!(
                "breaker open: {failed} of the last {} failed within {window}; last: {}",
                counted(jobs, "job"),
                cut(why)
            ),
        });
    }

    fn tried(&mut self, now: Moment, ending: BreakerSignal<'_>) {
        let (BreakerSignal::Failed(why) | BreakerSignal::Unproven(why)) = ending else {
            self.open = None;
            self.since = now;
            self.window = Window::new(self.rules.window);
            return;
        };
        let Some(open) = &mut self.open else { return };
        open.at = now;
        open.cut_short = None;
        open.failed_trials = open.failed_trials.saturating_add(1);
        let trials = counted(open.failed_trials, "trial");
        open.cause = format!("breaker open: {trials} failed; last: {}", cut(why));
    }

    fn until(&self, open: &Open) -> Moment {
        let longer = 2u32.pow(open.failed_trials.min(DOUBLINGS));
        let until = open.at + self.rules.pause.saturating_mul(longer);
        open.cut_short
            .map_or(until, |cut_short| cut_short.min(until))
    }
}

/// Jobs of the window, in parts of equal length.
#[derive(Debug, Clone)]
struct Window {
    part: Duration,
    /// The number of the newest part, counted from time zero.
    newest: u64,
    /// A ring: part number `n` is at index `n % PARTS`.
    parts: [WindowPart; PARTS],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct WindowPart {
    jobs: u64,
    failed: u64,
}

impl Window {
    fn new(length: Duration) -> Self {
        Self {
            part: (length / PARTS as u32).max(Duration::from_nanos(1)),
            newest: 0,
            parts: [WindowPart::default(); PARTS],
        }
    }

    /// Counts a job that ended at `now`, and forgets the jobs that left the window.
    fn add(&mut self, now: Moment, failed: bool) {
        let part = now.since(Moment::ZERO).as_nanos() / self.part.as_nanos();
        // Workers read the clock before they take the lock, so an earlier time may come after a later one.
        let part = u64::try_from(part).unwrap_or(u64::MAX).max(self.newest);
        let passed = (part - self.newest).min(PARTS as u64);
        for back in 0..passed {
            self.parts[(part - back) as usize % PARTS] = WindowPart::default();
        }
        self.newest = part;
        let counted = &mut self.parts[part as usize % PARTS];
        counted.jobs += 1;
        counted.failed += u64::from(failed);
    }

    /// The jobs within the window of the last counted job.
    fn counted(&self) -> WindowPart {
        let mut sum = WindowPart::default();
        for part in &self.parts {
            sum.jobs += part.jobs;
            sum.failed += part.failed;
        }
        sum
    }
}

fn cut(text: &str) -> &str {
    first_chars(text, CAUSE_CHARS)
}

#[cfg(test)]
mod tests;
