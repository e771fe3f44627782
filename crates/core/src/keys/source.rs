//! Where a message has its key, and the key itself.

use std::{fmt, str::FromStr, sync::Arc};

use crate::queue::{HeaderValue, Message};

/// The bytes of a key that count. Two longer keys with the same first bytes are one key.
pub const KEY_BYTES: usize = 255;

/// Where a message has its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The header of this name: text, bytes, a whole number or a flag.
    Header(String),
    /// The routing key of the first publish.
    RoutingKey,
    /// The property `correlation_id`.
    CorrelationId,
    /// The property `type`.
    Type,
}

const HEADER: &str = "header:";
const ROUTING_KEY: &str = "routing_key";
const CORRELATION_ID: &str = "correlation_id";
const TYPE: &str = "type";

impl KeySource {
    /// The key of a message. `None` if it has none, or one that is empty or of another type.
    pub fn key_of(&self, message: &Message) -> Option<OrderKey> {
        let properties = &message.properties;
        match self {
            Self::Header(name) => match message.headers.get(name)? {
                HeaderValue::Text(bytes) | HeaderValue::Binary(bytes) => OrderKey::new(bytes),
                HeaderValue::Bool(flag) => OrderKey::new(flag.to_string().as_bytes()),
                number => OrderKey::new(number.as_integer()?.to_string().as_bytes()),
            },
            Self::RoutingKey => OrderKey::new(message.origin().routing_key.as_bytes()),
            Self::CorrelationId => OrderKey::new(properties.correlation_id.as_ref()?.as_bytes()),
            Self::Type => OrderKey::new(properties.kind.as_ref()?.as_bytes()),
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "{HEADER}{name}"),
            Self::RoutingKey => f.write_str(ROUTING_KEY),
            Self::CorrelationId => f.write_str(CORRELATION_ID),
            Self::Type => f.write_str(TYPE),
        }
    }
}

impl FromStr for KeySource {
    type Err = String;

    /// Reads the text of [`Display`](fmt::Display). The error says what to write.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix(HEADER) {
            return match name.len() {
                0 => Err(String::from("write the name of a header after \"header:\"")),
                // The name of a header is a short string.
                1..=255 => Ok(Self::Header(name.to_owned())),
                _ => Err(String::from("write a name of at most 255 bytes")),
            };
        }
        match text {
            ROUTING_KEY => Ok(Self::RoutingKey),
            CORRELATION_ID => Ok(Self::CorrelationId),
            TYPE => Ok(Self::Type),
            _ => Err(format!(
                "write \"{HEADER}NAME\", \"{ROUTING_KEY}\", \"{CORRELATION_ID}\" or \"{TYPE}\""
            )),
        }
    }
}

/// The key of a message: at most [`KEY_BYTES`] bytes of it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OrderKey(Arc<[u8]>);

impl OrderKey {
    /// `None` for an empty key: such a message has none.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let bytes = &bytes[..bytes.len().min(KEY_BYTES)];
        (!bytes.is_empty()).then(|| Self(bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::queue::{ORIGINAL_EXCHANGE, ORIGINAL_ROUTING_KEY};

    fn key(text: &str) -> Option<OrderKey> {
        OrderKey::new(text.as_bytes())
    }

    #[test]
    fn each_source_is_read_as_it_is_written() {
        for text in [
            "header:tenant",
            "header:a:b",
            "routing_key",
            "correlation_id",
            "type",
        ] {
            assert_eq!(text.parse::<KeySource>().unwrap().to_string(), text);
        }
        for (text, fix) in [
            ("header:", "write the name of a header"),
            ("tenant", "write \"header:NAME\""),
            ("Routing_Key", "write \"header:NAME\""),
            ("", "write \"header:NAME\""),
        ] {
            let error = text.parse::<KeySource>().unwrap_err();
            assert!(error.starts_with(fix), "{text}: {error}");
        }
        let long = format!("header:{}", "x".repeat(256));
        assert!(long.parse::<KeySource>().unwrap_err().contains("255"));
    }

    #[test]
    fn a_key_is_text_bytes_a_whole_number_or_a_flag() {
        let source = KeySource::Header(String::from("tenant"));
        let of = |value: Option<HeaderValue>| {
            let headers = value.map(|value| (String::from("tenant"), value));
            source.key_of(&Message {
                headers: headers.into_iter().collect(),
                ..Message::default()
            })
        };
        assert_eq!(of(None), None);
        assert_eq!(of(Some("a".into())), key("a"));
        assert_eq!(of(Some("".into())), None);
        let raw = Bytes::from_static(&[0xff, 0]);
        assert_eq!(
            of(Some(HeaderValue::Binary(raw.clone()))),
            OrderKey::new(&raw)
        );
        assert_eq!(
            of(Some(HeaderValue::Text(raw.clone()))),
            OrderKey::new(&raw)
        );
        assert_eq!(of(Some(HeaderValue::U8(7))), key("7"));
        assert_eq!(of(Some(HeaderValue::I64(-7))), key("-7"));
        assert_eq!(of(Some(true.into())), key("true"));
        for none in [
            HeaderValue::F64(1.0),
            HeaderValue::Void,
            HeaderValue::List(Vec::new()),
            HeaderValue::Table(Default::default()),
        ] {
            assert_eq!(of(Some(none)), None);
        }
    }

    #[test]
    fn a_huge_key_takes_bounded_memory() {
        let huge = |end: &str| key(&format!("{}{end}", "x".repeat(1 << 20)));
        assert_eq!(huge("a"), huge("b"));
        assert_eq!(huge("a").map(|key| key.0.len()), Some(KEY_BYTES));
        assert_ne!(key(&"x".repeat(254)), huge("a"));
    }

    #[test]
    fn a_retried_message_keeps_its_key() {
        let mut message = Message {
            exchange: String::from("events"),
            routing_key: String::from("tenant.a"),
            ..Message::default()
        };
        assert_eq!(KeySource::RoutingKey.key_of(&message), key("tenant.a"));
        let origin = [
            (ORIGINAL_EXCHANGE, "events"),
            (ORIGINAL_ROUTING_KEY, "tenant.a"),
        ];
        let headers = origin.map(|(name, value)| (name.to_owned(), value.into()));
        message.headers = headers.into();
        (message.exchange, message.routing_key) = (String::new(), String::from("jobs"));
        assert_eq!(KeySource::RoutingKey.key_of(&message), key("tenant.a"));
    }

    #[test]
    fn a_property_is_a_key() {
        let mut message = Message::default();
        assert_eq!(KeySource::CorrelationId.key_of(&message), None);
        message.properties.correlation_id = Some(String::from("order 7"));
        message.properties.kind = Some(String::from("mail"));
        assert_eq!(KeySource::CorrelationId.key_of(&message), key("order 7"));
        assert_eq!(KeySource::Type.key_of(&message), key("mail"));
    }
}
