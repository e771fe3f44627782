//! How long a message has waited, by what it says of its own age.

use std::time::Duration;

use super::{HeaderValue, Message};

/// Header with the time of the publish, in milliseconds since the Unix epoch. RabbitMQ sets it (its
/// `message_interceptors.incoming.set_header_timestamp`), or the publisher does.
const TIMESTAMP_IN_MS: &str = "timestamp_in_ms";

/// How far a publisher's clock may be ahead of ours. Such a message has not waited.
const MAX_AHEAD: Duration = Duration::from_secs(10);

impl Message {
    /// Time since the message was published, at `now` (since the Unix epoch): by its header `timestamp_in_ms`, or else
    /// by its `timestamp` in whole seconds. `None` if it has neither, or if its time is in the future.
    pub fn waited_at(&self, now: Duration) -> Option<Duration> {
        let in_ms = self.headers.get(TIMESTAMP_IN_MS).and_then(whole);
        let sent = match in_ms {
            Some(ms) => Duration::from_millis(ms),
            None => Duration::from_secs(self.properties.timestamp?),
        };
        match now.checked_sub(sent) {
            None if sent - now <= MAX_AHEAD => Some(Duration::ZERO),
            waited => waited,
        }
    }
}

/// A number that cannot be a time is as good as none.
fn whole(value: &HeaderValue) -> Option<u64> {
    match value {
        HeaderValue::I64(v) => u64::try_from(*v).ok(),
        HeaderValue::U32(v) => Some((*v).into()),
        HeaderValue::I32(v) => u64::try_from(*v).ok(),
        HeaderValue::Timestamp(v) => Some(*v),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Headers, Properties};

    fn waited(in_ms: Option<HeaderValue>, timestamp: Option<u64>) -> Option<u64> {
        let headers = in_ms.map(|value| (TIMESTAMP_IN_MS.to_owned(), value));
        let message = Message {
            headers: headers.into_iter().collect::<Headers>(),
            properties: Properties {
                timestamp,
                ..Properties::default()
            },
            ..Message::default()
        };
        let waited = message.waited_at(Duration::from_millis(1_000_000_500));
        waited.map(|waited| u64::try_from(waited.as_millis()).unwrap())
    }

    #[test]
    fn a_message_says_how_long_it_has_waited_in_milliseconds_or_else_in_seconds() {
        assert_eq!(waited(None, None), None);
        assert_eq!(waited(None, Some(1_000_000)), Some(500));
        let in_ms = || Some(HeaderValue::I64(1_000_000_450));
        assert_eq!(waited(in_ms(), None), Some(50));
        assert_eq!(waited(in_ms(), Some(999_000)), Some(50));
        for no_time in ["1000000450".into(), HeaderValue::I64(-1), HeaderValue::Void] {
            assert_eq!(waited(Some(no_time), Some(1_000_000)), Some(500));
        }
    }

    #[test]
    fn a_publisher_whose_clock_is_a_little_ahead_has_sent_it_just_now() {
        assert_eq!(waited(Some(HeaderValue::I64(1_000_000_510)), None), Some(0));
        assert_eq!(waited(Some(HeaderValue::I64(1_000_010_501)), None), None);
        assert_eq!(waited(Some(HeaderValue::I64(i64::MAX)), None), None);
        assert_eq!(waited(None, Some(u64::MAX)), None);
    }
}
