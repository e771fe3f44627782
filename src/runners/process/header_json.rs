//! A message's headers as JSON, for runners that receive them as text. Pure.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use crate::queue::{HeaderValue, Headers};

/// Levels of lists and tables. RabbitMQ has no limit, and a reader in another language may recurse.
const MAX_DEPTH: usize = 16;

/// The headers as a JSON object. The mapping is in the documentation of [`exec`](crate::runners::exec).
pub fn headers_to_json(headers: &Headers) -> Value {
    table(headers, MAX_DEPTH)
}

/// Whether that object contains all headers: no value is nested deeper than [`MAX_DEPTH`], and no header was left out
/// when the headers were read.
pub(in crate::runners) fn is_whole_in_json(headers: &Headers) -> bool {
    is_whole_table(headers, MAX_DEPTH)
}

fn is_whole_table(headers: &Headers, depth: usize) -> bool {
    headers.values().all(|value| is_whole(value, depth - 1))
}

fn is_whole(header: &HeaderValue, depth: usize) -> bool {
    match header {
        HeaderValue::Unread(_) => false,
        HeaderValue::List(_) | HeaderValue::Table(_) if depth == 0 => false,
        HeaderValue::List(values) => values.iter().all(|value| is_whole(value, depth - 1)),
        HeaderValue::Table(headers) => is_whole_table(headers, depth),
        _ => true,
    }
}

fn table(headers: &Headers, depth: usize) -> Value {
    let entries = headers
        .iter()
        .map(|(name, header)| (name.clone(), value(header, depth - 1)));
    Value::Object(entries.collect::<Map<_, _>>())
}

fn value(header: &HeaderValue, depth: usize) -> Value {
    match header {
        HeaderValue::Bool(v) => json!(v),
        HeaderValue::I8(v) => json!(v),
        HeaderValue::U8(v) => json!(v),
        HeaderValue::I16(v) => json!(v),
        HeaderValue::U16(v) => json!(v),
        HeaderValue::I32(v) => json!(v),
        HeaderValue::U32(v) => json!(v),
        HeaderValue::I64(v) => json!(v),
        HeaderValue::Timestamp(v) => json!(v),
        // Parses the number's own text, so that 0.1 stays 0.1 and does not get the digits of a wider float.
        HeaderValue::F32(v) => v
            .to_string()
            .parse::<f64>()
            .map_or(Value::Null, |v| json!(v)),
        // serde_json turns a number that is not finite into null.
        HeaderValue::F64(v) => json!(v),
        HeaderValue::Decimal { scale, value } => Value::String(decimal(*scale, *value)),
        HeaderValue::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::String(text.to_owned()),
            Err(_) => base64(bytes),
        },
        HeaderValue::Binary(bytes) => base64(bytes),
        HeaderValue::List(_) | HeaderValue::Table(_) if depth == 0 => Value::Null,
        HeaderValue::List(values) => values.iter().map(|v| value(v, depth - 1)).collect(),
        HeaderValue::Table(headers) => table(headers, depth),
        HeaderValue::Void | HeaderValue::Unread(_) => Value::Null,
    }
}

fn base64(bytes: &[u8]) -> Value {
    json!({ "base64": BASE64_STANDARD.encode(bytes) })
}

/// `value / 10^scale`, digit for digit. The sender chooses the scale, up to 255, so no power of ten is computed.
fn decimal(scale: u8, value: u32) -> String {
    // RabbitMQ encodes the digits as a signed number.
    let value = value.cast_signed();
    let sign = if value < 0 { "-" } else { "" };
    let scale = usize::from(scale);
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    if fraction.is_empty() {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn maps_each_kind_of_header() {
        use HeaderValue as H;
        let table = [
            (H::Bool(true), json!(true)),
            (H::I8(-8), json!(-8)),
            (H::U8(8), json!(8)),
            (H::I16(-16), json!(-16)),
            (H::U16(16), json!(16)),
            (H::I32(-32), json!(-32)),
            (H::U32(u32::MAX), json!(u32::MAX)),
            (H::I64(i64::MIN), json!(i64::MIN)),
            (H::Timestamp(u64::MAX), json!(u64::MAX)),
            (H::F32(0.1), json!(0.1)),
            (H::F32(f32::NAN), Value::Null),
            (H::F32(f32::INFINITY), Value::Null),
            (H::F64(0.5), json!(0.5)),
            (H::F64(f64::NEG_INFINITY), Value::Null),
            (
                H::Decimal {
                    scale: 2,
                    value: 1234,
                },
                json!("12.34"),
            ),
            (H::Decimal { scale: 4, value: 5 }, json!("0.0005")),
            (H::Decimal { scale: 0, value: 7 }, json!("7")),
            (
                H::Decimal {
                    scale: 1,
                    value: (-15_i32).cast_unsigned(),
                },
                json!("-1.5"),
            ),
            (H::from("line\nnul\0"), json!("line\nnul\0")),
            (
                H::Text(Bytes::from_static(b"\xff\xfe")),
                json!({"base64": "//4="}),
            ),
            (
                H::Binary(Bytes::from_static(b"abc")),
                json!({"base64": "YWJj"}),
            ),
            (H::List(vec![H::I8(1), H::Void]), json!([1, null])),
            (
                H::Table(Headers::from([("k".into(), H::Bool(false))])),
                json!({"k": false}),
            ),
            (H::Void, Value::Null),
        ];
        for (header, expected) in table {
            let headers = Headers::from([("h".to_owned(), header)]);
            assert_eq!(headers_to_json(&headers), json!({ "h": expected }));
        }
    }

    #[test]
    fn survives_the_largest_scale_of_a_decimal() {
        let text = decimal(255, 1);
        assert_eq!(text.len(), 257);
        assert!(text.starts_with("0.0") && text.ends_with('1'));
    }

    #[test]
    fn cuts_values_that_are_nested_too_deep() {
        let list: fn(HeaderValue) -> HeaderValue = |inner| HeaderValue::List(vec![inner]);
        let table: fn(HeaderValue) -> HeaderValue =
            |inner| HeaderValue::Table(Headers::from([("in".to_owned(), inner)]));
        for deeper in [list, table] {
            let nested = |levels: usize| {
                let value = (0..levels).fold(HeaderValue::Bool(true), |inner, _| deeper(inner));
                let headers = Headers::from([("deep".to_owned(), value)]);
                let json = headers_to_json(&headers).to_string();
                assert_eq!(
                    is_whole_in_json(&headers),
                    json.contains("true"),
                    "{levels}"
                );
                json
            };
            // The object itself is the first of the levels.
            assert!(nested(MAX_DEPTH - 1).contains("true"));
            assert!(nested(MAX_DEPTH).contains("null"));
            assert!(nested(1_000).contains("null"));
        }
    }
}
