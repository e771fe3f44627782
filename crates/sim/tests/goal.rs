//! The goal of `target_wait`: it holds its target, costs less than every neighbour that holds it too, and starts and stops
//! fewer workers than Horizon does.

use std::{fs, time::Duration};

use tidegate_core::{
    decide::{DrainAfter, Policy, Rules, Scaling, Schedule},
    settings::RetrySettings,
    trace::Trace,
};
use tidegate_sim::{Contender, PoolModel, Report, ServiceTimes, Workload, simulate};

const TARGET: Duration = Duration::from_secs(30);
const MAX: u32 = 60;

/// A pool with `kind = "target_wait"` and its defaults.
fn target_wait() -> Contender {
    let rules = Rules {
        policy: Policy::target_wait(TARGET).max(MAX),
        own: None,
        scaling: Scaling::default(),
        drain_after: DrainAfter::After(TARGET / 3),
        keep_warm: 0,
        preempt: false,
        schedule: Schedule::default(),
    };
    Contender::Pool(Box::new(PoolModel::new("target_wait", rules)))
}

fn neighbour(name: &str) -> Contender {
    Contender::Neighbour {
        model: name.parse().expect("a neighbour"),
        max: MAX,
        retry: RetrySettings::default(),
    }
}

/// A working day: quiet at night, a rise in the morning, and bursts.
fn day(service: &str) -> Workload {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/traces/day.csv");
    let trace = Trace::parse(&fs::read_to_string(path).expect("the trace")).expect("a trace");
    let service = ServiceTimes::named(service).expect("named").expect("valid");
    Workload::new(trace, service)
}

fn run(workload: &Workload, contender: &Contender) -> Report {
    simulate(workload, contender, &mut |_, _, _| {}).report
}

fn reaches_its_goal(service: &str) {
    let workload = day(service);
    let ours = run(&workload, &target_wait());
    let holds = |report: &Report| report.wait_s.p95 <= TARGET.as_secs_f64();
    assert!(holds(&ours), "{ours:#?}");
    for name in [
        "fixed:10",
        "fixed:12",
        "keda:2",
        "keda:5",
        "keda:10",
        "knative:2",
        "knative:5",
        "horizon",
        "judoscale:15s",
        "judoscale:30s",
    ] {
        let theirs = run(&workload, &neighbour(name));
        let is_cheaper = ours.worker_seconds < theirs.worker_seconds;
        assert!(
            is_cheaper || !holds(&theirs),
            "{name} costs {:.0} worker-seconds, and target_wait {:.0}",
            theirs.worker_seconds,
            ours.worker_seconds
        );
    }
    let horizon = run(&workload, &neighbour("horizon"));
    assert!(
        ours.churn() < horizon.churn(),
        "{} starts and stops, and Horizon has {}",
        ours.churn(),
        horizon.churn()
    );
}

#[test]
fn target_wait_reaches_its_goal_with_exponential_jobs() {
    reaches_its_goal("exp:2s");
}

#[test]
fn target_wait_reaches_its_goal_with_a_heavy_tail() {
    reaches_its_goal("lognormal:2s,8s");
}
