//! Durations: a decayed mean and quantiles of measured times.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sketches_ddsketch::{Config, DDSketch};

use super::Moment;

/// The number of measurements that are kept at any age. Jobs of an hour are rare, and one measurement is not enough.
const LEAST: f64 = 32.0;

/// The number of measurements in a sketch before the next one begins.
const LEAST_SKETCHED: usize = 100;

/// Quantiles are computed again once the measurements have grown by one in this many. With few of them, that is each
/// time.
const REFRESH: usize = 16;

/// Measured times: mean, quantiles, and how many they are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Spread {
    /// The decayed mean.
    #[serde(with = "crate::json_time::seconds")]
    pub mean: Duration,
    /// The median, within 1 %.
    #[serde(with = "crate::json_time::seconds")]
    pub p50: Duration,
    /// The 95th percentile, within 1 %.
    #[serde(with = "crate::json_time::seconds")]
    pub p95: Duration,
    /// Measurements that the quantiles were computed from.
    pub samples: u64,
    /// Time since the last measurement.
    #[serde(with = "crate::json_time::seconds")]
    pub age: Duration,
}

impl Spread {
    /// Times with this mean and these quantiles, from this number of measurements, the last one just now.
    pub fn new(mean: Duration, p50: Duration, p95: Duration, samples: u64) -> Self {
        let age = Duration::ZERO;
        Self {
            mean,
            p50,
            p95,
            samples,
            age,
        }
    }
}

/// Takes durations. The mean decays exponentially. Quantiles come from two sketches: the newest measurements, and those
/// of the time constant before.
#[derive(Clone)]
pub(super) struct Durations {
    constant: Duration,
    /// Sum of the weights of all measurements, as of the last one.
    weight: f64,
    mean: f64,
    last: Option<Moment>,
    newest: DDSketch,
    /// When `newest` was begun.
    begun: Moment,
    older: Option<DDSketch>,
    quantiles: Option<CachedQuantiles>,
}

#[derive(Debug, Clone, Copy)]
struct CachedQuantiles {
    /// Measurements that they were computed from.
    samples: usize,
    p50: Duration,
    p95: Duration,
}

impl Durations {
    pub(super) fn new(constant: Duration) -> Self {
        Self {
            constant,
            weight: 0.0,
            mean: 0.0,
            last: None,
            newest: sketch(),
            begun: Moment::ZERO,
            older: None,
            quantiles: None,
        }
    }

    pub(super) fn add(&mut self, now: Moment, duration: Duration) {
        let value = duration.as_secs_f64();
        let passed = self.last.map_or(Duration::ZERO, |last| now.since(last));
        let kept = (-passed.as_secs_f64() / self.constant.as_secs_f64()).exp();
        self.weight = self.weight * kept.max(1.0 - 1.0 / LEAST) + 1.0;
        self.mean += (value - self.mean) / self.weight;
        self.last = self.last.max(Some(now));

        if self.newest.count() == 0 {
            self.begun = now;
        } else if self.newest.count() >= LEAST_SKETCHED && now.since(self.begun) >= self.constant {
            self.older = Some(std::mem::replace(&mut self.newest, sketch()));
            self.begun = now;
            self.quantiles = None;
        }
        self.newest.add(value);
    }

    /// The measurements as of `now`. `None` before the first one.
    pub(super) fn spread(&mut self, now: Moment) -> Option<Spread> {
        let last = self.last?;
        let samples = self.newest.count() + self.older.as_ref().map_or(0, DDSketch::count);
        let quantiles = self
            .quantiles
            .filter(|known| samples < known.samples + 1 + known.samples / REFRESH);
        let quantiles = quantiles.unwrap_or_else(|| self.compute(samples));
        self.quantiles = Some(quantiles);
        Some(Spread {
            mean: Duration::try_from_secs_f64(self.mean).unwrap_or_default(),
            p50: quantiles.p50,
            p95: quantiles.p95,
            samples: u64::try_from(samples).unwrap_or(u64::MAX),
            age: now.since(last),
        })
    }

    fn compute(&self, samples: usize) -> CachedQuantiles {
        let mut all = self.newest.clone();
        if let Some(older) = &self.older {
            all.merge(older)
                .expect("both sketches have the same configuration");
        }
        let quantile = |q| {
            let value = all.quantile(q).ok().flatten().unwrap_or(0.0);
            Duration::try_from_secs_f64(value).unwrap_or_default()
        };
        CachedQuantiles {
            samples,
            p50: quantile(0.5),
            p95: quantile(0.95),
        }
    }
}

/// Within 1 % of the true value, from a microsecond on. At most 16 KiB.
fn sketch() -> DDSketch {
    DDSketch::new(Config::new(0.01, 2048, 1e-6))
}

impl std::fmt::Debug for Durations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Durations")
            .field("mean", &self.mean)
            .field("samples", &self.newest.count())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Moment {
        Moment::after_start(Duration::from_secs(second))
    }

    fn seconds(spread: Option<Spread>) -> (f64, f64, f64) {
        let spread = spread.expect("there are measurements");
        let Spread { mean, p50, p95, .. } = spread;
        (mean.as_secs_f64(), p50.as_secs_f64(), p95.as_secs_f64())
    }

    #[test]
    fn a_hundred_times_give_their_mean_and_their_quantiles() {
        let mut times = Durations::new(Duration::from_secs(600));
        assert_eq!(times.spread(at(0)), None);
        for n in 1..=100 {
            times.add(at(1), Duration::from_secs(n));
            let samples = times.spread(at(1)).expect("one at least").samples;
            assert_eq!(samples, n);
        }
        let (mean, p50, p95) = seconds(times.spread(at(8)));
        assert!((mean - 50.5).abs() < 1e-6, "{mean}");
        assert!(
            (p50 - 50.0).abs() < 1.1 && (p95 - 95.0).abs() < 2.0,
            "{p50} {p95}"
        );
        let age = times.spread(at(8)).map(|spread| spread.age);
        assert_eq!(age, Some(Duration::from_secs(7)));
    }

    #[test]
    fn old_measurements_count_less_but_the_last_few_are_never_forgotten() {
        let mut times = Durations::new(Duration::from_secs(60));
        for second in 0..600 {
            times.add(at(second), Duration::from_secs(10));
        }
        for second in 600..780 {
            times.add(at(second), Duration::from_secs(2));
        }
        let (mean, ..) = seconds(times.spread(at(780)));
        // Three time constants later 5 % of the old is left.
        assert!((2.2..2.6).contains(&mean), "{mean}");
        // A day later one unusual job does not represent all.
        times.add(at(100_000), Duration::from_secs(100));
        let (mean, p50, _) = seconds(times.spread(at(100_000)));
        assert!((4.0..6.0).contains(&mean), "{mean}");
        assert!(p50 < 11.0, "{p50}");
    }

    #[test]
    fn quantiles_forget_what_is_older_than_two_sketches() {
        let mut times = Durations::new(Duration::from_secs(60));
        for second in 0..1000 {
            let value = if second < 500 { 10 } else { 1 };
            times.add(at(second), Duration::from_secs(value));
        }
        let spread = times.spread(at(1000)).expect("there are measurements");
        assert!(spread.samples <= 300, "{}", spread.samples);
        assert!(spread.p95 < Duration::from_millis(1100), "{spread:?}");
    }
}
