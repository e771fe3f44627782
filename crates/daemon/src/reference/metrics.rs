//! `docs/metrics.md`: every metric that the code declares.

use std::{
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use crate::{reloads, telemetry::prometheus};
use tidegate::run::metrics::fixed_labels;

/// A metric.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Metric {
    /// Its name.
    name: String,
    /// `counter`, `gauge` or `histogram`.
    kind: &'static str,
    /// Its unit, if it has one.
    unit: Option<&'static str>,
    /// What it means.
    doc: String,
    /// Its labels, each with its values.
    labels: Vec<(&'static str, String)>,
}

const POOL: (&str, &str) = ("pool", "each pool by its name");
const KIND: (&str, &str) = ("kind", "the kinds of runner, and `handler`");
const RUNNER_END: (&str, &str) = (
    "reason",
    "`finished`, `idle`, and other reasons, each one word",
);

/// The labels of a metric. Those with fixed values come from the code that sets them. A test compares all of them with
/// those of a running daemon.
fn labels(name: &str) -> Vec<(&'static str, String)> {
    let open: &[(&str, &str)] = match name {
        "tidegate_runners" | "tidegate_runners_started_total" => &[POOL, KIND],
        "tidegate_runners_stopped_total" => &[POOL, KIND, RUNNER_END],
        "tidegate_build_info" => &[("version", "the version")],
        "tidegate_steering_total"
        | "tidegate_reloads_total"
        | "tidegate_otlp_requests_total"
        | "tidegate_broker_connected"
        | "tidegate_broker_reconnects_total"
        | "tidegate_log_lines_dropped_total"
        | "tidegate_log_lines_left_out_total"
        | "tidegate_events_dropped_total"
        | "tidegate_config_reload_success"
        | "tidegate_config_reload_success_timestamp_seconds" => &[],
        _ => &[POOL],
    };
    let fixed = match name {
        "tidegate_reloads_total" => vec![("outcome", reloads::OUTCOMES.to_vec())],
        "tidegate_otlp_requests_total" => vec![("outcome", prometheus::OTLP_OUTCOMES.to_vec())],
        name => fixed_labels(name),
    };
    let fixed = fixed.into_iter().map(|(label, values)| {
        let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
        (label, values.join(", "))
    });
    let open = open
        .iter()
        .map(|(label, values)| (*label, (*values).to_owned()));
    open.chain(fixed).collect()
}

/// Every metric, as it is described to a recorder.
fn declared() -> Vec<Metric> {
    let collector = Collector::default();
    metrics::with_local_recorder(&collector, || {
        prometheus::describe();
        reloads::describe();
    });
    let mut metrics = collector
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    metrics.sort_by(|one, other| one.name.cmp(&other.name));
    metrics
}

const HEAD: &str = "\
# Metrics

<!-- Made from the code by `cargo run -- docs docs`. Edit the descriptions in the code that declares the metrics. -->

`GET /metrics` serves them in Prometheus' text format. Counters show zero before anything has happened. The gauges of a removed pool are left out. Labels are bounded: ids of jobs and workers are not labels. Histograms are in seconds. The alert rules
in `deploy/prometheus` and the dashboard in `deploy/grafana` use these names.
";

pub(super) fn page() -> String {
    let mut page = HEAD.to_owned();
    for metric in declared() {
        let Metric {
            name,
            kind,
            unit,
            doc,
            labels,
        } = metric;
        let unit = unit.map_or(String::new(), |unit| format!(", in {unit}"));
        let _ = write!(page, "\n## `{name}`\n\n{doc}\n\nA {kind}{unit}.");
        match labels.is_empty() {
            true => page.push_str(" No labels.\n"),
            false => {
                page.push_str(" Labels:\n\n");
                for (label, values) in labels {
                    let _ = writeln!(page, "- `{label}`: {values}");
                }
            }
        }
    }
    page
}

/// Collects what is described to it. Written and read by one thread.
#[derive(Default)]
struct Collector(Arc<Mutex<Vec<Metric>>>);

impl Collector {
    fn add(&self, kind: &'static str, name: &KeyName, unit: Option<Unit>, doc: &SharedString) {
        let unit = match unit {
            Some(Unit::Seconds) => Some("seconds"),
            Some(Unit::Bytes) => Some("bytes"),
            _ => None,
        };
        let metric = Metric {
            name: name.as_str().to_owned(),
            kind,
            unit,
            doc: doc.to_string(),
            labels: labels(name.as_str()),
        };
        let mut metrics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        metrics.push(metric);
    }
}

impl Recorder for Collector {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, doc: SharedString) {
        self.add("counter", &name, unit, &doc);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, doc: SharedString) {
        self.add("gauge", &name, unit, &doc);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, doc: SharedString) {
        self.add("histogram", &name, unit, &doc);
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
