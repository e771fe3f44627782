//! Reconcile: from an observation and a census to a decision and a plan.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::text::{counted, duration, form_for};

use super::{
    Arrivals, Bounds, Census, Counts, Decision, DrainAfter, Group, HeldBy, Inputs, Intake,
    Measured, Moment, Observation, Orders, OwnPolicy, Plan, Policy, Probe, Reading, Recommendation,
    Rule, Scaling, ScalingPolicy as _, Schedule, ScheduleState, ScheduledBounds, Situation,
    TermName,
    measure::ArrivalMeter,
    observe::CheckedProbe,
    plan::plan,
    record::Calculation,
    schedule::ScheduleCache,
    stabiliser::{ChurnMeter, Movement, Stabiliser},
};

/// The settings that decide a pool's size. Replaced as a whole when the configuration changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How many workers a demand needs, and the bounds.
    pub policy: Policy,
    /// The program's own policy, asked in place of `policy`, within the same bounds.
    pub own: Option<OwnPolicy>,
    /// How fast the number of workers may change.
    pub scaling: Scaling,
    /// How long a queue must be empty before all workers are stopped.
    pub drain_after: DrainAfter,
    /// Workers kept on an empty queue.
    pub keep_warm: u32,
    /// Whether scaling down may stop running jobs.
    pub preempt: bool,
    /// Bounds that change by the clock.
    pub schedule: Schedule,
}

/// The result of one reconcile.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a plan changes nothing until it is applied"]
pub struct Reconciliation {
    /// The reason.
    pub decision: Decision,
    /// The number of workers before the supervisor's limit applied.
    pub wanted: u32,
    /// The steps to take.
    pub plan: Plan,
}

/// The effects of one reconcile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReconcileResult {
    /// *Bare* workers that were started. Negative if they were stopped.
    pub workers_diff: i64,
    /// Number of metric events of each kind that cleanup, flush and delete issued together.
    pub metric_stats: BTreeMap<EventKind, u64>,
    /// Running jobs that a flush told to stop. Each ends later, and its end is an event of its own.
    #[serde(default)]
    pub jobs_told: u64,
}

impl ReconcileResult {
    /// The sum of this report and `later`.
    #[must_use]
    pub fn and(mut self, later: &Self) -> Self {
        self.workers_diff += later.workers_diff;
        self.jobs_told += later.jobs_told;
        for (kind, events) in &later.metric_stats {
            *self.metric_stats.entry(*kind).or_default() += events;
        }
        self
    }
}

/// The kinds of metric events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A runner was created.
    RunnerInstalled,
    /// A runner was given a job.
    RunnerStart,
    /// A runner ended, with its job or without.
    RunnerStop,
    /// A reconcile.
    Reconciliation,
}

/// Decides on each reconcile. Holds only the history that a decision needs.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::decide::{
///     Census, DrainAfter, HeldBy, Intake, Moment, Observation, Policy, Probe, Reconciler, Rules, Scaling, Schedule,
///     Timings,
/// };
///
/// let mut reconciler = Reconciler::new(Rules {
///     policy: Policy::backlog(10).max(50),
///     own: None,
///     scaling: Scaling::default(),
///     drain_after: DrainAfter::default(),
///     keep_warm: 0,
///     preempt: false,
///     schedule: Schedule::default(),
/// });
/// let observation = Observation {
///     at: Moment::after_start(Duration::from_secs(1)),
///     wall: None,
///     probe: Probe::Answered { ready: 120, consumers: 0 },
///     consumers: 0,
///     held: 0,
///     holders: 0,
///     last_taken: None,
///     gone: 0,
///     oldest: None,
///     timings: Timings::default(),
///     intake: Intake::Open,
///     group: None,
///     allowance: None,
///     pressure: None,
///     held_by: HeldBy::Workers,
/// };
/// let reconciliation = reconciler.reconcile(&observation, &Census::default());
/// assert_eq!(reconciliation.plan.spawn, 12);
/// println!("{}", reconciliation.decision);
/// ```
#[derive(Debug, Clone)]
pub struct Reconciler {
    rules: Rules,
    orders: Orders,
    /// The minimum of expected workers while shrinking is forbidden.
    floor: Option<u32>,
    stabiliser: Stabiliser,
    reading: Option<Reading>,
    /// The last checked result of a probe.
    last_probe: CheckedProbe,
    /// When a message was last seen ready or taken.
    last_work: Option<Moment>,
    arrivals: ArrivalMeter,
    churn: ChurnMeter,
    schedule_cache: ScheduleCache,
    /// The policy in force: the rules' or the one set by hand, with the bounds of the schedule.
    in_force: Policy,
    expected: u32,
    /// The last number for the whole group, while the pool shares its queue.
    whole: Option<u32>,
}

impl Reconciler {
    /// A reconciler without observations. It expects no workers.
    pub fn new(rules: Rules) -> Self {
        Self {
            in_force: rules.policy.clone(),
            churn: ChurnMeter::default(),
            schedule_cache: ScheduleCache::default(),
            rules,
            orders: Orders::default(),
            floor: None,
            stabiliser: Stabiliser::default(),
            reading: None,
            last_probe: CheckedProbe::Stale(String::from("no probe has come back yet")),
            last_work: None,
            arrivals: ArrivalMeter::default(),
            expected: 0,
            whole: None,
        }
    }

    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Changes the rules. The history stays: recommendations of the old policy still count until they leave the window.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
        self.schedule_cache.clear();
        self.refresh_policy(ScheduledBounds::default());
    }

    /// Sets the operator's orders.
    pub fn set_orders(&mut self, orders: Orders) {
        self.floor = orders
            .no_shrink
            .as_ref()
            .map(|_| self.floor.unwrap_or(self.expected));
        if self.whole.is_some() && self.orders.policy != orders.policy {
            // The others count with their own policy. What this one recommended before must not become growth later.
            self.stabiliser.clear();
            self.whole = None;
        }
        self.orders = orders;
        self.refresh_policy(ScheduledBounds::default());
    }

    /// The policy in force: the one set by hand, otherwise the one of the rules. From the first reconcile on with the
    /// bounds that the schedule set at the last one.
    pub fn policy(&self) -> &Policy {
        &self.in_force
    }

    fn refresh_policy(&mut self, scheduled: ScheduledBounds) {
        let by_hand = self.orders.policy.as_ref().map(|set| &set.what.policy);
        self.in_force = self.rules.policy.scheduled(&scheduled, by_hand);
    }

    /// The state of the schedule at the time of the observation. `None` without a schedule, or without a wall clock.
    fn schedule_state(&mut self, observation: &Observation) -> Option<ScheduleState> {
        if self.rules.schedule.is_empty() {
            return None;
        }
        let state = self
            .schedule_cache
            .at(&self.rules.schedule, observation.wall?)
            .clone();
        self.refresh_policy(state.bounds);
        Some(state)
    }

    /// The program's own policy, if it decides. If the operator set a kind of policy by hand, that policy decides. An
    /// order that sets only bounds keeps the program's own policy.
    pub fn own_policy(&self) -> Option<&OwnPolicy> {
        let by_hand = self.orders.policy.as_ref();
        self.rules
            .own
            .as_ref()
            .filter(|_| by_hand.is_none_or(|set| !set.what.names_a_kind()))
    }

    /// The scaling in force.
    fn scaling(&self) -> Scaling {
        let by_hand = self.orders.policy.as_ref();
        by_hand.map_or(self.rules.scaling, |set| set.what.scaling)
    }

    /// How many workers there should be, according to the last reconcile.
    pub fn expected(&self) -> u32 {
        self.expected
    }

    /// The arrivals of the whole queue, as of the last reading.
    pub fn arrivals(&self) -> Option<Arrivals> {
        self.arrivals.arrivals()
    }

    /// The last trusted reading of the queue's depth.
    pub fn reading(&self) -> Option<Reading> {
        self.reading
    }

    /// Decides how many workers there should be, and plans the steps.
    ///
    /// # Guarantees
    /// Idempotent: the same observation on the census after the plan gives an empty plan. Never reads a clock, and
    /// never waits.
    pub fn reconcile(&mut self, observation: &Observation, census: &Census) -> Reconciliation {
        let counts = census.counts();
        let probe = observation.check_probe(&self.last_probe);
        self.record_observation(observation, &probe);

        let schedule = self.schedule_state(observation);
        let inputs = self.inputs(observation, &probe, counts, schedule);
        let (rule, mut calculation) = self.expect(observation, &probe, &inputs);
        let wanted = calculation.workers();
        if let Some(allowance) = &observation.allowance {
            calculation.at_most(TermName::Budget, allowance.workers, || {
                allowance.why.clone()
            });
        }
        if observation.group.is_none() || !matches!(rule, Rule::Policy | Rule::Frozen) {
            self.whole = None;
        }
        let expected = calculation.workers();
        let (terms, won) = calculation.into_terms();
        if matches!(rule, Rule::Policy | Rule::Empty) {
            self.churn
                .count(observation.at, expected.abs_diff(self.expected));
        }
        self.expected = expected;
        self.raise_floor(rule, expected);

        let plan = plan(
            expected,
            census,
            Bounds {
                max: self.policy().max,
                // Closing intake is not scaling down: running jobs continue to their end.
                preempt: self.rules.preempt && observation.intake == Intake::Open,
            },
        );
        Reconciliation {
            decision: Decision {
                at: observation.at,
                inputs,
                by_hand: self.orders.clone(),
                terms,
                rule,
                won,
                expected,
                whole: self.whole,
                plan: plan.summary(),
            },
            wanted,
            plan,
        }
    }

    /// Remembers the queue's part of the observation.
    fn record_observation(&mut self, observation: &Observation, probe: &CheckedProbe) {
        match probe {
            _ if observation.probe == Probe::Skipped => {}
            CheckedProbe::Fresh(ready) => {
                self.reading = Some(Reading {
                    at: observation.at,
                    ready: *ready,
                });
                // Nobody can tell how many messages came where nobody counts those that went.
                if !matches!(observation.held_by, HeldBy::Assumed { .. }) {
                    // Arrivals are those of the whole queue, as the policy is.
                    let (held, gone) = match &observation.group {
                        Some(group) => (group.held_by_others(), group.gone_elsewhere),
                        None => (0, 0),
                    };
                    let in_queue = ready.saturating_add(observation.held).saturating_add(held);
                    let gone = observation.gone.saturating_add(gone);
                    self.arrivals.see(observation.at, in_queue, gone);
                }
                if *ready > 0 {
                    self.last_work = Some(observation.at);
                }
            }
            CheckedProbe::Missing => {
                // A queue that comes back is a new queue: it starts empty.
                self.reading = None;
                self.last_work = None;
                self.stabiliser.clear();
                self.arrivals.clear();
                self.floor = self.floor.map(|_| 0);
            }
            CheckedProbe::Stale(_) => {}
        }
        self.last_work = self.last_work.max(observation.last_taken);
        self.last_probe = probe.clone();
    }

    fn inputs(
        &self,
        observation: &Observation,
        probe: &CheckedProbe,
        census: Counts,
        schedule: Option<ScheduleState>,
    ) -> Inputs {
        let ready = self.reading.map_or(0, |reading| reading.ready);
        let elsewhere = observation.group.as_ref().map_or(0, Group::held_by_others);
        let waiting_elsewhere = observation
            .group
            .as_ref()
            .map_or(0, Group::waiting_in_others);
        Inputs {
            ready,
            age: self.reading.map(|reading| observation.at.since(reading.at)),
            stale: match probe {
                CheckedProbe::Stale(why) => Some(why.clone()),
                CheckedProbe::Fresh(_) | CheckedProbe::Missing => None,
            },
            held: observation.held,
            holders: observation.holders,
            held_by: observation.held_by.clone(),
            behind: match observation.held_by {
                HeldBy::Workers => observation
                    .held
                    .saturating_sub(u64::from(observation.holders))
                    .saturating_add(waiting_elsewhere),
                // A program decides by itself how it spreads the messages that it holds.
                HeldBy::Counted { .. } | HeldBy::Assumed { .. } => 0,
            },
            demand: ready
                .saturating_add(observation.held)
                .saturating_add(elsewhere),
            quiet: self.last_work.map(|at| observation.at.since(at)),
            census,
            intake: observation.intake,
            rates: self.arrivals.rates(),
            oldest: observation
                .oldest
                .or_else(|| self.arrivals.oldest(observation.at, ready)),
            group: observation.group.clone(),
            schedule,
            measured: Measured {
                arrivals: self.arrivals.arrivals(),
                timings: observation.timings,
            },
        }
    }

    /// The expected number. The first rule that applies gives it.
    fn expect(
        &mut self,
        observation: &Observation,
        probe: &CheckedProbe,
        inputs: &Inputs,
    ) -> (Rule, Calculation) {
        let by_hand = || match &self.orders.intake {
            Some(order) => format!(", set by hand {order}"),
            None => String::new(),
        };
        let closed = match observation.intake {
            Intake::Open | Intake::Trial | Intake::BreakerTrial => None,
            Intake::Paused => Some(format!("paused{}: messages stay in the queue", by_hand())),
            Intake::Emptying => Some(format!("drained{}: messages stay in the queue", by_hand())),
            Intake::Draining => Some(String::from("draining: the pool is being shut down")),
            Intake::Faulted => Some(String::from(
                "faulted: runners cannot start, so messages stay in the queue",
            )),
            Intake::BreakerOpen => Some(String::from(
                "faulted: too many jobs fail, so messages stay in the queue",
            )),
            Intake::Blocked => Some(String::from(
                "blocked: copies cannot be published, so messages stay in the queue",
            )),
        };
        if let Some(why) = closed {
            return (Rule::Intake, Calculation::new(TermName::Intake, 0, why));
        }
        if *probe == CheckedProbe::Missing {
            let why = "the broker has no such queue";
            return (Rule::Missing, Calculation::new(TermName::Missing, 0, why));
        }

        let (rule, mut calculation) = self.expect_open(observation, probe, inputs);
        if observation.intake.is_trial() && calculation.workers() > 1 {
            calculation.at_most(TermName::Trial, 1, || {
                String::from(match observation.intake {
                    Intake::BreakerTrial => "one job at a time until one does not fail",
                    _ => "one job at a time until it is known that runners start",
                })
            });
            return (Rule::Intake, calculation);
        }
        (rule, calculation)
    }

    fn expect_open(
        &mut self,
        observation: &Observation,
        probe: &CheckedProbe,
        inputs: &Inputs,
    ) -> (Rule, Calculation) {
        let (rule, mut calculation) = if let Some(pin) = &self.orders.pin {
            let why = format!("set by hand {pin}");
            (Rule::Pin, Calculation::new(TermName::Pin, pin.what, why))
        } else if let CheckedProbe::Stale(why) = probe {
            let why = format!("the depth is not known: {why}");
            let frozen = Calculation::new(TermName::Frozen, self.expected, why);
            (Rule::Frozen, frozen)
        } else if let Some(why) = self.empty(inputs) {
            self.stabiliser.clear();
            let busy = inputs.census.busy + inputs.census.retiring;
            let why = format!("{why}; {busy} busy");
            let mut empty = Calculation::new(TermName::Empty, busy, why);
            let scheduled = inputs
                .schedule
                .as_ref()
                .and_then(|state| state.bounds.keep_warm);
            let kept = scheduled.unwrap_or(self.rules.keep_warm);
            let kept = match &observation.group {
                Some(group) => group.share_of(kept),
                None => kept,
            };
            empty.at_least(TermName::KeepWarm, kept, || {
                String::from("kept on an empty queue")
            });
            (Rule::Empty, empty)
        } else {
            (Rule::Policy, self.expect_by_policy(observation, inputs))
        };
        if let (Some(floor), Some(order)) = (self.floor, &self.orders.no_shrink)
            && matches!(rule, Rule::Policy | Rule::Empty)
        {
            calculation.at_least(TermName::NoShrink, floor, || {
                format!("set by hand not to shrink {order}")
            });
        }
        if matches!(rule, Rule::Policy | Rule::Empty) {
            self.limit_churn(observation.at, &mut calculation);
        }
        if let (Some(why), Rule::Policy) = (&observation.pressure, rule) {
            // The floor stays possible, so that no pool with work stands still.
            let most = self.expected.max(self.policy().min_active);
            calculation.at_most(TermName::Pressure, most, || format!("no growth: {why}"));
        }
        // A ceiling that was lowered applies at once, and limits every other term.
        let max = self.policy().max;
        calculation.at_most(TermName::Max, max, || {
            ceiling(inputs.schedule.as_ref(), max)
        });
        (rule, calculation)
    }

    /// Keeps the changes of the last minute within the limit.
    fn limit_churn(&mut self, now: Moment, calculation: &mut Calculation) {
        let Some(churn) = self.scaling().churn else {
            return;
        };
        let left = self.churn.left(now, churn);
        let why = || {
            let are = form_for(left, "is", "are");
            format!("at most {churn} starts and stops a minute, {left} {are} left")
        };
        calculation.at_most(TermName::Churn, self.expected.saturating_add(left), why);
        calculation.at_least(TermName::Churn, self.expected.saturating_sub(left), why);
    }

    /// Sets the floor of a pool that may not shrink. A closed intake and a trial do not lower the floor. A pin does,
    /// because it is an order of the operator with a number.
    fn raise_floor(&mut self, rule: Rule, expected: u32) {
        self.floor = self.floor.map(|floor| match rule {
            Rule::Pin => expected,
            Rule::Policy | Rule::Empty | Rule::Frozen => floor.max(expected),
            Rule::Intake | Rule::Missing => floor,
        });
    }

    /// Whether the queue is empty by the pool's rule. Returns the reason.
    fn empty(&self, inputs: &Inputs) -> Option<String> {
        let drain_after = self.rules.drain_after.at(inputs.measured.arrivals)?;
        if inputs.ready > 0 {
            return None;
        }
        match inputs.quiet {
            None => Some(String::from("no message was ever seen")),
            Some(quiet) if quiet >= drain_after => Some(format!(
                "no message for {} or longer",
                duration(drain_after)
            )),
            Some(_) => None,
        }
    }

    /// How long an empty queue keeps its workers, if that is longer than usual because messages come often.
    fn kept_waiting(&self, inputs: &Inputs) -> Option<Duration> {
        let DrainAfter::ByArrivals(usual) = self.rules.drain_after else {
            return None;
        };
        let drain_after = self.rules.drain_after.at(inputs.measured.arrivals)?;
        let is_quiet = inputs.ready == 0 && inputs.held == 0;
        (is_quiet && drain_after > usual).then_some(drain_after)
    }

    fn expect_by_policy(&mut self, observation: &Observation, inputs: &Inputs) -> Calculation {
        let now = observation.at;
        let policy = self.policy().clone();
        let current = match &observation.group {
            None => self.expected,
            // The policy and the steps are about the whole group's number.
            Some(group) => self
                .whole
                .unwrap_or_else(|| self.expected.saturating_add(group.workers_elsewhere())),
        };
        let situation = Situation {
            now,
            wall: observation.wall,
            inputs,
            expected: current,
            oldest: inputs.oldest,
            rates: inputs.rates,
            measured: inputs.measured,
        };
        let Recommendation { workers, mut why } = match self.own_policy() {
            Some(own) => own.recommend(&situation),
            None => policy.clone().recommend(&situation),
        };
        if let Some(set) = &self.orders.policy {
            why = format!("{why}; set by hand {set}");
        }
        let mut calculation = Calculation::new(TermName::Policy, workers, why);

        // More workers would only wait: each holder is one worker, and each ready message needs one more. A pool that
        // never drains keeps its workers waiting.
        if self.rules.drain_after != DrainAfter::Never {
            let elsewhere = observation.group.as_ref().map_or(0, Group::busy_elsewhere);
            let holders = inputs.holders.saturating_add(elsewhere);
            let useful = u64::from(holders).saturating_add(inputs.ready);
            let useful = u32::try_from(useful).unwrap_or(u32::MAX);
            calculation.at_most(TermName::Useful, useful, || {
                format!(
                    "{} {} a delivery, {} {} ready: more would only wait",
                    counted(holders, "worker"),
                    form_for(holders, "holds", "hold"),
                    counted(inputs.ready, "message"),
                    form_for(inputs.ready, "is", "are")
                )
            });
        }
        if self.last_work.is_some() {
            calculation.at_least(TermName::MinActive, policy.min_active, || {
                let by = by_schedule(inputs.schedule.as_ref(), policy.min_active, |bounds| {
                    bounds.min_active
                });
                match self.kept_waiting(inputs) {
                    Some(drain_after) => format!(
                        "the floor until the queue has been empty for {}: messages come often{by}",
                        duration(drain_after)
                    ),
                    None => format!("the floor while there is work{by}"),
                }
            });
        }
        calculation.at_most(TermName::Max, policy.max, || {
            ceiling(inputs.schedule.as_ref(), policy.max)
        });

        let scaling = &self.scaling();
        let recommended = calculation.workers();
        let Movement {
            up_to,
            highest,
            held_at,
            down_to,
        } = self.stabiliser.movement(now, recommended, current, scaling);
        calculation.at_most(TermName::UpStep, up_to, || {
            format!("at most {} more than {current} at a time", scaling.up_step)
        });
        calculation.at_least(TermName::Window, held_at, || {
            let window = duration(scaling.down_window);
            format!("{highest} was recommended within the last {window}")
        });
        calculation.at_least(TermName::DownStep, down_to, || {
            let step = scaling.down_step;
            format!("at most {step} fewer than {current} at a time")
        });
        if let Some(group) = &observation.group {
            self.whole = Some(calculation.workers());
            self.take_share(group, &mut calculation);
        }
        calculation
    }

    /// Lowers the group's number to this daemon's part of it. Until the members agree, the daemon does not grow. It
    /// never grows into what others still have: a member that gives workers up does so as their jobs end.
    fn take_share(&self, group: &Group, calculation: &mut Calculation) {
        let (whole, members) = (calculation.workers(), group.members.len());
        calculation.at_most(TermName::Share, group.share_of(whole), || {
            format!("this daemon's part of {whole} in a group of {members}")
        });
        if !group.settled {
            calculation.at_most(TermName::ShareWait, self.expected, || {
                String::from(match group.deaf {
                    true => "the group cannot be heard: no growth until it can",
                    false => "a member joined or left just now: no growth until all know it",
                })
            });
        }
        if let Some(first) = group.differing.first() {
            calculation.at_most(TermName::ShareWait, self.expected, || {
                format!(
                    "{first} has another policy for this queue: no growth until they are the same"
                )
            });
        }
        if group.deaf {
            // The last numbers of the other members are out of date. The shares alone keep the sum within the whole.
            return;
        }
        let elsewhere = group.workers_elsewhere();
        let room = whole.saturating_sub(elsewhere).max(self.expected);
        calculation.at_most(TermName::ShareRoom, room, || {
            format!(
                "the other members have {elsewhere} of {}",
                counted(whole, "worker")
            )
        });
    }
}

fn ceiling(schedule: Option<&ScheduleState>, max: u32) -> String {
    format!(
        "the ceiling{}",
        by_schedule(schedule, max, |bounds| bounds.max)
    )
}

/// Names the entry of the schedule that gives a bound. Empty if another bound is in force, because then an operator set
/// it by hand.
fn by_schedule(
    schedule: Option<&ScheduleState>,
    in_force: u32,
    bound: impl Fn(&ScheduledBounds) -> Option<u32>,
) -> String {
    let entry = schedule.and_then(|state| state.entry_for(&bound));
    let entry = entry.filter(|entry| bound(&entry.bounds) == Some(in_force));
    entry.map_or_else(String::new, |entry| {
        format!(
            ", by the schedule {} until {}",
            entry.cron,
            entry.shown_until()
        )
    })
}

#[cfg(test)]
mod tests;
