//! The record of a decision: a plain answer to "why is the pool this size?".

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Inputs, Moment, Orders, PlanSummary};
use crate::text::{counted, form_for};

/// One complete decision: the inputs, each term in the order in which it applied, and the term that gave the number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Decision {
    /// The time of the decision, counted from the supervisor's start.
    pub at: Moment,
    /// The inputs of the decision.
    pub inputs: Inputs,
    /// The orders at that time.
    #[serde(default, skip_serializing_if = "Orders::is_empty")]
    pub by_hand: Orders,
    /// The calculation, term by term. Each term takes the number before it and gives the next.
    pub terms: Vec<Term>,
    /// The rule that began the calculation.
    pub rule: Rule,
    /// The term that decided the result: the last one that changed the number.
    pub won: TermName,
    /// The result: how many workers there should be.
    pub expected: u32,
    /// The number for the whole group, of which `expected` is a part. `None` if the policy was not asked, or the queue
    /// is not shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<u32>,
    /// The steps that follow.
    pub plan: PlanSummary,
}

/// One term of the calculation. It gave the first number, or changed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Term {
    /// Its name.
    pub name: TermName,
    /// Workers after it.
    pub workers: u32,
    /// The reason.
    pub why: String,
}

/// The names of the terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TermName {
    /// Intake is closed.
    Intake,
    /// The queue does not exist.
    Missing,
    /// A pin.
    Pin,
    /// The reading is stale, so the last expected number stays.
    Frozen,
    /// The queue is empty, so only the busy workers stay.
    Empty,
    /// The workers that stay on an empty queue.
    KeepWarm,
    /// The policy.
    Policy,
    /// No more workers than can have a message.
    Useful,
    /// The minimum that applies while there is work.
    MinActive,
    /// The maximum of the pool.
    Max,
    /// The operator forbade the pool to shrink.
    NoShrink,
    /// The limit on new workers per reconcile.
    UpStep,
    /// The highest recommendation within the window.
    Window,
    /// The limit on stopped workers per reconcile.
    DownStep,
    /// One worker, to test whether a fault is over.
    Trial,
    /// This daemon's part of the group's workers.
    Share,
    /// No growth until the members of the group agree.
    ShareWait,
    /// No growth into what other members of the group still have.
    ShareRoom,
    /// The limit on starts and stops within a minute.
    Churn,
    /// The host has no room for more workers.
    Pressure,
    /// The pool's part of the supervisor's workers.
    Budget,
}

impl TermName {
    /// Its name as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Missing => "missing",
            Self::Pin => "pin",
            Self::Frozen => "frozen",
            Self::Empty => "empty",
            Self::KeepWarm => "keep_warm",
            Self::Policy => "policy",
            Self::Useful => "useful",
            Self::MinActive => "min_active",
            Self::Max => "max",
            Self::NoShrink => "no_shrink",
            Self::UpStep => "up_step",
            Self::Window => "window",
            Self::DownStep => "down_step",
            Self::Trial => "trial",
            Self::Share => "share",
            Self::ShareWait => "share_wait",
            Self::ShareRoom => "share_room",
            Self::Churn => "churn",
            Self::Pressure => "pressure",
            Self::Budget => "budget",
        }
    }
}

/// A calculation in progress: a number, and the terms that changed it. A term that changes nothing is not recorded, so
/// the last term is always the one that decided the number.
#[derive(Debug, Clone)]
pub(super) struct Calculation {
    terms: Vec<Term>,
    workers: u32,
    won: TermName,
}

impl Calculation {
    /// Begins with this number.
    pub(super) fn new(name: TermName, workers: u32, why: impl Into<String>) -> Self {
        let why = why.into();
        Self {
            terms: vec![Term { name, workers, why }],
            workers,
            won: name,
        }
    }

    /// Lowers the number to at most `workers`.
    pub(super) fn at_most(&mut self, name: TermName, workers: u32, why: impl FnOnce() -> String) {
        if self.workers > workers {
            self.change(name, workers, why());
        }
    }

    /// Raises the number to at least `workers`.
    pub(super) fn at_least(&mut self, name: TermName, workers: u32, why: impl FnOnce() -> String) {
        if self.workers < workers {
            self.change(name, workers, why());
        }
    }

    fn change(&mut self, name: TermName, workers: u32, why: String) {
        self.workers = workers;
        self.won = name;
        self.terms.push(Term { name, workers, why });
    }

    /// The present number.
    pub(super) fn workers(&self) -> u32 {
        self.workers
    }

    /// The terms, and the name of the last one.
    pub(super) fn into_terms(self) -> (Vec<Term>, TermName) {
        (self.terms, self.won)
    }
}

/// The rules that can begin a calculation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rule {
    /// Intake is closed, or open for one trial.
    Intake,
    /// The queue does not exist.
    Missing,
    /// A pin.
    Pin,
    /// The reading is stale, so the last expected number stays.
    Frozen,
    /// The queue is empty.
    Empty,
    /// The policy.
    Policy,
}

impl Rule {
    /// Its name as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Missing => "missing",
            Self::Pin => "pin",
            Self::Frozen => "frozen",
            Self::Empty => "empty",
            Self::Policy => "policy",
        }
    }
}

/// The decision as text for a person, several lines.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inputs {
            ready,
            held,
            demand,
            census,
            ..
        } = &self.inputs;
        writeln!(f, "expected {} (by {})", self.expected, self.won.as_str())?;
        writeln!(f)?;
        writeln!(f, "seen")?;
        let reading = match (&self.inputs.stale, self.inputs.age) {
            (None, Some(_)) => String::from("fresh"),
            (Some(why), Some(age)) => format!("stale, {} old: {why}", short(age)),
            (Some(why), None) => format!("never read: {why}"),
            (None, None) => String::from("never read"),
        };
        writeln!(f, "  {:<11}{ready:>7}  {reading}", "ready")?;
        let holders = self.inputs.holders;
        let by = self.inputs.held_by.meaning(holders);
        let by = by.unwrap_or_else(|| format!("by {}", counted(holders, "worker")));
        writeln!(f, "  {:<11}{held:>7}  {by}", "held")?;
        if self.inputs.behind > 0 {
            writeln!(
                f,
                "  {:<11}{:>7}  of the held messages {} behind a running job; prefetch = 1 avoids that",
                "behind",
                self.inputs.behind,
                form_for(self.inputs.behind, "waits", "wait")
            )?;
        }
        let mut sum = String::from("ready + held");
        if let Some(ahead) = &self.inputs.ahead {
            writeln!(f, "  {:<11}{:>7}  {ahead}", "ahead", ahead.taken())?;
            sum.push_str(" + ahead");
        }
        match &self.inputs.group {
            None => writeln!(f, "  {:<11}{demand:>7}  {sum}", "demand")?,
            Some(group) => {
                let (elsewhere, n) = (group.held_by_others(), group.members.len() - 1);
                writeln!(
                    f,
                    "  {:<11}{elsewhere:>7}  held by {}",
                    "elsewhere",
                    counted(n, "other member")
                )?;
                writeln!(f, "  {:<11}{demand:>7}  {sum} + elsewhere", "demand")?;
            }
        }
        if let Some(quiet) = self.inputs.quiet {
            writeln!(
                f,
                "  {:<11}{:>7}  since a message was seen or taken",
                "quiet",
                short(quiet)
            )?;
        }
        writeln!(
            f,
            "  {:<11}{:>7}  {} bare, {} idle, {} busy, {} retiring (and {} draining)",
            "live",
            census.live(),
            census.bare,
            census.idle,
            census.busy,
            census.retiring,
            census.draining
        )?;
        if !self.by_hand.is_empty() {
            writeln!(f)?;
            writeln!(f, "set by hand")?;
            for line in self.by_hand.to_string().lines() {
                writeln!(f, "  {line}")?;
            }
        }
        if let Some(schedule) = &self.inputs.schedule {
            writeln!(f)?;
            writeln!(f, "schedule")?;
            for open in &schedule.open {
                writeln!(
                    f,
                    "  open       {} until {}: {}",
                    open.cron,
                    open.shown_until(),
                    open.bounds
                )?;
            }
            match &schedule.next {
                Some(next) => writeln!(
                    f,
                    "  next       {} from {}: {}",
                    next.cron,
                    next.shown_from(),
                    next.bounds
                )?,
                None => writeln!(f, "  next       none")?,
            }
        }
        writeln!(f)?;
        writeln!(f, "why")?;
        for term in &self.terms {
            let name = term.name.as_str();
            writeln!(f, "  {name:<11}{:>7}  {}", term.workers, term.why)?;
        }
        writeln!(f)?;
        write!(f, "plan         {}", self.plan)
    }
}

impl fmt::Display for PlanSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = [
            (self.lift, "keep", "retiring worker"),
            (self.spawn, "start", "worker"),
            (self.stop, "stop", "waiting worker"),
            (self.delete, "delete", "idle runner"),
            (self.retire, "retire", "busy worker"),
            (self.preempt, "preempt", "running job"),
        ];
        let mut first = true;
        for (n, verb, noun) in steps.into_iter().filter(|(n, ..)| *n > 0) {
            let comma = if first { "" } else { ", " };
            write!(f, "{comma}{verb} {}", counted(n, noun))?;
            first = false;
        }
        if first {
            f.write_str("nothing to do")
        } else {
            Ok(())
        }
    }
}

/// A duration with one unit, for a table.
fn short(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{:.1}s", duration.as_secs_f64()),
        seconds @ 60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}
