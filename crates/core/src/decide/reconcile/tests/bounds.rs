//! Limits in addition to the policy's own: the schedule, the churn, the host and the supervisor's workers.

use jiff::{Timestamp, tz::TimeZone};

use std::collections::BTreeMap;

use super::*;
use crate::decide::{Allowance, ScheduleEntry, ScheduledBounds};

fn scheduled(cron: &str, hours: u64, bounds: ScheduledBounds) -> Schedule {
    Schedule::new(vec![ScheduleEntry {
        cron: cron.parse().unwrap(),
        zone: TimeZone::UTC,
        lasts: Duration::from_secs(hours * 3600),
        bounds,
    }])
}

/// An observation at a second after `start`, with wall time.
fn seen_at(start: &str, second: u64, ready: u64, census: &Census) -> Observation {
    let start: Timestamp = start.parse().unwrap();
    Observation {
        wall: Some(start + Duration::from_secs(second)),
        ..seen(second, ready, census)
    }
}

#[test]
fn a_schedule_changes_the_ceiling_and_says_so() {
    let night = ScheduledBounds {
        max: Some(5),
        ..ScheduledBounds::default()
    };
    let mut reconciler = Reconciler::new(Rules {
        schedule: scheduled("0 22 * * *", 8, night),
        ..rules(Policy::backlog(1).max(50))
    });
    let none = Census::default();
    let before = reconciler.reconcile(&seen_at("2026-11-26T21:59:59Z", 0, 40, &none), &none);
    assert_eq!(before.decision.expected, 40);
    let busy = census(0, 40);
    let inside = reconciler.reconcile(&seen_at("2026-11-26T21:59:59Z", 1, 40, &busy), &busy);
    assert_eq!(
        (inside.decision.expected, inside.decision.won),
        (5, TermName::Max)
    );
    assert_eq!(
        inside.plan.retire.len(),
        35,
        "running jobs end by themselves"
    );
    assert!(inside.plan.preempt.is_empty());
    let text = inside.decision.to_string();
    for words in [
        "the ceiling, by the schedule 0 22 * * * until 2026-11-27T06:00:00Z",
        "open       0 22 * * * until 2026-11-27T06:00:00Z: max 5",
        "next       0 22 * * * from 2026-11-27T22:00:00Z: max 5",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
    let after = reconciler.reconcile(&seen_at("2026-11-27T05:59:57Z", 2, 40, &none), &none);
    assert_eq!(after.decision.expected, 5);
    let after = reconciler.reconcile(&seen_at("2026-11-27T06:00:00Z", 3, 40, &none), &none);
    assert_eq!(after.decision.expected, 40);
}

#[test]
fn a_ceiling_that_was_set_by_hand_is_not_attributed_to_the_schedule() {
    let night = ScheduledBounds {
        max: Some(5),
        ..ScheduledBounds::default()
    };
    let policy = Policy::backlog(1).max(50);
    let mut reconciler = Reconciler::new(Rules {
        schedule: scheduled("0 22 * * *", 8, night),
        ..rules(policy.clone())
    });
    let mut orders = Orders::default();
    let by_hand = SetPolicy {
        policy: policy.clone().max(7),
        scaling: Scaling::default(),
        keys: BTreeMap::new(),
        over: Configured {
            policy,
            scaling: Scaling::default(),
        },
    };
    steer(&mut orders, Order::SetPolicy(Box::new(by_hand)));
    reconciler.set_orders(orders);
    let none = Census::default();
    let decided = reconciler.reconcile(&seen_at("2026-11-26T22:00:00Z", 0, 40, &none), &none);
    assert_eq!(
        (decided.decision.expected, decided.decision.won),
        (7, TermName::Max)
    );
    let terms = decided.decision.terms;
    assert!(
        terms.iter().all(|term| !term.why.contains("schedule")),
        "{terms:?}"
    );
}

#[test]
fn a_schedule_changes_the_floor_and_the_workers_on_an_empty_queue() {
    let day = ScheduledBounds {
        min_active: Some(4),
        keep_warm: Some(3),
        max: None,
    };
    let mut reconciler = Reconciler::new(Rules {
        schedule: scheduled("0 8 * * *", 10, day),
        ..rules(Policy::backlog(10).max(50))
    });
    let none = Census::default();
    let empty = reconciler.reconcile(&seen_at("2026-11-26T09:00:00Z", 0, 0, &none), &none);
    assert_eq!(
        (empty.decision.expected, empty.decision.rule),
        (3, Rule::Empty)
    );
    let floor = reconciler.reconcile(&seen_at("2026-11-26T09:00:00Z", 1, 9, &none), &none);
    assert_eq!(
        (floor.decision.expected, floor.decision.won),
        (4, TermName::MinActive)
    );
}

#[test]
fn starts_and_stops_within_a_minute_are_limited_together() {
    let scaling = Scaling {
        down_window: Duration::ZERO,
        churn: Some(10),
        ..Scaling::default()
    };
    let limited = || Rules {
        scaling,
        ..rules(Policy::backlog(1).max(50))
    };
    // (second, ready, busy)
    let steps = [
        (0, 8, 0),
        (1, 4, 0),
        (2, 40, 0),
        (59, 40, 0),
        (60, 40, 0),
        (61, 40, 0),
    ];
    // 8 starts, then 2 of 4 stops, then nothing until the first minute is over: then 8 more, and 2 a second later.
    assert_eq!(expectations(limited(), &steps), [8, 6, 6, 6, 14, 16]);
    // A lowered ceiling applies at once.
    let mut reconciler = Reconciler::new(limited());
    let _ = reconciler.reconcile(&seen(0, 10, &Census::default()), &Census::default());
    reconciler.set_rules(Rules {
        scaling,
        ..rules(Policy::backlog(1).max(2))
    });
    let lowered = reconciler.reconcile(&seen(1, 10, &Census::default()), &Census::default());
    assert_eq!(lowered.decision.expected, 2);
}

#[test]
fn pressure_on_the_host_stops_growth_but_stops_no_worker() {
    let mut reconciler = Reconciler::new(rules(Policy::backlog(1).min_active(1).max(50)));
    let pressed = |second, ready, census: &Census| Observation {
        pressure: Some(String::from("memory pressure is 24 %, the limit is 10 %")),
        ..seen(second, ready, census)
    };
    let none = Census::default();
    let first = reconciler.reconcile(&pressed(0, 20, &none), &none);
    assert_eq!(
        (first.decision.expected, first.decision.won),
        (1, TermName::Pressure)
    );
    assert!(
        first
            .decision
            .to_string()
            .contains("no growth: memory pressure is 24 %")
    );
    let grown = reconciler.reconcile(&seen(1, 20, &none), &none);
    assert_eq!(grown.decision.expected, 20);
    let busy = census(0, 20);
    let kept = reconciler.reconcile(&pressed(2, 40, &busy), &busy);
    assert_eq!(kept.decision.expected, 20);
    assert!(kept.plan.is_empty());
}

#[test]
fn an_allowance_limits_policy_and_pin_and_says_what_was_wanted() {
    let mut reconciler = Reconciler::new(rules(Policy::backlog(1).max(50)));
    let allowed = |second| Observation {
        allowance: Some(Allowance {
            workers: 6,
            why: String::from("its part of the supervisor's 12 workers"),
        }),
        ..seen(second, 20, &Census::default())
    };
    let none = Census::default();
    let limited = reconciler.reconcile(&allowed(0), &none);
    assert_eq!((limited.wanted, limited.decision.expected), (20, 6));
    assert_eq!(
        (limited.decision.won, limited.plan.spawn),
        (TermName::Budget, 6)
    );
    reconciler.set_orders(pinned_to(Some(9)));
    let pinned = reconciler.reconcile(&allowed(1), &none);
    assert_eq!((pinned.wanted, pinned.decision.expected), (9, 6));
}
