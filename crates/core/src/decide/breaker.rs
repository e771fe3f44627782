//! The breaker: when so many jobs fail that running more of them would only burn their attempts.
//!
//! ```text
//!             a failure makes the share of failures too large
//!    closed ──────────────────────────────────────────────────► open
//!      ▲                                                        │  ▲
//!      │ a trial ends in any way but failure         after its  │  │ a trial fails:
//!      └──────────────────────────── trial ◄──────────── pause ─┘  │ twice the pause
//!                                      └───────────────────────────┘
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Moment;
use crate::text::first_chars;

/// Parts of the window: jobs are forgotten a part at a time, so that memory is the same however many they are.
const PARTS: usize = 16;
/// How often a pause may double.
const DOUBLINGS: u32 = 3;
/// Longest piece of a failure's own words that the cause repeats.
const CAUSE_CHARS: usize = 200;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerRules {
    /// Share of failures among the window's jobs from which it opens, in percent: 1 to 100.
    pub failure_percent: u8,
    /// How far back it looks, give or take a sixteenth.
    pub window: Duration,
    /// Fewest jobs in the window that a share is taken of: 1 or more.
    pub min_jobs: u32,
    /// How long it stays open before a trial. Doubled with each trial that fails, up to eight times as long.
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

/// What a breaker makes of a job's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending<'a> {
    /// The job said how it wants to be settled: done, later, or never. All that a breaker asks of a job.
    Answered,
    /// It failed, with this for a cause.
    Failed(&'a str),
    /// It ended without a result for a reason that is not the job's and is counted elsewhere: the command behind its
    /// wrapper did not start. Not in the window, but a trial that ends so has failed.
    Unproven(&'a str),
}

/// Whether jobs may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// As many as there are workers.
    Closed,
    /// None.
    Open {
        /// When the next one is a trial.
        until: Moment,
    },
    /// One at a time, until one does not fail.
    Trial,
}

/// A pool's breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    rules: BreakerRules,
    window: Window,
    /// Jobs that began before are of an earlier time, whenever they end.
    since: Moment,
    open: Option<Open>,
}

#[derive(Debug, Clone)]
struct Open {
    at: Moment,
    /// When its pause was cut short.
    cut_short: Option<Moment>,
    failed_trials: u32,
    cause: String,
}

impl Breaker {
    /// A closed one.
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

    /// Changes the rules. A closed one counts anew; an open one stays open, and its pause is as long as it would
    /// have been by these rules.
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

    /// Why it is open, in one line.
    pub fn cause(&self) -> Option<&str> {
        self.open.as_ref().map(|open| open.cause.as_str())
    }

    /// A job that began at `began` has come to its end at `now`.
    ///
    /// Only the present counts: a job that began before the breaker last closed is not of its window, and one that
    /// began before the pause was over is no trial. So the wave of jobs that ran when it opened changes nothing
    /// more, however they end.
    pub fn ended(&mut self, began: Moment, now: Moment, ending: Ending<'_>) {
        match &self.open {
            None if began >= self.since => self.count(now, ending),
            Some(open) if began >= self.until(open) => self.tried(now, ending),
            _ => {}
        }
    }

    /// Ends the pause: what made jobs fail may have been mended.
    pub fn try_now(&mut self, now: Moment) {
        if let Some(open) = &mut self.open {
            open.failed_trials = 0;
            open.cut_short = Some(now);
        }
    }

    fn count(&mut self, now: Moment, ending: Ending<'_>) {
        let why = match ending {
            Ending::Answered => return self.window.add(now, false),
            Ending::Unproven(_) => return,
            Ending::Failed(why) => why,
        };
        self.window.add(now, true);
        let Counted { jobs, failed } = self.window.counted();
        let share = u64::from(self.rules.failure_percent);
        if jobs < u64::from(self.rules.min_jobs) || failed * 100 < share * jobs {
            return;
        }
        let window = humantime::format_duration(self.rules.window);
        self.open = Some(Open {
            at: now,
            cut_short: None,
            failed_trials: 0,
            cause: format!(
                "breaker open: {failed} of the last {jobs} jobs failed within {window}; last: {}",
                cut(why)
            ),
        });
    }

    fn tried(&mut self, now: Moment, ending: Ending<'_>) {
        let (Ending::Failed(why) | Ending::Unproven(why)) = ending else {
            self.open = None;
            self.since = now;
            self.window = Window::new(self.rules.window);
            return;
        };
        let Some(open) = &mut self.open else { return };
        open.at = now;
        open.cut_short = None;
        open.failed_trials = open.failed_trials.saturating_add(1);
        let (n, s) = match open.failed_trials {
            1 => (String::from("a"), ""),
            n => (n.to_string(), "s"),
        };
        open.cause = format!("breaker open: {n} trial{s} failed; last: {}", cut(why));
    }

    fn until(&self, open: &Open) -> Moment {
        let longer = 2u32.pow(open.failed_trials.min(DOUBLINGS));
        let until = open.at + self.rules.pause.saturating_mul(longer);
        open.cut_short
            .map_or(until, |cut_short| cut_short.min(until))
    }
}

/// Jobs of the last while, in parts of equal length.
#[derive(Debug, Clone)]
struct Window {
    part: Duration,
    /// Which part of all time the newest of `parts` is.
    newest: u64,
    /// A ring: part `n` of all time is at `n % PARTS`.
    parts: [Counted; PARTS],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counted {
    jobs: u64,
    failed: u64,
}

impl Window {
    fn new(length: Duration) -> Self {
        Self {
            part: (length / PARTS as u32).max(Duration::from_nanos(1)),
            newest: 0,
            parts: [Counted::default(); PARTS],
        }
    }

    /// Counts a job that ended at `now`, and forgets those that ended too long before.
    fn add(&mut self, now: Moment, failed: bool) {
        let part = now.since(Moment::ZERO).as_nanos() / self.part.as_nanos();
        // Workers read the clock before they take their turn here, so one may come a little late.
        let part = u64::try_from(part).unwrap_or(u64::MAX).max(self.newest);
        let passed = (part - self.newest).min(PARTS as u64);
        for back in 0..passed {
            self.parts[(part - back) as usize % PARTS] = Counted::default();
        }
        self.newest = part;
        let counted = &mut self.parts[part as usize % PARTS];
        counted.jobs += 1;
        counted.failed += u64::from(failed);
    }

    /// What is within the window of the last job that was counted.
    fn counted(&self) -> Counted {
        let mut sum = Counted::default();
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
