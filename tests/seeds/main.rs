//! Pools on the in-memory queue, in paused time, with faults and orders that a seed chooses. Each seed is one run, and ends
//! with a ledger of every message. The same seed gives the same run.
//!
//!     cargo test --test seeds                          # the first seeds
//!     SEEDS=10000 cargo test --release --test seeds    # many
//!     SEED=4711 cargo test --test seeds -- --nocapture # one, with its events
//!
//! See [`plan`] for what a seed chooses, [`broker`] for the faults of the broker, and [`ledger`] for what must hold.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod broker;
mod jobs;
mod ledger;
mod plan;
mod run;

use std::{
    env,
    num::NonZero,
    panic::{self, AssertUnwindSafe},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use self::{plan::Plan, run::run};

/// Seeds that every test run tries.
const SEEDS: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().expect("a seed is a number"))
}

/// Runs `seeds` on all cores, and returns those that fail, each with why.
fn failures(seeds: std::ops::Range<u64>) -> Vec<String> {
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if let Err(why) = attempt(seed) {
                        failed.lock().unwrap().push(format!("seed {seed}: {why}"));
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap()
}

/// One run. A panic of the run is its failure.
fn attempt(seed: u64) -> Result<run::EventLog, String> {
    panic::catch_unwind(AssertUnwindSafe(|| run(&Plan::new(seed))))
        .unwrap_or_else(|_| Err(String::from("it panicked, see above")))
}

#[test]
fn no_message_is_lost_whatever_fails() {
    if let Some(seed) = number("SEED") {
        let plan = Plan::new(seed);
        println!("{plan:#?}");
        match attempt(seed) {
            Ok(events) => println!("{events}"),
            Err(why) => panic!("seed {seed}: {why}"),
        }
        return;
    }
    let count = number("SEEDS").unwrap_or(SEEDS);
    let failed = failures(0..count);
    assert!(
        failed.is_empty(),
        "{} of {count} seeds fail. Repeat one with SEED=NUMBER.\n{}",
        failed.len(),
        failed.join("\n")
    );
    println!("{count} seeds, every message accounted for");
}

#[test]
fn a_seed_repeats_its_run() {
    for seed in 0..20 {
        let (once, again) = (attempt(seed).unwrap(), attempt(seed).unwrap());
        assert_eq!(once, again, "seed {seed}");
    }
}
