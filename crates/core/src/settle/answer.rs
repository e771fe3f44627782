//! The answer: what whoever asked is told at a job's end, and where.
//!
//! A message asks by its `reply_to`, which is its sender's choice and not to be trusted with more than that: an answer
//! goes to a caller by direct reply-to, or to a queue that the pool's settings allow, and never to a queue of a pool
//! of this daemon, which would take it for work. An answer has no `reply_to` itself, so that no two services answer
//! each other for ever.

use super::{
    Death, Verdict,
    copy::{ATTEMPTS, DIRECT_REPLY_TO, ERROR, REASON, note_kind, set, shortened},
    levels::{dead_queue, retry_prefix},
};
use crate::{
    decide::QueueName,
    queue::{Headers, Message, NoRoute, Outgoing, Properties, QueueErrorKind},
    runner::{OutputUse, Reply},
    settings::{Answers, ReplySettings},
};

/// What an answer is: `done` or `failed`.
const OUTCOME: &str = "x-tidegate-outcome";

/// How a caller's address begins that its broker has made up for it: no queue, and gone with the caller.
const DIRECT: &str = "amq.rabbitmq.reply-to.";

/// How a queue's name begins that its broker has made up, for a caller that declared one without a name.
const BROKER_NAMED: &str = "amq.gen-";

/// Longest error text in an answer, in bytes: it fits the smallest frame with all that is beside it.
const ERROR_LIMIT: usize = 1024;

/// Tries of an answer that fails in a way which says nothing of what the next will do.
const MOST_TRIES: u32 = 3;

/// What a pool's answers go by.
#[derive(Debug, Clone, Copy)]
pub struct Answering<'a> {
    /// The pool's settings.
    pub settings: &'a ReplySettings,
    /// Whether its kind of runner gives answers of its own accord.
    pub given: bool,
    /// The queues of all pools of this daemon.
    pub own: &'a [QueueName],
}

/// What becomes of a message's wish for an answer.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum Answer {
    /// Nobody asked, or there is nothing to say yet, or the pool does not answer.
    None,
    /// This is published, confirmed, before the message is acknowledged.
    Send {
        /// What is published.
        message: Box<Outgoing>,
        /// What it says.
        says: Says,
    },
    /// Not where this message wants it.
    Refused(Refusal),
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// The job is done, and this came of it.
    Done,
    /// The job has failed for good.
    Failed,
    /// The job is done, but what came of it is too long to be sent.
    TooLarge,
}

/// Why an answer is not sent where a message wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The pool's settings do not allow this queue.
    NotAllowed,
    /// It is a queue of a pool of this daemon.
    OwnQueue,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::NotAllowed, Self::OwnQueue];

    /// In a few words, for a log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAllowed => "reply_allow does not have it",
            Self::OwnQueue => "it is a queue of our own pools",
        }
    }

    /// What makes answers to this queue go there, where anything does. Never with a word of the sender's in it.
    pub fn hint(self, reply_to: &str) -> Option<&'static str> {
        match self {
            Self::OwnQueue => None,
            Self::NotAllowed if reply_to == DIRECT_REPLY_TO => None,
            Self::NotAllowed if reply_to.starts_with(BROKER_NAMED) => Some(
                "set reply_allow = [\"amq.gen-*\"] in the pool, for queues that the broker named",
            ),
            Self::NotAllowed => {
                Some("name the queue in the pool's reply_allow, if it is to be trusted")
            }
        }
    }
}

impl Answering<'_> {
    /// Decides the answer to a message that comes to this end.
    pub fn answer(&self, request: &Message, verdict: &Verdict) -> Answer {
        let Some(said) = self.said(verdict) else {
            return Answer::None;
        };
        let (reply_to, no_route) = match self.target(request) {
            None => return Answer::None,
            Some(Err(refusal)) => return Answer::Refused(refusal),
            Some(Ok(target)) => target,
        };
        let (says, Content { headers, reply }) = match said {
            Said::Done(reply) if is_longer(&reply, self.settings.max) => {
                (Says::TooLarge, Content::too_large(self.settings.max))
            }
            Said::Done(reply) => (Says::Done, Content::done(reply)),
            Said::Failed(death) => (Says::Failed, Content::failed(death)),
        };
        let correlation_id = correlation(request);
        let message = Outgoing {
            routing_key: reply_to.to_owned(),
            properties: Properties {
                content_type: reply.content_type,
                // Byte for byte, whatever bytes they are.
                raw: request.properties.raw.only(correlation_id.as_deref()),
                correlation_id,
                // For whom it matters: a caller's own queue is most often gone before a restart of the broker.
                delivery_mode: Some(2),
                ..Properties::default()
            },
            headers,
            body: reply.body,
            no_route,
            ..Outgoing::default()
        };
        Answer::Send {
            message: Box::new(message),
            says,
        }
    }

    /// Decides what the standard output of this message's job is.
    pub fn output(&self, request: &Message) -> OutputUse {
        match (self.settings.answers, self.target(request)) {
            (Answers::Given | Answers::Never, _) => OutputUse::Log,
            (Answers::Always, Some(Ok(_))) => OutputUse::Reply {
                limit: self.settings.max,
            },
            (Answers::Always, _) => OutputUse::Dropped,
        }
    }

    fn said<'v>(&self, verdict: &'v Verdict) -> Option<Said<'v>> {
        let answers = self.settings.answers;
        match verdict {
            _ if answers == Answers::Never => None,
            Verdict::Ack { reply: Some(reply) } => Some(Said::Done(reply.clone())),
            Verdict::Ack { reply: None } if answers == Answers::Always => {
                Some(Said::Done(Reply::default()))
            }
            Verdict::DeadLetter { death } | Verdict::Reject { death }
                if answers == Answers::Always || self.given =>
            {
                Some(Said::Failed(death))
            }
            _ => None,
        }
    }

    /// Where a message wants its answer, if it wants one.
    fn target<'m>(&self, request: &'m Message) -> Option<Result<(&'m str, NoRoute), Refusal>> {
        let to = request.properties.reply_to.as_deref();
        let to = to.filter(|to| !to.is_empty())?;
        Some(if to.starts_with(DIRECT) {
            Ok((to, NoRoute::Drop))
        } else if self.own.iter().any(|queue| belongs_to(queue, to)) {
            Err(Refusal::OwnQueue)
        } else if to != DIRECT_REPLY_TO && self.settings.allows(to) {
            Ok((to, NoRoute::Fail))
        } else {
            Err(Refusal::NotAllowed)
        })
    }
}

/// What there is to say.
enum Said<'v> {
    Done(Reply),
    Failed(&'v Death),
}

/// What an answer carries. One that is not `done` has no body: who looks at nothing else takes it for no answer.
struct Content {
    headers: Headers,
    reply: Reply,
}

impl Content {
    fn done(reply: Reply) -> Self {
        let mut headers = Headers::new();
        set(&mut headers, OUTCOME, "done");
        Self { headers, reply }
    }

    fn failed(death: &Death) -> Self {
        let mut headers = Headers::new();
        set(&mut headers, OUTCOME, "failed");
        set(&mut headers, REASON, death.cause.as_str());
        set(&mut headers, ERROR, shortened(&death.message, ERROR_LIMIT));
        set(&mut headers, ATTEMPTS, i64::from(death.attempts));
        // Not the end of standard error, which is for the pool's own people.
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

/// What a caller knows its answer by: as it asked, or by the message's id. One of our own making would tell it nothing.
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

/// Whether a queue is this pool's, or one that the pool keeps beside it.
fn belongs_to(pool: &QueueName, queue: &str) -> bool {
    queue == pool.as_str()
        || queue == dead_queue(pool).as_str()
        || queue.starts_with(&retry_prefix(pool))
}

/// What is to be done after an answer could not be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Trouble {
    /// The broker takes nothing at present: wait, and take no more work meanwhile.
    Hold,
    /// It may have been the answer's own fault: try again, and let the pool go on.
    TryAgain,
    /// It will never be delivered, and that is no reason to keep its message: the caller's queue is not the pool's
    /// business.
    GiveUp,
}

/// Decides what to do about an answer that met an error of this kind, after it was tried again so many times.
pub fn trouble(kind: QueueErrorKind, tried_again: u32) -> Trouble {
    use QueueErrorKind as K;
    match kind {
        K::Blocked | K::Disconnected => Trouble::Hold,
        K::Timeout | K::BrokerFailed | K::Other if tried_again < MOST_TRIES - 1 => {
            Trouble::TryAgain
        }
        _ => Trouble::GiveUp,
    }
}

#[cfg(test)]
mod tests;
