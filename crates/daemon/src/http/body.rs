//! Reads the body of a request into the type of the route, with limits on size and time.

use std::time::Duration;

use axum::{
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time;

use super::answers::error;

/// Largest body: a policy has a few hundred bytes.
const BODY_BYTES: usize = 64 * 1024;

/// How long a client may take to send the body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The first number that is too large for an unsigned integer of 64 bits.
const BEYOND_U64: f64 = 18_446_744_073_709_551_616.0;

/// A JSON body. An empty body means `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, BODY_BYTES).collect();
        let body = match time::timeout(BODY_TIMEOUT, body).await {
            Err(_) => {
                let what = "the body did not arrive within 10 s";
                return Err(error(StatusCode::REQUEST_TIMEOUT, what));
            }
            Ok(Err(failed)) if failed.is::<http_body_util::LengthLimitError>() => {
                let what = "the body is longer than 64 KiB";
                return Err(error(StatusCode::PAYLOAD_TOO_LARGE, what));
            }
            Ok(Err(_)) => {
                let what = "the body could not be read";
                return Err(error(StatusCode::BAD_REQUEST, what));
            }
            Ok(Ok(body)) => body.to_bytes(),
        };
        let text: &[u8] = match &*body {
            [] => b"{}",
            body if is_json(&head.headers) => body,
            // A page of another origin can make a browser send other types without a preflight request.
            _ => {
                let what = "the body must have Content-Type: application/json";
                return Err(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, what));
            }
        };
        // Parsed as a map first: otherwise serde would accept an array for a struct.
        serde_json::from_slice::<Map<String, Value>>(text)
            .and_then(|map| {
                let mut body = Value::Object(map);
                write_integers(&mut body);
                T::deserialize(body)
            })
            .map(Self)
            .map_err(|why| {
                let what = format!("the body is invalid: {why}");
                error(StatusCode::BAD_REQUEST, &what)
            })
    }
}

/// Makes `2` of `2.0`. They are the same number to JSON and to the API's description, but not to serde and TOML.
fn write_integers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let float = number.as_f64().filter(|_| number.is_f64());
            match float.filter(|float| float.fract() == 0.0) {
                Some(float) if (0.0..BEYOND_U64).contains(&float) => {
                    *number = (float as u64).into()
                }
                Some(float) if (-BEYOND_U64 / 2.0..0.0).contains(&float) => {
                    *number = (float as i64).into();
                }
                _ => {}
            }
        }
        Value::Array(values) => values.iter_mut().for_each(write_integers),
        Value::Object(values) => values.values_mut().for_each(write_integers),
        _ => {}
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok());
    value.is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    })
}

#[cfg(test)]
mod tests {
    use axum::body::{Body as Bytes, BodyDataStream};
    use futures_util::stream;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Eq, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Asked {
        workers: u32,
    }

    async fn read(kind: Option<&str>, body: impl Into<Bytes>) -> Result<Asked, StatusCode> {
        let mut request = Request::builder();
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let request = request.body(body.into()).unwrap();
        let read = Body::<Asked>::from_request(request, &()).await;
        read.map(|body| body.0)
            .map_err(|response| response.status())
    }

    #[tokio::test]
    async fn takes_json_or_nothing_and_says_what_else_is_wrong() {
        let json = Some("application/json; charset=utf-8");
        assert_eq!(
            read(json, r#"{"workers": 3}"#).await,
            Ok(Asked { workers: 3 })
        );
        assert_eq!(read(None, "").await, Ok(Asked::default()));
        let bad = Err(StatusCode::BAD_REQUEST);
        for body in ["{", "[]", r#"{"worker": 3}"#, r#"{"workers": "three"}"#] {
            assert_eq!(read(json, body).await, bad, "{body}");
        }
        for kind in [
            None,
            Some("text/plain"),
            Some("application/x-www-form-urlencoded"),
        ] {
            let refused = Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            assert_eq!(read(kind, r#"{"workers": 3}"#).await, refused, "{kind:?}");
        }
        let long = format!("{{{}}}", " ".repeat(BODY_BYTES));
        assert_eq!(read(json, long).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
    }

    #[tokio::test]
    async fn takes_an_integer_however_it_is_written() {
        let json = Some("application/json");
        for text in ["3", "3.0", "3e0", "0.3e1", "30E-1"] {
            let body = format!("{{\"workers\": {text}}}");
            assert_eq!(read(json, body).await, Ok(Asked { workers: 3 }), "{text}");
        }
        for text in ["3.5", "-3.0", "1e300"] {
            let body = format!("{{\"workers\": {text}}}");
            assert_eq!(
                read(json, body).await,
                Err(StatusCode::BAD_REQUEST),
                "{text}"
            );
        }
        let mut nested = json!({"a": [1.0, 0.5, {"b": -2.0}], "c": "1.0", "d": 1e19, "e": 1e300});
        write_integers(&mut nested);
        let written = json!({
            "a": [1, 0.5, {"b": -2}], "c": "1.0", "d": 10_000_000_000_000_000_000_u64, "e": 1e300
        });
        assert_eq!(nested, written);
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_wait_for_a_body_that_does_not_come() {
        let never: BodyDataStream =
            Bytes::from_stream(stream::pending::<Result<Vec<u8>, std::io::Error>>())
                .into_data_stream();
        let body = Bytes::from_stream(never);
        let read = read(Some("application/json"), body).await;
        assert_eq!(read, Err(StatusCode::REQUEST_TIMEOUT));
    }
}
