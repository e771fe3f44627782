//! Tests of `target_wait`: the number that it asks for, with its terms.

use proptest::prelude::*;

use super::*;
use crate::decide::{Arrivals, Measured, Policy, ScalingPolicy as _, Situation, Timings};

const TARGET: Duration = Duration::from_secs(30);

fn service(mean: f64, samples: u64) -> Spread {
    let mean = Duration::from_secs_f64(mean);
    Spread::new(mean, mean, mean * 3, samples)
}

/// A queue with these numbers of ready and held messages, this age of the oldest message, and this rate of arrivals.
/// Each job takes 2 s.
fn queue(ready: u64, held: u64, age: u64, rate: f64) -> Inputs {
    Inputs {
        ready,
        held,
        holders: u32::try_from(held).unwrap(),
        demand: ready + held,
        oldest: (ready > 0).then(|| Duration::from_secs(age)),
        measured: Measured {
            arrivals: Some(Arrivals::steady(rate, Duration::from_secs(600))),
            timings: Timings {
                service: Some(service(2.0, 100)),
                ..Timings::default()
            },
        },
        ..Inputs::default()
    }
}

fn asked(inputs: &Inputs, expected: u32) -> Recommendation {
    TargetWait::new(TARGET).recommendation(inputs, expected)
}

#[test]
fn asks_for_no_fewer_than_the_backlog_needs_and_no_more_than_arrivals_keep_busy() {
    // (ready, held, age, rate, until now) -> workers.
    for (case, workers) in [
        // 12 workers' work a second, and nothing waits: 12 are enough.
        ((0, 12, 0, 6.0, 40), 12),
        ((10, 12, 1, 6.0, 13), 12),
        ((0, 10, 0, 6.0, 10), 10),
        // Messages wait: 80 % of 15 are busy with the arrivals. Between both numbers nothing changes.
        ((60, 12, 7, 6.0, 40), 15),
        ((60, 12, 7, 6.0, 15), 15),
        ((60, 12, 7, 6.0, 13), 13),
        // 100 jobs of 2 s in the 24 s that are planned with.
        ((100, 0, 0, 0.0, 0), 9),
        // 12 s of them are over.
        ((100, 0, 12, 0.0, 9), 17),
        // All of them are over: within the least time of 4.5 s.
        ((100, 17, 60, 0.0, 17), 45),
        // One message needs one worker, and none needs none.
        ((1, 0, 0, 0.0, 0), 1),
        ((0, 0, 0, 0.0, 5), 0),
    ] {
        let (ready, held, age, rate, expected) = case;
        let recommendation = asked(&queue(ready, held, age, rate), expected);
        assert_eq!(
            recommendation.workers, workers,
            "{case:?}: {recommendation:?}"
        );
    }
}

#[test]
fn says_each_term() {
    let why = asked(&queue(40, 13, 4, 6.2), 13).why;
    assert_eq!(
        why,
        "13 workers: 6.2 jobs/s x 2.0 s at 80 % = 15.5 at most; 40 waiting within 20 s needs 4.0; 5.3 so that a message \
         finds a worker in time; between the two numbers the pool keeps its size"
    );
}

#[test]
fn counts_messages_that_arrive_while_a_new_worker_starts() {
    let mut inputs = queue(20, 1, 0, 10.0);
    inputs.holders = 1;
    let now = asked(&inputs, 1).workers;
    inputs.measured.timings.start_up = Some(service(2.0, 10));
    // 57 more wait after 6 s, and only 18 s are left of the 24 s.
    let ahead = asked(&inputs, 1);
    assert!(ahead.workers > now, "{now}, then {ahead:?}");
    assert!(
        ahead.why.contains("more come before a new worker is ready"),
        "{}",
        ahead.why
    );
}

#[test]
fn a_target_of_only_a_few_run_times_keeps_some_workers_idle() {
    let wait = TargetWait::new(Duration::from_secs(2));
    // 10 are busy. With 12 and jobs of 2 s, many messages would wait longer than 2 s.
    let workers = wait.recommendation(&queue(0, 10, 0, 5.0), 0).workers;
    assert!((13..=16).contains(&workers), "{workers}");
}

#[test]
fn before_run_times_are_known_starts_a_bounded_number_and_says_so() {
    let mut inputs = queue(100, 0, 0, 5.0);
    inputs.measured.timings.service = None;
    let first = asked(&inputs, 0);
    assert_eq!(first.workers, 10);
    assert_eq!(
        first.why,
        "10 workers: no job has succeeded yet, one worker for each job, at most 10, for 100 jobs of demand"
    );
    inputs.measured.timings.service = Some(service(2.0, 4));
    assert!(
        asked(&inputs, 10)
            .why
            .contains("only 4 jobs have succeeded yet")
    );
    // Jobs that run for half of the target: those that wait would be late.
    inputs.measured.timings.service = None;
    inputs.measured.timings.fruitless = Some(Duration::from_secs(15));
    assert_eq!(asked(&inputs, 10).workers, 100);
}

#[test]
fn never_scales_down_while_no_job_succeeds() {
    let mut inputs = queue(3, 12, 2, 0.0);
    assert!(
        asked(&inputs, 12).workers < 12,
        "otherwise this shows nothing"
    );
    inputs.measured.timings.fruitless = Some(Duration::from_secs(45));
    let stuck = asked(&inputs, 12);
    assert_eq!(stuck.workers, 12);
    assert!(
        stuck.why.starts_with("stuck: no job succeeded for 45s"),
        "{}",
        stuck.why
    );
    // Jobs that usually take long are not stuck so soon.
    inputs.measured.timings.service = Some(service(20.0, 100));
    assert!(!asked(&inputs, 12).why.contains("stuck"));
}

#[test]
fn its_settings_serialize_as_people_write_them() {
    let policy = Policy::target_wait(TARGET).utilisation(0.9).max(20);
    assert_eq!(
        policy.to_string(),
        "wait under 30s at 90 % utilisation, 1 to 20 workers"
    );
    let json = serde_json::to_value(&policy).unwrap();
    let written = serde_json::json!({
        "kind": "target_wait", "target": "30s", "utilisation": 0.9, "min_active": 1, "max": 20,
    });
    assert_eq!(json, written);
    assert_eq!(serde_json::from_value::<Policy>(json).unwrap(), policy);
    assert_eq!(
        Policy::target_wait(TARGET).utilisation(7.0),
        Policy::target_wait(TARGET).utilisation(1.0)
    );
    serde_json::from_value::<Utilisation>(serde_json::json!(0.05)).unwrap_err();
}

fn measured() -> impl Strategy<Value = Inputs> {
    let numbers = (0u64..5000, 0u64..500, 0u64..120, 0.0f64..50.0);
    let times = (
        0.01f64..60.0,
        0u64..40,
        0.0f64..20.0,
        prop::option::of(0u64..300),
    );
    (numbers, times).prop_map(
        |((ready, held, age, rate), (mean, samples, up, fruitless))| {
            let mut inputs = queue(ready, held, age, rate);
            inputs.measured.timings.service = (samples > 0).then(|| service(mean, samples));
            inputs.measured.timings.start_up = Some(service(up, 10));
            inputs.measured.timings.fruitless = fruitless.map(Duration::from_secs);
            inputs
        },
    )
}

proptest! {
    #[test]
    fn more_waiting_messages_never_ask_for_fewer_workers(
        inputs in measured(), more in 0u64..1000, expected in 0u32..200,
    ) {
        let fewer = asked(&inputs, expected).workers;
        let mut longer = inputs.clone();
        longer.ready += more;
        longer.demand += more;
        longer.oldest = longer.oldest.or(Some(Duration::ZERO));
        prop_assert!(asked(&longer, expected).workers >= fewer);
    }

    #[test]
    fn asking_again_about_the_same_queue_gives_the_same_number(inputs in measured(), expected in 0u32..200) {
        let first = asked(&inputs, expected).workers;
        prop_assert_eq!(asked(&inputs, first).workers, first);
    }

    #[test]
    fn demand_needs_at_least_one_worker_and_stuck_jobs_never_need_fewer(
        inputs in measured(), expected in 0u32..200,
    ) {
        let workers = asked(&inputs, expected).workers;
        prop_assert!(workers > 0 || inputs.demand == 0);
        let mut stuck = inputs.clone();
        stuck.measured.timings.fruitless = Some(Duration::from_secs(1000));
        prop_assert!(asked(&stuck, expected).workers >= expected);
    }

    #[test]
    fn the_policy_asks_the_same_as_a_scaling_policy(inputs in measured(), expected in 0u32..200) {
        let situation = Situation {
            now: crate::decide::Moment::ZERO,
            wall: None,
            inputs: &inputs,
            expected,
            oldest: inputs.oldest,
            rates: None,
            measured: inputs.measured,
        };
        let answer = Policy::target_wait(TARGET).recommend(&situation);
        prop_assert_eq!(answer, asked(&inputs, expected));
    }
}
