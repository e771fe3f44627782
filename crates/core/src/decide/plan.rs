//! The plan: the steps from the present workers to the expected number. Data, not action.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{Census, CensusWorker, Counts, Phase, RunnerId, WorkerId};

/// The steps. Apply all of them to the workers and runners of the census, without a wait in between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "a plan changes nothing until it is applied"]
pub struct Plan {
    /// Busy workers that are no longer marked to retire.
    pub lift: Vec<WorkerId>,
    /// Bare workers to start.
    pub spawn: u32,
    /// Waiting workers to stop, newest first. Workers without an idle runner come first, then workers that go with a
    /// runner of `delete`.
    pub stop: Vec<WorkerId>,
    /// Idle runners to delete, newest first.
    pub delete: Vec<RunnerId>,
    /// Busy workers to mark: each stops after its job is settled. Newest first.
    pub retire: Vec<WorkerId>,
    /// Busy workers whose jobs are stopped and given back. Newest first. Empty unless the pool allows it.
    pub preempt: Vec<WorkerId>,
    /// How many workers of `stop` are bare. The others go with their runners.
    pub bare_stopped: u32,
}

/// A [`Plan`] in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are those of `Plan`, counted")]
pub struct PlanSummary {
    pub lift: u32,
    pub spawn: u32,
    pub stop: u32,
    pub delete: u32,
    pub retire: u32,
    pub preempt: u32,
}

impl PlanSummary {
    /// How many runners to start before a job needs them. `ready`: how many the manager keeps ready. `starting`: those that
    /// are on their way. There are never more runners without a job than workers that will wait once the plan is applied.
    pub fn runners_to_start(&self, counts: &Counts, ready: u32, starting: u32) -> u32 {
        let waiting = counts.waiting.saturating_sub(self.stop) + self.spawn;
        let idle = counts.idle.saturating_sub(self.delete);
        ready.min(waiting).saturating_sub(idle + starting)
    }
}

/// The bounds of every plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The maximum number of workers, including draining ones.
    pub max: u32,
    /// Whether scaling down may stop running jobs.
    pub preempt: bool,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// *Bare* workers that are started. Negative if they are stopped. A worker that stops with its runner is counted as
    /// the end of that runner, not here.
    pub fn workers_diff(&self) -> i64 {
        i64::from(self.spawn) - i64::from(self.bare_stopped)
    }

    /// The plan in numbers.
    pub fn summary(&self) -> PlanSummary {
        PlanSummary {
            lift: count(&self.lift),
            spawn: self.spawn,
            stop: count(&self.stop),
            delete: count(&self.delete),
            retire: count(&self.retire),
            preempt: count(&self.preempt),
        }
    }
}

fn count<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

/// Plans the steps from `census` to `expected` workers.
///
/// # Guarantees
/// Applying the plan reaches `expected`, as far as [`Bounds::max`] and draining workers allow. Planning again on the
/// result gives an empty plan. No runner is stopped while a bare worker stays. Without [`Bounds::preempt`] no running
/// job is stopped.
pub fn plan(expected: u32, census: &Census, bounds: Bounds) -> Plan {
    let counts = census.counts();
    let staying = counts.staying();
    let mut plan = Plan::default();

    if expected > staying {
        let wanted = expected - staying;
        plan.lift = newest(census, Phase::Retiring, wanted);
        let free = bounds.max.saturating_sub(counts.towards_max());
        plan.spawn = (wanted - count(&plan.lift)).min(free);
    } else {
        let surplus = staying - expected;
        plan.stop = newest(census, Phase::Waiting, surplus);
        plan.bare_stopped = count(&plan.stop).min(counts.bare);
        let busy = newest(census, Phase::Busy, surplus - count(&plan.stop));
        if bounds.preempt {
            plan.preempt = busy;
        } else {
            plan.retire = busy;
        }
    }

    // Each waiting worker needs one runner, so the runners above that number go. This includes the runners of workers
    // that were lost with their connection, unless this plan starts as many new workers.
    let waiting_after = counts.waiting - count(&plan.stop) + plan.spawn;
    let runners_over = counts.idle.saturating_sub(waiting_after) as usize;
    plan.delete = census
        .idle_runners()
        .iter()
        .rev()
        .take(runners_over)
        .copied()
        .collect();
    plan
}

/// The newest `most` workers in `phase`.
fn newest(census: &Census, phase: Phase, most: u32) -> Vec<WorkerId> {
    if most == 0 {
        return Vec::new();
    }
    census
        .workers()
        .iter()
        .rev()
        .filter(|worker| worker.phase == phase)
        .take(most as usize)
        .map(|worker| worker.id)
        .collect()
}

impl Census {
    /// The census after `plan` is applied and every stopped worker has ended. For simulation and properties.
    #[must_use]
    pub fn after(&self, plan: &Plan) -> Self {
        let gone: HashSet<WorkerId> = plan.stop.iter().copied().collect();
        let preempted: HashSet<WorkerId> = plan.preempt.iter().copied().collect();
        let lifted: HashSet<WorkerId> = plan.lift.iter().copied().collect();
        let retired: HashSet<WorkerId> = plan.retire.iter().copied().collect();
        let deleted: HashSet<RunnerId> = plan.delete.iter().copied().collect();
        let next = self.workers().last().map_or(0, |worker| worker.id.0 + 1);

        let kept = self
            .workers()
            .iter()
            .filter(|worker| !gone.contains(&worker.id))
            .map(|worker| CensusWorker {
                id: worker.id,
                phase: match worker.phase {
                    _ if lifted.contains(&worker.id) => Phase::Busy,
                    _ if retired.contains(&worker.id) => Phase::Retiring,
                    _ if preempted.contains(&worker.id) => Phase::Draining,
                    phase => phase,
                },
            });
        let spawned = (next..next + u64::from(plan.spawn)).map(|id| CensusWorker {
            id: WorkerId(id),
            phase: Phase::Waiting,
        });
        Self::new(
            kept.chain(spawned).collect(),
            self.idle_runners()
                .iter()
                .filter(|id| !deleted.contains(id))
                .copied()
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn census(bare: u64, idle: u64, busy: u64, retiring: u64, draining: u64) -> Census {
        let mut id = 0;
        let mut workers = Vec::new();
        for (phase, n) in [
            (Phase::Draining, draining),
            (Phase::Retiring, retiring),
            (Phase::Busy, busy),
            (Phase::Waiting, bare + idle),
        ] {
            for _ in 0..n {
                workers.push(CensusWorker {
                    id: WorkerId(id),
                    phase,
                });
                id += 1;
            }
        }
        Census::new(workers, (0..idle).map(RunnerId).collect())
    }

    const ROOMY: Bounds = Bounds {
        max: u32::MAX,
        preempt: false,
    };

    /// Five examples: (expected, difference of bare workers, runners that go). Of ten workers, five are bare. The others
    /// have an idle runner in this test, and a busy one in the next.
    #[test]
    fn the_five_examples_hold_with_idle_runners() {
        for (expected, diff, runners_gone) in
            [(10, 0, 0), (15, 5, 0), (7, -3, 0), (5, -5, 0), (4, -5, 1)]
        {
            let plan = plan(expected, &census(5, 5, 0, 0, 0), ROOMY);
            assert_eq!(plan.workers_diff(), diff, "expected {expected}");
            assert_eq!(plan.delete.len(), runners_gone, "expected {expected}");
            assert!(plan.retire.is_empty() && plan.preempt.is_empty());
        }
    }

    #[test]
    fn the_five_examples_hold_with_busy_runners_which_retire_instead() {
        for (expected, diff, retired) in
            [(10, 0, 0), (15, 5, 0), (7, -3, 0), (5, -5, 0), (4, -5, 1)]
        {
            let plan = plan(expected, &census(5, 0, 5, 0, 0), ROOMY);
            assert_eq!(plan.workers_diff(), diff, "expected {expected}");
            assert_eq!(plan.retire.len(), retired, "expected {expected}");
            assert!(plan.delete.is_empty() && plan.preempt.is_empty());
        }
    }

    #[test]
    fn marks_to_retire_are_removed_before_a_worker_is_started() {
        let plan = plan(6, &census(0, 0, 2, 3, 0), ROOMY);
        assert_eq!((plan.lift.len(), plan.spawn), (3, 1));
    }

    #[test]
    fn a_draining_worker_still_counts_towards_max() {
        let bounds = Bounds {
            max: 5,
            preempt: false,
        };
        let plan = plan(5, &census(0, 0, 1, 0, 3), bounds);
        assert_eq!(plan.spawn, 1);
    }

    #[test]
    fn preemption_stops_the_newest_job_only_after_every_waiting_worker() {
        let bounds = Bounds {
            max: 50,
            preempt: true,
        };
        let plan = plan(1, &census(1, 1, 3, 0, 0), bounds);
        assert_eq!(plan.stop.len(), 2);
        assert_eq!(plan.preempt, vec![WorkerId(2), WorkerId(1)]);
        assert!(plan.retire.is_empty());
    }

    #[test]
    fn idle_runners_whose_workers_vanished_go_unless_successors_are_spawned() {
        let vanished = Census::new(Vec::new(), (0..4).map(RunnerId).collect());
        assert_eq!(plan(0, &vanished, ROOMY).delete.len(), 4);
        assert_eq!(plan(3, &vanished, ROOMY).delete, vec![RunnerId(3)]);
    }

    fn any_census() -> impl Strategy<Value = Census> {
        (
            proptest::collection::vec(
                prop_oneof![
                    Just(Phase::Waiting),
                    Just(Phase::Busy),
                    Just(Phase::Retiring),
                    Just(Phase::Draining)
                ],
                0..60,
            ),
            0u64..60,
        )
            .prop_map(|(phases, idle)| {
                let waiting = phases.iter().filter(|p| **p == Phase::Waiting).count() as u64;
                Census::new(
                    phases
                        .into_iter()
                        .enumerate()
                        .map(|(id, phase)| CensusWorker {
                            id: WorkerId(id as u64),
                            phase,
                        })
                        .collect(),
                    (0..idle.min(waiting)).map(RunnerId).collect(),
                )
            })
    }

    proptest! {
        #[test]
        fn applying_a_plan_reaches_the_expected_quantity(
            census in any_census(), expected in 0u32..80, spare in 0u32..40, preempt: bool,
        ) {
            let bounds = Bounds { max: census.counts().towards_max() + spare, preempt };
            let expected = expected.min(bounds.max);
            let after = census.after(&plan(expected, &census, bounds)).counts();
            // Fewer only if draining workers still count towards `max`.
            let reachable = expected.min(bounds.max - census.counts().draining - after.retiring);
            prop_assert_eq!(after.staying(), reachable);
            prop_assert!(after.towards_max() <= bounds.max);
            prop_assert_eq!(after.idle + after.bare + after.busy, after.staying());
        }

        #[test]
        fn planning_again_yields_nothing(census in any_census(), expected in 0u32..80, preempt: bool) {
            let bounds = Bounds { max: 70, preempt };
            let after = census.after(&plan(expected, &census, bounds));
            prop_assert!(plan(expected, &after, bounds).is_empty());
        }

        #[test]
        fn no_runner_goes_while_a_bare_worker_stays(census in any_census(), expected in 0u32..80) {
            let plan = plan(expected, &census, ROOMY);
            if !plan.delete.is_empty() {
                prop_assert_eq!(census.after(&plan).counts().bare, 0);
            }
        }

        #[test]
        fn busy_workers_are_never_stopped_without_preempt(census in any_census(), expected in 0u32..80) {
            let plan = plan(expected, &census, ROOMY);
            prop_assert!(plan.preempt.is_empty());
            let waiting: HashSet<_> = census.workers().iter()
                .filter(|w| w.phase == Phase::Waiting).map(|w| w.id).collect();
            prop_assert!(plan.stop.iter().all(|id| waiting.contains(id)));
        }

        #[test]
        fn if_a_worker_is_expected_at_least_one_consumes_or_works(
            census in any_census(), expected in 1u32..80,
        ) {
            let after = census.after(&plan(expected, &census, ROOMY)).counts();
            prop_assert!(after.waiting + after.busy >= 1);
        }

        #[test]
        fn the_newest_go_first(census in any_census(), expected in 0u32..80) {
            let plan = plan(expected, &census, ROOMY);
            for (phase, gone) in [(Phase::Waiting, &plan.stop), (Phase::Busy, &plan.retire)] {
                if let Some(oldest_gone) = gone.last() {
                    prop_assert!(census.workers().iter()
                        .filter(|w| w.phase == phase && w.id > *oldest_gone)
                        .all(|w| gone.contains(&w.id)));
                }
            }
        }
    }

    #[test]
    fn runners_are_started_for_workers_that_will_wait_and_have_none() {
        let counts = Counts {
            waiting: 3,
            idle: 1,
            ..Counts::default()
        };
        let plan = PlanSummary::default();
        let of =
            |plan: PlanSummary, ready, starting| plan.runners_to_start(&counts, ready, starting);
        assert_eq!(of(plan, 0, 0), 0);
        assert_eq!(of(plan, 2, 0), 1);
        assert_eq!(of(plan, 9, 0), 2);
        assert_eq!(of(plan, 9, 1), 1);
        assert_eq!(of(plan, 9, 5), 0);
        let grows = PlanSummary { spawn: 4, ..plan };
        assert_eq!(of(grows, 9, 0), 6);
        let shrinks = PlanSummary {
            stop: 3,
            delete: 1,
            ..plan
        };
        assert_eq!(of(shrinks, 9, 0), 0);
    }
}
