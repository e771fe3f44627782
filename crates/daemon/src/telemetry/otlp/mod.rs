//! Spans of jobs to an OpenTelemetry collector, if the configuration names one (`[otlp]`).
//!
//! The library makes the spans ([`traces`](tidegate::run::traces)); this module exports them and connects them with the
//! traces of the messages. A thread of its own sends batches. Workers only put spans into a bounded queue: where that is
//! full, spans are dropped. Without the feature `otlp` a configuration with the table is refused.

#[cfg(feature = "otlp")]
mod client;
#[cfg(feature = "otlp")]
mod export;
#[cfg(not(feature = "otlp"))]
mod off;

use std::time::Duration;

use thiserror::Error;

#[cfg(feature = "otlp")]
pub use self::export::Otlp;
#[cfg(not(feature = "otlp"))]
pub use self::off::Otlp;
use tidegate::{
    config::{Loaded, Problem},
    runner::BoxError,
};

/// Longest time that the end waits for the last spans to be sent.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The exporter could not be set up.
#[derive(Debug, Error)]
#[error("set up the export of spans")]
pub struct OtlpError(#[source] pub BoxError);

/// The problem of the table `[otlp]` for this build of the program.
pub fn inspect(loaded: &Loaded) -> Option<Problem> {
    if cfg!(feature = "otlp") || loaded.settings.otlp.is_none() {
        return None;
    }
    let key = "otlp.endpoint";
    Some(Problem::new(
        loaded.place(key),
        key,
        "a collector, but this tidegate is built without the feature otlp",
        "remove the table [otlp], or build with --features otlp",
    ))
}
