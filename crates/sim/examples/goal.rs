//! Tries the goal of `target_wait` on traces: it holds the target, costs less than each neighbour that holds it too, and
//! has less churn than Horizon.
//!
//! ```text
//! cargo run --release -p tidegate-sim --example goal -- [--max N] [--seeds N] [--service S]
//!     [cheap|sparse|heavy|TRACE.csv]...
//! ```

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a program around the simulator: it reads traces and prints results"
)]

use std::{env, fs, time::Duration};

use tidegate_core::{
    decide::{Policy, PolicyKind, Rules, Scaling, Schedule},
    settings::RetrySettings,
    trace::Trace,
};
use tidegate_sim::{Contender, PoolModel, Report, ServiceTimes, Workload, simulate};

#[path = "../tests/ugly/mod.rs"]
mod ugly;

const TARGET: Duration = Duration::from_secs(30);

fn main() {
    let mut max = None;
    let mut seeds = 3;
    let mut services = Vec::new();
    let mut traces: Vec<(String, String)> = Vec::new();
    let mut arguments = env::args().skip(1);
    let mut only = None;
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("the option has a value");
        let mut add = |ugly: Vec<ugly::Ugly>| {
            traces.extend(ugly.into_iter().map(|(name, text)| (name.to_owned(), text)));
        };
        match argument.as_str() {
            "--max" => max = Some(value().parse().expect("a number")),
            "--seeds" => seeds = value().parse().expect("a number"),
            "--service" => services.push(value()),
            "--only" => only = Some(value()),
            "cheap" => add(ugly::cheap()),
            "sparse" => add(ugly::sparse()),
            "heavy" => add(ugly::heavy()),
            file => {
                let text = fs::read_to_string(file).expect("the trace can be read");
                traces.push((file.to_owned(), text));
            }
        }
    }
    if services.is_empty() {
        services = ["exp:2s", "lognormal:2s,8s"].map(String::from).to_vec();
    }
    println!(
        "{:<28} {:<16} {:>4} {:>7} {:>6} {:>6} {:>9} {:>7} {:>4}  {:>14} {:>9} {:>7} {:>7}",
        "TRACE",
        "SERVICE",
        "SEED",
        "JOBS",
        "P95",
        "P99",
        "WORKER-S",
        "CHURN",
        "PEAK",
        "CHEAPEST",
        "ITS",
        "HORIZON",
        ""
    );
    for (name, text) in traces {
        if only
            .as_ref()
            .is_some_and(|only| !name.contains(only.as_str()))
        {
            continue;
        }
        let trace = Trace::parse(&text).expect(&name);
        let max = max.unwrap_or_else(|| enough(&trace));
        for service in &services {
            for seed in 1..=seeds {
                row(&name, &trace, service, seed, max);
            }
        }
    }
}

/// A ceiling with room above the busiest span.
fn enough(trace: &Trace) -> u32 {
    let rates = trace.spans().iter().map(|span| {
        let seconds = span.length.as_secs_f64().max(30.0);
        span.arrivals / seconds * 2.0
    });
    (rates.fold(0.0, f64::max) * 1.6 + 10.0).ceil() as u32
}

fn row(name: &str, trace: &Trace, service: &str, seed: u64, max: u32) {
    let times = ServiceTimes::named(service).expect("named").expect("valid");
    let workload = Workload {
        seed,
        start_up: Duration::from_millis(100),
        ..Workload::new(trace.clone(), times)
    };
    let policy = Policy::target_wait(TARGET).max(max);
    let PolicyKind::TargetWait(wait) = &policy.kind else {
        unreachable!("it is of this kind");
    };
    let drain_after = wait.drain_after();
    let rules = Rules {
        policy,
        own: None,
        scaling: Scaling::default(),
        drain_after,
        keep_warm: 0,
        preempt: false,
        schedule: Schedule::default(),
    };
    let run = |contender: &Contender| simulate(&workload, contender, &mut |_, _, _| {}).report;
    let ours = run(&Contender::Pool(Box::new(PoolModel::new(
        "target_wait",
        rules,
    ))));
    let neighbour = |name: &str| {
        run(&Contender::Neighbour {
            model: name.parse().expect("a neighbour"),
            max,
            retry: RetrySettings::default(),
        })
    };
    let holds = |report: &Report| report.wait_s.p95 <= TARGET.as_secs_f64();
    let mut cheapest: Option<Report> = None;
    let mut consider = |report: Report| {
        let is_cheaper = cheapest
            .as_ref()
            .is_none_or(|best| report.worker_seconds < best.worker_seconds);
        if holds(&report) && is_cheaper {
            cheapest = Some(report);
        }
    };
    // The smallest fixed pool that holds.
    let (mut low, mut high) = (0, max);
    while low + 1 < high {
        let middle = (low + high) / 2;
        match holds(&neighbour(&format!("fixed:{middle}"))) {
            true => high = middle,
            false => low = middle,
        }
    }
    consider(neighbour(&format!("fixed:{high}")));
    for name in [
        "keda:1",
        "keda:2",
        "keda:5",
        "keda:10",
        "keda:15",
        "keda:20",
        "knative:1",
        "knative:2",
        "knative:5",
        "knative:10",
        "judoscale:10s",
        "judoscale:15s",
        "judoscale:30s",
    ] {
        consider(neighbour(name));
    }
    let horizon = neighbour("horizon");
    let theirs = horizon.churn();
    consider(horizon);
    let mut verdict = String::new();
    if !holds(&ours) {
        verdict.push_str(" LATE");
    }
    if cheapest
        .as_ref()
        .is_some_and(|best| best.worker_seconds <= ours.worker_seconds)
    {
        verdict.push_str(" COST");
    }
    if ours.churn() >= theirs {
        verdict.push_str(" CHURN");
    }
    let (best, its) = cheapest.map_or((String::from("none"), 0.0), |best| {
        (best.name, best.worker_seconds)
    });
    println!(
        "{:<28} {service:<16} {seed:>4} {:>7} {:>6.1} {:>6.1} {:>9.0} {:>7} {:>4}  {best:>14} {its:>9.0} {theirs:>7}{verdict}",
        name.rsplit('/').next().unwrap_or(name),
        ours.jobs,
        ours.wait_s.p95,
        ours.wait_s.p99,
        ours.worker_seconds,
        ours.churn(),
        ours.peak,
    );
}
