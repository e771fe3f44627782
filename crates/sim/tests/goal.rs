//! The goal of `target_wait`: it holds its target, costs less than every neighbour that holds it too, and starts and stops
//! fewer workers than Horizon does.

#![allow(clippy::disallowed_methods, reason = "it reads a trace from a file")]

#[allow(dead_code, reason = "the example `goal` tries more of them")]
mod ugly;

use std::{fs, time::Duration};

use tidegate_core::{
    decide::{Policy, Rules, Scaling, Schedule, TargetWait},
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
        drain_after: TargetWait::new(TARGET).drain_after(),
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

fn workload(text: &str, service: &str) -> Workload {
    let trace = Trace::parse(text).expect("a trace");
    let service = ServiceTimes::named(service).expect("named").expect("valid");
    Workload::new(trace, service)
}

/// A working day: quiet at night, a rise in the morning, and bursts.
fn day(service: &str) -> Workload {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/traces/day.csv");
    workload(&fs::read_to_string(path).expect("the trace"), service)
}

fn run(workload: &Workload, contender: &Contender) -> Report {
    simulate(workload, contender, &mut |_, _, _| {}).report
}

fn holds(report: &Report) -> bool {
    report.wait_s.p95 <= TARGET.as_secs_f64()
}

/// Holds the target, and costs less than each of these that holds it too. Returns the own report.
fn costs_least(trace: &str, workload: &Workload, neighbours: &[&str]) -> Report {
    let ours = run(workload, &target_wait());
    assert!(holds(&ours), "{trace}: {ours:#?}");
    for name in neighbours {
        let theirs = run(workload, &neighbour(name));
        assert!(
            ours.worker_seconds < theirs.worker_seconds || !holds(&theirs),
            "{trace}: {name} costs {:.0} worker-seconds, and target_wait {:.0}",
            theirs.worker_seconds,
            ours.worker_seconds
        );
    }
    ours
}

fn reaches_its_goal(trace: &str, workload: &Workload, neighbours: &[&str]) {
    let ours = costs_least(trace, workload, neighbours);
    let horizon = run(workload, &neighbour("horizon"));
    assert!(
        ours.worker_seconds < horizon.worker_seconds || !holds(&horizon),
        "{trace}: {ours:#?} {horizon:#?}"
    );
    assert!(
        ours.churn() < horizon.churn(),
        "{trace}: {} starts and stops, and Horizon has {}",
        ours.churn(),
        horizon.churn()
    );
}

/// Some of each kind.
const MANY: [&str; 7] = [
    "fixed:10",
    "keda:5",
    "keda:10",
    "keda:20",
    "knative:5",
    "knative:10",
    "judoscale:15s",
];

/// Those that came closest in longer searches.
const CLOSEST: [&str; 4] = ["keda:15", "keda:20", "knative:5", "knative:10"];

#[test]
fn target_wait_reaches_its_goal_with_exponential_jobs() {
    reaches_its_goal("a day", &day("exp:2s"), &MANY);
}

#[test]
fn target_wait_reaches_its_goal_with_a_heavy_tail() {
    reaches_its_goal("a day", &day("lognormal:2s,8s"), &CLOSEST);
}

/// Traces that the policy was not made for.
fn reaches_its_goal_on(names: &[&str], service: &str) {
    let traces = ugly::cheap();
    for name in names {
        let (_, text) = traces
            .iter()
            .find(|(known, _)| known == name)
            .expect("a trace");
        reaches_its_goal(name, &workload(text, service), &CLOSEST);
    }
}

#[test]
fn target_wait_reaches_its_goal_on_spikes_and_on_off() {
    reaches_its_goal_on(&["spikes of 10 s", "spikes of 1 s", "on and off"], "exp:2s");
}

#[test]
fn target_wait_reaches_its_goal_on_a_steady_load_and_on_fast_waves() {
    reaches_its_goal_on(&["1 a second", "square of 20 s"], "exp:2s");
}

#[test]
fn target_wait_reaches_its_goal_on_counts_that_vary() {
    reaches_its_goal_on(&["counts, mean 30", "spikes of 10 s"], "lognormal:2s,8s");
}

/// docs/policies.md says why: no policy can have the lowest cost and so few starts where jobs are rare.
#[test]
fn where_jobs_are_rare_target_wait_costs_least_and_starts_a_worker_for_most_jobs() {
    let (name, text) = ugly::sparse().into_iter().next().expect("a trace");
    let workload = workload(&text, "exp:2s");
    let ours = costs_least(
        name,
        &workload,
        &["fixed:1", "keda:5", "knative:5", "horizon"],
    );
    assert!(ours.starts <= ours.jobs, "{ours:#?}");
    assert!(
        ours.wait_s.p95 < 1.0,
        "no message waits for company: {ours:#?}"
    );
}
