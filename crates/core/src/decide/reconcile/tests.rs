//! Tests of reconcile: the expected number of workers and the plan, as examples and as properties.

mod ahead;
mod bounds;
mod by_hand;
mod deciding_term;
mod properties;

use proptest::prelude::*;

use std::time::Duration;

use super::*;
use crate::decide::{
    CensusWorker, Configured, Order, Phase, Probe, RunnerId, SetPolicy, Timings, WorkerId,
};

fn rules(policy: Policy) -> Rules {
    Rules {
        policy,
        own: None,
        scaling: Scaling::default(),
        drain_after: DrainAfter::default(),
        keep_warm: 0,
        preempt: false,
        schedule: Schedule::default(),
    }
}

fn pinned_to(workers: Option<u32>) -> Orders {
    let mut orders = Orders::default();
    if let Some(workers) = workers {
        steer(&mut orders, Order::Pin { workers });
    }
    orders
}

fn steer(orders: &mut Orders, order: Order) {
    let at = jiff::Timestamp::from_second(1_800_000_000).unwrap();
    let _ = orders.apply(order, "root".into(), at).unwrap();
}

fn census(waiting: u64, busy: u64) -> Census {
    let phases = std::iter::repeat_n(Phase::Busy, busy as usize)
        .chain(std::iter::repeat_n(Phase::Waiting, waiting as usize));
    Census::new(
        phases
            .enumerate()
            .map(|(id, phase)| CensusWorker {
                id: WorkerId(id as u64),
                phase,
            })
            .collect(),
        Vec::new(),
    )
}

/// An observation of `ready` messages at `second`, with the numbers of `census`.
fn seen(second: u64, ready: u64, census: &Census) -> Observation {
    let counts = census.counts();
    Observation {
        at: Moment::after_start(Duration::from_secs(second)),
        wall: None,
        probe: Probe::Answered {
            ready,
            consumers: counts.live(),
        },
        consumers: counts.live(),
        held: u64::from(counts.busy + counts.retiring),
        holders: counts.busy + counts.retiring,
        ahead: None,
        last_taken: None,
        gone: 0,
        oldest: None,
        timings: Timings::default(),
        intake: Intake::Open,
        group: None,
        allowance: None,
        pressure: None,
        held_by: HeldBy::Workers,
    }
}

/// Runs `steps` of (second, ready, busy), applies every plan, and returns the expected number after each step.
fn expectations(rules: Rules, steps: &[(u64, u64, u64)]) -> Vec<u32> {
    let mut reconciler = Reconciler::new(rules);
    steps
        .iter()
        .map(|&(second, ready, busy)| {
            let live = u64::from(reconciler.expected()).max(busy);
            let census = census(live - busy, busy);
            let _ = reconciler.reconcile(&seen(second, ready, &census), &census);
            reconciler.expected()
        })
        .collect()
}

#[test]
fn a_backlog_starts_workers_and_an_empty_queue_stops_them() {
    let seen = expectations(
        rules(Policy::backlog(10).max(50)),
        &[
            (0, 0, 0),
            (1, 120, 0),
            (2, 108, 12),
            (3, 0, 12),
            (4, 0, 3),
            (5, 0, 0),
            (7, 0, 0),
        ],
    );
    // The window keeps 12 while there is work. After `drain_after` without work, all workers go at once.
    assert_eq!(seen, [0, 12, 12, 12, 12, 12, 0]);
}

#[test]
fn a_queue_that_never_had_a_message_needs_no_workers_even_with_a_fixed_policy() {
    assert_eq!(
        expectations(rules(Policy::fixed(8)), &[(0, 0, 0), (9, 0, 0)]),
        [0, 0]
    );
}

#[test]
fn an_empty_queue_drains_a_fixed_policy_too() {
    let seen = expectations(rules(Policy::fixed(8)), &[(0, 20, 0), (1, 0, 8), (6, 0, 0)]);
    assert_eq!(seen, [8, 8, 0]);
}

#[test]
fn busy_workers_stay_expected_on_an_empty_queue_until_their_jobs_end() {
    let seen = expectations(
        rules(Policy::fixed(4)),
        &[(0, 4, 0), (9, 0, 3), (10, 0, 1), (11, 0, 0)],
    );
    assert_eq!(seen, [4, 3, 1, 0]);
}

#[test]
fn keep_warm_keeps_workers_on_an_empty_queue_from_the_start() {
    let rules = Rules {
        keep_warm: 2,
        ..rules(Policy::backlog(10).max(5))
    };
    assert_eq!(
        expectations(rules, &[(0, 0, 0), (1, 50, 0), (20, 0, 0)]),
        [2, 5, 2]
    );
}

#[test]
fn drain_after_zero_drains_at_once_and_never_does_not_drain() {
    let at_once = Rules {
        drain_after: DrainAfter::After(Duration::ZERO),
        ..rules(Policy::fixed(3))
    };
    assert_eq!(expectations(at_once, &[(0, 3, 0), (0, 0, 0)]), [3, 0]);
    let never = Rules {
        drain_after: DrainAfter::Never,
        ..rules(Policy::fixed(3))
    };
    assert_eq!(expectations(never, &[(0, 3, 0), (3600, 0, 0)]), [3, 3]);
}

#[test]
fn the_floor_holds_from_the_first_work_until_the_queue_is_empty() {
    let policy = Policy::backlog(10).min_active(4).max(50);
    let seen = expectations(
        rules(policy),
        &[(0, 0, 0), (1, 1, 0), (2, 0, 1), (5, 0, 0), (6, 0, 0)],
    );
    assert_eq!(seen, [0, 4, 4, 4, 0]);
}

#[test]
fn no_more_workers_are_expected_than_could_hold_a_message() {
    // Prefetch 10: two workers hold twenty deliveries, so demand is inflated.
    let mut reconciler = Reconciler::new(rules(Policy::backlog(1).max(50)));
    let census = census(0, 2);
    let observation = Observation {
        held: 20,
        ..seen(1, 1, &census)
    };
    let decision = reconciler.reconcile(&observation, &census).decision;
    assert_eq!(decision.expected, 3);
    assert!(decision.won == TermName::Useful && decision.inputs.behind == 18);
}

#[test]
fn a_pin_overrides_an_empty_queue_and_the_policy_and_is_clamped_to_max() {
    let mut reconciler = Reconciler::new(rules(Policy::backlog(10).max(5)));
    reconciler.set_orders(pinned_to(Some(9)));
    let nothing = Census::default();
    let pinned = reconciler
        .reconcile(&seen(1, 0, &nothing), &nothing)
        .decision;
    assert_eq!((pinned.expected, pinned.rule), (5, Rule::Pin));
    reconciler.set_orders(pinned_to(None));
    let unpinned = reconciler
        .reconcile(&seen(2, 0, &nothing), &nothing)
        .decision;
    assert_eq!((unpinned.expected, unpinned.rule), (0, Rule::Empty));
}

#[test]
fn after_a_failed_probe_the_expected_number_stays_and_the_age_of_the_last_reading_is_shown() {
    let mut reconciler = Reconciler::new(rules(Policy::backlog(10).max(50)));
    let census = census(3, 0);
    let _ = reconciler.reconcile(&seen(1, 30, &census), &census);
    for second in [2, 600] {
        let observation = Observation {
            probe: Probe::Failed {
                why: String::from("probe the queue: no answer"),
            },
            ..seen(second, 0, &census)
        };
        let decision = reconciler.reconcile(&observation, &census).decision;
        assert_eq!((decision.expected, decision.rule), (3, Rule::Frozen));
        assert_eq!(decision.inputs.ready, 30);
        assert_eq!(decision.inputs.age, Some(Duration::from_secs(second - 1)));
    }
}

#[test]
fn a_zero_from_a_broker_that_does_not_see_our_consumers_is_stale_not_empty() {
    let mut reconciler = Reconciler::new(rules(Policy::fixed(3)));
    let census = census(3, 0);
    let _ = reconciler.reconcile(&seen(1, 30, &census), &census);
    let leaderless = Observation {
        probe: Probe::Answered {
            ready: 0,
            consumers: 0,
        },
        ..seen(60, 0, &census)
    };
    let decision = reconciler.reconcile(&leaderless, &census).decision;
    assert_eq!((decision.expected, decision.rule), (3, Rule::Frozen));
    assert!(decision.inputs.stale.is_some());
}

/// A quorum queue with a single active consumer counts only that consumer.
#[test]
fn a_zero_from_a_broker_that_sees_one_of_our_consumers_is_an_empty_queue() {
    let mut reconciler = Reconciler::new(rules(Policy::fixed(3)));
    let census = census(3, 0);
    let _ = reconciler.reconcile(&seen(1, 30, &census), &census);
    let empty = Observation {
        probe: Probe::Answered {
            ready: 0,
            consumers: 1,
        },
        ..seen(60, 0, &census)
    };
    let decision = reconciler.reconcile(&empty, &census).decision;
    assert_eq!((decision.expected, decision.rule), (0, Rule::Empty));
}

#[test]
fn a_reconcile_without_a_probe_uses_the_last_reading_with_its_true_age() {
    let mut reconciler = Reconciler::new(rules(Policy::backlog(10).max(50)));
    let census = census(3, 0);
    let _ = reconciler.reconcile(&seen(1, 30, &census), &census);
    let held = Observation {
        probe: Probe::Skipped,
        ..seen(4, 0, &census)
    };
    let decision = reconciler.reconcile(&held, &census).decision;
    assert_eq!((decision.expected, decision.rule), (3, Rule::Policy));
    assert_eq!(decision.inputs.age, Some(Duration::from_secs(3)));
}

#[test]
fn a_missing_queue_needs_no_workers_and_its_history_is_forgotten() {
    let mut reconciler = Reconciler::new(rules(Policy::fixed(3)));
    let census = census(3, 0);
    let _ = reconciler.reconcile(&seen(1, 30, &census), &census);
    let missing = Observation {
        probe: Probe::Missing,
        ..seen(2, 0, &census)
    };
    assert_eq!(
        reconciler.reconcile(&missing, &census).decision.rule,
        Rule::Missing
    );
    // The queue is back and empty. The history is forgotten, so there is nothing to wait for.
    let back = reconciler.reconcile(&seen(3, 0, &census), &census).decision;
    assert_eq!((back.expected, back.rule), (0, Rule::Empty));
}

#[test]
fn closed_intake_wins_over_a_pin_and_a_trial_allows_one_worker() {
    let mut reconciler = Reconciler::new(rules(Policy::fixed(8)));
    reconciler.set_orders(pinned_to(Some(6)));
    let nothing = Census::default();
    for (intake, expected) in [
        (Intake::Paused, 0),
        (Intake::Faulted, 0),
        (Intake::BreakerOpen, 0),
        (Intake::Blocked, 0),
        (Intake::Draining, 0),
        (Intake::Trial, 1),
        (Intake::BreakerTrial, 1),
        (Intake::Open, 6),
    ] {
        let observation = Observation {
            intake,
            ..seen(1, 50, &nothing)
        };
        assert_eq!(
            reconciler
                .reconcile(&observation, &nothing)
                .decision
                .expected,
            expected,
            "{intake:?}"
        );
    }
}

#[test]
fn a_lowered_ceiling_applies_at_once() {
    let mut reconciler = Reconciler::new(rules(Policy::fixed(30)));
    let census = census(30, 0);
    let _ = reconciler.reconcile(&seen(1, 99, &census), &census);
    reconciler.set_rules(rules(Policy::fixed(30).max(4)));
    let decision = reconciler
        .reconcile(&seen(2, 99, &census), &census)
        .decision;
    assert_eq!(decision.expected, 4);
}

#[test]
fn the_record_explains_each_term_to_a_person() {
    let mut reconciler = Reconciler::new(rules(Policy::backlog(1).max(50)));
    let census = Census::new(census(2, 6).workers().to_vec(), vec![RunnerId(1)]);
    let _ = reconciler.reconcile(&seen(1, 200, &census), &census);
    let decision = reconciler
        .reconcile(&seen(4, 10, &census), &census)
        .decision;
    insta::assert_snapshot!(decision, @r"
    expected 50 (by window)

    seen
      ready           10  fresh
      held             6  by 6 workers
      demand          16  ready + held
      quiet          0ms  since a message was seen or taken
      live             8  1 bare, 1 idle, 6 busy, 0 retiring (and 0 draining)

    why
      policy          16  16 jobs of demand, one worker for each job
      window          50  50 was recommended within the last 10s

    plan         start 42 workers
    ");
}

fn any_policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        (0u32..30).prop_map(Policy::fixed),
        (1u32..20).prop_map(Policy::backlog),
        proptest::collection::vec((1u64..200, 0u32..40), 1..4).prop_map(Policy::steps),
    ]
    .prop_flat_map(|policy| (Just(policy), 0u32..5, 0u32..40))
    .prop_map(|(policy, min, max)| policy.max(max).min_active(min))
}

proptest! {
    /// In every case the expected number stays within its ceiling, and reconciling again on the result of the plan is
    /// idempotent.
    #[test]
    fn reconciling_twice_at_one_instant_equals_reconciling_once(
        policy in any_policy(),
        steps in proptest::collection::vec((0u64..9, 0u64..300), 1..12),
        preempt: bool,
    ) {
        let rules = Rules {
            scaling: Scaling { up_step: u32::MAX, down_window: Duration::from_secs(3), down_step: u32::MAX, churn: None },
            preempt,
            ..rules(policy)
        };
        let max = rules.policy.max;
        let mut reconciler = Reconciler::new(rules);
        let mut census = Census::default();
        let mut now = 0;
        for (wait, ready) in steps {
            now += wait;
            let first = reconciler.reconcile(&seen(now, ready, &census), &census);
            prop_assert!(first.decision.expected <= max);
            prop_assert_eq!(first.decision.expected, reconciler.expected());
            census = census.after(&first.plan);
            let second = reconciler.reconcile(&seen(now, ready, &census), &census);
            prop_assert!(second.plan.is_empty(), "{:?}", second.plan);
            prop_assert_eq!(second.decision.expected, first.decision.expected);
        }
    }

    /// If there is work and the policy grants a worker, a worker takes the work.
    #[test]
    fn with_demand_and_expected_workers_at_least_one_worker_stays(
        policy in any_policy(), waiting in 0u64..10, busy in 0u64..10, ready in 1u64..100,
    ) {
        let census = census(waiting, busy);
        let mut reconciler = Reconciler::new(rules(policy));
        let result = reconciler.reconcile(&seen(1, ready, &census), &census);
        if result.decision.expected > 0 {
            let after = census.after(&result.plan).counts();
            // Unless the ceiling is below the number of live workers.
            prop_assert!(after.waiting + after.busy + after.retiring >= 1);
        }
    }
}
