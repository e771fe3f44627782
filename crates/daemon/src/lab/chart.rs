//! The picture of several runs: what arrived, the depth, the workers and the waits of each.

use plotters::style::RGBColor;
use tidegate::api::v1::TrialCurve;

use super::course::RunCourse;
use crate::chart::{Chart, Line, Panel};

const ARRIVALS: RGBColor = RGBColor(0x8a, 0x94, 0xa6);
const TARGET: RGBColor = RGBColor(0xb0, 0x2a, 0x2a);
/// One for each run, in their order. They can be distinguished with colour blindness (Okabe and Ito).
const RUNS: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x4d, 0x4d, 0x4d),
];

/// Longest time that is shown in seconds, and in minutes.
const IN_SECONDS: f64 = 1800.0;
const IN_MINUTES: f64 = 4.0 * 3600.0;

/// A picture of the runs of one workload. `target` is in seconds.
pub(crate) fn chart(title: &str, runs: &[RunCourse], target: Option<f64>) -> Chart {
    let last = |run: &RunCourse| run.curve.at.last().copied().unwrap_or_default();
    let end = runs.iter().map(last).fold(1.0, f64::max);
    let (unit, caption) = match end {
        end if end <= IN_SECONDS => (1.0, "seconds"),
        end if end <= IN_MINUTES => (60.0, "minutes"),
        end if end <= 4.0 * 86_400.0 => (3600.0, "hours"),
        _ => (86_400.0, "days"),
    };
    let arrivals = runs.first().map(|run| {
        let values = run.curve.arrivals.iter().copied().map(Some);
        line("arrivals a second", ARRIVALS, run, unit, values.collect())
    });
    let each = |values: fn(&TrialCurve) -> Vec<Option<f64>>| {
        let runs = runs.iter().zip(RUNS.iter().cycle());
        runs.map(move |(run, colour)| line(&run.name, *colour, run, unit, values(&run.curve)))
    };
    let reached = target.map(|target| Line {
        name: String::from("target"),
        colour: TARGET,
        points: vec![(0.0, target), (end / unit, target)],
        is_filled: false,
    });
    let panel = |heading, lines| Panel {
        heading,
        lines,
        nothing: "nothing arrived",
    };
    Chart {
        title: title.to_owned(),
        subtitle: String::from(
            "each point is the highest of its time; waits are the 95th percentile of it",
        ),
        panels: vec![
            panel("Arrivals", arrivals.into_iter().collect()),
            panel(
                "Messages ready",
                each(|curve| numbers(&curve.ready)).collect(),
            ),
            panel("Workers", each(|curve| numbers(&curve.workers)).collect()),
            panel(
                "Wait in seconds",
                each(|curve| curve.wait.clone()).chain(reached).collect(),
            ),
        ],
        caption,
        end: end / unit,
    }
}

fn numbers(values: &[u64]) -> Vec<Option<f64>> {
    values.iter().map(|value| Some(*value as f64)).collect()
}

fn line(
    name: &str,
    colour: RGBColor,
    run: &RunCourse,
    unit: f64,
    values: Vec<Option<f64>>,
) -> Line {
    let points = run.curve.at.iter().zip(values);
    let points = points.filter_map(|(at, value)| Some((at / unit, value?)));
    Line {
        name: name.to_owned(),
        colour,
        points: points.collect(),
        is_filled: false,
    }
}

#[cfg(test)]
mod tests {
    use tidegate::trace::Trace;
    use tidegate_sim::{Contender, Neighbour, ServiceTimes, Workload};

    use super::*;
    use crate::{chart::svg, lab::compare};

    #[test]
    fn shows_every_run_and_the_target_in_one_picture() {
        let trace = Trace::parse("time,arrivals\n0,100\n600,0\n").expect("a trace");
        let service = ServiceTimes::named("fixed:2s")
            .expect("named")
            .expect("valid");
        let contender = |name: &str| Contender::Neighbour {
            model: name.parse::<Neighbour>().expect(name),
            max: 5,
            retry: tidegate::RetrySettings::default(),
        };
        let contenders = ["fixed:3", "keda:5"].map(contender);
        let runs = compare(&Workload::new(trace, service), &contenders);
        let courses: Vec<RunCourse> = runs.iter().map(RunCourse::of).collect();
        let svg = svg(&chart("monday", &courses, Some(30.0))).expect("a picture");
        for text in [
            "monday",
            "Arrivals",
            "Messages ready",
            "Workers",
            "Wait",
            "fixed:3",
            "keda:5",
            "target",
            "seconds",
        ] {
            assert!(svg.contains(text), "{text}");
        }
    }
}
