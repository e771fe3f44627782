//! A job: the work of a delivery, as a runner sees it.

use std::{borrow::Cow, error::Error, fmt, sync::Arc};

use bytes::Bytes;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::{
    decide::{JobId, PoolName, QueueName},
    queue::{Headers, Message, Properties, TraceContext},
};

/// A job. Cheap to clone: the clones share the message.
#[derive(Clone)]
pub struct Job {
    id: JobId,
    pool: PoolName,
    queue: QueueName,
    attempt: u32,
    /// The number of attempts that the pool allows.
    max_attempts: u32,
    message: Arc<Message>,
    trace: Option<Arc<TraceContext>>,
    cancelled: CancellationToken,
}

/// The body of a job cannot be parsed as the requested type.
///
/// A handler that returns this error rejects the job, also if other errors wrap it. Another attempt would read the same
/// bytes, so the message is dead-lettered at once. The text of the error, with its causes, is the reason. The text may
/// quote a value of the body.
#[derive(Debug, thiserror::Error)]
#[error("the body is not the JSON that the job asks for")]
pub struct JsonError(#[source] Unparsable);

/// The cause of a [`JsonError`]. It identifies a `JsonError` among the causes of other errors. A transparent wrapper
/// (`#[error(transparent)]`, `anyhow`) hides the `JsonError` itself, but not its cause.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Unparsable(serde_json::Error);

impl JsonError {
    /// Whether `error` or one of its causes is a `JsonError`.
    pub(crate) fn is_within(error: &(dyn Error + 'static)) -> bool {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if error.is::<Unparsable>() {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

impl Job {
    /// Makes a job from `message`. Its id is the message's `message-id` if that is set, otherwise `fallback_id`.
    /// Without [`max_attempts`](Self::max_attempts) the number of attempts is unlimited.
    pub fn new(
        pool: PoolName,
        queue: QueueName,
        message: Arc<Message>,
        attempt: u32,
        fallback_id: impl FnOnce() -> JobId,
    ) -> Self {
        let id = match message.properties.message_id.as_deref() {
            Some(id) if !id.is_empty() => JobId::from(id),
            _ => fallback_id(),
        };
        Self {
            id,
            pool,
            queue,
            attempt,
            max_attempts: u32::MAX,
            trace: message.trace_context().map(Arc::new),
            message,
            cancelled: CancellationToken::new(),
        }
    }

    /// The same job, with this limit on its attempts.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// The same job, whose [`cancelled`](Self::cancelled) follows `token`.
    #[must_use]
    pub fn cancelled_by(mut self, token: CancellationToken) -> Self {
        self.cancelled = token;
        self
    }

    /// The same job, as a part of another span than its message says.
    #[must_use]
    pub fn with_trace_context(mut self, context: TraceContext) -> Self {
        self.trace = Some(Arc::new(context));
        self
    }

    /// The message's id, or a generated one. It is untrusted text: escape it for display.
    pub fn id(&self) -> &JobId {
        &self.id
    }

    /// The pool that runs it.
    pub fn pool(&self) -> &PoolName {
        &self.pool
    }

    /// The queue of its delivery.
    pub fn queue(&self) -> &QueueName {
        &self.queue
    }

    /// The number of this attempt. The first is 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether this is the last attempt. If it fails, the message is dead-lettered. The same is true if it returns
    /// [`Outcome::Retry`](super::Outcome::Retry).
    pub fn is_last_attempt(&self) -> bool {
        self.attempt >= self.max_attempts
    }

    /// The exchange that the message was first published to, also on a later attempt. Empty for the default exchange.
    /// [`Message::origin`] says when the headers that carry it are trusted.
    pub fn exchange(&self) -> Cow<'_, str> {
        self.message.origin().exchange
    }

    /// The routing key that the message was first published with, also on a later attempt.
    pub fn routing_key(&self) -> Cow<'_, str> {
        self.message.origin().routing_key
    }

    /// The job's place in a distributed trace, for the requests that it sends: `traceparent` and `tracestate` in the
    /// W3C format. It is the context of the span `process`, if the program records that span (see
    /// [`TraceLink`](crate::run::TraceLink)), and otherwise the one of the message. `None` if the message has none, or
    /// an invalid one.
    pub fn trace_context(&self) -> Option<&TraceContext> {
        self.trace.as_deref()
    }

    /// The `traceparent` of [`trace_context`](Self::trace_context).
    pub fn traceparent(&self) -> Option<&str> {
        self.trace_context().map(TraceContext::traceparent)
    }

    /// The `tracestate` of [`trace_context`](Self::trace_context).
    pub fn tracestate(&self) -> Option<&str> {
        self.trace_context()?.tracestate()
    }

    /// The message's properties: type, priority, timestamp and the like.
    pub fn properties(&self) -> &Properties {
        &self.message.properties
    }

    /// The body, unchanged.
    pub fn body(&self) -> &Bytes {
        &self.message.body
    }

    /// Parses the body as JSON. The value may borrow from the job: `job.json::<Order<'_>>()`.
    ///
    /// # Errors
    /// The body is not JSON, or does not match the type. A handler returns the error with `?`, and the message is
    /// dead-lettered at once with the reason: see [`JsonError`].
    ///
    /// ```
    /// use serde::Deserialize;
    /// use tidegate::{BoxError, Job, Outcome};
    ///
    /// #[derive(Deserialize)]
    /// struct Order<'a> {
    ///     customer: &'a str,
    ///     lines: Vec<u32>,
    /// }
    ///
    /// async fn take(job: Job) -> Result<Outcome, BoxError> {
    ///     let order: Order<'_> = job.json()?;
    ///     println!("{} lines for {}", order.lines.len(), order.customer);
    ///     Ok(Outcome::Done)
    /// }
    /// ```
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, JsonError> {
        serde_json::from_slice(self.body()).map_err(|error| JsonError(Unparsable(error)))
    }

    /// The message's headers.
    pub fn headers(&self) -> &Headers {
        &self.message.headers
    }

    /// The whole message of this delivery.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Whether the job must end: a drain reached its deadline, the job timed out, the broker would soon close its
    /// channel, or the pool preempts it. If the handler returns within its grace, its outcome counts. After the grace a
    /// future is dropped, but a [blocking](crate::Pool::blocking_handler) call continues.
    pub fn is_stopped(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    /// Waits until [`is_stopped`](Self::is_stopped) is true.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    pub async fn stopped(&self) {
        self.cancelled.cancelled().await;
    }

    /// The token behind [`is_stopped`](Self::is_stopped), for code that needs a token. A handler that cancels it stops
    /// only the work of its own job.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }
}

impl fmt::Debug for Job {
    // Never prints the payload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("id", &self.id)
            .field("pool", &self.pool)
            .field("attempt", &self.attempt)
            .field("bytes", &self.message.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(body: &'static str) -> Job {
        let message = Message {
            body: Bytes::from_static(body.as_bytes()),
            ..Message::default()
        };
        Job::new("p".into(), "q".into(), Arc::new(message), 2, || {
            JobId::from("j")
        })
    }

    #[test]
    fn a_body_is_parsed_into_what_it_owns_or_borrows() {
        let job = job(r#"["a", "b"]"#);
        assert_eq!(job.json::<Vec<String>>().unwrap(), ["a", "b"]);
        assert_eq!(job.json::<Vec<&str>>().unwrap(), ["a", "b"]);
    }

    #[test]
    fn the_last_attempt_is_the_one_with_the_number_max_attempts() {
        let at = |max| job("").max_attempts(max).is_last_attempt();
        // Fewer attempts than this one: the settings have changed in the meantime.
        assert_eq!([1, 2, 3].map(at), [true, true, false]);
        assert!(!job("").is_last_attempt(), "nothing is known of its pool");
    }
}
