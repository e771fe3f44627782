//! The Prometheus recorder behind the `metrics` facade.
//!
//! Owns the process's only recorder and the buckets of its histograms. Metric names and descriptions are in the
//! library's `run` module. The HTTP server serves what [`render`](Prometheus::render) returns.

mod recorder;

use thiserror::Error;

use self::recorder::Registry;
use super::{logs, stderr};

const OTLP_REQUESTS: &str = "tidegate_otlp_requests_total";
/// The outcome of a request to the collector of spans: the label `outcome`.
pub(crate) const OTLP_OUTCOMES: [&str; 2] = ["sent", "failed"];

const BUILD_INFO: &str = "tidegate_build_info";

/// Buckets for jobs and their waits: from a millisecond to an hour.
const JOB_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    120.0, 300.0, 600.0, 1800.0, 3600.0,
];

/// Buckets for reconciles: from ten microseconds to a second.
const RECONCILE_SECONDS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.25, 0.5, 1.0,
];

/// The recorder could not be installed.
#[derive(Debug, Error)]
#[error("install the recorder of metrics: another one is installed")]
pub struct PrometheusError(());

/// Handle to the recorder. Cheap to clone.
#[derive(Clone)]
pub struct Prometheus(Registry);

impl std::fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prometheus").finish_non_exhaustive()
    }
}

impl Prometheus {
    /// Installs the process's recorder and describes every metric.
    ///
    /// # Errors
    /// A recorder is installed already.
    pub fn install() -> Result<Self, PrometheusError> {
        let registry = Registry::new(bounds);
        metrics::set_global_recorder(registry.clone()).map_err(|_| PrometheusError(()))?;
        describe();
        Ok(Self(registry))
    }

    /// All metrics in Prometheus' text format, without gauges whose value is [gone](tidegate::run::metrics::GONE).
    pub fn render(&self) -> String {
        // These numbers are counted when there may be no recorder: before it is installed, and in threads that log.
        let dropped = stderr::started().map_or(0, stderr::Stderr::dropped);
        tidegate::run::metrics::log_lines(dropped, logs::left_out());
        self.0.render()
    }
}

/// The buckets of a histogram.
fn bounds(name: &str) -> &'static [f64] {
    match name {
        "tidegate_reconcile_duration_seconds" => RECONCILE_SECONDS,
        _ => JOB_SECONDS,
    }
}

/// Counts a request to the collector of spans. The outcome is `sent` or `failed`.
#[cfg(feature = "otlp")]
pub(super) fn otlp_request(was_sent: bool) {
    let [sent, failed] = OTLP_OUTCOMES;
    let outcome = if was_sent { sent } else { failed };
    metrics::counter!(OTLP_REQUESTS, "outcome" => outcome).increment(1);
}

/// Describes the metrics of the library and of the telemetry.
pub(crate) fn describe() {
    tidegate::run::metrics::describe();
    metrics::describe_counter!(
        OTLP_REQUESTS,
        "Requests with spans to the OpenTelemetry collector; each has up to 512 spans."
    );
    metrics::describe_gauge!(BUILD_INFO, "Always 1; the version is its label.");
    metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(record: impl FnOnce()) -> String {
        let registry = Registry::new(bounds);
        metrics::with_local_recorder(&registry, record);
        registry.render()
    }

    #[test]
    fn leaves_out_gauges_without_a_value_and_families_without_a_line() {
        let registry = Registry::new(bounds);
        let gone = tidegate::run::metrics::GONE;
        metrics::with_local_recorder(&registry, || {
            describe();
            for pool in ["a", "b NaN"] {
                metrics::gauge!("tidegate_demand_jobs", "pool" => pool).set(3.0);
                metrics::gauge!("tidegate_breaker_open", "pool" => pool).set(1.0);
                metrics::counter!("tidegate_jobs_total", "pool" => pool).increment(1);
            }
            metrics::gauge!("tidegate_demand_jobs", "pool" => "a").set(gone);
            metrics::gauge!("tidegate_breaker_open", "pool" => "a").set(gone);
            metrics::gauge!("tidegate_breaker_open", "pool" => "b NaN").set(gone);
        });
        let text = registry.render();
        let lines: Vec<_> = text.lines().filter(|line| line.contains("pool=")).collect();
        let expected = [
            r#"tidegate_jobs_total{pool="a"} 1"#,
            r#"tidegate_jobs_total{pool="b NaN"} 1"#,
            r#"tidegate_demand_jobs{pool="b NaN"} 3"#,
        ];
        assert_eq!(lines, expected, "{text}");
        assert!(!text.contains("tidegate_breaker_open"), "{text}");
        // A removed gauge may return.
        metrics::with_local_recorder(&registry, || {
            metrics::gauge!("tidegate_breaker_open", "pool" => "a").set(0.0);
        });
        let text = registry.render();
        for line in [
            "# TYPE tidegate_breaker_open gauge\n",
            "tidegate_breaker_open{pool=\"a\"} 0\n",
        ] {
            assert!(text.contains(line), "{line} in:\n{text}");
        }
    }

    #[test]
    fn gives_durations_buckets_of_their_own_scale() {
        let text = rendered(|| {
            describe();
            metrics::histogram!("tidegate_reconcile_duration_seconds", "pool" => "a").record(2e-5);
            metrics::histogram!("tidegate_job_duration_seconds", "pool" => "a").record(1800.0);
        });
        for line in [
            r#"tidegate_reconcile_duration_seconds_bucket{pool="a",le="0.00001"} 0"#,
            r#"tidegate_reconcile_duration_seconds_bucket{pool="a",le="0.000025"} 1"#,
            r#"tidegate_job_duration_seconds_bucket{pool="a",le="600"} 0"#,
            r#"tidegate_job_duration_seconds_bucket{pool="a",le="1800"} 1"#,
        ] {
            assert!(text.contains(line), "{line} in:\n{text}");
        }
        let version = env!("CARGO_PKG_VERSION");
        let info = format!("tidegate_build_info{{version=\"{version}\"}} 1");
        assert!(text.contains(&info), "{text}");
    }
}
