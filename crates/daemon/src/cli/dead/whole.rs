//! A complete dead letter: the columns of `list`, and its properties, headers, standard error and body.

use std::fmt::{self, Write};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::table::DIM;
use tidegate::{
    escape::Escaped,
    queue::{Message, Properties},
    runners::process::headers_to_json,
    settle::{DeadBy, Letter},
    text::{counted, time},
};

/// A letter, for a program.
#[derive(Debug, Serialize)]
pub(super) struct Whole<'a> {
    #[serde(flatten)]
    letter: &'a Letter,
    exchange: &'a str,
    routing_key: &'a str,
    properties: Value,
    headers: Value,
    /// A string, or `{"base64": "..."}` if it is not UTF-8.
    body: Value,
}

impl<'a> Whole<'a> {
    pub(super) fn new(letter: &'a Letter, message: &'a Message) -> Self {
        let properties = properties(&message.properties).into_iter();
        let properties = properties.map(|(name, value)| (name.to_owned(), value));
        Self {
            letter,
            exchange: &message.exchange,
            routing_key: &message.routing_key,
            properties: Value::Object(properties.collect::<Map<_, _>>()),
            headers: headers_to_json(&message.headers),
            body: match std::str::from_utf8(&message.body) {
                Ok(text) => json!(text),
                Err(_) => json!({ "base64": BASE64_STANDARD.encode(&message.body) }),
            },
        }
    }
}

/// The properties of the message, with the names of AMQP.
fn properties(properties: &Properties) -> Vec<(&'static str, Value)> {
    let text = |text: &Option<String>| text.as_ref().map(|text| json!(text));
    let all = [
        ("content_type", text(&properties.content_type)),
        ("content_encoding", text(&properties.content_encoding)),
        (
            "delivery_mode",
            properties.delivery_mode.map(|mode| json!(mode)),
        ),
        (
            "priority",
            properties.priority.map(|priority| json!(priority)),
        ),
        ("correlation_id", text(&properties.correlation_id)),
        ("reply_to", text(&properties.reply_to)),
        ("expiration", text(&properties.expiration)),
        ("message_id", text(&properties.message_id)),
        ("timestamp", properties.timestamp.map(|time| json!(time))),
        ("type", text(&properties.kind)),
        ("user_id", text(&properties.user_id)),
        ("app_id", text(&properties.app_id)),
        ("cluster_id", text(&properties.cluster_id)),
    ];
    let there = all.into_iter();
    there
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// A letter, for a person.
pub(super) fn text(letter: &Letter, message: &Message) -> String {
    let mut text = String::new();
    let told = told(letter, message);
    let _ = entries(&mut text, "", &told);
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let properties: Vec<_> = properties(&message.properties)
        .iter()
        .map(|(name, value)| ((*name).to_owned(), shown(value)))
        .collect();
    let _ = section(&mut text, "properties", &properties);
    let headers: Vec<_> = match headers_to_json(&message.headers) {
        Value::Object(headers) => headers
            .iter()
            // The standard error has its own section.
            .filter(|(name, _)| letter.stderr.is_none() || *name != "x-tidegate-stderr")
            .map(|(name, value)| (name.clone(), shown(value)))
            .collect(),
        _ => Vec::new(),
    };
    let _ = section(&mut text, "headers", &headers);
    if let Some(stderr) = &letter.stderr {
        let _ = block(
            &mut text,
            "standard error, the end of it",
            stderr.as_bytes(),
        );
    }
    let bytes = counted(message.body.len(), "byte");
    let _ = block(&mut text, &format!("body, {bytes}"), &message.body);
    text.push('\n');
    text
}

/// The facts about why the letter was dead-lettered.
fn told(letter: &Letter, message: &Message) -> Vec<(String, String)> {
    let by = letter.by.map(|by| match by {
        DeadBy::Tidegate => "tidegate".to_owned(),
        DeadBy::Broker => "the broker".to_owned(),
    });
    let came = match message.exchange.as_str() {
        "" => message.routing_key.clone(),
        exchange => format!("{} by way of {exchange}", message.routing_key),
    };
    let all = [
        ("id", letter.id.clone()),
        ("died", letter.time.map(time)),
        ("first failed", letter.first_failed_at.map(time)),
        ("attempts", letter.attempts.map(|count| count.to_string())),
        ("reason", letter.reason.clone()),
        ("by", by),
        ("error", letter.error.clone()),
        ("failure", letter.failure.clone()),
        ("exit code", letter.exit_code.map(|code| code.to_string())),
        ("signal", letter.signal.map(|signal| signal.to_string())),
        ("routing key", Some(came)),
    ];
    let there = all.into_iter();
    there
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

fn section(text: &mut String, title: &str, of: &[(String, String)]) -> fmt::Result {
    if of.is_empty() {
        return Ok(());
    }
    writeln!(text, "{DIM}{title}:{DIM:#}")?;
    entries(text, "  ", of)
}

fn entries(text: &mut String, indent: &str, of: &[(String, String)]) -> fmt::Result {
    let names: Vec<String> = of
        .iter()
        .map(|(name, _)| Escaped(name).to_string())
        .collect();
    let width = names.iter().map(|name| name.chars().count()).max();
    let width = width.unwrap_or(0);
    for (name, (_, value)) in names.iter().zip(of) {
        writeln!(text, "{indent}{name:width$}  {}", Escaped(value))?;
    }
    Ok(())
}

/// Untrusted bytes, line by line. Bytes that are not text and terminal control characters are escaped.
fn block(text: &mut String, title: &str, bytes: &[u8]) -> fmt::Result {
    writeln!(text, "{DIM}{title}:{DIM:#}")?;
    let mut shown = String::new();
    for chunk in bytes.utf8_chunks() {
        shown.push_str(chunk.valid());
        for byte in chunk.invalid() {
            write!(shown, "\\x{byte:02x}")?;
        }
    }
    for line in shown.lines() {
        writeln!(text, "  {}", Escaped(line))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use tidegate::queue::{HeaderValue, Headers};

    fn message() -> Message {
        let headers = [
            ("tenant", HeaderValue::from("acme")),
            ("picture", HeaderValue::Binary(Bytes::from_static(b"\xff"))),
            ("x-tidegate-reason", "attempts".into()),
            ("x-tidegate-attempts", HeaderValue::I64(5)),
            ("x-tidegate-failed-at", "2026-01-02T03:04:05Z".into()),
            ("x-tidegate-error", "exit code 3".into()),
            ("x-tidegate-exit-code", HeaderValue::I64(3)),
            ("x-tidegate-stderr", "Traceback\n  line 4\n".into()),
        ];
        let headers: Headers = headers
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        Message {
            routing_key: "work.dead".to_owned(),
            properties: Properties {
                message_id: Some("order-17".to_owned()),
                content_type: Some("text/\u{1b}[31mplain".to_owned()),
                delivery_mode: Some(2),
                ..Properties::default()
            },
            headers,
            body: Bytes::from_static(b"first\nsecond \x1b[2J \xff\xfe"),
            ..Message::default()
        }
    }

    #[test]
    fn shows_all_of_a_letter_and_escapes_what_controls_a_terminal() {
        let message = message();
        let text = text(&Letter::of(&message), &message);
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }

    #[test]
    fn json_has_all_of_a_letter_without_loss() {
        let mut message = message();
        let whole = |message: &Message| {
            let letter = Letter::of(message);
            serde_json::to_value(Whole::new(&letter, message)).unwrap()
        };
        let of_bytes = whole(&message);
        assert_eq!(of_bytes["id"], "order-17");
        assert_eq!(of_bytes["exit_code"], 3);
        assert_eq!(of_bytes["stderr"], "Traceback\n  line 4\n");
        assert_eq!(of_bytes["properties"]["delivery_mode"], 2);
        assert_eq!(of_bytes["headers"]["tenant"], "acme");
        assert_eq!(of_bytes["headers"]["picture"]["base64"], "/w==");
        let body = of_bytes["body"]["base64"].as_str().unwrap();
        assert_eq!(BASE64_STANDARD.decode(body).unwrap(), message.body);
        message.body = Bytes::from_static(b"{\"a\": 1}");
        assert_eq!(whole(&message)["body"], "{\"a\": 1}");
    }
}
