//! The simulator against queueing theory: fixed pools of workers, for which the mean wait is known.

use std::{num::NonZeroU32, time::Duration};

use tidegate_core::{
    decide::{DrainAfter, Policy, Rules, Scaling, Schedule},
    trace::Trace,
};
use tidegate_sim::{Contender, Neighbour, PoolModel, Report, ServiceTimes, Workload, simulate};

/// A pool with this number of workers that never drains.
fn fixed(workers: u32) -> Contender {
    let rules = Rules {
        policy: Policy::fixed(workers),
        own: None,
        scaling: Scaling::default(),
        drain_after: DrainAfter::Never,
        keep_warm: 0,
        preempt: false,
        schedule: Schedule::default(),
    };
    let mut model = PoolModel::new("fixed", rules);
    // Nothing changes after the first reconcile.
    model.poll_interval = Duration::from_secs(600);
    Contender::Pool(Box::new(model))
}

/// `jobs` arrivals at `rate` a second, with this service time.
fn run(contender: &Contender, jobs: u32, rate: f64, service: &str) -> Report {
    let end = f64::from(jobs) / rate;
    let trace =
        Trace::parse(&format!("time,arrivals\n0,{jobs}\n{end},0\n{end},0\n")).expect("a trace");
    let service = ServiceTimes::named(service).expect("named").expect("valid");
    let workload = Workload {
        seed: 11,
        ..Workload::new(trace, service)
    };
    simulate(&workload, contender, &mut |_, _, _| {}).report
}

fn assert_close(what: &str, found: f64, expected: f64, off: f64) {
    let error = found / expected - 1.0;
    assert!(
        error.abs() < off,
        "{what}: {found:.4}, but theory says {expected:.4}, {:.1} % off",
        error * 100.0
    );
}

/// The mean wait of M/M/c: Erlang C.
fn erlang_c(arrivals: f64, service: f64, workers: NonZeroU32) -> f64 {
    let load = arrivals * service;
    let c = f64::from(workers.get());
    // Erlang B by its recursion, then C by B.
    let blocked = (1..=workers.get()).fold(1.0, |blocked, n| {
        load * blocked / (f64::from(n) + load * blocked)
    });
    let waits = c * blocked / (c - load * (1.0 - blocked));
    waits * service / (c - load)
}

/// The mean wait of M/G/1: Pollaczek and Khinchine.
fn pollaczek_khinchine(arrivals: f64, service: f64, deviation: f64) -> f64 {
    let load = arrivals * service;
    arrivals * (service * service + deviation * deviation) / (2.0 * (1.0 - load))
}

#[test]
fn the_formulas_agree_at_their_common_cases() {
    let one = NonZeroU32::MIN;
    let exponential = pollaczek_khinchine(0.4, 2.0, 2.0);
    assert!((erlang_c(0.4, 2.0, one) - exponential).abs() < 1e-12);
    assert!((exponential - 8.0).abs() < 1e-12);
}

#[test]
fn exponential_jobs_on_several_workers_wait_as_erlang_says() {
    for (workers, rate) in [(2, 0.7), (4, 1.6), (10, 4.5), (50, 23.0)] {
        let report = run(&fixed(workers), 400_000, rate, "exp:2s");
        let expected = erlang_c(rate, 2.0, NonZeroU32::new(workers).expect("workers"));
        assert_close(
            &format!("M/M/{workers}"),
            report.wait_s.mean,
            expected,
            0.04,
        );
        assert_eq!(report.peak, u64::from(workers));
    }
}

#[test]
fn a_fixed_pool_of_a_neighbour_model_waits_as_erlang_c_predicts() {
    let fixed = Contender::Neighbour {
        model: Neighbour::Fixed(4),
        max: 50,
        retry: tidegate_core::settings::RetrySettings::default(),
    };
    let report = run(&fixed, 400_000, 1.6, "exp:2s");
    let expected = erlang_c(1.6, 2.0, NonZeroU32::new(4).expect("workers"));
    assert_close("M/M/4", report.wait_s.mean, expected, 0.04);
}

#[test]
fn equal_jobs_on_one_worker_wait_half_as_long_as_exponential_ones() {
    let report = run(&fixed(1), 400_000, 0.4, "fixed:2s");
    assert_close(
        "M/D/1",
        report.wait_s.mean,
        pollaczek_khinchine(0.4, 2.0, 0.0),
        0.03,
    );
}

#[test]
fn jobs_of_any_length_on_one_worker_wait_as_pollaczek_and_khinchine_say() {
    for deviation in [1.0, 3.0] {
        let service = format!("lognormal:2s,{deviation}s");
        let report = run(&fixed(1), 800_000, 0.3, &service);
        let expected = pollaczek_khinchine(0.3, 2.0, deviation);
        assert_close(&service, report.wait_s.mean, expected, 0.05);
    }
}

#[test]
fn workers_are_as_busy_as_littles_law_says() {
    let report = run(&fixed(10), 200_000, 3.0, "exp:2s");
    let busy = report.busy_seconds / report.seconds;
    assert_close("busy workers", busy, 6.0, 0.02);
    assert_close(
        "all workers",
        report.worker_seconds / report.seconds,
        10.0,
        1e-3,
    );
    let shares = Duration::from_secs_f64(report.busy_seconds);
    assert!(shares < Duration::from_secs_f64(report.worker_seconds));
}
