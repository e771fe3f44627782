//! The course of a run over time, as lists of one length: for pictures and for the wire.

use tidegate::api::v1::TrialCurve;
use tidegate_sim::{CurvePoint, SimulatedRun};

/// A run with its course.
#[derive(Debug, Clone)]
pub(crate) struct RunCourse {
    pub(crate) name: String,
    pub(crate) curve: TrialCurve,
}

impl RunCourse {
    /// The whole course of a run.
    pub(crate) fn of(run: &SimulatedRun) -> Self {
        Self {
            name: run.report.name.clone(),
            curve: curve(&run.curve, usize::MAX),
        }
    }
}

/// A curve with at most so many points. Of points that become one, the highest number stays.
pub(crate) fn curve(points: &[CurvePoint], most: usize) -> TrialCurve {
    let mut curve = TrialCurve::default();
    for some in points.chunks(points.len().div_ceil(most).max(1)) {
        let length: f64 = some.iter().map(|point| point.length).sum();
        let arrivals: u64 = some.iter().map(|point| point.arrivals).sum();
        let highest = |of: fn(&CurvePoint) -> u64| some.iter().map(of).max().unwrap_or_default();
        let wait = some.iter().filter_map(|point| point.wait);
        curve.at.push(some.last().map_or(0.0, |point| point.at));
        curve.arrivals.push(arrivals as f64 / length.max(1e-9));
        curve.ready.push(highest(|point| point.ready));
        curve.workers.push(highest(|point| point.workers));
        curve.wait.push(wait.reduce(f64::max));
    }
    curve
}
