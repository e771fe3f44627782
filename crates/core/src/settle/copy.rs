//! Copies: the content of a message that tidegate publishes again.
//!
//! A copy is persistent and keeps the message's properties and headers. Content that would route it wrongly, expire
//! it or have it refused moves to `x-tidegate-original-*`. Headers with tidegate's prefix from other programs are
//! removed.

use std::time::Duration;

use super::{
    Death, History,
    broker_death::BrokerDeath,
    headers::{
        ATTEMPT, ATTEMPTS, BROKERS, DEATHS, DROPPED, ERROR, EXIT_CODE, FAILED_AT, FAILURE,
        FIRST_FAILED_AT, GIVE_BACKS, JOB_ID, LAUNCH_FAILURES, ORIGINAL, PREFIX, REASON, ROUTING,
        SIGNAL, STDERR, carried_job_id, set,
    },
    levels::{dead_queue, retry_queue},
};
use crate::{
    decide::{JobId, PoolName, QueueName},
    queue::{
        HeaderValue, Headers, Message, ORIGINAL_EXCHANGE, ORIGINAL_ROUTING_KEY, Outgoing,
        Properties, entry_size, header_size,
    },
    runner::{Failure, FailureKind},
    text::first_bytes,
};

/// The `reply_to` of a client that asks for its reply by direct reply-to. The broker replaces it by an address. In a
/// message that came another way it is meaningless. The broker would refuse a copy with it, because it would take us
/// for the client.
pub(super) const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Longest error text in a header, in bytes.
const ERROR_LIMIT: usize = 4096;
/// How many names of dropped headers are listed at most.
const DROPPED_LISTED: usize = 16;
/// Longest displayed name, in bytes: a short string with four characters for each byte.
const MAX_DROPPED_LEN: usize = 4 * 255;

/// How much longer the name of another queue of the same level may be.
const DETOUR: &str = "................";

/// The longest reason for dead-lettering that the broker writes.
const LONGEST_DEATH_REASON: &str = "delivery_limit";

/// Makes the copies of one pool's messages.
#[derive(Debug, Clone)]
pub struct Copies {
    /// Name of the pool, for the reader of the dead letter.
    pub pool: PoolName,
    /// The pool's queue.
    pub queue: QueueName,
    /// Name of the host that the supervisor runs on.
    pub host: String,
    /// The job's id, if it is known. A copy of a message without an id of its own carries it, so that all attempts
    /// have the same id.
    pub job: Option<JobId>,
    /// Largest size of encoded properties and headers, in bytes.
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

    /// A copy for the dead-letter queue, with everything that a person needs to understand why the message is dead.
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
        // The number of the next attempt is removed, because no attempt follows. The number of spent attempts is added.
        headers.remove(ATTEMPT);
        set(headers, ATTEMPTS, i64::from(death.attempts));
        set(headers, REASON, death.cause.as_str());
        if let Some(failure) = &death.failure {
            note_failure(headers, failure);
        }
        // Set after the failure's own error text, which it replaces: this text says why the message is dead.
        set(headers, ERROR, first_bytes(&death.message, ERROR_LIMIT));
        note_time(headers, message, now);
        set(headers, "x-tidegate-pool", self.pool.as_str());
        set(headers, "x-tidegate-queue", self.queue.as_str());
        set(headers, "x-tidegate-host", self.host.as_str());
        self.fitted(copy)
    }

    /// A copy that goes straight back to the queue. The broker counts its deliveries from zero.
    pub fn give_back(&self, message: &Message, next: History) -> Outgoing {
        let mut copy = self.base(message, next, is_copy(message));
        copy.routing_key = self.queue.as_str().to_owned();
        // Always present: it tells the next consumer that there was a delivery before.
        let none = || HeaderValue::I64(0);
        let given_back = copy.headers.entry(GIVE_BACKS.to_owned());
        given_back.or_insert_with(none);
        self.fitted(copy)
    }

    /// A dead letter that goes back to the queue with no attempt spent. It equals the message as it was first
    /// published, as far as a copy can.
    ///
    /// Content that moved to `x-tidegate-original-*` is not put back. Its `expiration` would remove it at once. `CC`
    /// and `BCC` would have other queues do the work again. The broker refuses a foreign `user_id`. It takes
    /// `x-death` for a cycle. The original exchange might route it to other queues too. All of it stays readable in
    /// `x-tidegate-original-*`, unless those headers only say that the message was published straight to the queue.
    pub fn revive(&self, letter: &Message) -> Outgoing {
        let broker = BrokerDeath::of(&letter.headers);
        // The letter may have come through any exchange, so the headers alone decide.
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

    /// The message's own content, safe to publish, with our history. `again`: the message is already a copy, so its
    /// record of the first publish is kept. A sender that forges this only loses the record.
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

    /// Makes the copy fit. A content header must fit one frame, so a message whose headers fill a frame has no room
    /// for ours and for those that the broker adds. The header with standard error goes first, then the largest ones.
    /// The names of the message's own dropped headers are listed.
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

    /// Bytes that the broker may add before a consumer gets the copy. A retry leaves its queue by dead-lettering, and
    /// a policy on the pool's queue may dead-letter it once more. The broker does not check the size of that frame,
    /// and a client that receives one larger than its `frame_max` closes its connection.
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
            set(&mut death, "reason", LONGEST_DEATH_REASON);
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
                name if name.ends_with("-reason") => text(LONGEST_DEATH_REASON),
                name if name.ends_with("-exchange") => text(""),
                _ => HeaderValue::I64(0),
            };
            set(&mut added, name, value);
        }
        header_size(&Properties::default(), &added)
    }
}

/// Whether a message is a copy of ours, as far as its headers show.
fn is_copy(message: &Message) -> bool {
    message.copied_from().is_some()
}

/// Names of headers that earlier copies dropped. Anyone may have written them, so they are only shown.
fn dropped(headers: &Headers) -> Vec<HeaderValue> {
    let Some(HeaderValue::List(names)) = headers.get(DROPPED) else {
        return Vec::new();
    };
    let is_name = |name: &&HeaderValue| matches!(name, HeaderValue::Text(bytes) if bytes.len() <= MAX_DROPPED_LEN);
    let names = names.iter().filter(is_name).take(DROPPED_LISTED);
    names.cloned().collect()
}

/// Whether a copy of the message dropped some of its headers.
pub fn lacks_headers(message: &Message) -> bool {
    message.headers.contains_key(DROPPED)
}

/// The headers that a copy can lose, in the order in which they are dropped. Sorted once, because a frame can hold
/// tens of thousands.
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
    set(headers, ERROR, first_bytes(&failure.message, ERROR_LIMIT));
    note_kind(headers, failure.kind);
    if let Some(tail) = &failure.stderr_tail {
        set(headers, STDERR, tail.as_str());
    }
}

/// Writes the kind of the failure.
pub(super) fn note_kind(headers: &mut Headers, kind: FailureKind) {
    set(headers, FAILURE, kind.as_str());
    match kind {
        FailureKind::Exit(code) => set(headers, EXIT_CODE, i64::from(code)),
        FailureKind::Signal(signal) => set(headers, SIGNAL, i64::from(signal)),
        _ => {}
    }
}

/// Writes the time of this failure and, as far as the message tells it, of the first.
fn note_time(headers: &mut Headers, message: &Message, now: jiff::Timestamp) {
    let first = first_failed_at(message).map_or_else(|| now.to_string(), str::to_owned);
    set(headers, FIRST_FAILED_AT, first);
    set(headers, FAILED_AT, now.to_string());
}

/// The time of the first failure that an earlier copy carries, if it is a valid time.
fn first_failed_at(message: &Message) -> Option<&str> {
    message
        .headers
        .get(FIRST_FAILED_AT)
        .and_then(HeaderValue::as_text)
        .filter(|text| text.parse::<jiff::Timestamp>().is_ok())
}

#[cfg(test)]
mod tests;
