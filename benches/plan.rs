//! How long the pure core takes: for a plan for 100,000 workers, and for a whole reconcile.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate::decide::{
    Bounds, Census, CensusWorker, DrainAfter, HeldBy, Intake, Moment, Observation, Phase, Policy,
    Probe, Reconciler, Rules, RunnerId, Scaling, Timings, WorkerId, plan,
};

const WORKERS: u64 = 100_000;

/// A third waits with a runner, a third waits without one, a third is busy.
fn census() -> Census {
    let workers = (0..WORKERS)
        .map(|id| CensusWorker {
            id: WorkerId(id),
            phase: if id % 3 == 0 {
                Phase::Busy
            } else {
                Phase::Waiting
            },
        })
        .collect();
    Census::new(workers, (0..WORKERS / 3).map(RunnerId).collect())
}

fn benches(c: &mut Criterion) {
    let census = census();
    let bounds = Bounds {
        max: u32::MAX,
        preempt: false,
    };
    for (name, expected) in [
        ("grow by half", 150_000),
        ("shrink by half", 50_000),
        ("stay", 100_000),
    ] {
        c.bench_function(&format!("plan for 100,000 workers: {name}"), |b| {
            b.iter(|| plan(black_box(expected), black_box(&census), bounds));
        });
    }
    let rules = Rules {
        policy: Policy::backlog(1).max(u32::MAX),
        own: None,
        scaling: Scaling::default(),
        drain_after: DrainAfter::default(),
        keep_warm: 0,
        preempt: false,
        schedule: tidegate::decide::Schedule::default(),
    };
    c.bench_function("reconcile 100,000 workers", |b| {
        let mut reconciler = Reconciler::new(rules.clone());
        let mut now = 0;
        b.iter(|| {
            now += 1;
            let observation = Observation {
                at: Moment::after_start(Duration::from_millis(now)),
                wall: None,
                probe: Probe::Answered {
                    ready: 20_000,
                    consumers: 100_000,
                },
                consumers: 100_000,
                held: 33_334,
                holders: 33_334,
                ahead: None,
                last_taken: None,
                gone: 0,
                oldest: None,
                timings: Timings::default(),
                intake: Intake::Open,
                group: None,
                allowance: None,
                pressure: None,
                held_by: HeldBy::Workers,
            };
            reconciler.reconcile(black_box(&observation), &census)
        });
    });
}

criterion_group!(plans, benches);
criterion_main!(plans);
