//! What holds for every kind of policy, with schedules and budgets.

use jiff::tz::TimeZone;

use super::*;
use crate::decide::{Allowance, ScheduleEntry, ScheduledBounds, Spread, Step};

/// Every kind, with bounds. Steps rise, as demand does.
fn every_policy() -> impl Strategy<Value = Policy> {
    let steps = proptest::collection::vec((1u64..200, 0u32..40), 1..4).prop_map(|mut steps| {
        steps.sort_unstable();
        let mut highest = 0;
        let rising = steps.into_iter().map(|(demand, workers)| {
            highest = workers.max(highest);
            Step::from((demand, highest))
        });
        Policy::steps(rising.map(<(u64, u32)>::from))
    });
    let target_wait = (1u64..120, 0.3f64..1.0).prop_map(|(target, share)| {
        Policy::target_wait(Duration::from_secs(target)).utilisation(share)
    });
    prop_oneof![
        (0u32..30).prop_map(Policy::fixed),
        (1u32..20).prop_map(Policy::backlog),
        steps,
        target_wait,
    ]
    .prop_flat_map(|policy| (Just(policy), 0u32..5, 5u32..60))
    .prop_map(|(policy, min, max)| policy.max(max).min_active(min))
}

/// Bounds that hold for the first half of each hour, or none.
fn any_schedule() -> impl Strategy<Value = Schedule> {
    proptest::option::of((5u32..60, 0u32..5)).prop_map(|bounds| {
        let entries = bounds.map(|(max, min_active)| ScheduleEntry {
            cron: "0 * * * *".parse().unwrap(),
            zone: TimeZone::UTC,
            lasts: Duration::from_secs(1800),
            bounds: ScheduledBounds {
                max: Some(max),
                min_active: Some(min_active),
                ..ScheduledBounds::default()
            },
        });
        Schedule::new(entries.into_iter().collect())
    })
}

#[derive(Debug, Clone)]
struct Case {
    rules: Rules,
    allowance: Option<u32>,
    /// Mean run time in seconds, and how many succeeded.
    service: (f64, u64),
}

impl Case {
    fn observe(&self, second: u64, ready: u64, census: &Census) -> Observation {
        let mean = Duration::from_secs_f64(self.service.0);
        let samples = self.service.1;
        let start = jiff::Timestamp::from_second(1_800_000_000).unwrap();
        Observation {
            wall: Some(start + Duration::from_secs(second)),
            allowance: self.allowance.map(|workers| Allowance {
                workers,
                why: String::from("the others need theirs"),
            }),
            timings: Timings {
                service: (samples > 0).then(|| Spread::new(mean, mean, mean * 3, samples)),
                ..Timings::default()
            },
            ..seen(second, ready, census)
        }
    }
}

fn any_case() -> impl Strategy<Value = Case> {
    let settings = (every_policy(), any_schedule(), 0u64..15, 1u64..30);
    let allowance = proptest::option::of(0u32..60);
    let service = (0.05f64..20.0, 0u64..40);
    (settings, allowance, service).prop_map(
        |((policy, schedule, window, drain), allowance, service)| {
            let drain = Duration::from_secs(drain);
            let drain_after = match policy.needs_measurements() {
                true => DrainAfter::ByArrivals(drain),
                false => DrainAfter::After(drain),
            };
            Case {
                rules: Rules {
                    scaling: Scaling {
                        up_step: u32::MAX,
                        down_window: Duration::from_secs(window),
                        down_step: u32::MAX,
                        churn: None,
                    },
                    drain_after,
                    schedule,
                    ..rules(policy)
                },
                allowance,
                service,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn more_ready_messages_never_lead_to_fewer_workers(
        case in any_case(),
        past in proptest::collection::vec((1u64..9, 0u64..200, 0u64..20), 0..12),
        // An empty queue has a rule of its own: it keeps each worker that is busy.
        ready in 1u64..300,
        more in 0u64..300,
        busy in 0u64..20,
    ) {
        let mut reconciler = Reconciler::new(case.rules.clone());
        let mut now = 0;
        for (wait, ready, busy) in past {
            now += wait;
            let census = census(u64::from(reconciler.expected()).saturating_sub(busy), busy);
            let _ = reconciler.reconcile(&case.observe(now, ready, &census), &census);
        }
        let census = census(u64::from(reconciler.expected()).saturating_sub(busy), busy);
        let expected = |ready| {
            let mut reconciler = reconciler.clone();
            let _ = reconciler.reconcile(&case.observe(now + 1, ready, &census), &census);
            reconciler.expected()
        };
        prop_assert!(expected(ready + more) >= expected(ready));
    }

    #[test]
    fn the_number_stays_within_the_bounds_of_policy_schedule_and_budget(
        case in any_case(),
        steps in proptest::collection::vec((1u64..900, 0u64..300, 0u64..20), 1..20),
    ) {
        let mut reconciler = Reconciler::new(case.rules.clone());
        let mut now = 0;
        for (wait, ready, busy) in steps {
            now += wait;
            let census = census(u64::from(reconciler.expected()).saturating_sub(busy), busy);
            let decision = reconciler.reconcile(&case.observe(now, ready, &census), &census).decision;
            let policy = reconciler.policy();
            prop_assert!(decision.expected <= policy.max);
            prop_assert!(decision.expected <= case.allowance.unwrap_or(u32::MAX));
            if decision.rule == Rule::Policy {
                let floor = policy.min_active.min(policy.max).min(case.allowance.unwrap_or(u32::MAX));
                prop_assert!(decision.expected >= floor, "{}", decision);
            }
        }
    }

    /// Messages come and go at one rate. Each reading has the same numbers of ready and held messages.
    #[test]
    fn a_constant_input_leads_to_one_number(
        case in any_case(),
        rate in 0u64..40,
        ready in 0u64..200,
        busy in 0u64..30,
        age in 0u64..60,
    ) {
        // No schedule: its windows would change the number.
        let mut reconciler = Reconciler::new(Rules { schedule: Schedule::default(), ..case.rules.clone() });
        let mut after = Vec::new();
        for second in 0..1500 {
            let census = census(u64::from(reconciler.expected()).saturating_sub(busy), busy);
            let observation = Observation {
                gone: second * rate,
                last_taken: (rate > 0).then(|| Moment::after_start(Duration::from_secs(second))),
                oldest: (ready > 0).then(|| Duration::from_secs(age)),
                ..case.observe(second, ready, &census)
            };
            let _ = reconciler.reconcile(&observation, &census);
            if second >= 1200 {
                after.push(reconciler.expected());
            }
        }
        after.dedup();
        prop_assert_eq!(after.len(), 1, "{:?}", after);
    }

    /// Workers hold messages, and nothing is ever finished.
    #[test]
    fn work_that_never_ends_never_scales_down(
        case in any_case(),
        ready in 0u64..200,
        busy in 1u64..30,
    ) {
        let mut reconciler = Reconciler::new(Rules { schedule: Schedule::default(), ..case.rules.clone() });
        let usual = Duration::from_secs_f64(case.service.0 * 6.0).max(Duration::from_secs(30));
        let mut before = 0;
        for second in 0..900 {
            let busy = busy.min(u64::from(reconciler.expected()).max(1));
            let census = census(u64::from(reconciler.expected()).saturating_sub(busy), busy);
            let mut observation = case.observe(second, ready, &census);
            let fruitless = Duration::from_secs(second);
            observation.timings.fruitless = Some(fruitless);
            observation.last_taken = Some(Moment::ZERO);
            let decision = reconciler.reconcile(&observation, &census).decision;
            // An empty queue keeps the workers that hold a message.
            let least = match decision.rule {
                Rule::Empty => u32::try_from(busy).unwrap().min(reconciler.policy().max),
                _ => before,
            };
            let least = least.min(case.allowance.unwrap_or(u32::MAX));
            if fruitless > usual {
                prop_assert!(decision.expected >= least, "{}", decision);
            }
            before = decision.expected;
        }
    }
}
