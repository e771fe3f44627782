//! Bytes that properties and headers encode to, by AMQP 0-9-1's grammar as RabbitMQ speaks it.

use super::{HeaderValue, Headers, Properties};

/// Bytes of a content header's property flags, properties and header table.
///
/// A content header cannot be split over frames, so this decides whether a message can be published at all.
pub fn header_size(properties: &Properties, headers: &Headers) -> usize {
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
    } = properties;
    let texts = [
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
    ];
    let texts: usize = texts.into_iter().flatten().map(|text| 1 + text.len()).sum();
    let octets = usize::from(delivery_mode.is_some()) + usize::from(priority.is_some());
    let flags = 2;
    flags + texts + octets + timestamp.map_or(0, |_| 8) + table_size(headers)
}

fn table_size(table: &Headers) -> usize {
    let entries: usize = table
        .iter()
        .map(|(name, value)| 1 + name.len() + value_size(value))
        .sum();
    4 + entries
}

/// Bytes of a value with its type tag.
fn value_size(value: &HeaderValue) -> usize {
    1 + match value {
        HeaderValue::Void => 0,
        HeaderValue::Bool(_) | HeaderValue::I8(_) | HeaderValue::U8(_) => 1,
        HeaderValue::I16(_) | HeaderValue::U16(_) => 2,
        HeaderValue::I32(_) | HeaderValue::U32(_) | HeaderValue::F32(_) => 4,
        HeaderValue::Decimal { .. } => 5,
        HeaderValue::I64(_) | HeaderValue::F64(_) | HeaderValue::Timestamp(_) => 8,
        HeaderValue::Text(bytes) | HeaderValue::Binary(bytes) => 4 + bytes.len(),
        HeaderValue::List(values) => 4 + values.iter().map(value_size).sum::<usize>(),
        HeaderValue::Table(table) => table_size(table),
    }
}
