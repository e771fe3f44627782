//! The number of workers that there should be, with each term of the calculation. Changes only the reconciler's history.

use std::time::Duration;

use super::Reconciler;
use crate::{
    decide::{
        DrainAfter, Group, Inputs, Intake, Moment, Observation, Recommendation, Rule,
        ScalingPolicy as _, ScheduleState, ScheduledBounds, Situation, TermName,
        observe::CheckedProbe, record::Calculation, stabiliser::Movement,
    },
    text::{counted, duration, form_for},
};

impl Reconciler {
    /// The expected number. The first rule that applies gives it.
    pub(super) fn expect(
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
    pub(super) fn limit_churn(&mut self, now: Moment, calculation: &mut Calculation) {
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
    pub(super) fn raise_floor(&mut self, rule: Rule, expected: u32) {
        self.floor = self.floor.map(|floor| match rule {
            Rule::Pin => expected,
            Rule::Policy | Rule::Empty | Rule::Frozen => floor.max(expected),
            Rule::Intake | Rule::Missing => floor,
        });
    }

    /// Whether the queue is empty by the pool's rule. Returns the reason.
    fn empty(&self, inputs: &Inputs) -> Option<String> {
        let drain_after = self.rules.drain_after.at(inputs.measured.arrivals)?;
        if inputs.ready > 0 || inputs.taken_ahead() > 0 {
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
        let is_quiet = inputs.ready == 0 && inputs.held == 0 && inputs.taken_ahead() == 0;
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
        if let Some(set) = self.orders.policy.as_ref()
            && !set.by.is_dry_run()
        {
            why = format!("{why}; set by hand {set}");
        }
        let mut calculation = Calculation::new(TermName::Policy, workers, why);

        // More workers would only wait: each holder is one worker, and each message that can start needs one more. A
        // pool that never drains keeps its workers waiting.
        if self.rules.drain_after != DrainAfter::Never {
            let elsewhere = observation.group.as_ref().map_or(0, Group::busy_elsewhere);
            let holders = inputs.holders.saturating_add(elsewhere);
            let useful = u64::from(holders).saturating_add(inputs.startable());
            let useful = u32::try_from(useful).unwrap_or(u32::MAX);
            calculation.at_most(TermName::Useful, useful, || why_useful(inputs, holders));
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

/// Why more workers would only wait.
fn why_useful(inputs: &Inputs, holders: u32) -> String {
    let startable = inputs.startable();
    let (messages, are) = (
        counted(startable, "message"),
        form_for(startable, "is", "are"),
    );
    let can_start = match &inputs.ahead {
        None => format!("{messages} {are} ready"),
        Some(ahead) if ahead.room == 0 && ahead.blocked > 0 => {
            format!("{messages} can start, and key_window is full")
        }
        Some(_) => format!("{messages} can start"),
    };
    format!(
        "{} {} a delivery, {can_start}: more would only wait",
        counted(holders, "worker"),
        form_for(holders, "holds", "hold"),
    )
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
