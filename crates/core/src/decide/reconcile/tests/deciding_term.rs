//! Which term decided a number.

use std::time::Duration;

use super::*;

/// The expected number, and the term that decided it, after these steps of (second, ready, busy).
fn deciding_term(rules: Rules, steps: &[(u64, u64, u64)]) -> (u32, TermName) {
    let mut reconciler = Reconciler::new(rules);
    let mut last = None;
    for &(second, ready, busy) in steps {
        let live = u64::from(reconciler.expected()).max(busy);
        let census = census(live - busy, busy);
        let reconciliation = reconciler.reconcile(&seen(second, ready, &census), &census);
        last = Some(reconciliation.decision);
    }
    let last = last.expect("a step");
    (last.expected, last.won)
}

#[test]
fn the_term_that_last_changed_the_number_is_recorded_as_the_deciding_one() {
    let backlog = || rules(Policy::backlog(10).max(50));
    let steps = |up_step, down_step, window| Rules {
        scaling: Scaling {
            up_step,
            down_window: Duration::from_secs(window),
            down_step,
            churn: None,
        },
        ..rules(Policy::backlog(1).max(50))
    };
    let warm = Rules {
        keep_warm: 3,
        ..backlog()
    };
    let low = rules(Policy::backlog(10).max(5));
    let floor = rules(Policy::backlog(10).min_active(4).max(50));
    let cases = [
        (backlog(), vec![(0, 0, 0)], 0, TermName::Empty),
        (backlog(), vec![(0, 120, 0)], 12, TermName::Policy),
        (backlog(), vec![(0, 9, 0), (9, 0, 1)], 1, TermName::Empty),
        (warm.clone(), vec![(0, 0, 0)], 3, TermName::KeepWarm),
        (warm, vec![(0, 90, 0), (9, 0, 4)], 4, TermName::Empty),
        // The policy gives 48.
        (low, vec![(0, 480, 0)], 5, TermName::Max),
        (floor, vec![(0, 1, 0)], 4, TermName::MinActive),
        (
            rules(Policy::fixed(8)),
            vec![(0, 3, 0)],
            3,
            TermName::Useful,
        ),
        // The policy gives 16 and the window keeps 20.
        (
            rules(Policy::backlog(1).max(50)),
            vec![(0, 20, 0), (3, 16, 0)],
            20,
            TermName::Window,
        ),
        (steps(3, 9, 0), vec![(0, 20, 0)], 3, TermName::UpStep),
        (
            steps(99, 2, 0),
            vec![(0, 20, 0), (3, 1, 0)],
            18,
            TermName::DownStep,
        ),
        // The window allows 10, but one step stops two workers at most.
        (
            steps(99, 2, 9),
            vec![(0, 20, 0), (8, 10, 0), (12, 5, 0)],
            18,
            TermName::DownStep,
        ),
    ];
    for (rules, steps, expected, by) in cases {
        assert_eq!(deciding_term(rules, &steps), (expected, by), "{steps:?}");
    }
}

#[test]
fn rules_before_the_policy_and_limits_after_it_can_be_the_deciding_term() {
    let nothing = Census::default();
    let decide = |reconciler: &mut Reconciler, observation: Observation| {
        let decision = reconciler.reconcile(&observation, &nothing).decision;
        (decision.rule, decision.expected, decision.won)
    };
    let at = |second, ready| seen(second, ready, &nothing);
    let mut reconciler = Reconciler::new(rules(Policy::fixed(8).max(8)));
    let with = |intake, second| Observation {
        intake,
        ..at(second, 50)
    };

    let paused = decide(&mut reconciler, with(Intake::Paused, 1));
    assert_eq!(paused, (Rule::Intake, 0, TermName::Intake));
    let tried = decide(&mut reconciler, with(Intake::Trial, 2));
    assert_eq!(tried, (Rule::Intake, 1, TermName::Trial));
    let open = decide(&mut reconciler, with(Intake::Open, 3));
    assert_eq!(open, (Rule::Policy, 8, TermName::Policy));
    let unseen = |second| Observation {
        probe: Probe::Failed {
            why: String::from("no answer"),
        },
        ..at(second, 0)
    };
    let frozen = decide(&mut reconciler, unseen(4));
    assert_eq!(frozen, (Rule::Frozen, 8, TermName::Frozen));
    reconciler.set_rules(rules(Policy::fixed(8).max(2)));
    let lowered = decide(&mut reconciler, unseen(5));
    assert_eq!(lowered, (Rule::Frozen, 2, TermName::Max));
    reconciler.set_orders(pinned_to(Some(9)));
    let pinned = decide(&mut reconciler, at(6, 50));
    assert_eq!(pinned, (Rule::Pin, 2, TermName::Max));
    reconciler.set_orders(pinned_to(Some(1)));
    let pinned = decide(&mut reconciler, at(7, 50));
    assert_eq!(pinned, (Rule::Pin, 1, TermName::Pin));
    reconciler.set_orders(pinned_to(None));
    let missing = Observation {
        probe: Probe::Missing,
        ..at(8, 0)
    };
    let missing = decide(&mut reconciler, missing);
    assert_eq!(missing, (Rule::Missing, 0, TermName::Missing));
}

fn any_rules() -> impl Strategy<Value = Rules> {
    (any_policy(), 1u32..9, 0u64..20, 1u32..9, 0u32..4, 0u64..9).prop_map(
        |(policy, up_step, window, down_step, keep_warm, drain_after)| Rules {
            scaling: Scaling {
                up_step,
                down_window: Duration::from_secs(window),
                down_step,
                churn: None,
            },
            keep_warm,
            drain_after: match drain_after {
                0 => DrainAfter::Never,
                seconds => DrainAfter::After(Duration::from_secs(seconds)),
            },
            ..rules(policy)
        },
    )
}

fn any_intake() -> impl Strategy<Value = Intake> {
    prop_oneof![
        4 => Just(Intake::Open),
        1 => Just(Intake::Trial),
        1 => Just(Intake::BreakerTrial),
        1 => Just(Intake::Paused),
        1 => Just(Intake::Faulted),
    ]
}

proptest! {
    /// Each term takes the number before it and gives another, so the last term gives the result and is the one that
    /// decided it.
    #[test]
    fn the_terms_of_a_record_lead_to_its_result_and_the_last_is_the_deciding_one(
        rules in any_rules(),
        steps in proptest::collection::vec(
            (0u64..9, 0u64..60, 0u64..20, any_intake(), proptest::option::of(0u32..60), 0u8..8), 1..16,
        ),
    ) {
        let mut reconciler = Reconciler::new(rules);
        let mut now = 0;
        for (wait, ready, busy, intake, pin, probe) in steps {
            now += wait;
            let census = census(u64::from(reconciler.expected()).saturating_sub(busy), busy);
            let mut observation = Observation { intake, ..seen(now, ready, &census) };
            match probe {
                0 => observation.probe = Probe::Missing,
                1 => observation.probe = Probe::Failed { why: String::from("no answer") },
                _ => {}
            }
            reconciler.set_orders(pinned_to(pin.filter(|pin| *pin < 20)));
            let decision = reconciler.reconcile(&observation, &census).decision;
            let last = decision.terms.last().expect("a term");
            prop_assert_eq!(last.workers, decision.expected);
            prop_assert_eq!(last.name, decision.won);
            prop_assert!(
                decision.terms.windows(2).all(|pair| pair[0].workers != pair[1].workers),
                "{:?}", decision.terms
            );
            let text = decision.to_string();
            let first = format!("expected {} (by {})\n", decision.expected, decision.won.as_str());
            prop_assert!(text.starts_with(&first), "{}", text);
            let json = serde_json::to_value(&decision).expect("a record is plain data");
            prop_assert_eq!(json["won"].as_str(), Some(decision.won.as_str()));
        }
    }
}
