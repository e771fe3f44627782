//! Properties of every run: no job is lost, the same seed gives the same run, and the decisions are those of the core.

use std::{num::NonZeroU32, time::Duration};

use proptest::prelude::*;
use tidegate_core::{
    decide::{
        BreakerRules, DrainAfter, Intake, Moment, Policy, Reconciler, Rule, Rules, Scaling,
        Schedule, ScheduleEntry, ScheduledBounds,
    },
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

/// KEDA's page on ScaledObjects: `pollingInterval` 30 s from zero, and `cooldownPeriod` 300 s back to zero.
#[test]
fn keda_starts_its_first_pod_at_a_poll_and_stops_it_300_s_after_the_last_poll_with_a_message() {
    let workload = workload("time,arrivals\n0,0\n10,1\n10,0\n500,0\n", "fixed:1s");
    let keda = NonZeroU32::new(5).map(Neighbour::Keda).expect("not 0");
    let report = run(&workload, &neighbour(keda)).report;
    assert_eq!((report.wait_s.max, report.worker_seconds), (20.0, 300.0));
    assert_eq!((report.starts, report.stops), (1, 1));
}

/// Horizon's `balanceMaxShift` 1 and `balanceCooldown` 3 s: from 20 processes to one in 57 s, of which the last stays.
#[test]
fn horizon_starts_at_its_maximum_and_goes_down_by_one_process_each_3_s() {
    let workload = workload("time,arrivals\n0,0\n120,0\n", "fixed:1s");
    let report = run(&workload, &neighbour(Neighbour::Horizon)).report;
    let falling: u32 = (2..=20).map(|processes| 3 * processes).sum();
    assert_eq!(report.seconds, 240.0);
    assert_eq!(report.worker_seconds, f64::from(falling) + 240.0 - 57.0);
    assert_eq!((report.starts, report.stops), (20, 19));
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

/// Every kind of policy.
fn any_policy() -> impl Strategy<Value = Policy> {
    let steps = proptest::collection::vec((0u64..60, 0u32..20), 1..4).prop_map(Policy::steps);
    let target_wait = (1u64..90, 0.3f64..1.0).prop_map(|(target, share)| {
        Policy::target_wait(Duration::from_secs(target)).utilisation(share)
    });
    let kinds = prop_oneof![
        (0u32..20).prop_map(Policy::fixed),
        (1u32..20).prop_map(Policy::backlog),
        steps,
        target_wait,
    ];
    (kinds, 0u32..4, 1u32..30).prop_map(|(policy, min, max)| policy.max(max).min_active(min))
}

/// Bounds for a part of every few minutes, or none. The ceiling may be zero.
fn any_schedule() -> impl Strategy<Value = Schedule> {
    let bounds = (
        proptest::option::of(0u32..20),
        proptest::option::of(0u32..6),
        proptest::option::of(0u32..4),
    );
    let entry = (
        prop_oneof![Just("*/3 * * * *"), Just("*/7 * * * *")],
        20u64..150,
        bounds,
    );
    let entry = entry.prop_map(
        |(cron, lasts, (max, min_active, keep_warm))| ScheduleEntry {
            cron: cron.parse().expect("a cron expression"),
            zone: jiff::tz::TimeZone::UTC,
            lasts: Duration::from_secs(lasts),
            bounds: ScheduledBounds {
                min_active,
                max,
                keep_warm,
            },
        },
    );
    proptest::collection::vec(entry, 0..3).prop_map(Schedule::new)
}

fn any_scaling() -> impl Strategy<Value = Scaling> {
    let churn = proptest::option::of(1u32..40);
    (1u32..30, 0u64..20, 1u32..30, churn).prop_map(|(up_step, window, down_step, churn)| Scaling {
        up_step,
        down_window: Duration::from_secs(window),
        down_step,
        churn,
    })
}

fn any_retry() -> impl Strategy<Value = RetrySettings> {
    let breaker = prop_oneof![2 => Just(None), 1 => Just(Some(BreakerRules::default()))];
    (1u32..6, 0u64..5000, breaker).prop_map(|(max_attempts, backoff, breaker)| RetrySettings {
        max_attempts,
        backoff: Duration::from_millis(backoff),
        breaker,
        ..RetrySettings::default()
    })
}

fn any_pool() -> impl Strategy<Value = Contender> {
    let sizing = (any_policy(), any_schedule(), any_scaling());
    let drain = prop_oneof![
        (0u64..20).prop_map(|drain| DrainAfter::After(Duration::from_secs(drain))),
        (1u64..20).prop_map(|drain| DrainAfter::ByArrivals(Duration::from_secs(drain))),
        Just(DrainAfter::Never),
    ];
    let rest = (
        drain,
        0u32..4,
        any::<bool>(),
        1u16..5,
        prop_oneof![Just(500u64), Just(2000), Just(9000)],
        any_retry(),
        proptest::option::of(1u32..20),
    );
    (sizing, rest).prop_map(
        |(
            (policy, schedule, scaling),
            (drain_after, warm, preempt, prefetch, poll, retry, most),
        )| {
            let rules = Rules {
                scaling,
                drain_after,
                keep_warm: warm.min(policy.max),
                preempt,
                schedule,
                ..rules(policy)
            };
            let mut model = PoolModel::new("pool", rules);
            model.prefetch = prefetch;
            model.poll_interval = Duration::from_millis(poll);
            model.retry = retry;
            model.max_workers = most;
            Contender::Pool(Box::new(model))
        },
    )
}

fn any_neighbour() -> impl Strategy<Value = Contender> {
    let jobs = || (1u32..20).prop_map(|jobs| NonZeroU32::new(jobs).expect("above 0"));
    let model = prop_oneof![
        (0u32..10).prop_map(Neighbour::Fixed),
        jobs().prop_map(Neighbour::Keda),
        jobs().prop_map(Neighbour::Knative),
        Just(Neighbour::Horizon),
        (1u64..60).prop_map(|target| Neighbour::Judoscale(Duration::from_secs(target))),
    ];
    let retry = any_retry();
    (model, 1u32..30, retry).prop_map(|(model, max, retry)| Contender::Neighbour {
        model,
        max,
        retry,
    })
}

/// Whether every job is certain to end: work always gets a worker in the end, and no running job is stopped again and again.
fn ends_all_jobs(contender: &Contender, service: &str) -> bool {
    let is_short = service != HEAVY_TAIL;
    match contender {
        Contender::Pool(model) => {
            let rules = &model.rules;
            rules.policy.min_active > 0 && (is_short || !rules.preempt)
        }
        Contender::Neighbour { model, .. } => match model {
            Neighbour::Fixed(workers) => *workers > 0,
            Neighbour::Keda(_) => is_short,
            _ => true,
        },
    }
}

const HEAVY_TAIL: &str = "lognormal:2s,8s";

/// Counted arrivals in so many seconds each, on the clock of a wall, so that schedules apply.
fn trace_of(spans: &[(u32, u32)]) -> (String, u64) {
    let mut text = String::from("time,arrivals\n");
    let mut time: jiff::Timestamp = "2026-11-26T08:00:00Z".parse().expect("a time");
    let mut jobs = 0;
    for (length, arrivals) in spans {
        text.push_str(&format!("{time},{arrivals}\n"));
        time += Duration::from_secs(u64::from(*length));
        jobs += u64::from(*arrivals);
    }
    text.push_str(&format!("{time},0\n"));
    (text, jobs)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Every policy, schedule and neighbour, with failures, retries, a breaker, start-ups and limits on churn. The jobs
    /// that are left are counted where they are, in the queue, at a worker or in a backoff: a lost job is not one.
    #[test]
    fn every_job_is_settled_exactly_once_or_still_there(
        contender in prop_oneof![3 => any_pool(), 2 => any_neighbour()],
        spans in proptest::collection::vec((1u32..120, 0u32..150), 1..12),
        service in prop_oneof![Just("exp:1500ms"), Just("fixed:2s"), Just(HEAVY_TAIL)],
        failures in prop_oneof![Just(0.0), 0.0..0.5f64, Just(1.0)],
        start_up in 0u64..3000,
        seed: u64,
    ) {
        let (text, expected) = trace_of(&spans);
        let mut workload = workload(&text, service);
        workload.failures = failures;
        workload.start_up = Duration::from_millis(start_up);
        workload.seed = seed;
        let run = run(&workload, &contender);
        let report = &run.report;
        prop_assert_eq!(report.jobs, expected);
        prop_assert_eq!(report.done + report.dead + report.left, expected, "{:?}", report);
        if ends_all_jobs(&contender, service) {
            prop_assert_eq!(report.left, 0, "{:?}", report);
        }
        prop_assert!(report.starts >= report.stops && report.starts - report.stops <= report.peak);
        prop_assert!(report.busy_seconds <= report.worker_seconds + 1e-6, "{:?}", report);
        prop_assert!(report.wait_s.p50 <= report.wait_s.p95 && report.wait_s.p99 <= report.wait_s.max);
        prop_assert!(report.over_target <= report.jobs);
        let seen: u64 = run.curve.iter().map(|point| point.arrivals).sum();
        prop_assert_eq!(seen, expected);
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The limit of `scaling.churn` holds for every kind of policy and for any minute.
    #[test]
    fn no_minute_has_more_starts_and_stops_than_the_churn_allows(
        policy in any_policy(),
        churn in 1u32..30,
        spans in proptest::collection::vec((1u32..120, 0u32..150), 1..12),
        seed: u64,
    ) {
        let mut workload = workload(&trace_of(&spans).0, "exp:1500ms");
        workload.seed = seed;
        let mut rules = rules(policy);
        rules.scaling.churn = Some(churn);
        let mut changes: Vec<(Moment, u32)> = Vec::new();
        let mut before = 0;
        simulate(&workload, &pool(rules), &mut |observation, _, decision| {
            // The rule of an empty queue lets all workers go at once.
            if decision.rule == Rule::Policy {
                changes.push((observation.at, decision.expected.abs_diff(before)));
            }
            before = decision.expected;
        });
        // Changes within a second count as one, at the time of the first.
        let minute = Duration::from_secs(59);
        for (n, (from, _)) in changes.iter().enumerate() {
            let within = changes[n..].iter().take_while(|(at, _)| at.since(*from) < minute);
            let sum: u32 = within.map(|(_, workers)| workers).sum();
            prop_assert!(sum <= churn, "{sum} from {from:?} on");
        }
    }
}
