//! How long a simulation takes, and how much memory: a day of ten jobs a second, and a week of a hundred a second.
//!
//! ```text
//! cargo bench -p tidegate-sim
//! ```

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "it measures the simulator by the clock of this machine"
)]

use std::{env, fs, time::Duration, time::Instant};

use tidegate_core::{
    decide::{DrainAfter, Policy, Rules, Scaling, Schedule},
    trace::Trace,
};
use tidegate_sim::{Contender, PoolModel, ServiceTimes, Workload, simulate};

const DAY: u64 = 86_400;

/// Most memory of the process, in MiB.
const MEMORY: u64 = 1024;

fn main() {
    // `cargo test --all-targets` starts it too, without this option.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!(
        "{:<12} {:<16} {:>12} {:>8} {:>7} {:>9} {:>7}",
        "POLICY", "LOAD", "JOBS", "SECONDS", "LIMIT", "PEAK MIB", "LIMIT"
    );
    let mut is_within = true;
    for (days, rate, limit) in [(1, 10, 2.0), (7, 100, 120.0)] {
        for (name, policy) in [
            ("backlog", Policy::backlog(5)),
            ("target_wait", Policy::target_wait(Duration::from_secs(30))),
        ] {
            let begun = Instant::now();
            let jobs = run(name, policy, days, rate);
            let seconds = begun.elapsed().as_secs_f64();
            let load = format!("{days} d at {rate}/s");
            let peak = peak_mib();
            let shown = peak.map_or_else(|| String::from("-"), |peak| peak.to_string());
            println!(
                "{name:<12} {load:<16} {jobs:>12} {seconds:>8.2} {limit:>7} {shown:>9} {MEMORY:>7}"
            );
            is_within &= seconds < limit && peak.is_none_or(|peak| peak < MEMORY);
        }
    }
    assert!(is_within, "a figure is above its limit");
}

fn run(name: &str, policy: Policy, days: u64, rate: u64) -> u64 {
    let (end, jobs) = (days * DAY, days * DAY * rate);
    let trace = Trace::parse(&format!("time,arrivals\n0,{jobs}\n{end},0\n{end},0\n"));
    let service = ServiceTimes::Exponential {
        mean: Duration::from_secs(2),
    };
    let workload = Workload::new(trace.expect("a trace"), service);
    let rules = Rules {
        policy: policy.max(1000),
        own: None,
        scaling: Scaling::default(),
        drain_after: DrainAfter::After(Duration::from_secs(10)),
        keep_warm: 0,
        preempt: false,
        schedule: Schedule::default(),
    };
    let contender = Contender::Pool(Box::new(PoolModel::new(name, rules)));
    simulate(&workload, &contender, &mut |_, _, _| {})
        .report
        .jobs
}

/// Most memory that this process had so far, where the kernel says it.
fn peak_mib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = peak?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}
