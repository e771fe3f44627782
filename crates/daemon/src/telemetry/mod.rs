//! Telemetry: logs, the Prometheus recorder, and the file of metric events.
//!
//! The library only speaks through the facades (`tracing`, `metrics`, [`EventSink`](tidegate::run::EventSink)); what
//! listens to them is installed here, once for the process.

pub mod events_file;
mod fields;
pub mod logs;
pub mod prometheus;
mod rates;
pub mod stderr;
