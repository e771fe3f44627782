//! The exporter: a layer of the subscriber, a queue, and a thread that sends batches.

use std::{str::FromStr, time::Duration};

use opentelemetry::{
    Context, KeyValue,
    trace::{
        SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider as _,
    },
};
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider},
};
use tracing::{Span, Subscriber, warn};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use super::{
    FLUSH_TIMEOUT, OtlpError,
    client::{CollectorClient, REQUEST_TIMEOUT},
};
use tidegate::{
    config::OtlpSettings,
    queue::TraceContext,
    run::{TraceLink, traces::TARGET},
};

/// Spans that may wait to be sent. A job has three.
const QUEUE: usize = 4096;
/// Spans in one request.
const BATCH: usize = 512;
/// Longest time that a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// Attempts after the first one. More would only let the queue fill up.
const RETRIES: usize = 2;

/// Exports spans. Cheap to clone: the clones share the queue.
#[derive(Debug, Clone)]
pub struct Otlp {
    provider: SdkTracerProvider,
}

impl Otlp {
    /// Starts the thread that sends batches. Does not connect: a collector that cannot be reached is not an error.
    ///
    /// # Errors
    /// The endpoint or a header is invalid for HTTP, or TLS could not be set up.
    pub fn start(settings: &OtlpSettings) -> Result<Self, OtlpError> {
        let failed = |error| OtlpError(error);
        let endpoint = traces_url(settings);
        let client = CollectorClient::new(endpoint.clone(), &settings.headers.0).map_err(failed)?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(endpoint)
            .with_timeout(REQUEST_TIMEOUT)
            .with_retry_policy(RetryPolicy::recommended().with_max_retries(RETRIES))
            .build()
            .map_err(|error| failed(error.into()))?;
        let batches = BatchSpanProcessor::builder(exporter)
            .with_batch_config(
                BatchConfigBuilder::default()
                    .with_max_queue_size(QUEUE)
                    .with_max_export_batch_size(BATCH)
                    .with_scheduled_delay(DELAY)
                    .build(),
            )
            .build();
        let resource = Resource::builder()
            .with_service_name(settings.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample)));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(batches)
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        Ok(Self { provider })
    }

    /// The layer that takes spans of jobs, and nothing else.
    pub fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("tidegate"))
            .with_context_activation(false)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| {
                metadata.is_span() && metadata.target() == TARGET
            }))
            .boxed()
    }

    /// Connects spans with the traces of their messages.
    pub fn link(&self) -> Box<dyn TraceLink> {
        Box::new(link)
    }

    /// Sends the remaining spans, for at most [`FLUSH_TIMEOUT`]. Blocks.
    pub fn finish(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
            warn!(error = %error, "could not send the last spans to the collector");
        }
    }
}

/// The address for spans, below the one that the configuration names.
fn traces_url(settings: &OtlpSettings) -> String {
    let base = settings.endpoint.as_str().trim_end_matches('/');
    match base.ends_with("/v1/traces") {
        true => base.to_owned(),
        false => format!("{base}/v1/traces"),
    }
}

fn link(span: &Span, parent: Option<&TraceContext>) -> Option<TraceContext> {
    let root = Context::new();
    let context = match parent.and_then(remote) {
        Some(parent) => root.with_remote_span_context(parent),
        None => root,
    };
    // A span that this layer does not take has no place in a trace.
    span.set_parent(context).ok()?;
    let context = span.context();
    let own = context.span().span_context().clone();
    if !own.is_valid() {
        return None;
    }
    let (trace, id, flags) = (own.trace_id(), own.span_id(), own.trace_flags());
    let state = own.trace_state().header();
    TraceContext::new(&format!("00-{trace}-{id}-{flags:02x}"), Some(&state))
}

fn remote(context: &TraceContext) -> Option<SpanContext> {
    let flags = match context.is_sampled() {
        true => TraceFlags::SAMPLED,
        false => TraceFlags::default(),
    };
    let state = context.tracestate().unwrap_or_default();
    Some(SpanContext::new(
        TraceId::from_hex(context.trace_id()).ok()?,
        SpanId::from_hex(context.span_id()).ok()?,
        flags,
        true,
        TraceState::from_str(state).unwrap_or_default(),
    ))
}
