//! Tries the goal of `target_wait` on traces: it holds the target, costs less than each neighbour that holds it too, and
//! has less churn than Horizon.
//!
//! ```text
//! cargo run --release -p tidegate-sim --example goal -- [--max N] [--seeds N] [--service S] [--only NAME] SET|TRACE.csv...
//! cargo run --release -p tidegate-sim --example goal -- --table    the tables of docs/policies.md
//! cargo run --release -p tidegate-sim --example goal -- --write F  writes the made-up traces into a folder, for `simulate`
//! ```
//!
//! A SET is `cheap`, `sparse`, `heavy` or `day`.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a program around the simulator: it reads traces and prints results"
)]

use std::{env, fs, path::Path};

#[path = "../tests/ugly/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod ugly;

use ugly::{
    Ugly,
    contest::{Contest, SERVICES},
};

/// What to do with the traces.
enum Act {
    /// One line for each trace, service time and seed.
    Try,
    /// The tables of docs/policies.md.
    Table,
}

fn main() {
    let mut max = None;
    let mut seeds = 3;
    let mut services = Vec::new();
    let mut traces: Vec<(String, String)> = Vec::new();
    let mut arguments = env::args().skip(1);
    let mut only = None;
    let mut act = Act::Try;
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("the option has a value");
        let mut add = |ugly: Vec<Ugly>| {
            traces.extend(ugly.into_iter().map(|(name, text)| (name.to_owned(), text)));
        };
        match argument.as_str() {
            "--max" => max = Some(value().parse().expect("a number")),
            "--seeds" => seeds = value().parse().expect("a number"),
            "--service" => services.push(value()),
            "--only" => only = Some(value()),
            "--write" => return write(Path::new(&value())),
            "--table" => {
                act = Act::Table;
                add(ugly::all());
            }
            "cheap" => add(ugly::cheap()),
            "sparse" => add(ugly::sparse()),
            "heavy" => add(ugly::heavy()),
            "day" => add(vec![ugly::day()]),
            file => {
                let text = fs::read_to_string(file).expect("the trace can be read");
                let name = file.rsplit('/').next().unwrap_or(file);
                traces.push((name.to_owned(), text));
            }
        }
    }
    if services.is_empty() {
        services = SERVICES.map(String::from).to_vec();
    }
    if let Some(only) = only {
        traces.retain(|(name, _)| name.contains(&only));
    }
    match act {
        Act::Try => try_all(&traces, &services, seeds, max),
        Act::Table => table(&traces, &services),
    }
}

fn table(traces: &[(String, String)], services: &[String]) {
    for service in services {
        println!("{service}, seed 1\n");
        println!("{}\n{}", ugly::HEAD, "| --- ".repeat(6) + "|");
        for (name, text) in traces {
            let outcome = Contest::new(text, service, 1, None).against_all();
            println!("{}", outcome.row(name));
        }
        println!();
    }
}

/// `square of 20 s` becomes `square-of-20-s.csv`.
fn write(folder: &Path) {
    fs::create_dir_all(folder).expect("the folder can be made");
    for (name, text) in ugly::all() {
        let words: Vec<&str> = name
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '.')
            .filter(|word| !word.is_empty())
            .collect();
        let file = folder.join(format!("{}.csv", words.join("-")));
        fs::write(&file, text).expect("the trace can be written");
        println!("{}", file.display());
    }
}

fn try_all(traces: &[(String, String)], services: &[String], seeds: u64, max: Option<u32>) {
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
        for service in services {
            for seed in 1..=seeds {
                let outcome = Contest::new(text, service, seed, max).against_all();
                let (best, its) = outcome.cheapest.as_ref().map_or(("none", 0.0), |best| {
                    (best.name.as_str(), best.worker_seconds)
                });
                let ours = &outcome.ours;
                println!(
                    "{name:<28} {service:<16} {seed:>4} {:>7} {:>6.1} {:>6.1} {:>9.0} {:>7} {:>4}  {best:>14} {its:>9.0} {:>7}{}",
                    ours.jobs,
                    ours.wait_s.p95,
                    ours.wait_s.p99,
                    ours.worker_seconds,
                    ours.churn(),
                    ours.peak,
                    outcome.horizon.churn(),
                    outcome.missed(),
                );
            }
        }
    }
}
