//! The curve of a run over time, for a plot.
//!
//! However long a run is, its curve has fewer than [`MOST`] points: two neighbours then become one.

use std::time::Duration;

use hdrhistogram::Histogram;
use tidegate_core::decide::Moment;

/// The maximum number of points. It is more than a picture has room for.
const MOST: usize = 1600;

/// Shortest span of a point.
const SHORTEST: Duration = Duration::from_millis(250);

/// The longest wait that is recorded exactly in a point: a year.
const LONGEST_US: u64 = 366 * 86_400 * 1_000_000;

/// A span of time in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct CurvePoint {
    /// Seconds from the beginning of the run to the end of the span.
    pub at: f64,
    /// Length in seconds.
    pub length: f64,
    /// Jobs that arrived.
    pub arrivals: u64,
    /// The maximum number of ready messages.
    pub ready: u64,
    /// The maximum number of workers.
    pub workers: u64,
    /// The 95th percentile of the waits that ended, in seconds. `None` if none ended. Of points that were merged it is
    /// the higher one.
    pub wait: Option<f64>,
}

/// The recorded curve. Times never decrease.
#[derive(Debug)]
pub(crate) struct Curve {
    points: Vec<CurvePoint>,
    width: Duration,
    /// The end of the current span.
    end: Duration,
    present: CurvePoint,
    waits: Histogram<u64>,
    ready: u64,
    workers: u64,
}

impl Default for Curve {
    fn default() -> Self {
        Self {
            points: Vec::new(),
            width: SHORTEST,
            end: SHORTEST,
            present: CurvePoint::default(),
            waits: Histogram::new_with_bounds(1, LONGEST_US, 2).expect("the bounds are in order"),
            ready: 0,
            workers: 0,
        }
    }
}

impl Curve {
    pub(crate) fn arrived(&mut self, at: Moment) {
        self.turn(at);
        self.present.arrivals += 1;
    }

    pub(crate) fn ready(&mut self, at: Moment, ready: u64) {
        self.turn(at);
        self.ready = ready;
        self.present.ready = self.present.ready.max(ready);
    }

    pub(crate) fn workers(&mut self, at: Moment, workers: u64) {
        self.turn(at);
        self.workers = workers;
        self.present.workers = self.present.workers.max(workers);
    }

    pub(crate) fn waited(&mut self, at: Moment, us: u64) {
        self.turn(at);
        self.waits.saturating_record(us);
    }

    /// Ends the curve.
    pub(crate) fn finish(&mut self, at: Moment) -> Vec<CurvePoint> {
        self.turn(at);
        self.close();
        std::mem::take(&mut self.points)
    }

    /// Closes the spans that end before `at`.
    fn turn(&mut self, at: Moment) {
        let at = at.since(Moment::ZERO);
        while at >= self.end {
            self.close();
        }
    }

    fn close(&mut self) {
        self.present.at = self.end.as_secs_f64();
        self.present.length = self.width.as_secs_f64();
        if !self.waits.is_empty() {
            self.present.wait = Some(self.waits.value_at_quantile(0.95) as f64 / 1e6);
            self.waits.reset();
        }
        self.points.push(self.present);
        if self.points.len() >= MOST {
            let pairs = self.points.chunks(2);
            self.points = pairs
                .map(|pair| merged(pair[0], *pair.last().unwrap_or(&pair[0])))
                .collect();
            self.width *= 2;
        }
        self.end += self.width;
        // The current values continue into the next span.
        self.present = CurvePoint {
            ready: self.ready,
            workers: self.workers,
            ..CurvePoint::default()
        };
    }
}

fn merged(one: CurvePoint, next: CurvePoint) -> CurvePoint {
    let wait = match (one.wait, next.wait) {
        (Some(one), Some(next)) => Some(one.max(next)),
        (one, next) => one.or(next),
    };
    CurvePoint {
        at: next.at,
        length: one.length + next.length,
        arrivals: one.arrivals + next.arrivals,
        ready: one.ready.max(next.ready),
        workers: one.workers.max(next.workers),
        wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_has_fewer_points_of_longer_spans() {
        let mut curve = Curve::default();
        let at = |second: u64| Moment::after_start(Duration::from_secs(second));
        for second in 0..10_000 {
            curve.arrived(at(second));
            curve.ready(at(second), second % 7);
            curve.waited(at(second), second * 1_000_000);
        }
        curve.workers(at(10_000), 3);
        let points = curve.finish(at(10_001));
        assert!(points.len() < MOST, "{}", points.len());
        assert_eq!(
            points.iter().map(|point| point.arrivals).sum::<u64>(),
            10_000
        );
        let length: f64 = points.iter().map(|point| point.length).sum();
        let last = points.last().expect("points");
        assert!((length - last.at).abs() < 1e-6, "{length} {}", last.at);
        assert!(last.at >= 10_001.0 && last.workers == 3);
        assert!(points.is_sorted_by(|one, next| one.at < next.at));
    }
}
