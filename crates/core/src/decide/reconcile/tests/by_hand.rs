//! Orders of the operator, as the record shows them.

use std::time::Duration;

use std::collections::BTreeMap;

use super::*;

fn set(policy: Policy, over: &Rules) -> Order {
    Order::SetPolicy(Box::new(SetPolicy {
        policy,
        scaling: Scaling {
            down_window: Duration::ZERO,
            ..Scaling::default()
        },
        keys: BTreeMap::new(),
        over: Configured {
            policy: over.policy.clone(),
            scaling: over.scaling,
        },
    }))
}

/// The expected number, and the term that decided it, at each of these (second, ready, intake) under the same orders.
fn decide(reconciler: &mut Reconciler, steps: &[(u64, u64, Intake)]) -> Vec<(u32, TermName)> {
    let census = Census::default();
    let decided = steps.iter().map(|&(second, ready, intake)| {
        let observation = Observation {
            intake,
            ..seen(second, ready, &census)
        };
        let decision = reconciler.reconcile(&observation, &census).decision;
        (decision.expected, decision.won)
    });
    decided.collect()
}

#[test]
fn a_pool_that_may_not_shrink_grows_and_stays() {
    let mut reconciler = Reconciler::new(rules(Policy::backlog(10).max(50)));
    let open = Intake::Open;
    let mut orders = Orders::default();
    assert_eq!(
        decide(&mut reconciler, &[(1, 200, open)]),
        [(20, TermName::Policy)]
    );
    steer(&mut orders, Order::ForbidShrinking { until: None });
    reconciler.set_orders(orders.clone());
    let steps = [
        (30, 50, open),
        (31, 300, open),
        // An empty queue, a pause and a trial do not lower the floor.
        (60, 0, open),
        (61, 10, Intake::Paused),
        (62, 10, Intake::Trial),
        (63, 10, open),
    ];
    let expected = [
        (20, TermName::NoShrink),
        (30, TermName::Policy),
        (30, TermName::NoShrink),
        (0, TermName::Intake),
        (1, TermName::Trial),
        (30, TermName::NoShrink),
    ];
    assert_eq!(decide(&mut reconciler, &steps), expected);
    // A pin sets a number, and the ceiling limits all of them.
    steer(&mut orders, Order::Pin { workers: 4 });
    reconciler.set_orders(orders.clone());
    assert_eq!(
        decide(&mut reconciler, &[(64, 10, open)]),
        [(4, TermName::Pin)]
    );
    steer(&mut orders, Order::Unpin);
    reconciler.set_orders(orders.clone());
    assert_eq!(
        decide(&mut reconciler, &[(90, 10, open)]),
        [(4, TermName::NoShrink)]
    );
    reconciler.set_rules(rules(Policy::backlog(10).max(2)));
    assert_eq!(
        decide(&mut reconciler, &[(91, 10, open)]),
        [(2, TermName::Max)]
    );
    steer(&mut orders, Order::AllowShrinking);
    reconciler.set_orders(orders);
    reconciler.set_rules(rules(Policy::backlog(10).max(50)));
    assert_eq!(
        decide(&mut reconciler, &[(120, 10, open)]),
        [(1, TermName::Policy)]
    );
}

#[test]
fn a_policy_set_by_hand_decides_in_place_of_the_rules_until_it_is_reset() {
    let of_the_file = rules(Policy::backlog(10).max(50));
    let mut reconciler = Reconciler::new(of_the_file.clone());
    let mut orders = Orders::default();
    steer(&mut orders, set(Policy::backlog(2).max(20), &of_the_file));
    reconciler.set_orders(orders.clone());
    let open = Intake::Open;
    let decided = decide(
        &mut reconciler,
        &[(1, 30, open), (2, 100, open), (3, 10, open)],
    );
    // Its ceiling and its window are in force too.
    let expected = [
        (15, TermName::Policy),
        (20, TermName::Max),
        (5, TermName::Policy),
    ];
    assert_eq!(decided, expected);
    steer(&mut orders, Order::ResetPolicy);
    reconciler.set_orders(orders);
    assert_eq!(
        decide(&mut reconciler, &[(20, 300, open)]),
        [(30, TermName::Policy)]
    );
}

#[test]
fn the_record_says_what_was_set_by_hand_by_whom_and_since_when() {
    let of_the_file = rules(Policy::backlog(10).max(50));
    let mut reconciler = Reconciler::new(of_the_file.clone());
    let mut orders = Orders::default();
    steer(&mut orders, set(Policy::backlog(2).max(20), &of_the_file));
    steer(&mut orders, Order::ForbidShrinking { until: None });
    reconciler.set_orders(orders.clone());
    let census = Census::default();
    let decision = reconciler.reconcile(&seen(1, 7, &census), &census).decision;
    insta::assert_snapshot!(decision.to_string());
    steer(
        &mut orders,
        Order::Pause {
            until: Some("2027-01-15T09:00:00Z".parse().unwrap()),
        },
    );
    reconciler.set_orders(orders);
    let paused = Observation {
        intake: Intake::Paused,
        ..seen(2, 7, &census)
    };
    let decision = reconciler.reconcile(&paused, &census).decision;
    insta::assert_snapshot!(decision.terms[0].why);
    let json = serde_json::to_value(&decision).unwrap();
    assert_eq!(json["by_hand"]["intake"]["what"], "paused");
    assert_eq!(json["by_hand"]["intake"]["by"], "root");
}
