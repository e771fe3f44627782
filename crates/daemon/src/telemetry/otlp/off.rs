//! A build without the feature `otlp`: there is no exporter.

use tracing::Subscriber;
use tracing_subscriber::{Layer, registry::LookupSpan};

use super::OtlpError;
use tidegate::{config::OtlpSettings, run::TraceLink};

/// The exporter of other builds. There is no value of this type.
#[derive(Debug, Clone)]
pub enum Otlp {}

impl Otlp {
    /// Refuses.
    ///
    /// # Errors
    /// Always. [`inspect`](super::inspect) refuses such a configuration before.
    pub fn start(_: &OtlpSettings) -> Result<Self, OtlpError> {
        Err(OtlpError("built without the feature otlp".into()))
    }

    /// Never called.
    pub fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        match *self {}
    }

    /// Never called.
    pub fn link(&self) -> Box<dyn TraceLink> {
        match *self {}
    }

    /// Never called.
    pub fn finish(&self) {
        match *self {}
    }
}
