//! Samples of a load over time.
//!
//! Pure. There are never more than [`MAX_SAMPLES`]: when there would be more, neighbouring samples are merged in pairs.

use std::time::Duration;

/// The maximum number of samples that are kept. It is more than a plot has room for.
const MAX_SAMPLES: usize = 1200;

/// Shortest time between two samples.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// A span of time in a load.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct LoadSample {
    /// Seconds from the beginning to the end of the span.
    pub(super) at: f64,
    /// Messages that were sent in it.
    pub(super) sent: u64,
    /// How long it is, in seconds.
    pub(super) length: f64,
    /// The maximum number of messages ready in the queue.
    pub(super) ready: Option<u64>,
    /// The maximum number of workers of the pool.
    pub(super) workers: Option<u32>,
    /// The 95th percentile of its confirms and of its answers, in milliseconds.
    pub(super) confirm_ms: Option<f64>,
    pub(super) done_ms: Option<f64>,
}

impl LoadSample {
    /// The two samples merged. Its latencies are the worse ones, because the percentile of both cannot be computed from
    /// two percentiles.
    fn merged(self, next: Self) -> Self {
        Self {
            at: next.at,
            sent: self.sent + next.sent,
            length: self.length + next.length,
            ready: self.ready.max(next.ready),
            workers: self.workers.max(next.workers),
            confirm_ms: worse(self.confirm_ms, next.confirm_ms),
            done_ms: worse(self.done_ms, next.done_ms),
        }
    }
}

fn worse(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (one, other) => one.or(other),
    }
}

/// All samples of a load.
#[derive(Debug)]
pub(super) struct Samples {
    samples: Vec<LoadSample>,
    every: Duration,
}

impl Samples {
    pub(super) fn new() -> Self {
        Self {
            samples: Vec::new(),
            every: MIN_INTERVAL,
        }
    }

    /// Time between two samples, from now on.
    pub(super) fn every(&self) -> Duration {
        self.every
    }

    pub(super) fn push(&mut self, sample: LoadSample) {
        self.samples.push(sample);
        if self.samples.len() >= MAX_SAMPLES {
            let pairs = self.samples.chunks(2);
            let merged = pairs.map(|pair| match pair {
                [one, next] => one.merged(*next),
                rest => rest[0],
            });
            self.samples = merged.collect();
            self.every *= 2;
        }
    }

    pub(super) fn all(&self) -> &[LoadSample] {
        &self.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_load_has_fewer_samples_of_longer_spans() {
        let mut samples = Samples::new();
        for n in 0..10_000_u32 {
            samples.push(LoadSample {
                at: f64::from(n + 1),
                sent: 3,
                length: 1.0,
                ready: Some(n.into()),
                ..LoadSample::default()
            });
        }
        let all = samples.all();
        assert!(all.len() < MAX_SAMPLES, "{}", all.len());
        assert!(samples.every() > MIN_INTERVAL);
        assert_eq!(all.iter().map(|sample| sample.sent).sum::<u64>(), 30_000);
        let length: f64 = all.iter().map(|sample| sample.length).sum();
        assert!((length - 10_000.0).abs() < 1e-6, "{length}");
        assert_eq!(all.last().unwrap().ready, Some(9_999));
        assert!(all.is_sorted_by(|one, next| one.at < next.at));
    }

    #[test]
    fn merged_spans_have_the_worse_latency_of_the_two() {
        let one = LoadSample {
            confirm_ms: Some(4.0),
            ..LoadSample::default()
        };
        let next = LoadSample {
            confirm_ms: Some(2.0),
            done_ms: Some(9.0),
            ..LoadSample::default()
        };
        let merged = one.merged(next);
        assert_eq!((merged.confirm_ms, merged.done_ms), (Some(4.0), Some(9.0)));
    }
}
