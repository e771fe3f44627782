//! Reconcile: from an observation and a census to a decision and a plan.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{
    Bounds, Census, Counts, Decision, DrainAfter, Inputs, Intake, Moment, Observation, Plan,
    Policy, Probe, Reading, Rule, Scaling, Term, observe::Believed, plan::plan,
    stabiliser::Stabiliser,
};

/// What a pool's size is decided by. Replaced whole when the configuration changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How many workers a demand deserves.
    pub policy: Policy,
    /// How fast the number may move.
    pub scaling: Scaling,
    /// How long a queue is empty before all workers drain.
    pub drain_after: DrainAfter,
    /// Workers kept on an empty queue.
    pub keep_warm: u32,
    /// Whether scaling down may stop running jobs.
    pub preempt: bool,
}

/// What one reconcile decided.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a plan changes nothing until it is applied"]
pub struct Reconciliation {
    /// Why.
    pub decision: Decision,
    /// What is to be done.
    pub plan: Plan,
}

/// What one reconcile did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReconcileResult {
    /// *Bare* workers created, or stopped where negative.
    pub workers_diff: i64,
    /// Metric events of each kind that cleanup, flush and delete issued together.
    pub metric_stats: BTreeMap<EventKind, u64>,
}

/// The kinds of metric events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A runner was brought up.
    RunnerInstalled,
    /// A runner was given a job.
    RunnerStart,
    /// A runner ended, with its job or without.
    RunnerStop,
    /// A reconcile.
    Reconciliation,
}

/// Decides, reconcile after reconcile. Holds what a decision needs of the past, and nothing else.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::decide::{
///     Census, Intake, Moment, Observation, Policy, Probe, Reconciler, Rules, Scaling, DrainAfter,
/// };
///
/// let mut reconciler = Reconciler::new(Rules {
///     policy: Policy::backlog(10).max(50),
///     scaling: Scaling::default(),
///     drain_after: DrainAfter::default(),
///     keep_warm: 0,
///     preempt: false,
/// });
/// let observation = Observation {
///     at: Moment::after_start(Duration::from_secs(1)),
///     probe: Probe::Answered { ready: 120, consumers: 0 },
///     consumers: 0,
///     held: 0,
///     holders: 0,
///     last_taken: None,
///     intake: Intake::Open,
/// };
/// let reconciliation = reconciler.reconcile(&observation, &Census::default());
/// assert_eq!(reconciliation.plan.spawn, 12);
/// println!("{}", reconciliation.decision);
/// ```
#[derive(Debug, Clone)]
pub struct Reconciler {
    rules: Rules,
    pin: Option<u32>,
    stabiliser: Stabiliser,
    reading: Option<Reading>,
    /// What the last probe's answer was worth.
    believed: Believed,
    /// When a message was last seen ready or taken.
    last_work: Option<Moment>,
    expected: u32,
}

impl Reconciler {
    /// A reconciler that has seen nothing yet, and so expects nothing.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            pin: None,
            stabiliser: Stabiliser::default(),
            reading: None,
            believed: Believed::Stale(String::from("no probe has come back yet")),
            last_work: None,
            expected: 0,
        }
    }

    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Changes the rules. The history stays: recommendations of the old policy hold a pool up for the rest of
    /// their window.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Pins the pool to a number of workers, or lets go of it.
    pub fn set_pin(&mut self, pin: Option<u32>) {
        self.pin = pin;
    }

    /// The pin.
    pub fn pin(&self) -> Option<u32> {
        self.pin
    }

    /// How many workers there should be, as of the last reconcile.
    pub fn expected(&self) -> u32 {
        self.expected
    }

    /// The last reading of the queue's depth that was believed.
    pub fn reading(&self) -> Option<Reading> {
        self.reading
    }

    /// Decides how many workers there should be, and plans the way there.
    ///
    /// # Guarantees
    /// Idempotent: the same observation on the census that the plan leads to yields an empty plan. Never reads a
    /// clock, and never waits.
    pub fn reconcile(&mut self, observation: &Observation, census: &Census) -> Reconciliation {
        let counts = census.counts();
        let believed = observation.believed(&self.believed);
        self.take_in(observation, &believed);

        let inputs = self.inputs(observation, &believed, counts);
        let mut terms = Vec::new();
        let (won, expected) = self.expect(observation, &believed, &inputs, &mut terms);
        self.expected = expected;

        let plan = plan(
            expected,
            census,
            Bounds {
                max: self.rules.policy.max,
                // Closing intake is no scaling: what runs goes on to its end.
                preempt: self.rules.preempt && observation.intake == Intake::Open,
            },
        );
        Reconciliation {
            decision: Decision {
                at: observation.at,
                inputs,
                terms,
                won,
                expected,
                plan: plan.summary(),
            },
            plan,
        }
    }

    /// Remembers what the observation says of the queue.
    fn take_in(&mut self, observation: &Observation, believed: &Believed) {
        match believed {
            _ if observation.probe == Probe::Held => {}
            Believed::Fresh(ready) => {
                self.reading = Some(Reading {
                    at: observation.at,
                    ready: *ready,
                });
                if *ready > 0 {
                    self.last_work = Some(observation.at);
                }
            }
            Believed::Missing => {
                // A queue that comes back is another queue: it starts empty.
                self.reading = None;
                self.last_work = None;
                self.stabiliser.clear();
            }
            Believed::Stale(_) => {}
        }
        self.last_work = self.last_work.max(observation.last_taken);
        self.believed = believed.clone();
    }

    fn inputs(&self, observation: &Observation, believed: &Believed, census: Counts) -> Inputs {
        let ready = self.reading.map_or(0, |reading| reading.ready);
        Inputs {
            ready,
            age: self.reading.map(|reading| observation.at.since(reading.at)),
            stale: match believed {
                Believed::Stale(why) => Some(why.clone()),
                Believed::Fresh(_) | Believed::Missing => None,
            },
            held: observation.held,
            holders: observation.holders,
            demand: ready.saturating_add(observation.held),
            quiet: self.last_work.map(|at| observation.at.since(at)),
            census,
            intake: observation.intake,
        }
    }

    /// The expected quantity: the first rule that applies gives it.
    fn expect(
        &mut self,
        observation: &Observation,
        believed: &Believed,
        inputs: &Inputs,
        terms: &mut Vec<Term>,
    ) -> (Rule, u32) {
        let closed = match observation.intake {
            Intake::Open | Intake::Trial | Intake::BreakerTrial => None,
            Intake::Paused => Some("paused: messages stay in the queue"),
            Intake::Draining => Some("draining: the pool is on its way out"),
            Intake::Faulted => Some("faulted: runners cannot start, so messages stay in the queue"),
            Intake::BreakerOpen => {
                Some("faulted: too many jobs fail, so messages stay in the queue")
            }
            Intake::Blocked => {
                Some("blocked: copies cannot be published, so messages stay in the queue")
            }
        };
        if let Some(why) = closed {
            term(terms, "intake", 0, why);
            return (Rule::Intake, 0);
        }
        if *believed == Believed::Missing {
            term(terms, "queue", 0, "the broker has no such queue");
            return (Rule::Missing, 0);
        }

        let (rule, expected) = self.expect_open(observation, believed, inputs, terms);
        if observation.intake.is_trial() && expected > 1 {
            let why = match observation.intake {
                Intake::BreakerTrial => "one job at a time until one does not fail",
                _ => "one job at a time until it is known that runners start",
            };
            term(terms, "trial", 1, why);
            return (Rule::Intake, 1);
        }
        (rule, expected)
    }

    fn expect_open(
        &mut self,
        observation: &Observation,
        believed: &Believed,
        inputs: &Inputs,
        terms: &mut Vec<Term>,
    ) -> (Rule, u32) {
        let max = self.rules.policy.max;
        if let Some(pin) = self.pin {
            term(terms, "pin", pin, "set by hand");
            return (Rule::Pin, clamp(terms, pin, max));
        }
        if let Believed::Stale(why) = believed {
            let expected = self.expected.min(max);
            term(
                terms,
                "frozen",
                expected,
                format!("the depth is not known: {why}"),
            );
            return (Rule::Frozen, expected);
        }
        if let Some(why) = self.empty(inputs) {
            self.stabiliser.clear();
            let busy = inputs.census.busy + inputs.census.retiring;
            let expected = self.rules.keep_warm.max(busy);
            let warm = self.rules.keep_warm;
            term(
                terms,
                "empty",
                expected,
                format!("{why}; keep_warm {warm}, {busy} busy"),
            );
            return (Rule::Empty, clamp(terms, expected, max));
        }
        (
            Rule::Policy,
            self.expect_by_policy(observation.at, inputs, terms),
        )
    }

    /// Whether the queue is empty by the pool's rule, and how that is known.
    fn empty(&self, inputs: &Inputs) -> Option<String> {
        let DrainAfter::After(drain_after) = self.rules.drain_after else {
            return None;
        };
        if inputs.ready > 0 {
            return None;
        }
        match inputs.quiet {
            None => Some(String::from("no message was ever seen")),
            Some(quiet) if quiet >= drain_after => {
                Some(format!("no message for {} or longer", human(drain_after)))
            }
            Some(_) => None,
        }
    }

    fn expect_by_policy(&mut self, now: Moment, inputs: &Inputs, terms: &mut Vec<Term>) -> u32 {
        let policy = &self.rules.policy;
        let mut workers = policy.workers_for(inputs.demand);
        term(terms, "policy", workers, policy.reason_for(inputs.demand));

        // More than this would only wait: each holder is one worker, and each ready message occupies one more. A
        // pool that never drains wants its workers to wait.
        if self.rules.drain_after != DrainAfter::Never {
            let useful = u64::from(inputs.holders).saturating_add(inputs.ready);
            let useful = u32::try_from(useful).unwrap_or(u32::MAX);
            if workers > useful {
                workers = useful;
                term(
                    terms,
                    "useful",
                    workers,
                    format!(
                        "{} workers hold a delivery, {} messages are ready: more would only wait",
                        inputs.holders, inputs.ready
                    ),
                );
            }
        }
        if workers < policy.min_active && self.last_work.is_some() {
            workers = policy.min_active;
            term(
                terms,
                "min_active",
                workers,
                "the floor while there is work",
            );
        }
        if workers > policy.max {
            workers = policy.max;
            term(terms, "max", workers, "the ceiling");
        }

        let scaling = &self.rules.scaling;
        let current = self.expected;
        let stabilised = self.stabiliser.stabilise(now, workers, current, scaling);
        if let Some(highest) = stabilised.window {
            term(
                terms,
                "window",
                highest.min(current),
                format!(
                    "{highest} was recommended within the last {}",
                    human(scaling.down_window)
                ),
            );
        }
        let unbounded = terms.last().map_or(workers, |term| term.workers);
        workers = stabilised.workers;
        if workers < unbounded {
            let why = format!("at most {} more than {current} at a time", scaling.up_step);
            term(terms, "up_step", workers, why);
        } else if workers > unbounded {
            let why = format!(
                "at most {} fewer than {current} at a time",
                scaling.down_step
            );
            term(terms, "down_step", workers, why);
        }
        // A ceiling that was lowered since binds at once, whatever the steps say.
        clamp(terms, workers, self.rules.policy.max)
    }
}

fn term(terms: &mut Vec<Term>, name: &'static str, workers: u32, why: impl Into<String>) {
    terms.push(Term {
        name,
        workers,
        why: why.into(),
    });
}

fn clamp(terms: &mut Vec<Term>, workers: u32, max: u32) -> u32 {
    if workers > max {
        term(terms, "max", max, "the ceiling");
    }
    workers.min(max)
}

fn human(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests;
