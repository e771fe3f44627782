//! Finds out a queue's type and arguments over AMQP, from the differences that the broker reports.
//!
//! A declare with an impossible type is never carried out. If the queue does not exist, the broker refuses the type. If
//! it exists, the broker reports the queue's own value, one argument at a time: *inequivalent arg 'x-queue-type' for
//! queue 'q' in vhost '/': received 'tidegate-look' but current is 'quorum'*. So no queue is created, even if the queue
//! is deleted between two questions, and there is no race. The broker compares the type of a quorum queue before some
//! of its arguments. So when the type is known, an impossible leader locator takes its place: no broker carries that
//! out either.
//!
//! Some facts stay unknown: a user without the permission to configure the queue is refused, a policy is not an
//! argument, and brokers with relaxed checks do not answer.

use std::collections::BTreeMap;

use lapin::{
    ErrorKind,
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use tokio::time;

use super::{
    convert::short,
    error::rpc,
    pool::{ChannelPool, RPC_TIMEOUT},
};
use crate::{
    decide::QueueName,
    queue::{QueueError, QueueErrorKind},
};
use tidegate_core::text::noun_for;

/// A value that no broker has, as a type and as a leader locator.
const IMPOSSIBLE: &str = "tidegate-look";
const TYPE: &str = "x-queue-type";
const LOCATOR: &str = "x-queue-leader-locator";
/// More arguments than any queue has.
const MAX_QUERIES: usize = 32;
/// An answer has 255 bytes at most, including the queue's name.
const MAX_NAME_LEN: usize = 80;

/// A queue's type and arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueFacts {
    /// The type, if it is known: `classic`, `quorum`, `stream`.
    pub kind: Option<String>,
    /// The other arguments, as far as they are known.
    pub arguments: BTreeMap<String, String>,
    /// Whether the queue is known to be lost when the broker restarts.
    pub is_transient: bool,
}

impl QueueFacts {
    /// Whether it is a stream, whose messages stay after they are consumed.
    pub fn is_stream(&self) -> bool {
        self.kind.as_deref() == Some("stream")
    }

    /// Whether it delivers everything to one consumer at a time.
    pub fn has_single_active_consumer(&self) -> bool {
        let argument = self.arguments.get("x-single-active-consumer");
        argument.is_some_and(|value| value == "true")
    }

    /// The known ways in which the queue loses messages by itself. Each text is read after the word "it". A limit or a
    /// time to live does not count if the queue has a dead-letter exchange, which then gets those messages.
    pub fn losses(&self) -> Vec<String> {
        let argument = |name: &str| self.arguments.get(name);
        let mut losses = Vec::new();
        if !self.arguments.contains_key("x-dead-letter-exchange") {
            let drops_head = argument("x-overflow").is_none_or(|how| how == "drop-head");
            for (name, unit) in [("x-max-length", "message"), ("x-max-length-bytes", "byte")] {
                if let Some(most) = argument(name).filter(|_| drops_head) {
                    let unit = noun_for(most.parse::<u64>().unwrap_or(0), unit);
                    losses.push(format!(
                        "drops its oldest message for a new one beyond {most} {unit} ({name})"
                    ));
                }
            }
            if let Some(ttl) = argument("x-message-ttl") {
                losses.push(format!("drops each message after {ttl} ms (x-message-ttl)"));
            }
        }
        if let Some(unused) = argument("x-expires") {
            losses.push(format!(
                "is deleted, with its messages, when it has not been used for {unused} ms (x-expires)"
            ));
        }
        if self.is_transient {
            losses.push("is not durable, and gone when the broker starts again".to_owned());
        }
        losses
    }
}

/// One difference that the broker reports.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    argument: String,
    /// The queue's value, and its AMQP type if the text names one. `None` if the queue does not have this argument.
    current: Option<(String, Option<String>)>,
}

pub(super) async fn ask(pool: &ChannelPool, queue: &QueueName) -> Result<QueueFacts, QueueError> {
    let operation = format!("ask for the type and arguments of the queue {queue}");
    let mut facts = QueueFacts::default();
    if queue.as_str().len() > MAX_NAME_LEN {
        return Ok(facts);
    }
    let mut options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    arguments.insert(TYPE.into(), AMQPValue::LongString(IMPOSSIBLE.into()));
    for _ in 0..MAX_QUERIES {
        let name = short("name of a queue", queue.as_str())?;
        let lease = time::timeout(RPC_TIMEOUT, pool.lease(&operation)).await;
        let timed_out = |_| Err(QueueError::new(QueueErrorKind::Timeout, &operation));
        let lease = lease.unwrap_or_else(timed_out)?;
        let declare = lease
            .channel
            .queue_declare(name, options, arguments.clone());
        let error = match rpc(&operation, RPC_TIMEOUT, declare).await {
            // The queue exists, and the broker does not check the type.
            Ok(_) => {
                lease.give_back();
                return Ok(facts);
            }
            Err(error) => error,
        };
        let said = text_of(&error).unwrap_or_default();
        if [TYPE, LOCATOR].map(|name| said.contains(&format!("invalid arg '{name}'"))) != [false; 2]
        {
            return Err(QueueError::new(QueueErrorKind::NotFound, operation));
        }
        let Some(found) = Difference::read(&said) else {
            return match error.kind {
                // A text that we do not know.
                QueueErrorKind::Conflict if said.contains("inequivalent") => Ok(facts),
                _ => Err(error),
            };
        };
        if !found.learn(&mut facts, &mut options, &mut arguments) {
            return Ok(facts);
        }
    }
    Ok(facts)
}

fn text_of(error: &QueueError) -> Option<String> {
    let error = error.source.as_deref()?.downcast_ref::<lapin::Error>()?;
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_message().as_str().to_owned()),
        _ => None,
    }
}

impl Difference {
    fn read(said: &str) -> Option<Self> {
        let (_, after) = said.split_once("inequivalent arg '")?;
        let (argument, after) = after.split_once('\'')?;
        // The last match: a queue's name may contain anything.
        let (_, current) = after.rsplit_once(" but current is ")?;
        let current = match current {
            "none" => None,
            _ => Some(match current.strip_prefix("the value '") {
                Some(typed) => {
                    let (value, kind) = typed.rsplit_once("' of type '")?;
                    (value.to_owned(), Some(kind.strip_suffix('\'')?.to_owned()))
                }
                None => {
                    let value = current.strip_prefix('\'')?.strip_suffix('\'')?;
                    (value.to_owned(), None)
                }
            }),
        };
        Some(Self {
            argument: argument.to_owned(),
            current,
        })
    }

    /// Adds the answer to the facts. Returns `false` if there is nothing more to ask.
    fn learn(
        self,
        facts: &mut QueueFacts,
        options: &mut QueueDeclareOptions,
        arguments: &mut FieldTable,
    ) -> bool {
        let Self { argument, current } = self;
        if argument == TYPE {
            // A queue that was declared without a type is classic.
            let kind = current.map_or_else(|| "classic".to_owned(), |(value, _)| value);
            // The broker compares some arguments of a quorum queue only after the type.
            let is_quorum = kind == "quorum";
            if is_quorum {
                arguments.insert(TYPE.into(), AMQPValue::LongString(kind.as_str().into()));
                arguments.insert(LOCATOR.into(), AMQPValue::LongString(IMPOSSIBLE.into()));
            }
            // A second answer about the same argument: the broker does not react to our value, so stop.
            return facts.kind.replace(kind).is_none() && is_quorum;
        }
        if argument == LOCATOR {
            return false;
        }
        let Some((value, kind)) = current else {
            return false;
        };
        let flag = value == "true";
        let known = match (argument.as_str(), kind.as_deref()) {
            ("durable", None) => {
                options.durable = flag;
                facts.is_transient = !flag;
                return true;
            }
            ("auto_delete", None) => {
                options.auto_delete = flag;
                return true;
            }
            (_, Some("longstr")) => AMQPValue::LongString(value.as_str().into()),
            (_, Some("bool")) => AMQPValue::Boolean(flag),
            // The size of an integer does not matter.
            (_, Some(_)) => match value.parse() {
                Ok(number) => AMQPValue::LongLongInt(number),
                Err(_) => return false,
            },
            _ => return false,
        };
        arguments.insert(argument.as_str().into(), known);
        // A second answer about the same argument: the broker does not react to our value, so stop.
        facts.arguments.insert(argument, value).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_may_drop_messages_is_reported() {
        let losses = |arguments: &[(&str, &str)], is_transient| {
            let arguments = arguments.iter();
            let arguments = arguments.map(|(name, value)| (name.to_string(), value.to_string()));
            let facts = QueueFacts {
                arguments: arguments.collect(),
                is_transient,
                ..QueueFacts::default()
            };
            facts.losses().len()
        };
        let limit = ("x-max-length", "10");
        for (arguments, expected) in [
            (&[][..], 0),
            (&[limit], 1),
            (&[limit, ("x-overflow", "drop-head")], 1),
            (&[limit, ("x-overflow", "reject-publish")], 0),
            (&[limit, ("x-overflow", "reject-publish-dlx")], 0),
            (&[limit, ("x-dead-letter-exchange", "")], 0),
            (&[("x-max-length-bytes", "1000"), ("x-message-ttl", "5")], 2),
            (
                &[("x-expires", "600000"), ("x-dead-letter-exchange", "")],
                1,
            ),
        ] {
            assert_eq!(losses(arguments, false), expected, "{arguments:?}");
            assert_eq!(losses(arguments, true), expected + 1, "{arguments:?}");
        }
    }

    #[test]
    fn differences_are_parsed_from_the_brokers_text() {
        let typed = |value: &str, kind: &str| Some((value.to_owned(), Some(kind.to_owned())));
        for (said, argument, current) in [
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'k' in vhost '/': received \
                 'tidegate-look' but current is 'stream'",
                "x-queue-type",
                Some(("stream".to_owned(), None)),
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'k' in vhost '/': received the value \
                 'tidegate-look' of type 'longstr' but current is none",
                "x-queue-type",
                None,
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue ' but current is none' in vhost '/': \
                 received none but current is the value '1000' of type 'signedint'",
                "x-message-ttl",
                typed("1000", "signedint"),
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'k' in vhost '/': received 'true' but \
                 current is 'false'",
                "durable",
                Some(("false".to_owned(), None)),
            ),
        ] {
            let expected = Difference {
                argument: argument.to_owned(),
                current,
            };
            assert_eq!(Difference::read(said), Some(expected), "{said}");
        }
        for said in [
            "",
            "NOT_FOUND - no queue 'k' in vhost '/'",
            "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'k' in vho...",
        ] {
            assert_eq!(Difference::read(said), None, "{said}");
        }
    }
}
