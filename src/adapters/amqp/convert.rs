//! Converts messages between our model and lapin's, without loss in either direction.

use std::collections::BTreeMap;

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, DecimalValue, FieldArray, FieldTable, ShortString},
};

use super::wire;
use crate::queue::{
    HeaderValue, Headers, Message, Properties, QueueError, QueueErrorKind, RawTexts,
};

/// Converts a text to AMQP's short string.
///
/// # Errors
/// [`TooLarge`](QueueErrorKind::TooLarge) above 255 bytes, which AMQP cannot express. Without this check lapin panics,
/// or writes a frame that ends the connection.
pub(super) fn short(what: &str, text: &str) -> Result<ShortString, QueueError> {
    ShortString::try_new(text).map_err(|error| {
        QueueError::new(QueueErrorKind::TooLarge, format!("encode the {what}")).with_source(error)
    })
}

/// The message of a delivery.
pub(super) fn message(delivery: lapin::message::Delivery) -> Message {
    match wire::preface(&delivery) {
        Some(length) => wire::message(delivery, length),
        None => plain(delivery),
    }
}

fn plain(delivery: lapin::message::Delivery) -> Message {
    let (properties, headers) = from_lapin(&delivery.properties);
    Message {
        exchange: delivery.exchange.into(),
        routing_key: delivery.routing_key.into(),
        redelivered: delivery.redelivered,
        properties,
        headers,
        body: Bytes::from(delivery.data),
    }
}

fn from_lapin(properties: &BasicProperties) -> (Properties, Headers) {
    let text = |value: &Option<ShortString>| value.as_ref().map(|text| text.as_str().to_owned());
    let ours = Properties {
        content_type: text(properties.content_type()),
        content_encoding: text(properties.content_encoding()),
        delivery_mode: *properties.delivery_mode(),
        priority: *properties.priority(),
        correlation_id: text(properties.correlation_id()),
        reply_to: text(properties.reply_to()),
        expiration: text(properties.expiration()),
        message_id: text(properties.message_id()),
        timestamp: *properties.timestamp(),
        kind: text(properties.kind()),
        user_id: text(properties.user_id()),
        app_id: text(properties.app_id()),
        cluster_id: text(properties.cluster_id()),
        raw: RawTexts::default(),
    };
    let headers = properties.headers().as_ref().map(table).unwrap_or_default();
    (ours, headers)
}

fn table(table: &FieldTable) -> Headers {
    table
        .into_iter()
        .map(|(name, field)| (name.as_str().to_owned(), value(field)))
        .collect()
}

fn value(value_of: &AMQPValue) -> HeaderValue {
    match value_of {
        AMQPValue::Boolean(v) => HeaderValue::Bool(*v),
        AMQPValue::ShortShortInt(v) => HeaderValue::I8(*v),
        AMQPValue::ShortShortUInt(v) => HeaderValue::U8(*v),
        AMQPValue::ShortInt(v) => HeaderValue::I16(*v),
        AMQPValue::ShortUInt(v) => HeaderValue::U16(*v),
        AMQPValue::LongInt(v) => HeaderValue::I32(*v),
        AMQPValue::LongUInt(v) => HeaderValue::U32(*v),
        AMQPValue::LongLongInt(v) => HeaderValue::I64(*v),
        AMQPValue::Float(v) => HeaderValue::F32(*v),
        AMQPValue::Double(v) => HeaderValue::F64(*v),
        AMQPValue::DecimalValue(v) => HeaderValue::Decimal {
            scale: v.scale,
            value: v.value,
        },
        // This value has no tag on the wire, so it never arrives. It would be a text.
        AMQPValue::ShortString(v) => HeaderValue::from(v.as_str()),
        AMQPValue::LongString(v) => HeaderValue::Text(Bytes::copy_from_slice(v.as_bytes())),
        AMQPValue::ByteArray(v) => HeaderValue::Binary(Bytes::copy_from_slice(v.as_slice())),
        AMQPValue::Timestamp(v) => HeaderValue::Timestamp(*v),
        AMQPValue::FieldArray(values) => {
            HeaderValue::List(values.as_slice().iter().map(value).collect())
        }
        AMQPValue::FieldTable(entries) => HeaderValue::Table(table(entries)),
        AMQPValue::Void => HeaderValue::Void,
    }
}

/// Properties and headers in lapin's types.
pub(super) fn to_lapin(
    properties: &Properties,
    headers: &Headers,
) -> Result<BasicProperties, QueueError> {
    let Properties {
        content_type,
        content_encoding,
        delivery_mode,
        priority,
        correlation_id,
        reply_to,
        expiration,
        message_id,
        timestamp,
        kind,
        user_id,
        app_id,
        cluster_id,
        // Messages with raw texts are encoded by `wire`.
        raw: _,
    } = properties;
    let mut converted = BasicProperties::default();
    macro_rules! texts {
        ($($field:ident => $with:ident),* $(,)?) => {
            $(if let Some(text) = $field {
                converted = converted.$with(short(concat!("property ", stringify!($field)), text)?);
            })*
        };
    }
    texts! {
        content_type => with_content_type,
        content_encoding => with_content_encoding,
        correlation_id => with_correlation_id,
        reply_to => with_reply_to,
        expiration => with_expiration,
        message_id => with_message_id,
        kind => with_type,
        user_id => with_user_id,
        app_id => with_app_id,
        cluster_id => with_cluster_id,
    }
    if let Some(mode) = delivery_mode {
        converted = converted.with_delivery_mode(*mode);
    }
    if let Some(priority) = priority {
        converted = converted.with_priority(*priority);
    }
    if let Some(timestamp) = timestamp {
        converted = converted.with_timestamp(*timestamp);
    }
    if !headers.is_empty() {
        converted = converted.with_headers(field_table(headers)?);
    }
    Ok(converted)
}

pub(super) fn field_table(headers: &Headers) -> Result<FieldTable, QueueError> {
    let entries = headers
        .iter()
        .map(|(name, value)| Ok((short("name of a header", name)?, field(value)?)))
        .collect::<Result<BTreeMap<_, _>, QueueError>>()?;
    Ok(FieldTable::from(entries))
}

fn field(value: &HeaderValue) -> Result<AMQPValue, QueueError> {
    Ok(match value {
        HeaderValue::Bool(v) => AMQPValue::Boolean(*v),
        HeaderValue::I8(v) => AMQPValue::ShortShortInt(*v),
        HeaderValue::U8(v) => AMQPValue::ShortShortUInt(*v),
        HeaderValue::I16(v) => AMQPValue::ShortInt(*v),
        HeaderValue::U16(v) => AMQPValue::ShortUInt(*v),
        HeaderValue::I32(v) => AMQPValue::LongInt(*v),
        HeaderValue::U32(v) => AMQPValue::LongUInt(*v),
        HeaderValue::I64(v) => AMQPValue::LongLongInt(*v),
        HeaderValue::F32(v) => AMQPValue::Float(*v),
        HeaderValue::F64(v) => AMQPValue::Double(*v),
        HeaderValue::Decimal { scale, value } => AMQPValue::DecimalValue(DecimalValue {
            scale: *scale,
            value: *value,
        }),
        HeaderValue::Text(v) => AMQPValue::LongString(v.to_vec().into()),
        HeaderValue::Binary(v) => AMQPValue::ByteArray(v.to_vec().into()),
        HeaderValue::Timestamp(v) => AMQPValue::Timestamp(*v),
        HeaderValue::List(values) => {
            let values = values.iter().map(field).collect::<Result<Vec<_>, _>>()?;
            AMQPValue::FieldArray(FieldArray::from(values))
        }
        HeaderValue::Table(entries) => AMQPValue::FieldTable(field_table(entries)?),
        // Messages with unread values are encoded by `wire` too.
        HeaderValue::Void | HeaderValue::Unread(_) => AMQPValue::Void,
    })
}

#[cfg(test)]
mod tests {
    use lapin::types::{generation::gen_field_table, parsing::parse_field_table};
    use proptest::prelude::*;

    use super::*;
    use crate::queue::header_size;

    fn any_text() -> impl Strategy<Value = Option<String>> {
        proptest::option::of("\\PC{0,60}")
    }

    prop_compose! {
        fn any_properties()(
            [content_type, content_encoding, correlation_id, reply_to, expiration] in
                [any_text(), any_text(), any_text(), any_text(), any_text()],
            [message_id, kind, user_id, app_id, cluster_id] in
                [any_text(), any_text(), any_text(), any_text(), any_text()],
            delivery_mode: Option<u8>,
            priority: Option<u8>,
            timestamp: Option<u64>,
        ) -> Properties {
            Properties {
                content_type, content_encoding, delivery_mode, priority, correlation_id, reply_to,
                expiration, message_id, timestamp, kind, user_id, app_id, cluster_id,
                raw: RawTexts::default(),
            }
        }
    }

    fn any_bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn any_headers() -> impl Strategy<Value = Headers> {
        // Finite floats only: a NaN is kept bit for bit, but is not equal to itself.
        let leaf = prop_oneof![
            any::<bool>().prop_map(HeaderValue::Bool),
            any::<i8>().prop_map(HeaderValue::I8),
            any::<u8>().prop_map(HeaderValue::U8),
            any::<i16>().prop_map(HeaderValue::I16),
            any::<u16>().prop_map(HeaderValue::U16),
            any::<i32>().prop_map(HeaderValue::I32),
            any::<u32>().prop_map(HeaderValue::U32),
            any::<i64>().prop_map(HeaderValue::I64),
            (-1e30_f32..1e30).prop_map(HeaderValue::F32),
            (-1e300_f64..1e300).prop_map(HeaderValue::F64),
            (any::<u8>(), any::<u32>())
                .prop_map(|(scale, value)| HeaderValue::Decimal { scale, value }),
            any_bytes().prop_map(HeaderValue::Text),
            any_bytes().prop_map(HeaderValue::Binary),
            any::<u64>().prop_map(HeaderValue::Timestamp),
            Just(HeaderValue::Void),
        ];
        let value = leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(HeaderValue::List),
                proptest::collection::btree_map("\\PC{0,20}", inner, 0..6)
                    .prop_map(HeaderValue::Table),
            ]
        });
        proptest::collection::btree_map("\\PC{0,20}", value, 0..8)
    }

    proptest! {
        #[test]
        fn a_message_is_unchanged_after_conversion_to_lapin_and_back(
            properties in any_properties(),
            headers in any_headers(),
        ) {
            let converted = to_lapin(&properties, &headers).expect("it fits");
            prop_assert_eq!(from_lapin(&converted), (properties, headers));
        }

        #[test]
        fn headers_survive_lapins_own_encoder_and_their_size_is_known(headers in any_headers()) {
            let table = field_table(&headers).expect("it fits");
            let (encoded, _) = gen_field_table(&table)(Vec::new().into()).expect("it encodes").into_inner();
            let (_, decoded) = parse_field_table(encoded.as_slice()).expect("it decodes");
            prop_assert_eq!(super::table(&decoded), headers.clone());
            // The two bytes of flags come first.
            prop_assert_eq!(header_size(&Properties::default(), &headers), 2 + encoded.len());
        }
    }
}
