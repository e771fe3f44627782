//! The record of a decision: a plain answer to "why is the pool this size?".

use std::{fmt, time::Duration};

use serde::Serialize;

use super::{Counts, Intake, Moment, PlanSummary};

/// One decision, whole: what was seen, each term in the order it applied, and what won.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Decision {
    /// When, since the supervisor's start.
    pub at: Moment,
    /// What the decision was made from.
    pub inputs: Inputs,
    /// The calculation, term by term: each takes the number before it and gives the next.
    pub terms: Vec<Term>,
    /// Which rule gave the result.
    pub won: Rule,
    /// The result: how many workers there should be.
    pub expected: u32,
    /// What is done about it.
    pub plan: PlanSummary,
}

/// What a decision was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Inputs {
    /// Messages ready in the queue, from the last reading that was believed.
    pub ready: u64,
    /// Age of that reading; `None` before the first.
    pub age: Option<Duration>,
    /// Why the newest probe was not believed, where it was not.
    pub stale: Option<String>,
    /// Deliveries held by live workers.
    pub held: u64,
    /// Live workers that hold one.
    pub holders: u32,
    /// Ready plus held.
    pub demand: u64,
    /// Time since a message was last seen or taken; `None` where there never was one.
    pub quiet: Option<Duration>,
    /// What was there.
    pub census: Counts,
    /// Whether the pool takes messages.
    pub intake: Intake,
}

/// One term of the calculation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Term {
    /// Its name.
    pub name: &'static str,
    /// Workers after it.
    pub workers: u32,
    /// Why.
    pub why: String,
}

/// Which rule gave the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rule {
    /// Intake is closed, or open for one trial.
    Intake,
    /// There is no such queue.
    Missing,
    /// A pin.
    Pin,
    /// The reading is stale, so the last expectation stands.
    Frozen,
    /// The queue is empty.
    Empty,
    /// The policy.
    Policy,
}

impl Rule {
    /// A word for it.
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

/// The decision for a person, several lines.
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
        writeln!(
            f,
            "  {:<11}{held:>7}  by {} worker{}",
            "held",
            self.inputs.holders,
            if self.inputs.holders == 1 { "" } else { "s" }
        )?;
        writeln!(f, "  {:<11}{demand:>7}  ready + held", "demand")?;
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
        writeln!(f)?;
        writeln!(f, "why")?;
        for term in &self.terms {
            writeln!(f, "  {:<11}{:>7}  {}", term.name, term.workers, term.why)?;
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
            let plural = if n == 1 { "" } else { "s" };
            write!(f, "{comma}{verb} {n} {noun}{plural}")?;
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
