//! The cost of `/metrics` with many pools, compared with a bare exporter that renders as many lines.

use std::time::{Duration, Instant};

use metrics::{Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::{broker::Queues, daemon::Daemon, quantile};

const POOLS: usize = 200;
const SCRAPES: u32 = 300;

pub(crate) async fn measure(url: &str) {
    let queues = Queues::new(url, POOLS).await;
    let daemon = Daemon::start(url, &queues).await;
    let mut client = daemon.client().await;
    let text = client.get("/metrics").await;
    let lines = text.lines().filter(|line| !line.starts_with('#')).count();
    println!(
        "metrics, {POOLS} pools: {lines} lines, {} KiB",
        text.len() / 1024
    );
    // The idle pools cost something themselves.
    let idle = daemon.load(Duration::from_secs(10)).await / 100.0;
    let (begun, before) = (Instant::now(), daemon.processor());
    let mut times = Vec::new();
    for _ in 0..SCRAPES {
        let asked = Instant::now();
        client.get("/metrics").await;
        times.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    let spent = daemon.processor().saturating_sub(before).as_secs_f64();
    let spent = (spent - idle * begun.elapsed().as_secs_f64()) * 1e3 / f64::from(SCRAPES);
    println!(
        "metrics, a scrape:      median {:.1} ms, 95 % {:.1} ms, longest {:.1} ms (bound 20), processor {spent:.1} ms",
        quantile(&mut times, 0.5),
        quantile(&mut times, 0.95),
        quantile(&mut times, 1.0),
    );
    bare(&text);
    daemon.end().await;
    queues.delete().await;
}

/// The time of the exporter alone for these lines.
fn bare(text: &str) {
    let recorder = PrometheusBuilder::new()
        .set_buckets(&buckets(text))
        .expect("some buckets")
        .build_recorder();
    text.lines().for_each(|line| register(&recorder, line));
    let handle = recorder.handle();
    let lines = handle.render();
    let lines = lines
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lines = lines.count();
    let mut times = Vec::new();
    for _ in 0..SCRAPES {
        let asked = Instant::now();
        std::hint::black_box(handle.render());
        times.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    println!(
        "metrics, bare exporter: median {:.1} ms, 95 % {:.1} ms, longest {:.1} ms, {lines} lines",
        quantile(&mut times, 0.5),
        quantile(&mut times, 0.95),
        quantile(&mut times, 1.0),
    );
}

/// The bounds of the histogram of job durations. The histogram of reconciles has a few bounds fewer.
fn buckets(text: &str) -> Vec<f64> {
    let lines = text
        .lines()
        .filter(|line| line.starts_with("tidegate_job_duration_seconds_bucket{pool=\"p0\""));
    let bounds = lines.filter_map(|line| line.split("le=\"").nth(1)?.split('"').next());
    let bounds = bounds.filter(|bound| *bound != "+Inf");
    bounds
        .map(|bound| bound.parse().expect("a number"))
        .collect()
}

/// Registers the metric that this line belongs to. A histogram is registered at its last line, `_count`.
fn register(recorder: &PrometheusRecorder, line: &str) {
    const METADATA: Metadata<'_> = Metadata::new("bench", Level::INFO, None);
    let Some((series, _)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) else {
        return;
    };
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels: Vec<_> = labels
        .trim_end_matches('}')
        .split(',')
        .filter_map(|label| label.split_once('='))
        .map(|(name, value)| Label::new(name.to_owned(), value.trim_matches('"').to_owned()))
        .collect();
    let key = |name: &str| Key::from_parts(name.to_owned(), labels.clone());
    if name.ends_with("_bucket") || name.ends_with("_sum") {
    } else if let Some(name) = name.strip_suffix("_count") {
        recorder
            .register_histogram(&key(name), &METADATA)
            .record(1e-3);
    } else if name.ends_with("_total") {
        recorder
            .register_counter(&key(name), &METADATA)
            .increment(1);
    } else {
        recorder.register_gauge(&key(name), &METADATA).set(1.0);
    }
}
