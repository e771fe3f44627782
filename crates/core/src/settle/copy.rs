//! Copies: what a message carries when we publish it again.
//!
//! A copy is persistent and keeps the message's own properties and headers. What would misroute it, expire it or
//! have it refused moves to `x-tidegate-original-*`; what others wrote under our prefix goes.

use std::time::Duration;

use super::{
    Death, History,
    letter::BrokerDeath,
    levels::{dead_queue, retry_queue},
    verdict::{ATTEMPT, GIVE_BACKS, LAUNCH_FAILURES},
};
use crate::{
    decide::{JobId, PoolName, QueueName},
    queue::{
        HeaderValue, Headers, Message, ORIGINAL_EXCHANGE, ORIGINAL_ROUTING_KEY, Outgoing,
        Properties, entry_size, header_size,
    },
    runner::{Failure, FailureKind},
};

const PREFIX: &str = "x-tidegate-";
pub(super) const ORIGINAL: &str = "x-tidegate-original-";
pub(super) const FIRST_FAILED_AT: &str = "x-tidegate-first-failed-at";
pub(super) const FAILED_AT: &str = "x-tidegate-failed-at";
pub(super) const REASON: &str = "x-tidegate-reason";
pub(super) const ATTEMPTS: &str = "x-tidegate-attempts";
pub(super) const FAILURE: &str = "x-tidegate-failure";
pub(super) const EXIT_CODE: &str = "x-tidegate-exit-code";
pub(super) const SIGNAL: &str = "x-tidegate-signal";
const JOB_ID: &str = "x-tidegate-job-id";
const DROPPED: &str = "x-tidegate-dropped-headers";
pub(super) const ERROR: &str = "x-tidegate-error";
pub(super) const STDERR: &str = "x-tidegate-stderr";

/// Headers that route: the broker sends a copy to every queue they name.
pub(super) const ROUTING: [&str; 2] = ["CC", "BCC"];
/// The broker's own record of dead-lettering. On a copy it would count our retries as a cycle, and RabbitMQ drops
/// messages that go round in one.
pub(super) const DEATHS: &str = "x-death";
/// What the broker writes anew on every delivery or dead-lettering.
const BROKERS: [&str; 7] = [
    "x-delivery-count",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
];

/// What a client that wants its answer without a queue writes as `reply_to`, and its broker replaces by an address.
/// In a message that came by another way it names nobody, and a copy with it would be refused: the broker would take
/// us for the client.
pub(super) const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Longest error text in a header, in bytes.
const ERROR_LIMIT: usize = 4096;
/// Names of dropped headers that are listed, at most.
const DROPPED_LISTED: usize = 16;
/// Longest of them, in bytes: a short string's, each byte shown as four.
const LONGEST_DROPPED: usize = 4 * 255;

/// As much as the name of another queue of the same level may be longer.
const DETOUR: &str = "................";

/// The longest of the broker's words for why it dead-letters.
const LONGEST_REASON: &str = "delivery_limit";

/// Makes the copies of one pool's messages.
#[derive(Debug, Clone)]
pub struct Copies {
    /// The pool, for the dead letter's reader.
    pub pool: PoolName,
    /// The pool's queue.
    pub queue: QueueName,
    /// Where the supervisor runs.
    pub host: String,
    /// The id of the job, where it is known. Kept on the copies of a message that has none of its own, so that
    /// all of its attempts have one id.
    pub job: Option<JobId>,
    /// Bytes that properties and headers may encode to.
    pub header_limit: usize,
}

impl Copies {
    /// A copy that waits `delay` in the retry queue of `level`.
    pub fn retry(
        &self,
        message: &Message,
        next: History,
        level: Duration,
        delay: Duration,
        failure: Option<&Failure>,
        now: jiff::Timestamp,
    ) -> Outgoing {
        let mut copy = self.base(message, next, is_copy(message));
        copy.routing_key = retry_queue(&self.queue, level).as_str().to_owned();
        copy.properties.expiration = Some(delay.as_millis().to_string());
        if let Some(failure) = failure {
            note_failure(&mut copy.headers, failure);
            note_time(&mut copy.headers, message, now);
        }
        self.fitted(copy)
    }

    /// A copy for the dead letters, with what a person needs to understand the death.
    pub fn dead_letter(
        &self,
        message: &Message,
        history: History,
        death: &Death,
        now: jiff::Timestamp,
    ) -> Outgoing {
        let mut copy = self.base(message, history, is_copy(message));
        copy.routing_key = dead_queue(&self.queue).as_str().to_owned();
        let headers = &mut copy.headers;
        // The number of an attempt to come means nothing to the dead; the number spent does.
        headers.remove(ATTEMPT);
        set(headers, ATTEMPTS, i64::from(death.attempts));
        set(headers, REASON, death.cause.as_str());
        if let Some(failure) = &death.failure {
            note_failure(headers, failure);
        }
        // After the failure's own: it says what came of that.
        set(headers, ERROR, shortened(&death.message, ERROR_LIMIT));
        note_time(headers, message, now);
        set(headers, "x-tidegate-pool", self.pool.as_str());
        set(headers, "x-tidegate-queue", self.queue.as_str());
        set(headers, "x-tidegate-host", self.host.as_str());
        self.fitted(copy)
    }

    /// A copy that goes straight back to the queue, where the broker counts its deliveries from zero.
    pub fn give_back(&self, message: &Message, next: History) -> Outgoing {
        let mut copy = self.base(message, next, is_copy(message));
        copy.routing_key = self.queue.as_str().to_owned();
        // There in any case: it is how the next taker knows that there was one before.
        let none = || HeaderValue::I64(0);
        let given_back = copy.headers.entry(GIVE_BACKS.to_owned());
        given_back.or_insert_with(none);
        self.fitted(copy)
    }

    /// A dead letter on its way back to the queue, with its attempts before it: the message as it was first
    /// published, as far as a copy can be that.
    ///
    /// Of what moved aside nothing is put back. Its `expiration` ran out long ago, and the message would go at once;
    /// `CC` and `BCC` would have others do the work again; a foreign `user_id` is refused; `x-death` would be taken
    /// for a cycle; and the exchange might route it elsewhere too. All of it stays readable in
    /// `x-tidegate-original-*`, where it says more than that the message came by the queue's own name.
    pub fn revive(&self, letter: &Message) -> Outgoing {
        let broker = BrokerDeath::of(&letter.headers);
        // Whatever exchange took the letter to where it lay.
        let again = letter.headers.contains_key(ORIGINAL_ROUTING_KEY);
        let mut copy = self.base(letter, History::default(), again);
        copy.routing_key = self.queue.as_str().to_owned();
        copy.headers.remove(FIRST_FAILED_AT);
        if !letter.headers.contains_key(ORIGINAL_ROUTING_KEY)
            && let Some((exchange, routing_key)) = broker.and_then(|death| death.published_to)
        {
            set(&mut copy.headers, ORIGINAL_EXCHANGE, exchange);
            set(&mut copy.headers, ORIGINAL_ROUTING_KEY, routing_key);
        }
        let text = |name: &str| copy.headers.get(name).and_then(HeaderValue::as_text);
        let came_straight = text(ORIGINAL_EXCHANGE) == Some("")
            && text(ORIGINAL_ROUTING_KEY) == Some(self.queue.as_str())
            && 2 == copy
                .headers
                .keys()
                .filter(|name| name.starts_with(ORIGINAL))
                .count();
        if came_straight {
            copy.headers.remove(ORIGINAL_EXCHANGE);
            copy.headers.remove(ORIGINAL_ROUTING_KEY);
        }
        self.fitted(copy)
    }

    /// The message's own content, safe to publish, with our history on it. `again`: it is a copy already, whose record of
    /// where the message came from is kept. Someone may forge that, and then only forgoes the record.
    fn base(&self, message: &Message, history: History, again: bool) -> Outgoing {
        let mut headers = Headers::new();
        for (name, value) in &message.headers {
            let name = name.as_str();
            if ROUTING.contains(&name) || name == DEATHS {
                if !again {
                    set(
                        &mut headers,
                        &format!("{ORIGINAL}{}", name.to_lowercase()),
                        value.clone(),
                    );
                }
            } else if BROKERS.contains(&name) {
                if !again && name != BROKERS[0] {
                    set(&mut headers, name, value.clone());
                }
            } else if !name.starts_with(PREFIX) || (again && name.starts_with(ORIGINAL)) {
                set(&mut headers, name, value.clone());
            }
        }
        let properties = &message.properties;
        if !again {
            let raw = &properties.raw;
            set(
                &mut headers,
                ORIGINAL_EXCHANGE,
                raw.header(&message.exchange),
            );
            set(
                &mut headers,
                ORIGINAL_ROUTING_KEY,
                raw.header(&message.routing_key),
            );
        }
        for (name, value) in [
            ("expiration", &properties.expiration),
            ("user-id", &properties.user_id),
        ] {
            if let Some(value) = value {
                let value = properties.raw.header(value);
                set(&mut headers, &format!("{ORIGINAL}{name}"), value);
            }
        }
        let mut reply_to = properties.reply_to.clone();
        if let Some(caller) = reply_to.take_if(|to| to.as_str() == DIRECT_REPLY_TO) {
            set(&mut headers, "x-tidegate-original-reply-to", caller);
        }
        if properties.message_id.as_deref().is_none_or(str::is_empty) {
            let job = self.job.clone().or_else(|| carried_job_id(message));
            if let Some(job) = job {
                set(&mut headers, JOB_ID, job.as_str());
            }
        }
        if let Some(first) = first_failed_at(message) {
            set(&mut headers, FIRST_FAILED_AT, first);
        }
        let dropped = dropped(&message.headers);
        if !dropped.is_empty() {
            set(&mut headers, DROPPED, HeaderValue::List(dropped));
        }
        if history.attempt > 1 {
            set(&mut headers, ATTEMPT, i64::from(history.attempt));
        }
        if history.launch_failures > 0 {
            set(
                &mut headers,
                LAUNCH_FAILURES,
                i64::from(history.launch_failures),
            );
        }
        if history.give_backs > 0 {
            let sum = i64::try_from(history.give_backs).unwrap_or(i64::MAX);
            set(&mut headers, GIVE_BACKS, sum);
        }
        Outgoing {
            exchange: String::new(),
            routing_key: String::new(),
            properties: Properties {
                delivery_mode: Some(2),
                expiration: None,
                user_id: None,
                reply_to,
                ..properties.clone()
            },
            headers,
            body: message.body.clone(),
            ..Outgoing::default()
        }
    }

    /// The copy, made to fit: a content header cannot be split over frames, so a message whose headers fill one
    /// has no room for ours, and for what the broker adds. What explains goes first, then the largest of the message's
    /// own, and their names stay.
    fn fitted(&self, mut copy: Outgoing) -> Outgoing {
        let limit = self.header_limit.saturating_sub(self.brokers_room(&copy));
        let mut dropped = dropped(&copy.headers);
        let mut size = header_size(&copy.properties, &copy.headers);
        if size <= limit {
            return copy;
        }
        for victim in expendable(&copy) {
            if size <= limit {
                break;
            }
            if let Some(value) = copy.headers.remove(&victim) {
                size -= entry_size(&victim, &value, &copy.properties.raw);
            }
            let is_own = !victim.starts_with(PREFIX) || victim.starts_with(ORIGINAL);
            if is_own && dropped.len() < DROPPED_LISTED {
                dropped.push(HeaderValue::from(victim));
                let names = HeaderValue::List(dropped.clone());
                set(&mut copy.headers, DROPPED, names);
                size = header_size(&copy.properties, &copy.headers);
            }
        }
        copy
    }

    /// Bytes that the broker may add before anyone sees the copy: a retry leaves its queue by dead-lettering, and the
    /// pool's queue may have a policy that does the same once more. Nobody measures that frame: a client that is sent
    /// one beyond its `frame_max` ends its connection.
    fn brokers_room(&self, copy: &Outgoing) -> usize {
        let [main, first] =
            [self.queue.as_str(), &copy.routing_key].map(|name| format!("{name}{DETOUR}"));
        let longest = match main.len() > first.len() {
            true => &main,
            false => &first,
        };
        let text = |text: &str| HeaderValue::from(text);
        let death = |queue: &str| {
            let mut death = Headers::new();
            set(&mut death, "count", 1_i64);
            set(&mut death, "reason", LONGEST_REASON);
            set(&mut death, "queue", queue);
            set(&mut death, "time", HeaderValue::Timestamp(0));
            set(&mut death, "exchange", "");
            set(
                &mut death,
                "routing-keys",
                HeaderValue::List(vec![text(queue)]),
            );
            if let Some(expiration) = &copy.properties.expiration {
                set(&mut death, "original-expiration", expiration.as_str());
            }
            HeaderValue::Table(death)
        };
        let mut added = Headers::new();
        set(
            &mut added,
            DEATHS,
            HeaderValue::List(vec![death(&first), death(&main)]),
        );
        for name in BROKERS
            .iter()
            .chain(&["x-acquired-count", "x-stream-offset"])
        {
            let value = match *name {
                name if name.ends_with("-queue") => text(longest),
                name if name.ends_with("-reason") => text(LONGEST_REASON),
                name if name.ends_with("-exchange") => text(""),
                _ => HeaderValue::I64(0),
            };
            set(&mut added, name, value);
        }
        header_size(&Properties::default(), &added)
    }
}

/// Whether a message is a copy of ours, as far as can be told.
fn is_copy(message: &Message) -> bool {
    message.copied_from().is_some()
}

/// Names of headers that earlier copies had no room for. Anyone may have written them: they inform, and no more.
fn dropped(headers: &Headers) -> Vec<HeaderValue> {
    let Some(HeaderValue::List(names)) = headers.get(DROPPED) else {
        return Vec::new();
    };
    let is_name = |name: &&HeaderValue| matches!(name, HeaderValue::Text(bytes) if bytes.len() <= LONGEST_DROPPED);
    let names = names.iter().filter(is_name).take(DROPPED_LISTED);
    names.cloned().collect()
}

/// Whether a copy of the message had to leave some of its headers behind.
pub fn lacks_headers(message: &Message) -> bool {
    message.headers.contains_key(DROPPED)
}

/// The headers that a copy can do without, in the order in which they are given up. Sorted once: a frame holds tens of
/// thousands.
fn expendable(copy: &Outgoing) -> Vec<String> {
    let mut expendable: Vec<_> = copy
        .headers
        .iter()
        .filter(|(name, _)| {
            ![ATTEMPT, LAUNCH_FAILURES, GIVE_BACKS, DROPPED, REASON].contains(&name.as_str())
        })
        .map(|(name, value)| (entry_size(name, value, &copy.properties.raw), name))
        .collect();
    expendable.sort_by_key(|(size, name)| (name.as_str() != STDERR, std::cmp::Reverse(*size)));
    expendable
        .into_iter()
        .map(|(_, name)| name.clone())
        .collect()
}

fn note_failure(headers: &mut Headers, failure: &Failure) {
    set(headers, ERROR, shortened(&failure.message, ERROR_LIMIT));
    note_kind(headers, failure.kind);
    if let Some(tail) = &failure.stderr_tail {
        set(headers, STDERR, tail.as_str());
    }
}

/// What kind of failure it was.
pub(super) fn note_kind(headers: &mut Headers, kind: FailureKind) {
    set(headers, FAILURE, kind.as_str());
    match kind {
        FailureKind::Exit(code) => set(headers, EXIT_CODE, i64::from(code)),
        FailureKind::Signal(signal) => set(headers, SIGNAL, i64::from(signal)),
        _ => {}
    }
}

/// When it failed, and when it first did, as far as the message still tells.
fn note_time(headers: &mut Headers, message: &Message, now: jiff::Timestamp) {
    let first = first_failed_at(message).map_or_else(|| now.to_string(), str::to_owned);
    set(headers, FIRST_FAILED_AT, first);
    set(headers, FAILED_AT, now.to_string());
}

/// The id that an earlier copy carries for a job whose message has none. Anyone may have written it, so it is
/// taken only in the shape of ours.
pub fn carried_job_id(message: &Message) -> Option<JobId> {
    let id = message.headers.get(JOB_ID)?.as_text()?;
    let is_ours =
        !id.is_empty() && id.len() <= 255 && id.bytes().all(|byte| byte.is_ascii_graphic());
    is_ours.then(|| JobId::from(id))
}

/// When an earlier copy says that the message first failed, where it says so believably.
fn first_failed_at(message: &Message) -> Option<&str> {
    message
        .headers
        .get(FIRST_FAILED_AT)
        .and_then(HeaderValue::as_text)
        .filter(|text| text.parse::<jiff::Timestamp>().is_ok())
}

pub(super) fn set(headers: &mut Headers, name: &str, value: impl Into<HeaderValue>) {
    headers.insert(name.to_owned(), value.into());
}

/// As much of a text as so many bytes hold.
pub(super) fn shortened(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests;
