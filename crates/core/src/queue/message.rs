//! A message as the broker delivers it, without types of a client library.
//!
//! No content of a message is lost, because a copy (a retry, a dead letter, a give-back) must carry all of it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;

/// The header table of a message, sorted by name.
pub type Headers = BTreeMap<String, HeaderValue>;

/// One header value. The variants are the field types of AMQP 0-9-1 as RabbitMQ implements them, so that a copy
/// encodes to the same bytes as the original.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderValue {
    /// Boolean.
    Bool(bool),
    /// Signed 8-bit integer.
    I8(i8),
    /// Unsigned 8-bit integer.
    U8(u8),
    /// Signed 16-bit integer.
    I16(i16),
    /// Unsigned 16-bit integer.
    U16(u16),
    /// Signed 32-bit integer.
    I32(i32),
    /// Unsigned 32-bit integer.
    U32(u32),
    /// Signed 64-bit integer.
    I64(i64),
    /// 32-bit float.
    F32(f32),
    /// 64-bit float.
    F64(f64),
    /// Decimal: `value / 10^scale`.
    Decimal {
        /// Digits after the point.
        scale: u8,
        /// The digits, as RabbitMQ encodes them.
        value: u32,
    },
    /// Text. These are bytes because AMQP does not promise UTF-8.
    Text(Bytes),
    /// Raw bytes.
    Binary(Bytes),
    /// Seconds since the Unix epoch.
    Timestamp(u64),
    /// A list of values.
    List(Vec<HeaderValue>),
    /// A nested table.
    Table(Headers),
    /// No value.
    Void,
    /// A list or table that is nested too deep to be decoded. Jobs do not see it; copies carry it unchanged.
    Unread(UnreadValue),
}

/// A value in its encoded form, with its type tag. Only the adapter that decoded the message makes one, so that no
/// copy carries bytes that a broker would refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadValue(Bytes);

impl UnreadValue {
    /// `encoded` begins with its type tag and is well formed by AMQP's grammar as RabbitMQ implements it.
    pub fn new(encoded: Bytes) -> Self {
        Self(encoded)
    }

    /// The type tag and the bytes after it.
    pub fn encoded(&self) -> &[u8] {
        &self.0
    }
}

/// The texts of a message that are not UTF-8: for each text its displayed form and its bytes.
///
/// AMQP does not promise UTF-8 for any text. A property, a header's name, an exchange or a routing key that is not
/// UTF-8 is displayed with `\xff` for each invalid byte, and its bytes are stored here. Copies and replies carry the
/// bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawTexts(Option<Arc<BTreeMap<String, Bytes>>>);

impl RawTexts {
    /// Whether every text equals its displayed form.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The bytes of the text with this displayed form.
    pub fn bytes<'a>(&'a self, shown: &'a str) -> &'a [u8] {
        let raw = self.0.as_ref().and_then(|texts| texts.get(shown));
        raw.map_or(shown.as_bytes(), |raw| raw)
    }

    /// The bytes of the text with this displayed form, as a header value.
    pub fn header(&self, shown: &str) -> HeaderValue {
        HeaderValue::Text(Bytes::copy_from_slice(self.bytes(shown)))
    }

    /// Only the entry of this text, if there is one.
    #[must_use]
    pub fn only(&self, shown: Option<&str>) -> Self {
        let found = shown.and_then(|shown| self.0.as_ref()?.get_key_value(shown));
        let alone = found.map(|(shown, raw)| BTreeMap::from([(shown.clone(), raw.clone())]));
        Self(alone.map(Arc::new))
    }

    /// The displayed form of `bytes`. Stores the bytes if they differ from it.
    ///
    /// No two texts of one message have the same displayed form: a text that contains `\x` itself is displayed with
    /// each backslash doubled.
    pub fn show(&mut self, bytes: &[u8]) -> String {
        let shown = shown(bytes);
        if shown.as_bytes() != bytes {
            let texts = Arc::make_mut(self.0.get_or_insert_default());
            texts.insert(shown.clone(), Bytes::copy_from_slice(bytes));
        }
        shown
    }
}

/// Text with `\xff` for each byte that is not UTF-8.
fn shown(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains("\\x") => return text.to_owned(),
        _ => {}
    }
    let mut shown = String::with_capacity(bytes.len() * 2);
    for chunk in bytes.utf8_chunks() {
        shown.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

impl HeaderValue {
    /// The value as an integer of any width, or `None` if it is not an integer.
    pub fn as_integer(&self) -> Option<i64> {
        Some(match *self {
            Self::I8(v) => v.into(),
            Self::U8(v) => v.into(),
            Self::I16(v) => v.into(),
            Self::U16(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::U32(v) => v.into(),
            Self::I64(v) => v,
            _ => return None,
        })
    }

    /// The value as text, or `None` if it is not text or not valid UTF-8.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

impl From<&str> for HeaderValue {
    fn from(text: &str) -> Self {
        Self::Text(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for HeaderValue {
    fn from(text: String) -> Self {
        Self::Text(Bytes::from(text))
    }
}

impl From<i64> for HeaderValue {
    fn from(number: i64) -> Self {
        Self::I64(number)
    }
}

impl From<bool> for HeaderValue {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

/// The basic properties of a message, without its headers. `None` is "not set by the publisher".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the fields are AMQP 0-9-1's basic properties, by their own names"
)]
pub struct Properties {
    pub content_type: Option<String>,
    pub content_encoding: Option<String>,
    /// 1 transient, 2 persistent.
    pub delivery_mode: Option<u8>,
    pub priority: Option<u8>,
    pub correlation_id: Option<String>,
    pub reply_to: Option<String>,
    /// Milliseconds, as decimal text (AMQP's type for it).
    pub expiration: Option<String>,
    pub message_id: Option<String>,
    /// Seconds since the Unix epoch.
    pub timestamp: Option<u64>,
    pub kind: Option<String>,
    pub user_id: Option<String>,
    pub app_id: Option<String>,
    pub cluster_id: Option<String>,
    /// The texts of the message that are not UTF-8: properties and header names.
    pub raw: RawTexts,
}

/// A message that was delivered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// The exchange that it was published to. Empty for the default exchange.
    pub exchange: String,
    /// The routing key that it was published with.
    pub routing_key: String,
    /// Whether the broker marked it as delivered before.
    pub redelivered: bool,
    /// Basic properties.
    pub properties: Properties,
    /// Headers.
    pub headers: Headers,
    /// Body, unchanged.
    pub body: Bytes,
}

/// The header with the time of publishing in milliseconds. Publishers set it, or RabbitMQ's interceptor
/// `set_header_timestamp`: <https://www.rabbitmq.com/docs/message-interceptors>.
const PUBLISHED_MS: &str = "timestamp_in_ms";

impl Message {
    /// When it was published, as its header `timestamp_in_ms` says, else its property `timestamp` (whole seconds).
    /// Anyone may have written either.
    pub fn published_at(&self) -> Option<Timestamp> {
        let exact = self.headers.get(PUBLISHED_MS);
        let exact = exact.and_then(HeaderValue::as_integer);
        if let Some(exact) = exact.and_then(|ms| Timestamp::from_millisecond(ms).ok()) {
            return Some(exact);
        }
        let seconds = i64::try_from(self.properties.timestamp?).ok()?;
        Timestamp::from_second(seconds).ok()
    }
}

/// A message to publish.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outgoing {
    /// Exchange; empty for the default exchange, which routes by queue name.
    pub exchange: String,
    /// Routing key.
    pub routing_key: String,
    /// Basic properties.
    pub properties: Properties,
    /// Headers.
    pub headers: Headers,
    /// Body.
    pub body: Bytes,
    /// What happens if no queue takes it.
    pub no_route: NoRoute,
}

/// What happens to a message that no queue takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NoRoute {
    /// The broker returns it and the publish fails. This is AMQP's `mandatory`.
    #[default]
    Fail,
    /// The broker drops it and the publish succeeds. For direct reply-to (`amq.rabbitmq.reply-to.*`), which is not a
    /// queue: the broker returns a `mandatory` message from there although the message has arrived.
    Drop,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_shown_as_it_is_and_other_bytes_escaped() {
        let mut raw = RawTexts::default();
        for plain in ["", "caf\u{e9}", "a\\b", "line\n"] {
            assert_eq!(raw.show(plain.as_bytes()), plain);
        }
        assert!(raw.is_empty());
        assert_eq!(raw.show(b"\xff\xfe\x80raw"), r"\xff\xfe\x80raw");
        assert_eq!(raw.show(b"a\\b\xff"), r"a\\b\xff");
        assert_eq!(raw.show(br"\xff"), r"\\xff");
        assert_eq!(raw.bytes(r"\xff\xfe\x80raw"), b"\xff\xfe\x80raw");
        assert_eq!(raw.bytes(r"\\xff"), br"\xff");
        assert_eq!(raw.bytes("other"), b"other");
    }

    #[test]
    fn has_the_publish_time_with_the_precision_of_the_message() {
        let message = |ms: Option<HeaderValue>, seconds| Message {
            headers: Headers::from_iter(ms.map(|ms| ("timestamp_in_ms".to_owned(), ms))),
            properties: Properties {
                timestamp: seconds,
                ..Properties::default()
            },
            ..Message::default()
        };
        let published = |ms, seconds| {
            let at = message(ms, seconds).published_at();
            at.map(|at| at.as_millisecond())
        };
        let exact = HeaderValue::I64(1_764_000_000_123);
        let seconds = Some(1_764_000_000);
        assert_eq!(published(None, None), None);
        assert_eq!(published(None, seconds), Some(1_764_000_000_000));
        assert_eq!(published(Some(exact), seconds), Some(1_764_000_000_123));
        for odd in [HeaderValue::from("soon"), HeaderValue::I64(i64::MAX)] {
            assert_eq!(published(Some(odd), seconds), Some(1_764_000_000_000));
        }
        assert_eq!(published(None, Some(u64::MAX)), None);
    }

    proptest! {
        #[test]
        fn different_texts_are_never_shown_alike(
            texts in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![Just(b'\\'), Just(b'x'), Just(b'f'), Just(0xff), any::<u8>()], 0..8),
                0..20,
            ),
        ) {
            let mut raw = RawTexts::default();
            let shown: Vec<String> = texts.iter().map(|text| raw.show(text)).collect();
            for (text, shown) in texts.iter().zip(&shown) {
                prop_assert_eq!(raw.bytes(shown), text.as_slice());
            }
        }
    }
}
