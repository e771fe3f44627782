//! The headers that the broker writes on a message that it dead-letters.

use super::headers::{DEATHS, text, text_of};
use crate::queue::{HeaderValue, Headers};

/// The headers that the broker writes on a message that it dead-letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct BrokerDeath {
    pub(super) reason: Option<String>,
    pub(super) time: Option<jiff::Timestamp>,
    /// The exchange and routing key of the first publish.
    pub(super) published_to: Option<(String, String)>,
}

impl BrokerDeath {
    /// The latest death in the headers. `None`: the headers have no death.
    pub(super) fn of(headers: &Headers) -> Option<Self> {
        let deaths = match headers.get(DEATHS) {
            Some(HeaderValue::List(deaths)) => deaths.as_slice(),
            _ => &[],
        };
        // The latest is the first in the list.
        let mut tables = deaths.iter().filter_map(|death| match death {
            HeaderValue::Table(table) => Some(table),
            _ => None,
        });
        let Some(latest) = tables.next() else {
            let reason = text(headers, "x-first-death-reason")?;
            return Some(Self {
                reason: Some(reason),
                ..Self::default()
            });
        };
        let oldest = tables.next_back().unwrap_or(latest);
        let routing_key = match oldest.get("routing-keys") {
            Some(HeaderValue::List(keys)) => keys.first().and_then(text_of),
            _ => None,
        };
        Some(Self {
            reason: text(latest, "reason"),
            time: match latest.get("time") {
                Some(HeaderValue::Timestamp(seconds)) => i64::try_from(*seconds)
                    .ok()
                    .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()),
                _ => None,
            },
            published_to: text(oldest, "exchange").zip(routing_key),
        })
    }
}
