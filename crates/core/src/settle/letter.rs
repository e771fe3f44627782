//! Reading a dead letter.
//!
//! Anyone may have written a message in a dead-letter queue. So everything here is read as far as possible. It is
//! shown to people and used to select letters. Nothing depends on it being true.

use serde::Serialize;

use super::{
    broker_death::BrokerDeath,
    headers::{
        ATTEMPT, ATTEMPTS, DELIVERY_COUNT, ERROR, EXIT_CODE, FAILED_AT, FAILURE, FIRST_FAILED_AT,
        ORIGINAL, REASON, ROUTING, SIGNAL, STDERR, carried_job_id, integer, natural, text, time,
    },
};
use crate::{
    decide::QueueName,
    queue::{HeaderValue, Message, Outgoing, Properties},
};

/// A dead letter without its body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Letter {
    /// The job's id: the message's `message-id`, or the one that tidegate made for it.
    pub id: Option<String>,
    /// When it was dead-lettered.
    pub time: Option<jiff::Timestamp>,
    /// When it first failed.
    pub first_failed_at: Option<jiff::Timestamp>,
    /// Attempts spent.
    pub attempts: Option<u64>,
    /// Why it is dead: a word of tidegate or of the broker.
    pub reason: Option<String>,
    /// Who gave the reason.
    pub by: Option<DeadBy>,
    /// The last failure, in one line.
    pub error: Option<String>,
    /// The kind of the last failure.
    pub failure: Option<String>,
    /// Exit code of the last attempt.
    pub exit_code: Option<i64>,
    /// Number of the signal that ended the last attempt.
    pub signal: Option<i64>,
    /// The end of the last attempt's standard error.
    pub stderr: Option<String>,
    /// Size of its body, in bytes.
    pub size: u64,
    /// How often it was delivered and returned, as a quorum queue counts it.
    pub returned: u64,
}

/// The broker's reasons for dead-lettering, as in `x-death`: <https://www.rabbitmq.com/docs/dlx#effects>.
pub const BROKER_REASONS: [&str; 4] = ["rejected", "expired", "maxlen", "delivery_limit"];

/// Who made a message a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeadBy {
    /// A pool did.
    Tidegate,
    /// The broker did, by a queue's policy or after a consumer's reject.
    Broker,
}

impl Letter {
    /// Reads a message of a dead-letter queue.
    pub fn of(message: &Message) -> Self {
        let Message {
            headers,
            properties,
            body,
            ..
        } = message;
        let own = properties.message_id.clone().filter(|id| !id.is_empty());
        let id = own.or_else(|| carried_job_id(message).map(|id| id.as_str().to_owned()));
        let ours = text(headers, REASON);
        let broker = BrokerDeath::of(headers).unwrap_or_default();
        let by = match (&ours, &broker.reason) {
            (Some(_), _) => Some(DeadBy::Tidegate),
            (None, Some(_)) => Some(DeadBy::Broker),
            (None, None) => None,
        };
        Self {
            id,
            time: match by {
                Some(DeadBy::Broker) => broker.time,
                _ => time(headers, FAILED_AT).or(broker.time),
            },
            first_failed_at: time(headers, FIRST_FAILED_AT),
            // A message that a pool rejected with `dead_letter = "broker"` has only the number of its attempt.
            attempts: natural(headers, ATTEMPTS).or_else(|| natural(headers, ATTEMPT)),
            reason: ours.or(broker.reason),
            by,
            error: text(headers, ERROR),
            failure: text(headers, FAILURE),
            exit_code: integer(headers, EXIT_CODE),
            signal: integer(headers, SIGNAL),
            stderr: text(headers, STDERR),
            size: body.len() as u64,
            returned: returned(message),
        }
    }
}

/// A copy of the letter for the end of its own queue, where the broker counts its returns from zero. Each browse of a
/// letter is a return, and a quorum queue may drop a message that was returned three times. `None` if the broker has
/// counted no return.
///
/// Content that would route the copy to other queues, expire it or have it refused is moved into headers, as on all
/// copies.
pub fn renewed(letter: &Message, queue: &QueueName) -> Option<Outgoing> {
    if returned(letter) == 0 {
        return None;
    }
    let mut headers = letter.headers.clone();
    let mut properties = letter.properties.clone();
    headers.remove(DELIVERY_COUNT);
    let routing = ROUTING.map(|name| (name.to_lowercase(), headers.remove(name)));
    let text = |text: Option<String>| text.map(HeaderValue::from);
    let moved = [
        ("expiration".to_owned(), text(properties.expiration.take())),
        ("user-id".to_owned(), text(properties.user_id.take())),
    ];
    for (name, value) in routing.into_iter().chain(moved) {
        if let Some(value) = value {
            headers.entry(format!("{ORIGINAL}{name}")).or_insert(value);
        }
    }
    Some(Outgoing {
        exchange: String::new(),
        routing_key: queue.as_str().to_owned(),
        properties: Properties {
            delivery_mode: Some(2),
            ..properties
        },
        headers,
        body: letter.body.clone(),
        ..Outgoing::default()
    })
}

/// Returns that its own queue has counted. On a first delivery the header is another queue's.
fn returned(letter: &Message) -> u64 {
    match letter.redelivered {
        true => natural(&letter.headers, DELIVERY_COUNT).unwrap_or(0),
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{queue::Headers, settle::headers::DEATHS};

    fn table(entries: impl IntoIterator<Item = (&'static str, HeaderValue)>) -> Headers {
        entries
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    fn letter(headers: Headers) -> Letter {
        Letter::of(&Message {
            headers,
            body: Bytes::from_static(b"1234567"),
            ..Message::default()
        })
    }

    fn at(text: &str) -> Option<jiff::Timestamp> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn reads_what_a_pool_wrote() {
        let letter = letter(table([
            (REASON, "attempts".into()),
            (ATTEMPTS, HeaderValue::I64(5)),
            (FAILED_AT, "2026-01-02T03:04:05Z".into()),
            (FIRST_FAILED_AT, "2026-01-01T00:00:00Z".into()),
            (ERROR, "exit code 3".into()),
            (FAILURE, "exit".into()),
            (EXIT_CODE, HeaderValue::I64(3)),
            (STDERR, "Traceback".into()),
            ("x-tidegate-job-id", "p-1".into()),
        ]));
        let expected = Letter {
            id: Some("p-1".to_owned()),
            time: at("2026-01-02T03:04:05Z"),
            first_failed_at: at("2026-01-01T00:00:00Z"),
            attempts: Some(5),
            reason: Some("attempts".to_owned()),
            by: Some(DeadBy::Tidegate),
            error: Some("exit code 3".to_owned()),
            failure: Some("exit".to_owned()),
            exit_code: Some(3),
            signal: None,
            stderr: Some("Traceback".to_owned()),
            size: 7,
            returned: 0,
        };
        assert_eq!(letter, expected);
    }

    fn broker_deaths() -> Headers {
        let death = |reason: &str, seconds, queue: &str, exchange: &str, key: &str| {
            HeaderValue::Table(table([
                ("reason", reason.into()),
                ("time", HeaderValue::Timestamp(seconds)),
                ("count", HeaderValue::I64(1)),
                ("queue", queue.into()),
                ("exchange", exchange.into()),
                ("routing-keys", HeaderValue::List(vec![key.into()])),
            ]))
        };
        table([
            (
                DEATHS,
                HeaderValue::List(vec![
                    death("rejected", 1_767_323_045, "q", "", "q"),
                    death("expired", 1_767_225_600, "slow", "orders", "new"),
                ]),
            ),
            ("x-first-death-reason", "expired".into()),
            (ATTEMPT, HeaderValue::I64(4)),
        ])
    }

    #[test]
    fn reads_what_the_broker_wrote() {
        let letter = letter(broker_deaths());
        assert_eq!(letter.reason.as_deref(), Some("rejected"));
        assert_eq!(letter.by, Some(DeadBy::Broker));
        assert_eq!(letter.time, at("2026-01-02T03:04:05Z"));
        assert_eq!(letter.attempts, Some(4));
        let published_to = BrokerDeath::of(&broker_deaths()).and_then(|death| death.published_to);
        assert_eq!(published_to, Some(("orders".to_owned(), "new".to_owned())));
    }

    #[test]
    fn reads_the_first_death_reason_if_there_is_no_x_death() {
        let letter = letter(table([("x-first-death-reason", "maxlen".into())]));
        assert_eq!(letter.reason.as_deref(), Some("maxlen"));
        assert_eq!((letter.by, letter.time), (Some(DeadBy::Broker), None));
    }

    #[test]
    fn ignores_impossible_values() {
        let nonsense = table([
            (REASON, HeaderValue::I64(3)),
            (ATTEMPTS, HeaderValue::I64(-5)),
            (FAILED_AT, "yesterday".into()),
            (EXIT_CODE, "3".into()),
            (ERROR, HeaderValue::Text(Bytes::from_static(b"\xffoops"))),
            (DEATHS, HeaderValue::List(vec![HeaderValue::Void])),
            (DELIVERY_COUNT, HeaderValue::I64(-1)),
            ("x-tidegate-job-id", "two words".into()),
        ]);
        let expected = Letter {
            error: Some("\u{fffd}oops".to_owned()),
            size: 7,
            ..Letter::default()
        };
        assert_eq!(letter(nonsense), expected);
        let deaths = HeaderValue::List(vec![HeaderValue::Table(table([
            ("reason", HeaderValue::Void),
            ("time", HeaderValue::Timestamp(u64::MAX)),
            ("routing-keys", HeaderValue::List(Vec::new())),
        ]))]);
        assert_eq!(letter(table([(DEATHS, deaths)])).by, None);
    }

    #[test]
    fn the_messages_own_id_comes_first_and_an_empty_id_is_ignored() {
        let mut message = Message {
            headers: table([("x-tidegate-job-id", "made-up".into())]),
            properties: Properties {
                message_id: Some("m-1".to_owned()),
                ..Properties::default()
            },
            ..Message::default()
        };
        assert_eq!(Letter::of(&message).id.as_deref(), Some("m-1"));
        message.properties.message_id = Some(String::new());
        assert_eq!(Letter::of(&message).id.as_deref(), Some("made-up"));
    }

    #[test]
    fn a_returned_letter_is_replaced_by_a_fresh_copy_unless_another_queue_counted_it() {
        let returned = |times| Message {
            routing_key: "dead".to_owned(),
            redelivered: true,
            headers: table([
                (DELIVERY_COUNT, HeaderValue::I64(times)),
                (REASON, "attempts".into()),
                (DEATHS, HeaderValue::List(Vec::new())),
            ]),
            body: Bytes::from_static(b"1234567"),
            ..Message::default()
        };
        let queue = QueueName::from("q.dead");
        assert_eq!(renewed(&returned(0), &queue), None);
        let anothers = Message {
            redelivered: false,
            ..returned(20)
        };
        assert_eq!(renewed(&anothers, &queue), None);
        let copy = renewed(&returned(1), &queue).expect("a copy");
        assert_eq!(
            (copy.exchange.as_str(), copy.routing_key.as_str()),
            ("", "q.dead")
        );
        assert_eq!(copy.properties.delivery_mode, Some(2));
        let mut expected = returned(1);
        expected.headers.remove(DELIVERY_COUNT);
        assert_eq!((copy.headers, copy.body), (expected.headers, expected.body));
    }

    #[test]
    fn content_that_would_harm_a_renewed_letter_moves_aside() {
        let mut letter = Message {
            redelivered: true,
            headers: table([
                (DELIVERY_COUNT, HeaderValue::I64(1)),
                ("BCC", "elsewhere".into()),
                // It names the first publish, so it stays.
                ("x-tidegate-original-expiration", "9".into()),
            ]),
            ..Message::default()
        };
        letter.properties.expiration = Some("250".to_owned());
        letter.properties.user_id = Some("someone-else".to_owned());
        let copy = renewed(&letter, &QueueName::from("q.dead")).expect("a copy");
        assert_eq!(
            (copy.properties.expiration, copy.properties.user_id),
            (None, None)
        );
        let expected = table([
            ("x-tidegate-original-bcc", "elsewhere".into()),
            ("x-tidegate-original-expiration", "9".into()),
            ("x-tidegate-original-user-id", "someone-else".into()),
        ]);
        assert_eq!(copy.headers, expected);
    }
}
