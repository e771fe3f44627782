//! `docs/metrics.md`: every metric that the code declares.

use std::{
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use crate::{reloads, telemetry::prometheus};

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
    labels: Vec<(&'static str, &'static str)>,
}

const POOL: (&str, &str) = ("pool", "each pool by its name");
const KIND: (&str, &str) = ("kind", "the kinds of runner, and `handler`");

/// The labels of a metric. A test compares them with those of a running daemon.
fn labels(name: &str) -> Vec<(&'static str, &'static str)> {
    match name {
        "tidegate_workers" => vec![POOL, ("state", "`waiting`, `busy`, `retiring`, `draining`")],
        "tidegate_pool_state" => vec![
            POOL,
            (
                "state",
                "`active`, `idle`, `paused`, `draining`, `waiting`, `faulted`, `blocked`, `stuck`, `disconnected`",
            ),
        ],
        "tidegate_otlp_requests_total" => vec![("outcome", "`sent`, `failed`")],
        "tidegate_runners" => vec![POOL, KIND, ("state", "`idle`, `busy`")],
        "tidegate_workers_stopped_total" => vec![
            POOL,
            (
                "reason",
                "`scaled_down`, `retired`, `preempted`, `drained`, `faulted`, `gave_back`, `alone`, `lost`, \
                 `held_too_long`, `cancelled`, `not_opened`, `ended`, `panicked`",
            ),
        ],
        "tidegate_runners_started_total" => vec![POOL, KIND],
        "tidegate_runners_stopped_total" => vec![
            POOL,
            KIND,
            (
                "reason",
                "`finished`, `idle`, and what else ends a runner, in one word",
            ),
        ],
        "tidegate_runner_panics_total" => vec![
            POOL,
            (
                "place",
                "`describe`, `create`, `cleanup`, `end`, `quiesce`, `run`, `check`, `event`",
            ),
        ],
        "tidegate_reconciles_total" => vec![
            POOL,
            ("outcome", "`changed`, `unchanged`, `stale`, `missing`"),
        ],
        "tidegate_jobs_total" => vec![
            POOL,
            (
                "outcome",
                "`done`, `failed`, `timeout`, `retry`, `rejected`, `launch_failed`, `not_started`, `stopped`, `deadline`",
            ),
        ],
        "tidegate_settlements_total" => vec![
            POOL,
            (
                "settlement",
                "`ack`, `retry`, `dead_letter`, `reject`, `requeue`, `requeue_copy`, `renewed`, `parked`, `lost`, \
                 `lost_copy`",
            ),
        ],
        "tidegate_replies_total" => vec![
            POOL,
            (
                "outcome",
                "`done`, `failed`, `too_large`, `refused`, `undeliverable`",
            ),
        ],
        "tidegate_steering_total" => vec![
            (
                "act",
                "`pause`, `resume`, `drain`, `flush`, `scale`, `policy`, `reload`, `stop`",
            ),
            ("outcome", "`changed`, `unchanged`, `refused`"),
        ],
        "tidegate_reloads_total" => vec![("outcome", "`taken`, `refused`")],
        "tidegate_build_info" => vec![("version", "the version")],
        "tidegate_broker_connected"
        | "tidegate_broker_reconnects_total"
        | "tidegate_log_lines_dropped_total"
        | "tidegate_log_lines_left_out_total"
        | "tidegate_events_dropped_total"
        | "tidegate_config_reload_success"
        | "tidegate_config_reload_success_timestamp_seconds" => Vec::new(),
        _ => vec![POOL],
    }
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

<!-- Made from the code by `cargo run -- docs docs`. Edit the descriptions where the metrics are declared. -->

`GET /metrics` serves them in Prometheus' text format. Counters show zero before anything has happened. A gauge of a pool
that is gone is left out. Labels are bounded: no job's or worker's id is one. Histograms are of seconds. The alert rules
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
