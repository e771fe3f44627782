//! Tests of orders: what each order changes, when it ends, and how orders are stored.

use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn configured(jobs_per_worker: u32) -> Configured {
    Configured {
        policy: Policy::backlog(jobs_per_worker),
        scaling: Scaling::default(),
    }
}

fn policy(jobs_per_worker: u32, over: Configured) -> Order {
    Order::SetPolicy(Box::new(SetPolicy {
        policy: Policy::backlog(jobs_per_worker),
        scaling: Scaling::default(),
        keys: BTreeMap::from([("policy.jobs_per_worker".into(), jobs_per_worker.to_string())]),
        over,
    }))
}

fn orders(given: impl IntoIterator<Item = Order>) -> Orders {
    let mut orders = Orders::default();
    for order in given {
        let _ = orders.apply(order, "root".into(), at(0)).unwrap();
    }
    orders
}

#[test]
fn each_order_is_cancelled_only_by_its_own_opposite() {
    let all = || {
        [
            Order::Drain,
            Order::Pin { workers: 3 },
            Order::ForbidShrinking { until: None },
            policy(2, configured(10)),
        ]
    };
    let opposites = [
        Order::Resume,
        Order::Unpin,
        Order::AllowShrinking,
        Order::ResetPolicy,
    ];
    for (n, opposite) in opposites.into_iter().enumerate() {
        let mut left = orders(all());
        assert_eq!(left.apply(opposite, "root".into(), at(9)), Ok(Changed::Yes));
        let others = all().into_iter().enumerate().filter(|(m, _)| *m != n);
        assert_eq!(left, orders(others.map(|(_, order)| order)));
    }
}

#[test]
fn an_order_given_twice_keeps_the_name_and_time_of_the_first() {
    let pause = |until| Order::Pause { until };
    let mut orders = Orders::default();
    for (order, by, second, changed) in [
        (pause(None), "ann", 1, Changed::Yes),
        (pause(None), "bob", 2, Changed::No),
        (pause(Some(at(60))), "bob", 3, Changed::Yes),
        (Order::Drain, "cyd", 4, Changed::Yes),
        (pause(None), "dan", 5, Changed::Yes),
    ] {
        let text = format!("{order:?} by {by}");
        assert_eq!(
            orders.apply(order, by.into(), at(second)),
            Ok(changed),
            "{text}"
        );
    }
    let pause = orders.intake.expect("a pause");
    assert_eq!(
        (pause.what, pause.by.as_str(), pause.since),
        (Closed::Paused, "dan", at(5))
    );
}

#[test]
fn an_order_that_would_end_before_it_begins_is_refused_and_changes_nothing() {
    let mut orders = orders([Order::Drain]);
    let before = orders.clone();
    for until in [at(-1), at(0)] {
        let refused = orders.apply(Order::Pause { until: Some(until) }, "root".into(), at(0));
        assert_eq!(refused, Err(OrderRefused::EndHasPassed { until }));
    }
    assert_eq!(orders, before);
}

#[test]
fn an_invalid_policy_is_refused_as_an_order_and_dropped_from_stored_orders() {
    let Order::SetPolicy(mut set) = policy(2, configured(10)) else {
        unreachable!("it is one")
    };
    set.policy.min_active = set.policy.max + 1;
    let mut orders = Orders::default();
    let refused = orders.apply(Order::SetPolicy(set.clone()), "root".into(), at(0));
    assert_eq!(
        refused,
        Err(OrderRefused::Policy("its min_active is above its max"))
    );
    orders.policy = Some(ByHand {
        what: *set,
        by: "root".into(),
        since: at(0),
        until: None,
    });
    assert_eq!(
        orders.drop_invalid(),
        Some("its min_active is above its max")
    );
    assert!(orders.is_empty());
}

#[test]
fn orders_with_an_end_expire() {
    let mut orders = orders([
        Order::Pause {
            until: Some(at(30)),
        },
        Order::ForbidShrinking {
            until: Some(at(20)),
        },
        Order::Pin { workers: 3 },
    ]);
    assert_eq!(orders.due(at(0)), Some(Duration::from_secs(20)));
    assert_eq!(orders.expire(at(19)), []);
    assert_eq!(orders.expire(at(20)), [Expired::NoShrink]);
    assert_eq!(orders.due(at(20)), Some(Duration::from_secs(10)));
    assert_eq!(orders.due(at(50)), Some(Duration::ZERO));
    assert_eq!(orders.expire(at(50)), [Expired::Pause]);
    assert_eq!((orders.due(at(50)), orders.pinned()), (None, Some(3)));
}

#[test]
fn a_policy_set_by_hand_holds_until_the_configuration_says_something_else() {
    let mut orders = orders([policy(2, configured(10)), Order::Drain]);
    assert_eq!(orders.yield_to(&configured(10)), None);
    let dropped = orders.yield_to(&configured(5)).expect("the file wins");
    assert_eq!(dropped.what.policy, Policy::backlog(2));
    assert_eq!(orders.intake(), Some(Intake::Emptying));
    // Also if the file now has the value that was set by hand: from now on the value comes from the file.
    let _ = orders
        .apply(policy(2, configured(10)), "root".into(), at(1))
        .unwrap();
    assert!(orders.yield_to(&configured(2)).is_some());
}

#[test]
fn the_author_of_an_order_is_a_short_text_without_control_characters() {
    assert_eq!(By::new(" root\nover\u{1b}[2J ").as_str(), "root over [2J");
    assert_eq!(By::new("é".repeat(200)).as_str().len(), 128);
    assert_eq!(By::new("").as_str(), "someone");
}

#[test]
fn the_json_of_orders_is_stable_and_unknown_keys_are_ignored() {
    let orders = orders([
        Order::Pause {
            until: Some(at(30)),
        },
        Order::Pin { workers: 3 },
        Order::ForbidShrinking { until: None },
        policy(2, configured(10)),
    ]);
    insta::assert_snapshot!(serde_json::to_string_pretty(&orders).unwrap());
    insta::assert_snapshot!(orders.to_string());
    let newer =
        r#"{"pin": {"what": 3, "by": "root", "since": "2027-01-15T08:00:00Z", "x": 1}, "y": 2}"#;
    let read: Orders = serde_json::from_str(newer).unwrap();
    assert_eq!(read.pinned(), Some(3));
}

pub(in crate::decide) fn any_order() -> impl Strategy<Value = Order> {
    let until = proptest::option::of((1i64..100).prop_map(at));
    prop_oneof![
        until.clone().prop_map(|until| Order::Pause { until }),
        Just(Order::Drain),
        Just(Order::Resume),
        (0u32..60).prop_map(|workers| Order::Pin { workers }),
        Just(Order::Unpin),
        until.prop_map(|until| Order::ForbidShrinking { until }),
        Just(Order::AllowShrinking),
        (1u32..9, 1u32..9).prop_map(|(set, over)| policy(set, configured(over))),
        Just(Order::ResetPolicy),
    ]
}

proptest! {
    /// The stored orders are the orders in force: writing and reading loses nothing, and applying the same order twice
    /// changes nothing.
    #[test]
    fn orders_are_read_back_as_they_were_written(
        given in proptest::collection::vec((any_order(), 0i64..50), 0..12),
    ) {
        let mut orders = Orders::default();
        for (order, second) in given {
            let before = orders.clone();
            match orders.apply(order.clone(), "root".into(), at(second)) {
                Ok(Changed::No) | Err(_) => prop_assert_eq!(&orders, &before),
                Ok(Changed::Yes) => {
                    prop_assert_ne!(&orders, &before);
                    prop_assert_eq!(orders.apply(order, "other".into(), at(second)), Ok(Changed::No));
                }
            }
            prop_assert_eq!(orders.is_empty(), orders.to_string().is_empty());
            let text = serde_json::to_string(&orders).unwrap();
            let read: Orders = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&read, &orders);
            if let Some(due) = orders.due(at(second)).filter(|due| !due.is_zero()) {
                let mut later = orders.clone();
                let end = at(second) + due;
                prop_assert!(!later.expire(end).is_empty());
                prop_assert!(orders.clone().expire(end - Duration::from_nanos(1)).is_empty());
            }
        }
    }
}
