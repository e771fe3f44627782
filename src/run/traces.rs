//! The spans of a message: `receive`, `process` and `settle`, named as OpenTelemetry names them.
//!
//! They are ordinary `tracing` spans with a target of their own ([`TARGET`]), so that a subscriber can choose them and a
//! log can leave them out. If no subscriber takes them they cost nothing. Only the subscriber knows the ids of its
//! spans; a [`TraceLink`] of the program connects the two.
//!
//! The names are those of <https://opentelemetry.io/docs/specs/semconv/messaging/>, and of `tracing-opentelemetry` for
//! what a `tracing` span does not have (`otel.*`).

use std::{fmt, sync::Arc};

use tracing::{Span, field, info_span};

use super::{
    metrics::{JobOutcome, Settlement},
    panics,
};
use crate::{
    decide::QueueName,
    escape::Escaped,
    queue::{Message, TraceContext},
    runner::Job,
};

/// The target of the spans `receive`, `process` and `settle`.
pub const TARGET: &str = "tidegate::trace";

/// Connects the spans of jobs with the trace that their message belongs to. A program brings it, because the library
/// knows no tracing backend. [`Builder::traces`](crate::builder::Builder::traces) has an example.
///
/// It is called by workers, three times for each job, and must not block. A panic in it is contained.
pub trait TraceLink: Send + Sync + 'static {
    /// Makes `parent` the parent of `span`, or makes `span` the first of a new trace. Returns the context of `span`: the
    /// job of a `process` span is given it, as `traceparent`. `None` if `span` is not recorded: the job is given the
    /// context of its message.
    fn link(&self, span: &Span, parent: Option<&TraceContext>) -> Option<TraceContext>;
}

impl<F> TraceLink for F
where
    F: Fn(&Span, Option<&TraceContext>) -> Option<TraceContext> + Send + Sync + 'static,
{
    fn link(&self, span: &Span, parent: Option<&TraceContext>) -> Option<TraceContext> {
        self(span, parent)
    }
}

impl TraceLink for Box<dyn TraceLink> {
    fn link(&self, span: &Span, parent: Option<&TraceContext>) -> Option<TraceContext> {
        (**self).link(span, parent)
    }
}

impl fmt::Debug for dyn TraceLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TraceLink")
    }
}

/// A span of one of the three operations. How a message was settled is recorded later, when it is known. The fields are
/// evaluated only if a subscriber takes them.
macro_rules! operation {
    ($operation:literal, $name:expr, $kind:literal, $job:expr) => {{
        let job: &Job = $job;
        let properties = job.properties();
        info_span!(
            target: TARGET,
            $operation,
            otel.name = format!(concat!($operation, " {}"), job.queue()),
            otel.kind = $kind,
            otel.status_code = field::Empty,
            otel.status_description = field::Empty,
            messaging.system = "rabbitmq",
            messaging.operation.type = $operation,
            messaging.operation.name = $name,
            messaging.destination.name = destination(job.message(), job.queue()),
            messaging.rabbitmq.destination.routing_key = %Escaped(&job.message().routing_key),
            messaging.message.id = %Escaped(job.id().as_str()),
            messaging.message.conversation_id = properties
                .correlation_id
                .as_deref()
                .map(|id| field::display(Escaped(id))),
            messaging.message.body.size = job.body().len() as u64,
            error.type = field::Empty,
            tidegate.pool = job.pool().as_str(),
            tidegate.attempt = job.attempt(),
            tidegate.outcome = field::Empty,
        )
    }};
}

/// The spans of one delivery. Owned by its worker.
pub(crate) struct DeliveryTrace {
    link: Option<Arc<dyn TraceLink>>,
    /// The context that the next span continues: the message's, then that of a span of ours.
    parent: Option<TraceContext>,
    /// The job, for the spans to come. `None` if no subscriber takes them.
    job: Option<Job>,
    /// Open until the job runs, or is settled without a run.
    receive: Span,
    /// Open while the job runs.
    process: Span,
}

impl DeliveryTrace {
    /// No delivery yet.
    pub(crate) fn none() -> Self {
        Self {
            link: None,
            parent: None,
            job: None,
            receive: Span::none(),
            process: Span::none(),
        }
    }

    /// A worker has taken the delivery of `job`.
    pub(crate) fn received(link: Option<Arc<dyn TraceLink>>, job: &Job) -> Self {
        let receive = operation!("receive", "receive", "client", job);
        if receive.is_disabled() {
            return Self::none();
        }
        let mut trace = Self {
            link,
            parent: job.trace_context().cloned(),
            job: Some(job.clone()),
            receive,
            process: Span::none(),
        };
        let own = trace.link(&trace.receive);
        // The message's context is the parent of `process` too. If the message has none, `receive` is the parent, so
        // that both spans are in one trace.
        if trace.parent.is_none() {
            trace.parent = own;
        }
        trace
    }

    /// The job runs. Returns the span around its run. If that span has a context of its own, also returns the job with
    /// that context.
    pub(crate) fn runs(&mut self) -> (Span, Option<Job>) {
        self.receive = Span::none();
        let Some(job) = &self.job else {
            return (Span::none(), None);
        };
        self.process = operation!("process", "process", "consumer", job);
        let own = self.link(&self.process);
        let told = own.clone().map(|own| job.clone().with_trace_context(own));
        self.parent = own.or_else(|| self.parent.take());
        (self.process.clone(), told)
    }

    /// The run has ended.
    pub(crate) fn ran(&mut self, outcome: JobOutcome) {
        let span = std::mem::replace(&mut self.process, Span::none());
        span.record("tidegate.outcome", outcome.as_str());
        if outcome.is_error() {
            failed(&span, outcome.as_str());
        }
    }

    /// The message is being settled.
    pub(crate) fn settles(&mut self) -> Span {
        self.receive = Span::none();
        let Some(job) = &self.job else {
            return Span::none();
        };
        let span = operation!("settle", field::Empty, "client", job);
        self.link(&span);
        span
    }

    fn link(&self, span: &Span) -> Option<TraceContext> {
        let link = self.link.as_ref().filter(|_| !span.is_disabled())?;
        // If a link panics, only the job's place in the trace is lost. The panic hook reports it.
        panics::catch(|| link.link(span, self.parent.as_ref())).unwrap_or_default()
    }
}

/// Records how a settlement ended.
pub(crate) fn settled(span: &Span, settlement: Settlement) {
    if span.is_disabled() {
        return;
    }
    let word = settlement.as_str();
    span.record("messaging.operation.name", word);
    span.record("tidegate.outcome", word);
    if matches!(settlement, Settlement::Lost | Settlement::LostCopy) {
        failed(span, word);
    }
}

fn failed(span: &Span, what: &str) {
    span.record("error.type", what);
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", what);
}

/// Exchange, routing key and queue, without empty or repeated parts: the conventions' name for what a consumer of
/// RabbitMQ consumes.
fn destination(message: &Message, queue: &QueueName) -> String {
    let parts = [&message.exchange, &message.routing_key].map(|part| Escaped(part).to_string());
    let mut name = String::new();
    for part in parts {
        if !part.is_empty() && part != queue.as_str() {
            name.push_str(&part);
            name.push(':');
        }
    }
    name.push_str(queue.as_str());
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_repeats_no_name() {
        let name = |exchange: &str, routing_key: &str| {
            let message = Message {
                exchange: exchange.to_owned(),
                routing_key: routing_key.to_owned(),
                ..Message::default()
            };
            destination(&message, &"thumbnails".into())
        };
        assert_eq!(name("", "thumbnails"), "thumbnails");
        assert_eq!(name("images", "new.cat"), "images:new.cat:thumbnails");
        assert_eq!(name("images", ""), "images:thumbnails");
    }
}
