//! Telemetry: logs, the Prometheus recorder, the file of metric events, and spans for a collector.
//!
//! The library only uses the facades (`tracing`, `metrics`, [`EventSink`](tidegate::run::EventSink)). This module
//! installs what receives their output, once per process.

pub mod events_file;
mod fields;
pub mod logs;
pub mod otlp;
pub mod prometheus;
mod rates;
pub mod stderr;
