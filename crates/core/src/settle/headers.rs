//! The headers of copies and dead letters: their names, and how they are read and written.
//!
//! Anyone may have written a header, so each is read as far as possible, and nothing depends on it being true.

use crate::{
    decide::JobId,
    queue::{HeaderValue, Headers, Message},
};

pub(super) const PREFIX: &str = "x-tidegate-";
pub(super) const ORIGINAL: &str = "x-tidegate-original-";
pub(super) const FIRST_FAILED_AT: &str = "x-tidegate-first-failed-at";
pub(super) const FAILED_AT: &str = "x-tidegate-failed-at";
pub(super) const REASON: &str = "x-tidegate-reason";
pub(super) const ATTEMPTS: &str = "x-tidegate-attempts";
pub(super) const FAILURE: &str = "x-tidegate-failure";
pub(super) const EXIT_CODE: &str = "x-tidegate-exit-code";
pub(super) const SIGNAL: &str = "x-tidegate-signal";
pub(super) const JOB_ID: &str = "x-tidegate-job-id";
pub(super) const DROPPED: &str = "x-tidegate-dropped-headers";
pub(super) const ERROR: &str = "x-tidegate-error";
pub(super) const STDERR: &str = "x-tidegate-stderr";

/// Headers that route: the broker sends a message to every queue that they name.
pub(super) const ROUTING: [&str; 2] = ["CC", "BCC"];
/// The broker's own record of dead-lettering. On a copy the broker would count our retries as a cycle, and RabbitMQ
/// drops messages that are dead-lettered in a cycle.
pub(super) const DEATHS: &str = "x-death";
/// Headers that the broker writes again on every delivery or dead-lettering.
pub(super) const BROKERS: [&str; 7] = [
    "x-delivery-count",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
];

pub(super) const ATTEMPT: &str = "x-tidegate-attempt";
pub(super) const LAUNCH_FAILURES: &str = "x-tidegate-launch-failures";
pub(super) const GIVE_BACKS: &str = "x-tidegate-give-backs";
pub(super) const DELIVERY_COUNT: &str = "x-delivery-count";
/// RabbitMQ 4 counts all deliveries in this header if their number differs from the delivery count.
pub(super) const ACQUIRED_COUNT: &str = "x-acquired-count";

/// The job id that an earlier copy carries for a message without an id. Anyone may have written it, so it is read
/// only if it has the form of our ids.
pub fn carried_job_id(message: &Message) -> Option<JobId> {
    let id = message.headers.get(JOB_ID)?.as_text()?;
    let is_ours =
        !id.is_empty() && id.len() <= 255 && id.bytes().all(|byte| byte.is_ascii_graphic());
    is_ours.then(|| JobId::from(id))
}

pub(super) fn set(headers: &mut Headers, name: &str, value: impl Into<HeaderValue>) {
    headers.insert(name.to_owned(), value.into());
}

pub(super) fn text(headers: &Headers, name: &str) -> Option<String> {
    headers.get(name).and_then(text_of)
}

/// The value as text, with invalid bytes replaced: AMQP does not promise UTF-8.
pub(super) fn text_of(value: &HeaderValue) -> Option<String> {
    match value {
        HeaderValue::Text(bytes) | HeaderValue::Binary(bytes) => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
        _ => None,
    }
}

pub(super) fn integer(headers: &Headers, name: &str) -> Option<i64> {
    headers.get(name).and_then(HeaderValue::as_integer)
}

pub(super) fn natural(headers: &Headers, name: &str) -> Option<u64> {
    integer(headers, name).and_then(|number| u64::try_from(number).ok())
}

pub(super) fn time(headers: &Headers, name: &str) -> Option<jiff::Timestamp> {
    headers.get(name)?.as_text()?.parse().ok()
}
