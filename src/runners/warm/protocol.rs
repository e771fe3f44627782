//! The lines of the protocol, in both directions. Pure. `docs/warm-protocol.md` is its specification.

use std::{
    borrow::Cow,
    fmt,
    io::{self, Write},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, de::Visitor};
use serde_json::{Value, ser::Formatter, value::RawValue};

use crate::{
    decide::JobId,
    runner::{Job, Reply},
    runners::process::{Escaped, headers_to_json, is_whole_in_json},
    settle::lacks_headers,
};
use tidegate_core::text::{counted, first_bytes};

/// The version of the protocol for processes that have one job at a time.
pub(super) const ONE_AT_A_TIME: u64 = 1;

/// The version of the protocol for processes that have several jobs at a time, each in a slot.
pub(super) const WITH_SLOTS: u64 = 2;

/// Bytes of a stray line that are shown.
const SHOWN: usize = 200;

/// Bytes of an answer's `error` that are kept. The error is sent in message headers.
const ERROR_CAP: usize = 2 * 1024;

/// A message of a runner.
#[derive(Debug, PartialEq)]
pub(super) enum RunnerMessage {
    /// It can take a job, and uses this version of the protocol.
    Ready {
        protocol: u64,
        /// How many jobs it takes at a time, if it says so.
        concurrency: Option<u32>,
    },
    /// It still works on this job.
    Progress {
        id: String,
        /// The job's slot. Absent in version 1.
        slot: Option<u32>,
        progress: Value,
    },
    /// The result of this job, and whether the runner asks to end now.
    RunnerAnswer {
        id: String,
        /// The job's slot. Absent in version 1.
        slot: Option<u32>,
        answer: RunnerAnswer,
        last: bool,
    },
}

/// The result of a job.
#[derive(Debug, PartialEq)]
pub(super) enum RunnerAnswer {
    Done { reply: Option<Reply> },
    Retry { after: Option<Duration> },
    Reject { error: Option<String> },
    Failed { error: Option<String> },
}

/// The job as a line, with its newline. `slot` is given in version 2.
pub(super) fn job_line(job: &Job, slot: Option<u32>) -> Vec<u8> {
    #[derive(Serialize)]
    struct JobLine<'a> {
        id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        slot: Option<u32>,
        attempt: u32,
        pool: &'a str,
        queue: &'a str,
        redelivered: bool,
        exchange: Cow<'a, str>,
        routing_key: Cow<'a, str>,
        r#type: Option<&'a str>,
        app_id: Option<&'a str>,
        message_id: Option<&'a str>,
        correlation_id: Option<&'a str>,
        reply_to: Option<&'a str>,
        priority: Option<u8>,
        timestamp: Option<u64>,
        content_type: Option<&'a str>,
        content_encoding: Option<&'a str>,
        traceparent: Option<&'a str>,
        tracestate: Option<&'a str>,
        headers: Value,
        truncated: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        body: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        body_base64: Option<String>,
    }
    let message = job.message();
    let properties = job.properties();
    let text = std::str::from_utf8(job.body()).ok();
    let line = JobLine {
        id: job.id().as_str(),
        slot,
        attempt: job.attempt(),
        pool: job.pool().as_str(),
        queue: job.queue().as_str(),
        redelivered: message.redelivered,
        exchange: job.exchange(),
        routing_key: job.routing_key(),
        r#type: properties.kind.as_deref(),
        app_id: properties.app_id.as_deref(),
        message_id: properties.message_id.as_deref(),
        correlation_id: properties.correlation_id.as_deref(),
        reply_to: properties.reply_to.as_deref(),
        priority: properties.priority,
        timestamp: properties.timestamp,
        content_type: properties.content_type.as_deref(),
        content_encoding: properties.content_encoding.as_deref(),
        traceparent: job.traceparent(),
        tracestate: job.tracestate(),
        headers: headers_to_json(job.headers()),
        truncated: lacks_headers(message) || !is_whole_in_json(job.headers()),
        body: text,
        body_base64: match text {
            Some(_) => None,
            None => Some(BASE64_STANDARD.encode(job.body())),
        },
    };
    one_line(&line, job.body().len() + 512)
}

/// Tells a process to stop the job in this slot. Version 2.
pub(super) fn stop_line(id: &JobId, slot: u32) -> Vec<u8> {
    #[derive(Serialize)]
    struct StopLine<'a> {
        id: &'a str,
        slot: u32,
        stop: bool,
    }
    let line = StopLine {
        id: id.as_str(),
        slot,
        stop: true,
    };
    one_line(&line, 128)
}

/// `line` as JSON, with a newline. `room` is about its length, in bytes.
fn one_line(line: &impl Serialize, room: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(room);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, OneLine);
    line.serialize(&mut serializer)
        .expect("text and numbers can always be written as JSON into memory");
    bytes.push(b'\n');
    bytes
}

/// Writes JSON without the characters that some languages, such as JavaScript, take for the end of a line.
struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['\u{85}', '\u{2028}', '\u{2029}']) {
            let (before, from) = rest.split_at(at);
            let mut after = from.chars();
            let ending = after.next().map_or(0, u32::from);
            write!(writer, "{before}\\u{ending:04x}")?;
            rest = after.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Reads a line of a runner. The error describes the problem and shows the line.
pub(super) fn parse(line: &[u8]) -> Result<RunnerMessage, String> {
    // Unknown keys belong to a later version, or to the runner itself.
    #[derive(Deserialize)]
    struct AnswerLine<'a> {
        ready: Option<bool>,
        protocol: Option<u64>,
        concurrency: Option<u32>,
        slot: Option<u32>,
        id: Option<String>,
        outcome: Option<String>,
        delay: Option<f64>,
        error: Option<PrintableText>,
        // Kept as text: a parsed tree would need many times its size, and large numbers would lose digits.
        #[serde(borrow)]
        reply: Option<&'a RawValue>,
        reply_base64: Option<String>,
        progress: Option<Value>,
        #[serde(default)]
        last: bool,
    }
    // Only an object: serde would take an array of the right values too.
    if !line.trim_ascii_start().starts_with(b"{") {
        return Err(stray(line));
    }
    let wrong = |what: &str| format!("wrote a line {what}: {}", shown(line));
    let said: AnswerLine<'_> = match serde_json::from_slice(line) {
        Ok(said) => said,
        Err(error) if error.is_data() => {
            return Err(wrong(&format!("with an invalid value ({error})")));
        }
        Err(_) => return Err(stray(line)),
    };
    if said.ready == Some(true) {
        return match said.protocol {
            Some(protocol) => Ok(RunnerMessage::Ready {
                protocol,
                concurrency: said.concurrency,
            }),
            None => Err(wrong("that says ready without its protocol version")),
        };
    }
    let Some(id) = said.id else {
        return Err(stray(line));
    };
    let slot = said.slot;
    let answer = match (said.outcome.as_deref(), said.progress) {
        (None, Some(progress)) => return Ok(RunnerMessage::Progress { id, slot, progress }),
        (None, None) => return Err(wrong("without an outcome")),
        (Some("done"), _) => RunnerAnswer::Done {
            reply: reply(said.reply, said.reply_base64).map_err(wrong)?,
        },
        (Some("retry"), _) => RunnerAnswer::Retry {
            after: match said.delay {
                None => None,
                Some(delay) => Some(
                    Duration::try_from_secs_f64(delay)
                        .map_err(|_| wrong("whose delay is not a valid time"))?,
                ),
            },
        },
        (Some("reject"), _) => RunnerAnswer::Reject {
            error: said.error.map(|PrintableText(error)| cut(error)),
        },
        (Some("failed"), _) => RunnerAnswer::Failed {
            error: said.error.map(|PrintableText(error)| cut(error)),
        },
        (Some(_), _) => {
            return Err(wrong("whose outcome is not done, retry, reject or failed"));
        }
    };
    let last = said.last;
    Ok(RunnerMessage::RunnerAnswer {
        id,
        slot,
        answer,
        last,
    })
}

/// Text for a person. An error may quote any bytes: invalid UTF-8, or half a pair of surrogates. The outcome is valid
/// nevertheless, so these bytes are replaced.
struct PrintableText(String);

impl<'de> Deserialize<'de> for PrintableText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Lossy;
        impl Visitor<'_> for Lossy {
            type Value = PrintableText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<PrintableText, E> {
                Ok(PrintableText(String::from_utf8_lossy(bytes).into_owned()))
            }
        }
        // Read as bytes, because serde_json refuses invalid text.
        deserializer.deserialize_bytes(Lossy)
    }
}

/// The error text for a line that does not belong on standard output.
pub(super) fn stray(line: &[u8]) -> String {
    format!("wrote a stray line to standard output: {}", shown(line))
}

/// A line for a person: in quotes, cut, and with control characters escaped.
fn shown(line: &[u8]) -> String {
    let start = &line[..line.len().min(SHOWN)];
    let text = String::from_utf8_lossy(start);
    let escaped = Escaped(text.trim_end());
    match line.len() - start.len() {
        0 => format!("`{escaped}`"),
        rest => format!("`{escaped}` and {}", counted(rest, "more byte")),
    }
}

/// A reply that is a string is sent as its text. Any other value is sent as JSON.
fn reply(reply: Option<&RawValue>, base64: Option<String>) -> Result<Option<Reply>, &'static str> {
    let (body, content_type): (Bytes, _) = match (reply, base64) {
        (_, Some(text)) => match BASE64_STANDARD.decode(text) {
            Ok(bytes) => (bytes.into(), "application/octet-stream"),
            Err(_) => return Err("whose reply_base64 is not valid base64"),
        },
        (Some(json), None) if json.get().starts_with('"') => {
            match serde_json::from_str::<String>(json.get()) {
                Ok(text) => (text.into(), "text/plain; charset=utf-8"),
                Err(_) => return Err("whose reply is not valid text"),
            }
        }
        (Some(json), None) => (json.get().to_owned().into(), "application/json"),
        (None, None) => return Ok(None),
    };
    Ok(Some(Reply::new(body).content_type(content_type)))
}

fn cut(mut text: String) -> String {
    text.truncate(first_bytes(&text, ERROR_CAP).len());
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::queue::{HeaderValue, Headers, Message, Properties};

    fn line(message: Message) -> String {
        let job = Job::new("p".into(), "q".into(), Arc::new(message), 2, || {
            "made-up".into()
        });
        String::from_utf8(job_line(&job, None)).expect("text")
    }

    #[test]
    fn shows_a_job_in_one_line_that_begins_with_its_id() {
        let mut message = Message {
            body: "of\ntwo lines".into(),
            headers: Headers::from([("h".to_owned(), 1.into())]),
            routing_key: "key".into(),
            redelivered: true,
            properties: Properties {
                message_id: Some("a\"b".into()),
                content_type: Some("text/plain".into()),
                content_encoding: Some("gzip".into()),
                kind: Some("thumbnail".into()),
                app_id: Some("shop".into()),
                reply_to: Some("answers".into()),
                priority: Some(7),
                timestamp: Some(1_764_000_000),
                ..Properties::default()
            },
            ..Message::default()
        };
        message.exchange = "orders".into();
        let told = line(message);
        assert!(told.starts_with(r#"{"id":"a\"b","#), "{told}");
        assert_eq!(told.find('\n'), Some(told.len() - 1));
        let value: Value = serde_json::from_str(&told).expect("JSON");
        let expected = json!({
            "id": "a\"b", "attempt": 2, "pool": "p", "queue": "q", "redelivered": true,
            "exchange": "orders", "routing_key": "key", "type": "thumbnail", "app_id": "shop",
            "message_id": "a\"b", "correlation_id": null, "reply_to": "answers", "priority": 7,
            "timestamp": 1_764_000_000, "content_type": "text/plain", "content_encoding": "gzip",
            "traceparent": null, "tracestate": null, "headers": {"h": 1}, "truncated": false, "body": "of\ntwo lines",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn for_a_copy_it_reports_where_the_message_was_first_published() {
        let told = line(Message {
            routing_key: "q".into(),
            headers: Headers::from([
                ("x-tidegate-original-exchange".to_owned(), "orders".into()),
                ("x-tidegate-original-routing-key".to_owned(), "new".into()),
            ]),
            ..Message::default()
        });
        let value: Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!(value["exchange"], "orders");
        assert_eq!(value["routing_key"], "new");
    }

    #[test]
    fn tells_the_job_if_some_headers_are_missing() {
        let truncated = |name: &str, value: HeaderValue| {
            let told = line(Message {
                headers: Headers::from([(name.to_owned(), value)]),
                ..Message::default()
            });
            let value: Value = serde_json::from_str(&told).expect("JSON");
            value["truncated"].clone()
        };
        let nested = |levels| (0..levels).fold(1.into(), |inner, _| HeaderValue::List(vec![inner]));
        assert_eq!(truncated("deep", nested(15)), false);
        assert_eq!(truncated("deep", nested(16)), true);
        assert_eq!(truncated("x-tidegate-dropped-headers", nested(1)), true);
    }

    /// The specification that runners are written from.
    #[test]
    fn every_key_is_documented() {
        let page = include_str!("../../../docs/warm-protocol.md");
        let value: Value = serde_json::from_str(&line(Message::default())).expect("JSON");
        for key in value.as_object().expect("an object").keys() {
            assert!(page.contains(&format!("`{key}`")), "{key}");
        }
    }

    #[test]
    fn sends_bytes_that_are_not_text_in_base64() {
        let told = line(Message {
            body: b"\xff\n".as_slice().into(),
            ..Message::default()
        });
        assert!(told.contains(r#""body_base64":"/wo=""#) && !told.contains(r#""body":"#));
    }

    #[test]
    fn escapes_characters_that_some_programs_treat_as_line_ends() {
        let body = "\u{85}a\u{2028}\u{2029}\r\u{e9}\u{1f600}\u{85}";
        let told = line(Message {
            body: body.into(),
            ..Message::default()
        });
        let escaped = r#""body":"\u0085a\u2028\u2029\r"#;
        assert!(told.contains(escaped), "{told}");
        assert!(!told.contains(['\u{85}', '\u{2028}', '\u{2029}']));
        let value: Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!(value["body"], body);
    }

    #[test]
    fn keeps_no_more_of_an_error_than_fits_into_headers() {
        let long = "\u{e9}".repeat(2 * ERROR_CAP);
        let answer = json!({"id": "j", "outcome": "failed", "error": long}).to_string();
        let Ok(RunnerMessage::RunnerAnswer {
            answer: RunnerAnswer::Failed { error: Some(error) },
            ..
        }) = parse(answer.as_bytes())
        else {
            panic!("a failure");
        };
        assert_eq!(error, "\u{e9}".repeat(ERROR_CAP / 2));
    }

    #[test]
    fn a_reply_is_text_or_json_or_bytes() {
        for (given, body, content_type) in [
            (
                r#""reply":"text""#,
                &b"text"[..],
                "text/plain; charset=utf-8",
            ),
            (r#""reply":{"a":[1]}"#, br#"{"a":[1]}"#, "application/json"),
            (r#""reply":false"#, b"false", "application/json"),
            (
                r#""reply":{"b":1.0, "a":[123456789012345678901234567890]}"#,
                br#"{"b":1.0, "a":[123456789012345678901234567890]}"#,
                "application/json",
            ),
            (
                r#""reply_base64":"/w==""#,
                b"\xff",
                "application/octet-stream",
            ),
        ] {
            let line = format!(r#"{{"id":"j","outcome":"done",{given}}}"#);
            let Ok(RunnerMessage::RunnerAnswer {
                answer: RunnerAnswer::Done { reply: Some(reply) },
                ..
            }) = parse(line.as_bytes())
            else {
                panic!("an answer: {line}");
            };
            assert_eq!(reply, Reply::new(body).content_type(content_type));
        }
    }

    #[test]
    fn an_error_may_quote_bytes_that_are_not_text() {
        for error in [&br"why \udcff"[..], b"why \xff", br"why \ud83d!"] {
            let start = br#"{"id":"j","outcome":"reject","error":""#;
            let said = parse(&[start, error, br#""}"#].concat());
            let Ok(RunnerMessage::RunnerAnswer {
                answer: RunnerAnswer::Reject { error: Some(error) },
                ..
            }) = said
            else {
                panic!("{said:?}");
            };
            assert!(error.starts_with("why \u{fffd}"), "{error}");
        }
        assert!(parse(br#"{"id":"j","outcome":"reject","error":7}"#).is_err());
    }

    #[test]
    fn accepts_any_progress_and_ignores_unknown_keys() {
        let said = parse(br#"{"id":"j","progress":{"done":1},"colour":"red"}"#);
        let progress = json!({"done": 1});
        let id = "j".to_owned();
        let expected = RunnerMessage::Progress {
            id,
            slot: None,
            progress,
        };
        assert_eq!(said, Ok(expected));
        assert!(parse(br#"{"id":"j","progress":null}"#).is_err());
    }

    #[test]
    fn version_two_names_slots() {
        let job = Job::new("p".into(), "q".into(), Arc::default(), 1, || "j".into());
        let told = String::from_utf8(job_line(&job, Some(7))).expect("text");
        assert!(
            told.starts_with(r#"{"id":"j","slot":7,"attempt":1,"#),
            "{told}"
        );
        let stop = stop_line(job.id(), 7);
        assert_eq!(stop, b"{\"id\":\"j\",\"slot\":7,\"stop\":true}\n");
        let said = parse(br#"{"ready":true,"protocol":2,"concurrency":10}"#);
        let ready = RunnerMessage::Ready {
            protocol: 2,
            concurrency: Some(10),
        };
        assert_eq!(said, Ok(ready));
        let said = parse(br#"{"id":"j","slot":7,"outcome":"failed"}"#);
        assert!(
            matches!(said, Ok(RunnerMessage::RunnerAnswer { slot: Some(7), .. })),
            "{said:?}"
        );
    }

    #[test]
    fn names_an_invalid_value() {
        let problem = parse(br#"{"id":7,"outcome":"done"}"#).expect_err("an error");
        assert!(
            problem.starts_with("wrote a line with an invalid value (invalid type: integer `7`"),
            "{problem}"
        );
        for delay in ["1e300", "-0.5"] {
            let line = format!(r#"{{"id":"j","outcome":"retry","delay":{delay}}}"#);
            let problem = parse(line.as_bytes()).expect_err("an error");
            assert!(problem.contains("not a valid time"), "{problem}");
        }
        let problem = parse(br#"{"id":"j","outcome":"done","reply_base64":"?"}"#);
        assert!(problem.is_err_and(|problem| problem.contains("not valid base64")));
        let problem = parse(br#"{"id":"j","outcome":"done","reply":"\udcff"}"#);
        assert!(problem.is_err_and(|problem| problem.contains("reply is not valid text")));
        let none = parse(br#"{"id":"j","outcome":"done","reply":null}"#);
        assert!(
            matches!(
                none,
                Ok(RunnerMessage::RunnerAnswer {
                    answer: RunnerAnswer::Done { reply: None },
                    ..
                })
            ),
            "{none:?}"
        );
    }
}
