//! The chart of a load: depth, workers and latency over its time.

use plotters::style::RGBColor;

use super::{report::LoadReport, samples::LoadSample};
use crate::chart::{Chart, Line, Panel};

// They can be distinguished without colours too: by their order and position.
const DEPTH: RGBColor = RGBColor(0x1f, 0x6f, 0xb5);
const SENT: RGBColor = RGBColor(0x8a, 0x94, 0xa6);
const WORKERS: RGBColor = RGBColor(0x2a, 0x8f, 0x55);
const CONFIRM: RGBColor = RGBColor(0x9c, 0x5a, 0xc8);
const DONE: RGBColor = RGBColor(0xd0, 0x6a, 0x1c);

/// The chart of a load.
pub(super) fn chart(title: &str, samples: &[LoadSample], report: &LoadReport) -> Chart {
    let mut said = format!(
        "{} confirmed, {} returned, {} refused",
        report.confirmed, report.returned, report.refused
    );
    if let Some(verified) = &report.verified {
        said.push_str(&format!(
            ", {} answered, {} lost, {} repeated",
            verified.answered, verified.lost, verified.repeated
        ));
    }
    Chart {
        title: title.to_owned(),
        subtitle: said,
        panels: panels(samples),
        caption: "seconds since the first message was due",
        end: samples.last().map_or(1.0, |sample| sample.at),
    }
}

fn line(
    name: &str,
    colour: RGBColor,
    samples: &[LoadSample],
    value: impl Fn(&LoadSample) -> Option<f64>,
) -> Line {
    let points = samples
        .iter()
        .filter_map(|sample| Some((sample.at, value(sample)?)));
    Line {
        name: name.to_owned(),
        colour,
        points: points.collect(),
        is_filled: false,
    }
}

fn filled(mut line: Line) -> Line {
    line.is_filled = true;
    line
}

fn panels(samples: &[LoadSample]) -> Vec<Panel> {
    let each_second =
        |sample: &LoadSample| (sample.length > 0.0).then(|| sample.sent as f64 / sample.length);
    let seconds = |ms: Option<f64>| ms.map(|ms| ms / 1000.0);
    vec![
        Panel {
            heading: "Messages",
            lines: vec![
                filled(line("ready in the queue", DEPTH, samples, |sample| {
                    sample.ready.map(|ready| ready as f64)
                })),
                line("sent, a second", SENT, samples, each_second),
            ],
            nothing: "the queue's depth is not known",
        },
        Panel {
            heading: "Workers",
            lines: vec![filled(line("workers", WORKERS, samples, |sample| {
                sample.workers.map(f64::from)
            }))],
            nothing: "no supervisor answered: start one, or name its socket",
        },
        Panel {
            heading: "Latency in seconds",
            lines: vec![
                line("confirmed, p95", CONFIRM, samples, |sample| {
                    seconds(sample.confirm_ms)
                }),
                line("done, p95", DONE, samples, |sample| seconds(sample.done_ms)),
            ],
            nothing: "nothing was confirmed",
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chart::svg,
        load::report::{Times, Verified},
    };

    fn report() -> LoadReport {
        let times = Times::new().percentiles();
        LoadReport {
            published: 10,
            confirmed: 10,
            returned: 0,
            refused: 0,
            seconds: 1.0,
            rate: 10.0,
            confirm_ms: times,
            verified: Some(Verified {
                answered: 9,
                lost: 1,
                repeated: 0,
                done_ms: times,
                failed: 0,
            }),
            unconfirmed: 0,
            unsent: 0,
        }
    }

    fn samples(workers: Option<u32>) -> Vec<LoadSample> {
        let sample = |n: u32| LoadSample {
            at: f64::from(n) * 0.25,
            sent: 5,
            length: 0.25,
            ready: Some(u64::from(n % 20)),
            workers,
            confirm_ms: Some(1.5),
            done_ms: Some(800.0),
        };
        (1..40).map(sample).collect()
    }

    #[test]
    fn has_a_title_units_and_a_legend() {
        let svg = svg(&chart("load on <work>", &samples(Some(3)), &report())).unwrap();
        for text in [
            "load on &lt;work&gt;",
            "9 answered, 1 lost",
            "Messages",
            "ready in the queue",
            "Workers",
            "Latency in seconds",
            "confirmed, p95",
            "done, p95",
            "seconds since",
        ] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
    }

    #[test]
    fn says_so_if_nothing_is_known() {
        let told = svg(&chart("", &samples(None), &report())).unwrap();
        assert!(told.contains("no supervisor answered"));
        let empty = svg(&chart("", &[], &report())).unwrap();
        assert!(empty.contains("nothing was confirmed"));
    }
}
