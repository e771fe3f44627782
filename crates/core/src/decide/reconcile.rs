//! Reconcile: from an observation and a census to a decision and a plan.

mod expected;
mod result;

pub use self::result::{EventKind, ReconcileResult};
use super::{
    Arrivals, Bounds, Census, Counts, Decision, DrainAfter, Group, HeldBy, Inputs, Intake,
    Measured, Moment, Observation, Orders, OwnPolicy, Plan, Policy, Probe, Reading, Rule, Scaling,
    Schedule, ScheduleState, ScheduledBounds, TakenAhead, TermName,
    measure::ArrivalMeter,
    observe::CheckedProbe,
    plan::plan,
    schedule::ScheduleCache,
    stabiliser::{ChurnMeter, Stabiliser},
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
///     ahead: None,
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
        let taken_ahead = observation.ahead.as_ref().map_or(0, TakenAhead::taken);
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
                    let in_queue = ready
                        .saturating_add(observation.held)
                        .saturating_add(taken_ahead)
                        .saturating_add(held);
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
        if taken_ahead > 0 {
            self.last_work = Some(observation.at);
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
            ahead: observation.ahead,
            demand: ready
                .saturating_add(observation.held)
                .saturating_add(observation.ahead.as_ref().map_or(0, TakenAhead::taken))
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
}

#[cfg(test)]
mod tests;
