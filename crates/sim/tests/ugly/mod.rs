//! Ugly traces: arrivals that a policy was not made for. Each is computed, so that none of them is data of anyone.

pub(crate) mod contest;

use std::{fmt::Write as _, fs};

/// The head of a table of docs/policies.md.
pub(crate) const HEAD: &str =
    "| trace | 95th percentile | worker-seconds | cheapest | starts and stops | Horizon |";

/// A trace: its name, and its text.
pub(crate) type Ugly = (&'static str, String);

/// Counted arrivals: `(seconds, arrivals a second)`, one line for each.
fn counted(spans: impl IntoIterator<Item = (u32, f64)>) -> String {
    let mut text = String::from("time,arrivals\n");
    let mut time = 0;
    for (length, rate) in spans {
        let _ = writeln!(text, "{time},{}", rate * f64::from(length));
        time += length;
    }
    let _ = writeln!(text, "{time},0");
    text
}

/// So many spans of this length, with a rate for the time at which each begins.
fn shaped(spans: u32, length: u32, rate: impl Fn(f64) -> f64) -> String {
    counted((0..spans).map(|n| (length, rate(f64::from(n * length)))))
}

/// High for a while, low for a while.
fn square(spans: u32, [high, low]: [f64; 2], [on, off]: [u32; 2]) -> String {
    counted((0..spans).flat_map(|_| [(on, high), (off, low)]))
}

/// Numbers between 0 and 1, the same on every machine.
struct Chance(u64);

impl Chance {
    fn draw(&mut self) -> f64 {
        // Knuth's MMIX.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Counts each five minutes, as monitoring systems keep them: a daily wave, noise that is heavier than Poisson, and now
/// and then a burst that fades. `mean` is a count.
fn counts(days: u32, mean: f64, seed: u64) -> String {
    let mut chance = Chance(seed);
    let mut burst = 0.0;
    let mut text = String::from("time,arrivals\n");
    for row in 0..days * 288 {
        let day = f64::from(row) / 288.0 * std::f64::consts::TAU;
        let wave = 1.0 - 0.7 * day.cos();
        let noise = -(1.0 - chance.draw()).ln() * 0.5 + 0.5;
        if chance.draw() < 0.003 {
            burst = 3.0 + 40.0 * chance.draw().powi(4);
        }
        burst *= 0.75;
        let count = (mean * (wave * noise + burst)).round();
        let _ = writeln!(text, "{},{count}", row * 300);
    }
    text
}

/// Traces that take little time to run.
pub(crate) fn cheap() -> Vec<Ugly> {
    let hour = 3600;
    vec![
        // From one rate to another at once.
        (
            "steps",
            counted([(hour, 1.0), (hour, 8.0), (hour, 3.0), (hour, 0.5)]),
        ),
        // A hundred times as many, for ten seconds, each half an hour.
        ("spikes of 10 s", square(8, [20.0, 0.2], [10, 1790])),
        // The same in one second.
        ("spikes of 1 s", square(12, [100.0, 0.5], [1, 899])),
        (
            "ramps",
            shaped(144, 100, |at| 10.0 * (at % 7200.0) / 7200.0),
        ),
        (
            "sawtooth of 5 min",
            shaped(1440, 10, |at| 8.0 * (1.0 - (at % 300.0) / 300.0)),
        ),
        // Periods near the windows: of the averages, of draining, and of the neighbours.
        ("square of 20 s", square(180, [6.0, 1.0], [10, 10])),
        ("square of 60 s", square(120, [6.0, 1.0], [30, 30])),
        ("square of 4 min", square(30, [6.0, 1.0], [120, 120])),
        ("square of 10 min", square(12, [6.0, 1.0], [300, 300])),
        ("on and off", square(24, [4.0, 0.0], [120, 480])),
        ("on and off, fast", square(240, [8.0, 0.0], [15, 45])),
        (
            "flash crowd after silence",
            counted([
                (6 * hour, 0.0),
                (60, 20.0),
                (600, 12.0),
                (hour, 4.0),
                (6 * hour, 0.0),
            ]),
        ),
        (
            "waves",
            shaped(360, 60, |at| {
                5.0 + 4.0 * (at / 1800.0 * std::f64::consts::TAU).sin()
            }),
        ),
        ("0.3 a second", counted([(6 * hour, 0.3)])),
        ("1 a second", counted([(3 * hour, 1.0)])),
        ("counts, mean 30", counts(2, 30.0, 1)),
        ("counts, mean 100", counts(1, 100.0, 2)),
    ]
}

/// Traces with so few jobs that every job may have a worker of its own.
pub(crate) fn sparse() -> Vec<Ugly> {
    let hour = 3600;
    let mut chance = Chance(7);
    let mut single = String::from("time\n");
    let mut at = 0.0;
    for _ in 0..300 {
        at += -(1.0 - chance.draw()).ln() * 240.0;
        let _ = writeln!(single, "{at:.1}");
    }
    vec![
        ("one each 4 min, one a line", single),
        ("0.01 a second", counted([(48 * hour, 0.01)])),
        ("0.03 a second", counted([(24 * hour, 0.03)])),
        ("0.1 a second", counted([(12 * hour, 0.1)])),
        (
            "sparse nights",
            counted((0..4).flat_map(|_| [(12 * hour, 0.005), (12 * hour, 2.0)])),
        ),
        ("counts, mean 1", counts(14, 1.0, 3)),
        ("counts, mean 3", counts(7, 3.0, 4)),
        ("counts, mean 10", counts(4, 10.0, 5)),
    ]
}

/// Traces with many jobs.
pub(crate) fn heavy() -> Vec<Ugly> {
    let hour = 3600;
    vec![
        ("500 a second", counted([(hour / 2, 500.0)])),
        ("20 a second", counted([(2 * hour, 20.0)])),
        ("counts, mean 1000", counts(1, 1000.0, 6)),
        ("counts, mean 3000", counts(2, 3000.0, 7)),
    ]
}

/// A working day: quiet at night, a rise in the morning, and bursts.
pub(crate) fn day() -> Ugly {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/traces/day.csv");
    let text = fs::read_to_string(path).expect("the trace can be read");
    ("the day of `examples/traces`", text)
}

/// All traces, in the order of the tables of docs/policies.md.
pub(crate) fn all() -> Vec<Ugly> {
    [cheap(), sparse(), heavy(), vec![day()]].concat()
}
