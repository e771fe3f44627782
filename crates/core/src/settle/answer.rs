//! Replies: the content of the reply at the end of a job, and its destination.
//!
//! A message asks for a reply with its `reply_to`. The sender chooses that text, so it is not trusted: a reply goes
//! to a caller by direct reply-to, or to a queue that the pool's settings allow. It never goes to a queue of a pool
//! of this daemon, which would run it as a job. A reply has no `reply_to` itself, so that two services cannot reply
//! to each other for ever.

use super::{
    Death, Verdict,
    copy::{DIRECT_REPLY_TO, note_kind},
    headers::{ATTEMPTS, ERROR, REASON, set},
    levels::{dead_queue, retry_prefix},
};
use crate::{
    decide::QueueName,
    queue::{Headers, Message, NoRoute, Outgoing, Properties, QueueErrorKind},
    runner::{OutputUse, Reply},
    settings::{Answers, ReplySettings},
    text::first_bytes,
};

/// Header of a reply: `done` or `failed`.
const OUTCOME: &str = "x-tidegate-outcome";

/// Prefix of the address that the broker makes for a caller with direct reply-to. It is not a queue, and it ends with
/// the caller.
const DIRECT: &str = "amq.rabbitmq.reply-to.";

/// Prefix of the name that the broker gives a queue that was declared without a name.
const BROKER_NAMED: &str = "amq.gen-";

/// Longest error text in a reply, in bytes. With all other headers it fits the smallest frame.
const ERROR_LIMIT: usize = 1024;

/// How often a reply is tried if the error does not tell whether the next try will succeed.
const MAX_TRIES: u32 = 3;

/// The settings that decide whether a pool replies.
#[derive(Debug, Clone, Copy)]
pub struct ReplyRules<'a> {
    /// The pool's settings.
    pub settings: &'a ReplySettings,
    /// Whether the pool's kind of runner can give replies itself.
    pub given: bool,
    /// The queues of all pools of this daemon.
    pub own: &'a [QueueName],
}

/// The decision whether a reply is sent.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum ReplyDecision {
    /// No reply: the message did not ask for one, or its job has not ended, or the pool does not reply.
    None,
    /// This reply is published and confirmed before the message is acknowledged.
    Send {
        /// The message to publish.
        message: Box<Outgoing>,
        /// The kind of reply.
        says: ReplyKind,
    },
    /// The message asks for a reply to a place that is not allowed.
    Refused(ReplyRefusal),
}

/// The kind of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// The job is done, and this is its result.
    Done,
    /// The job has finally failed.
    Failed,
    /// The job is done, but its result is too long to be sent.
    TooLarge,
}

/// Why no reply is sent to the address that a message names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplyRefusal {
    /// The pool's settings do not allow this queue.
    NotAllowed,
    /// It is a queue of a pool of this daemon.
    OwnQueue,
}

impl ReplyRefusal {
    /// All variants.
    pub const ALL: [Self; 2] = [Self::NotAllowed, Self::OwnQueue];

    /// A short text for a log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAllowed => "reply_allow does not have it",
            Self::OwnQueue => "it is the queue of one of our pools",
        }
    }

    /// What the operator can change to allow replies to this queue, if anything. Never contains text of the sender.
    pub fn hint(self, reply_to: &str) -> Option<&'static str> {
        match self {
            Self::OwnQueue => None,
            Self::NotAllowed if reply_to == DIRECT_REPLY_TO => None,
            Self::NotAllowed if reply_to.starts_with(BROKER_NAMED) => Some(
                "set reply_allow = [\"amq.gen-*\"] in the pool, for queues that the broker named",
            ),
            Self::NotAllowed => Some("name the queue in the pool's reply_allow, if you trust it"),
        }
    }
}

impl ReplyRules<'_> {
    /// Decides whether a message with this verdict is replied to, and how.
    pub fn answer(&self, request: &Message, verdict: &Verdict) -> ReplyDecision {
        let Some(result) = self.result(verdict) else {
            return ReplyDecision::None;
        };
        let (reply_to, no_route) = match self.target(request) {
            None => return ReplyDecision::None,
            Some(Err(refusal)) => return ReplyDecision::Refused(refusal),
            Some(Ok(target)) => target,
        };
        let (says, ReplyContent { headers, reply }) = match result {
            ReplyResult::Done(reply) if is_longer(&reply, self.settings.max) => (
                ReplyKind::TooLarge,
                ReplyContent::too_large(self.settings.max),
            ),
            ReplyResult::Done(reply) => (ReplyKind::Done, ReplyContent::done(reply)),
            ReplyResult::Failed(death) => (ReplyKind::Failed, ReplyContent::failed(death)),
        };
        let correlation_id = correlation(request);
        let message = Outgoing {
            routing_key: reply_to.to_owned(),
            properties: Properties {
                content_type: reply.content_type,
                // The same bytes as in the request, also if they are not UTF-8.
                raw: request.properties.raw.only(correlation_id.as_deref()),
                correlation_id,
                // Persistent, for callers with a durable queue. A caller's exclusive queue is usually gone after a
                // restart of the broker.
                delivery_mode: Some(2),
                ..Properties::default()
            },
            headers,
            body: reply.body,
            no_route,
            ..Outgoing::default()
        };
        ReplyDecision::Send {
            message: Box::new(message),
            says,
        }
    }

    /// Decides what the standard output of this message's job is used for.
    pub fn output(&self, request: &Message) -> OutputUse {
        match (self.settings.answers, self.target(request)) {
            (Answers::Given | Answers::Never, _) => OutputUse::Log,
            (Answers::Always, Some(Ok(_))) => OutputUse::Reply {
                limit: self.settings.max,
            },
            (Answers::Always, _) => OutputUse::Dropped,
        }
    }

    fn result<'v>(&self, verdict: &'v Verdict) -> Option<ReplyResult<'v>> {
        let answers = self.settings.answers;
        match verdict {
            _ if answers == Answers::Never => None,
            Verdict::Ack { reply: Some(reply) } => Some(ReplyResult::Done(reply.clone())),
            Verdict::Ack { reply: None } if answers == Answers::Always => {
                Some(ReplyResult::Done(Reply::default()))
            }
            Verdict::DeadLetter { death } | Verdict::Reject { death }
                if answers == Answers::Always || self.given =>
            {
                Some(ReplyResult::Failed(death))
            }
            _ => None,
        }
    }

    /// The address for a message's reply, or `None` if it asks for none.
    fn target<'m>(&self, request: &'m Message) -> Option<Result<(&'m str, NoRoute), ReplyRefusal>> {
        let to = request.properties.reply_to.as_deref();
        let to = to.filter(|to| !to.is_empty())?;
        Some(if to.starts_with(DIRECT) {
            Ok((to, NoRoute::Drop))
        } else if self.own.iter().any(|queue| belongs_to(queue, to)) {
            Err(ReplyRefusal::OwnQueue)
        } else if to != DIRECT_REPLY_TO && self.settings.allows(to) {
            Ok((to, NoRoute::Fail))
        } else {
            Err(ReplyRefusal::NotAllowed)
        })
    }
}

/// The result that a reply carries.
enum ReplyResult<'v> {
    Done(Reply),
    Failed(&'v Death),
}

/// The content of a reply. A reply that is not `done` has no body, so that a caller that ignores the headers does not
/// take it for a result.
struct ReplyContent {
    headers: Headers,
    reply: Reply,
}

impl ReplyContent {
    fn done(reply: Reply) -> Self {
        let mut headers = Headers::new();
        set(&mut headers, OUTCOME, "done");
        Self { headers, reply }
    }

    fn failed(death: &Death) -> Self {
        let mut headers = Headers::new();
        set(&mut headers, OUTCOME, "failed");
        set(&mut headers, REASON, death.cause.as_str());
        set(
            &mut headers,
            ERROR,
            first_bytes(&death.message, ERROR_LIMIT),
        );
        set(&mut headers, ATTEMPTS, i64::from(death.attempts));
        // Standard error is left out: it is for the operators of the pool only.
        if let Some(failure) = &death.failure {
            note_kind(&mut headers, failure.kind);
        }
        Self {
            headers,
            reply: Reply::default(),
        }
    }

    fn too_large(max: u64) -> Self {
        let mut headers = Headers::new();
        let error = format!("done, but with an answer of more than {max} bytes, which is not sent");
        set(&mut headers, OUTCOME, "failed");
        set(&mut headers, REASON, "reply-too-large");
        set(&mut headers, ERROR, error);
        Self {
            headers,
            reply: Reply::default(),
        }
    }
}

/// How the caller recognises its reply: by the request's correlation id, or else by its message id. The caller would
/// not know an id that tidegate makes.
fn correlation(request: &Message) -> Option<String> {
    let Properties {
        correlation_id,
        message_id,
        ..
    } = &request.properties;
    let message_id = || message_id.clone().filter(|id| !id.is_empty());
    correlation_id.clone().or_else(message_id)
}

fn is_longer(reply: &Reply, max: u64) -> bool {
    u64::try_from(reply.body.len()).is_ok_and(|length| length > max)
}

/// Whether a queue is this pool's own, or one of its retry or dead-letter queues.
fn belongs_to(pool: &QueueName, queue: &str) -> bool {
    queue == pool.as_str()
        || queue == dead_queue(pool).as_str()
        || queue.starts_with(&retry_prefix(pool))
}

/// What to do after a reply could not be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum ReplyRetry {
    /// The broker takes no messages at present. Wait, and take no more work meanwhile.
    Hold,
    /// The cause may be this reply. Try again, and let the pool continue.
    TryAgain,
    /// The reply can never be delivered. Its message is still settled: the pool does not depend on the caller's
    /// queue.
    GiveUp,
}

/// Decides what to do after a reply failed with an error of this kind. `tried_again` counts the retries before.
pub fn retry_of_reply(kind: QueueErrorKind, tried_again: u32) -> ReplyRetry {
    use QueueErrorKind as K;
    match kind {
        K::Blocked | K::Disconnected => ReplyRetry::Hold,
        K::Timeout | K::BrokerFailed | K::Other if tried_again < MAX_TRIES - 1 => {
            ReplyRetry::TryAgain
        }
        _ => ReplyRetry::GiveUp,
    }
}

#[cfg(test)]
mod tests;
