//! Where a message was first published. Copies carry it in headers of tidegate.

use std::borrow::Cow;

use super::{HeaderValue, Message};

/// Header of a copy: the exchange of the first publish.
pub const ORIGINAL_EXCHANGE: &str = "x-tidegate-original-exchange";
/// Header of a copy: the routing key of the first publish.
pub const ORIGINAL_ROUTING_KEY: &str = "x-tidegate-original-routing-key";

/// Where a message was first published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageOrigin<'a> {
    /// The exchange; empty for the default exchange.
    pub exchange: Cow<'a, str>,
    /// The routing key.
    pub routing_key: Cow<'a, str>,
}

impl Message {
    /// Where the message was first published. A copy that tidegate made has it in its headers. For any other message it
    /// is the exchange and routing key of the delivery.
    ///
    /// The headers count only on a message that came through the default exchange, as every copy does. A message from
    /// a named exchange was published by another program, and its headers are ignored.
    pub fn origin(&self) -> MessageOrigin<'_> {
        self.copied_from().unwrap_or(MessageOrigin {
            exchange: self.exchange.as_str().into(),
            routing_key: self.routing_key.as_str().into(),
        })
    }

    /// The first publish that the headers of a copy name, or `None` if this is not a copy.
    pub fn copied_from(&self) -> Option<MessageOrigin<'_>> {
        // AMQP does not guarantee that these texts are UTF-8.
        let text = |name: &str| match self.headers.get(name) {
            Some(HeaderValue::Text(bytes)) => Some(String::from_utf8_lossy(bytes)),
            _ => None,
        };
        match (text(ORIGINAL_EXCHANGE), text(ORIGINAL_ROUTING_KEY)) {
            (Some(exchange), Some(routing_key)) if self.exchange.is_empty() => {
                Some(MessageOrigin {
                    exchange,
                    routing_key,
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(exchange: &str, headers: &[(&str, HeaderValue)]) -> Message {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        Message {
            exchange: exchange.to_owned(),
            routing_key: "key".to_owned(),
            headers: headers.collect(),
            ..Message::default()
        }
    }

    #[test]
    fn a_copy_names_its_first_publish_and_the_same_headers_on_other_messages_are_ignored() {
        let both = [
            (ORIGINAL_EXCHANGE, "orders".into()),
            (ORIGINAL_ROUTING_KEY, "eu.new".into()),
        ];
        let half = &both[..1];
        let raw = HeaderValue::Text(b"\xff".as_slice().into());
        let raw = [both[0].clone(), (ORIGINAL_ROUTING_KEY, raw)];
        let odd = [both[0].clone(), (ORIGINAL_ROUTING_KEY, 7.into())];
        for (message, expected) in [
            (message("", &[]), ("", "key")),
            (message("orders", &[]), ("orders", "key")),
            (message("", &both), ("orders", "eu.new")),
            (message("others", &both), ("others", "key")),
            (message("", half), ("", "key")),
            (message("", &odd), ("", "key")),
            (message("", &raw), ("orders", "\u{fffd}")),
        ] {
            let origin = message.origin();
            let seen = (&*origin.exchange, &*origin.routing_key);
            assert_eq!(seen, expected, "{message:?}");
        }
    }
}
