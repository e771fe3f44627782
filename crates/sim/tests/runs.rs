//! Properties of every run: no job is lost, the same seed gives the same run, and the decisions are those of the core.

use std::{num::NonZeroU32, time::Duration};

use proptest::prelude::*;
use tidegate_core::{
    decide::{BreakerRules, DrainAfter, Intake, Policy, Reconciler, Rules, Scaling, Schedule},
    settings::RetrySettings,
    trace::Trace,
};
use tidegate_sim::{
    Contender, Neighbour, PoolModel, ServiceTimes, SimulatedRun, Workload, simulate,
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

fn pool(rules: Rules) -> Contender {
    Contender::Pool(Box::new(PoolModel::new("pool", rules)))
}

fn neighbour(model: Neighbour) -> Contender {
    Contender::Neighbour {
        model,
        max: 20,
        retry: RetrySettings::default(),
    }
}

fn workload(text: &str, service: &str) -> Workload {
    let trace = Trace::parse(text).expect("a trace");
    let service = ServiceTimes::named(service).expect("named").expect("valid");
    Workload::new(trace, service)
}

fn run(workload: &Workload, contender: &Contender) -> SimulatedRun {
    simulate(workload, contender, &mut |_, _, _| {})
}

/// A burst, a lull and a second burst.
const TIDE: &str = "time,arrivals\n0,300\n60,20\n600,800\n660,0\n";

#[test]
fn a_pool_rises_with_a_burst_and_falls_to_zero_after_it() {
    let run = run(
        &workload(TIDE, "exp:2s"),
        &pool(rules(Policy::backlog(10).max(20))),
    );
    let report = &run.report;
    assert_eq!((report.jobs, report.done, report.left), (1120, 1120, 0));
    assert!(report.peak > 5 && report.peak <= 20, "{report:?}");
    let lull = run
        .curve
        .iter()
        .filter(|point| (200.0..590.0).contains(&point.at));
    assert!(
        lull.clone().any(|point| point.workers == 0),
        "never drained in the lull"
    );
    assert_eq!(report.interrupted, 0);
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let mut workload = workload(TIDE, "lognormal:2s,4s");
    workload.failures = 0.05;
    for contender in [
        pool(rules(Policy::backlog(3).max(20))),
        neighbour(Neighbour::Horizon),
    ] {
        let first = run(&workload, &contender);
        let again = run(&workload, &contender);
        assert_eq!(first.report, again.report);
        assert_eq!(first.curve, again.curve);
        let other = Workload {
            seed: 2,
            ..workload.clone()
        };
        assert_ne!(first.report, run(&other, &contender).report);
    }
}

/// Common random numbers: runs differ only in the compared policy.
#[test]
fn all_compared_policies_get_the_same_jobs() {
    let mut workload = workload(TIDE, "exp:2s");
    workload.failures = 0.1;
    let one = run(&workload, &pool(rules(Policy::backlog(3).max(20)))).report;
    let other = run(&workload, &neighbour(Neighbour::Horizon)).report;
    assert_eq!(
        (one.jobs, one.retried, one.dead),
        (other.jobs, other.retried, other.dead)
    );
    assert!(
        (one.busy_seconds - other.busy_seconds).abs() < 1e-3,
        "{one:?} {other:?}"
    );
    assert!(one.retried > 50);
}

#[test]
fn jobs_that_fail_are_tried_again_as_often_as_the_pool_allows() {
    let mut workload = workload("time,arrivals\n0,20000\n20000,0\n", "exp:1s");
    workload.failures = 0.5;
    let mut model = PoolModel::new("pool", rules(Policy::backlog(1).max(20)));
    model.retry.max_attempts = 3;
    let report = run(&workload, &Contender::Pool(Box::new(model))).report;
    let share = |count: u64| count as f64 / report.jobs as f64;
    // Half fail once, a quarter twice, an eighth at all three attempts.
    assert!((share(report.retried) - 0.75).abs() < 0.02, "{report:?}");
    assert!((share(report.dead) - 0.125).abs() < 0.01, "{report:?}");
}

#[test]
fn a_breaker_keeps_messages_in_the_queue_and_tries_one_at_a_time() {
    let mut workload = workload("time\n0\n0\n0\n0\n0\n0\n0\n0\n0\n0\n0\n0\n", "fixed:2s");
    workload.failures = 1.0;
    let mut model = PoolModel::new("pool", rules(Policy::backlog(1).max(20)));
    let without = run(&workload, &Contender::Pool(Box::new(model.clone()))).report;
    model.retry.breaker = Some(BreakerRules::default());
    model.prefetch = 2;
    let mut seen = [0u32; 3];
    let contender = Contender::Pool(Box::new(model));
    let with = simulate(
        &workload,
        &contender,
        &mut |observation, census, decision| {
            let most = match observation.intake {
                Intake::Open => {
                    seen[0] += 1;
                    20
                }
                Intake::BreakerTrial => {
                    seen[1] += 1;
                    assert!(observation.held <= 1, "{observation:?}");
                    1
                }
                Intake::BreakerOpen => {
                    seen[2] += 1;
                    0
                }
                other => panic!("{other:?}"),
            };
            assert!(decision.expected <= most, "{decision}");
            assert!(census.counts().live() <= 20);
        },
    )
    .report;
    assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
    assert_eq!((with.done, with.dead, with.left), (0, 12, 0));
    // Nothing closes it: each further attempt waits for a pause of 30 s or longer.
    assert!(without.seconds < 100.0, "{without:?}");
    assert!(with.seconds > 30.0 * f64::from(4 * 12 - 1), "{with:?}");
}

#[test]
fn a_breaker_closes_when_a_job_succeeds() {
    let mut workload = workload("time,arrivals\n0,4000\n4000,0\n", "exp:1s");
    workload.failures = 0.4;
    let mut model = PoolModel::new("pool", rules(Policy::backlog(1).max(20)));
    model.retry.breaker = Some(BreakerRules {
        failure_percent: 60,
        ..BreakerRules::default()
    });
    let mut opened = 0;
    let mut was_open = false;
    let contender = Contender::Pool(Box::new(model));
    let report = simulate(&workload, &contender, &mut |observation, _, _| {
        let is_open = observation.intake != Intake::Open;
        opened += u32::from(is_open && !was_open);
        was_open = is_open;
    })
    .report;
    assert!(opened > 1, "it opens by chance, and closes again: {opened}");
    assert_eq!((report.done + report.dead, report.left), (report.jobs, 0));
}

#[test]
fn a_runner_is_started_before_the_first_job_and_then_kept() {
    let mut workload = workload("time\n0\n0\n0\n", "fixed:2s");
    workload.start_up = Duration::from_secs(1);
    let report = run(&workload, &pool(rules(Policy::fixed(1)))).report;
    assert_eq!(
        report.wait_s.max, 5.0,
        "1 s for the runner, then one job after the other"
    );
    assert_eq!(report.seconds, 7.0);
    // The backlog is read at the first reconcile, and the workers stop with the last job.
    assert_eq!((report.busy_seconds, report.worker_seconds), (6.0, 7.0));
}

#[test]
fn jobs_that_no_worker_takes_are_counted_and_end_the_run() {
    let report = run(
        &workload("time\n0\n0\n", "fixed:2s"),
        &pool(rules(Policy::fixed(0))),
    )
    .report;
    assert_eq!((report.jobs, report.done, report.left), (2, 0, 2));
    assert_eq!(report.over_target, 2);
    assert!(report.seconds >= 86_400.0, "{report:?}");
}

#[test]
fn keda_stops_pods_that_work_and_their_jobs_run_again() {
    // A hundred jobs of up to 4 minutes. Once they are taken, few messages are ready, and KEDA asks for fewer pods.
    let workload = workload("time,arrivals\n0,100\n1,0\n", "fixed:4m");
    let keda = NonZeroU32::new(5).map(Neighbour::Keda).expect("not 0");
    let report = run(&workload, &neighbour(keda)).report;
    assert!(report.interrupted > 0, "{report:?}");
    assert_eq!((report.done, report.left), (100, 0));
    let ours = run(&workload, &pool(rules(Policy::backlog(5).max(20)))).report;
    assert_eq!(ours.interrupted, 0);
    assert!(report.busy_seconds > ours.busy_seconds);
}

#[test]
fn a_job_that_is_interrupted_again_and_again_ends_the_run() {
    // KEDA stops the last pod 300 s after it saw the last message.
    let workload = workload("time\n0\n", "fixed:1h");
    let keda = NonZeroU32::new(5).map(Neighbour::Keda).expect("not 0");
    let report = run(&workload, &neighbour(keda)).report;
    assert_eq!((report.done, report.left), (0, 1));
    assert!(report.interrupted > 1000, "{report:?}");
}

/// Each decision of a run equals the result of the reconciler for the same observation and census.
#[test]
fn decisions_are_those_of_the_reconciler() {
    let rules = rules(Policy::backlog(5).max(20));
    let mut alone = Reconciler::new(rules.clone());
    let mut decisions = 0;
    simulate(
        &workload(TIDE, "exp:2s"),
        &pool(rules),
        &mut |observation, census, decision| {
            let reconciliation = alone.reconcile(observation, census);
            assert_eq!(&reconciliation.decision, decision);
            assert_eq!(
                observation.held,
                u64::from(census.counts().busy + census.counts().retiring)
            );
            decisions += 1;
        },
    );
    assert!(decisions > 1300, "{decisions}");
}

fn any_contender() -> impl Strategy<Value = Contender> {
    let jobs = || (1u32..20).prop_map(|jobs| NonZeroU32::new(jobs).expect("above 0"));
    let pools = (
        1u32..20,
        1u32..30,
        0u64..20,
        0u32..3,
        any::<bool>(),
        1u16..4,
    )
        .prop_map(|(jobs, max, window, warm, preempt, prefetch)| {
            let mut rules = rules(Policy::backlog(jobs).max(max));
            rules.scaling.down_window = Duration::from_secs(window);
            rules.keep_warm = warm.min(max);
            rules.preempt = preempt;
            let mut model = PoolModel::new("pool", rules);
            model.prefetch = prefetch;
            Contender::Pool(Box::new(model))
        });
    prop_oneof![
        3 => pools,
        1 => (1u32..10).prop_map(|workers| neighbour(Neighbour::Fixed(workers))),
        1 => jobs().prop_map(|jobs| neighbour(Neighbour::Keda(jobs))),
        1 => jobs().prop_map(|jobs| neighbour(Neighbour::Knative(jobs))),
        1 => Just(neighbour(Neighbour::Horizon)),
        1 => Just(neighbour(Neighbour::Judoscale(Duration::from_secs(20)))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_job_is_settled_exactly_once(
        contender in any_contender(),
        spans in proptest::collection::vec((1u32..120, 0u32..150), 1..12),
        failures in prop_oneof![Just(0.0), 0.0..0.5f64],
        start_up in 0u64..3000,
        seed: u64,
    ) {
        let mut text = String::from("time,arrivals\n");
        let mut time = 0;
        let mut expected = 0;
        for (length, arrivals) in spans {
            text.push_str(&format!("{time},{arrivals}\n"));
            time += length;
            expected += u64::from(arrivals);
        }
        text.push_str(&format!("{time},0\n"));
        let mut workload = workload(&text, "exp:1500ms");
        workload.failures = failures;
        workload.start_up = Duration::from_millis(start_up);
        workload.seed = seed;
        let run = run(&workload, &contender);
        let report = &run.report;
        prop_assert_eq!(report.jobs, expected);
        prop_assert_eq!(report.done + report.dead, expected);
        prop_assert_eq!(report.left, 0);
        prop_assert!(report.starts >= report.stops && report.starts - report.stops <= report.peak);
        prop_assert!(report.busy_seconds <= report.worker_seconds + 1e-6, "{:?}", report);
        prop_assert!(report.wait_s.p50 <= report.wait_s.p95 && report.wait_s.p99 <= report.wait_s.max);
        prop_assert!(report.over_target <= report.jobs);
        let seen: u64 = run.curve.iter().map(|point| point.arrivals).sum();
        prop_assert_eq!(seen, expected);
    }
}
