//! Encoded sizes of properties and headers, by AMQP 0-9-1's grammar as RabbitMQ implements it. All sizes are in
//! bytes.

use super::{HeaderValue, Headers, Properties, RawTexts};

const SHORT_MAX: usize = 255;

/// Encoded size of a content header's property flags, properties and header table.
///
/// A content header must fit one frame, so this size decides whether a message can be published.
pub fn header_size(properties: &Properties, headers: &Headers) -> usize {
    let raw = &properties.raw;
    let texts: usize = texts(properties)
        .map(|text| 1 + raw.bytes(text).len())
        .sum();
    let octets = usize::from(properties.delivery_mode.is_some())
        + usize::from(properties.priority.is_some());
    let flags = 2;
    flags + texts + octets + properties.timestamp.map_or(0, |_| 8) + table_size(headers, raw)
}

/// The properties that are text.
fn texts(properties: &Properties) -> impl Iterator<Item = &String> {
    let Properties {
        content_type,
        content_encoding,
        delivery_mode: _,
        priority: _,
        correlation_id,
        reply_to,
        expiration,
        message_id,
        timestamp: _,
        kind,
        user_id,
        app_id,
        cluster_id,
        raw: _,
    } = properties;
    [
        content_type,
        content_encoding,
        correlation_id,
        reply_to,
        expiration,
        message_id,
        kind,
        user_id,
        app_id,
        cluster_id,
    ]
    .into_iter()
    .flatten()
}

/// Whether every text that AMQP encodes as a short string is at most 255 bytes long: the properties, and the names of
/// headers at any depth.
pub fn short_texts_fit(properties: &Properties, headers: &Headers) -> bool {
    let raw = &properties.raw;
    texts(properties).all(|text| raw.bytes(text).len() <= SHORT_MAX) && names_fit(headers, raw)
}

fn names_fit(table: &Headers, raw: &RawTexts) -> bool {
    table
        .iter()
        .all(|(name, value)| raw.bytes(name).len() <= SHORT_MAX && inner_names_fit(value, raw))
}

fn inner_names_fit(value: &HeaderValue, raw: &RawTexts) -> bool {
    match value {
        HeaderValue::Table(table) => names_fit(table, raw),
        HeaderValue::List(values) => values.iter().all(|value| inner_names_fit(value, raw)),
        _ => true,
    }
}

fn table_size(table: &Headers, raw: &RawTexts) -> usize {
    let entries: usize = table
        .iter()
        .map(|(name, value)| 1 + raw.bytes(name).len() + value_size(value, raw))
        .sum();
    4 + entries
}

/// Encoded size of one table entry.
pub fn entry_size(name: &str, value: &HeaderValue, raw: &RawTexts) -> usize {
    1 + raw.bytes(name).len() + value_size(value, raw)
}

/// Encoded size of a value with its type tag.
fn value_size(value: &HeaderValue, raw: &RawTexts) -> usize {
    1 + match value {
        HeaderValue::Void => 0,
        HeaderValue::Bool(_) | HeaderValue::I8(_) | HeaderValue::U8(_) => 1,
        HeaderValue::I16(_) | HeaderValue::U16(_) => 2,
        HeaderValue::I32(_) | HeaderValue::U32(_) | HeaderValue::F32(_) => 4,
        HeaderValue::Decimal { .. } => 5,
        HeaderValue::I64(_) | HeaderValue::F64(_) | HeaderValue::Timestamp(_) => 8,
        HeaderValue::Text(bytes) | HeaderValue::Binary(bytes) => 4 + bytes.len(),
        HeaderValue::List(values) => {
            4 + values
                .iter()
                .map(|value| value_size(value, raw))
                .sum::<usize>()
        }
        HeaderValue::Table(table) => table_size(table, raw),
        HeaderValue::Unread(value) => value.encoded().len().saturating_sub(1),
    }
}
