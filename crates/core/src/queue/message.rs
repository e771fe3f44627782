//! A message as the broker hands it over, free of any client library's types.
//!
//! Everything a message carried is kept without loss, because a copy (a retry, a dead letter, a give-back)
//! must carry it too.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Header table of a message, in key order.
pub type Headers = BTreeMap<String, HeaderValue>;

/// One header value. The variants are AMQP 0-9-1's field types as RabbitMQ speaks them, so that a copy
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
    /// Text. AMQP does not promise UTF-8, hence bytes.
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
}

impl HeaderValue {
    /// The value as an integer, whatever its width; `None` for anything that is not an integer.
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

    /// The value as text, where it is text and valid UTF-8.
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
    /// Milliseconds, as the text that AMQP has it as.
    pub expiration: Option<String>,
    pub message_id: Option<String>,
    /// Seconds since the Unix epoch.
    pub timestamp: Option<u64>,
    pub kind: Option<String>,
    pub user_id: Option<String>,
    pub app_id: Option<String>,
    pub cluster_id: Option<String>,
}

/// A message that was delivered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// Exchange that it was published to; empty for the default exchange.
    pub exchange: String,
    /// Routing key that it was published with.
    pub routing_key: String,
    /// Whether the broker says that it was delivered before.
    pub redelivered: bool,
    /// Basic properties.
    pub properties: Properties,
    /// Headers.
    pub headers: Headers,
    /// Body, byte for byte.
    pub body: Bytes,
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
    /// What becomes of it where no queue takes it.
    pub no_route: NoRoute,
}

/// What becomes of a message that no queue takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NoRoute {
    /// It comes back, and the publish fails: AMQP's `mandatory`.
    #[default]
    Fail,
    /// The broker drops it, and the publish succeeds. For direct reply-to (`amq.rabbitmq.reply-to.*`), which is no
    /// queue: a `mandatory` message comes back from there although it has arrived.
    Drop,
}
