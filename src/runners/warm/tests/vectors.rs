//! Compares the protocol's vectors (`shims/vectors`), which the packages for other languages are tested with, with what this
//! side writes and reads. The recorded messages in `examples/messages` are vectors too. Only tests.

use std::{collections::BTreeSet, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};

use super::super::protocol::{self, RunnerAnswer, RunnerMessage, job_line, stop_line};
use crate::{
    decide::JobId,
    queue::{HeaderValue, Headers, Message, Properties},
    runner::{Job, Reply},
};

const FILES: [&str; 5] = [
    include_str!("../../../../shims/vectors/version-1.jsonl"),
    include_str!("../../../../shims/vectors/version-2.jsonl"),
    // Recorded messages of other programs.
    include_str!("../../../../examples/messages/celery.jsonl"),
    include_str!("../../../../examples/messages/symfony.jsonl"),
    include_str!("../../../../examples/messages/laravel.jsonl"),
];

/// All vectors.
fn vectors() -> Vec<Value> {
    let lines = FILES.iter().flat_map(|file| file.lines());
    let vectors: Vec<_> = lines
        .map(|line| serde_json::from_str(line).expect("a vector is JSON"))
        .collect();
    assert!(vectors.len() > 30, "{}", vectors.len());
    vectors
}

fn steps(vector: &Value) -> &[Value] {
    vector["steps"].as_array().expect("a vector has steps")
}

/// The lines that the supervisor writes, and whether they are of a later version.
fn sent(vector: &Value) -> Vec<(String, bool)> {
    let mut lines = Vec::new();
    for step in steps(vector) {
        let mut text = step["send"].as_str().unwrap_or_default().to_owned();
        if let Some([unit, times]) = step["fill"].as_array().map(Vec::as_slice) {
            let times = usize::try_from(times.as_u64().unwrap()).unwrap();
            text = text.replace("{fill}", &unit.as_str().unwrap().repeat(times));
        }
        let is_later = step["later"] == true;
        lines.extend(text.lines().map(|line| (line.to_owned(), is_later)));
    }
    lines
}

/// The lines that the program writes.
fn expected(vector: &Value) -> Vec<&Value> {
    let lists = steps(vector)
        .iter()
        .filter_map(|step| step["expect"].as_array());
    lists.flatten().collect()
}

fn header(value: &Value) -> HeaderValue {
    match value {
        Value::Null => HeaderValue::Void,
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => match number.as_i64() {
            Some(number) => number.into(),
            None => HeaderValue::F64(number.as_f64().unwrap()),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(values) => HeaderValue::List(values.iter().map(header).collect()),
        Value::Object(entries) => match entries.get("base64") {
            Some(text) => HeaderValue::Binary(base64(text).into()),
            None => HeaderValue::Table(headers(entries)),
        },
    }
}

fn headers(entries: &Map<String, Value>) -> Headers {
    let entries = entries.iter();
    entries
        .map(|(name, value)| (name.clone(), header(value)))
        .collect()
}

fn base64(text: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(text.as_str().unwrap()).unwrap()
}

/// The job that a line describes.
fn job(line: &Value) -> Job {
    let text = |key: &str| line[key].as_str().map(str::to_owned);
    let required = |key: &str| text(key).unwrap_or_else(|| panic!("no {key}: {line}"));
    let message = Message {
        exchange: required("exchange"),
        routing_key: required("routing_key"),
        redelivered: line["redelivered"].as_bool().unwrap(),
        properties: Properties {
            content_type: text("content_type"),
            content_encoding: text("content_encoding"),
            priority: line["priority"]
                .as_u64()
                .map(|number| number.try_into().unwrap()),
            correlation_id: text("correlation_id"),
            reply_to: text("reply_to"),
            message_id: text("message_id"),
            timestamp: line["timestamp"].as_u64(),
            kind: text("type"),
            app_id: text("app_id"),
            ..Properties::default()
        },
        headers: headers(line["headers"].as_object().unwrap()),
        body: match text("body") {
            Some(text) => text.into(),
            None => base64(&line["body_base64"]).into(),
        },
    };
    Job::new(
        required("pool").as_str().into(),
        required("queue").as_str().into(),
        Arc::new(message),
        line["attempt"].as_u64().unwrap().try_into().unwrap(),
        || JobId::from(required("id").as_str()),
    )
}

fn slot(line: &Value) -> Option<u32> {
    line["slot"].as_u64().map(|slot| slot.try_into().unwrap())
}

fn id(line: &Value) -> String {
    line["id"].as_str().unwrap().to_owned()
}

#[test]
fn each_line_of_a_vector_is_what_the_supervisor_writes() {
    let mut stops = 0;
    for vector in vectors() {
        for (text, is_later) in sent(&vector) {
            let line: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(
                slot(&line).is_some(),
                vector["protocol"] == 2,
                "{}",
                vector["case"]
            );
            let written = if line["stop"] == true {
                stops += 1;
                stop_line(&JobId::from(id(&line).as_str()), slot(&line).unwrap())
            } else {
                job_line(&job(&line), slot(&line))
            };
            let written = String::from_utf8(written).expect("text");
            // A line of a later version has all keys of this one, and more.
            let is_same = match is_later {
                false => written == format!("{text}\n"),
                true => {
                    let (later, now) = (line, serde_json::from_str::<Value>(&written).unwrap());
                    let mut keys = now.as_object().unwrap().iter();
                    keys.all(|(key, value)| later[key] == *value) && later != now
                }
            };
            assert!(is_same, "{}: {text} is not {written}", vector["case"]);
        }
    }
    assert!(stops > 3, "{stops}");
}

/// `{"contains": "..."}` is for an error whose text depends on the language.
fn error(line: &Value) -> Option<String> {
    let error = line["error"]["contains"].as_str();
    error.or(line["error"].as_str()).map(str::to_owned)
}

fn reply(line: &Value) -> Option<Reply> {
    if line.get("reply_base64").is_some() {
        let reply = Reply::new(base64(&line["reply_base64"]));
        return Some(reply.content_type("application/octet-stream"));
    }
    Some(match line.get("reply")? {
        Value::String(text) => Reply::new(text.clone()).content_type("text/plain; charset=utf-8"),
        json => Reply::new(json.to_string()).content_type("application/json"),
    })
}

/// What a line of a vector means.
fn meaning(line: &Value) -> RunnerMessage {
    if line["ready"] == true {
        return RunnerMessage::Ready {
            protocol: line["protocol"].as_u64().unwrap(),
            concurrency: line["concurrency"]
                .as_u64()
                .map(|count| count.try_into().unwrap()),
        };
    }
    let (id, slot) = (id(line), slot(line));
    let answer = match line["outcome"].as_str() {
        None => {
            let progress = line["progress"].clone();
            return RunnerMessage::Progress { id, slot, progress };
        }
        Some("done") => RunnerAnswer::Done { reply: reply(line) },
        Some("retry") => RunnerAnswer::Retry {
            after: line["delay"]
                .as_f64()
                .map(std::time::Duration::from_secs_f64),
        },
        Some("reject") => RunnerAnswer::Reject { error: error(line) },
        Some("failed") => RunnerAnswer::Failed { error: error(line) },
        Some(other) => panic!("{other} is not an outcome"),
    };
    RunnerMessage::RunnerAnswer {
        id,
        slot,
        answer,
        last: line["last"] == true,
    }
}

#[test]
fn each_expected_line_of_a_vector_is_read_as_it_is_meant() {
    for vector in vectors() {
        for line in expected(&vector) {
            let mut written = line.clone();
            if let Some(error) = error(line) {
                written["error"] = error.into();
            }
            let read = protocol::parse(written.to_string().as_bytes());
            assert_eq!(read, Ok(meaning(line)), "{}", vector["case"]);
        }
    }
}

#[test]
fn in_each_vector_the_program_is_ready_first_and_answers_each_job_once() {
    for vector in vectors() {
        let case = &vector["case"];
        let lines = expected(&vector);
        assert_eq!(lines[0]["ready"], true, "{case}");
        assert_eq!(lines[0]["protocol"], vector["protocol"], "{case}");
        let concurrency = vector["concurrency"].as_u64().unwrap();
        let mut jobs = Vec::new();
        for (text, _) in sent(&vector) {
            let line: Value = serde_json::from_str(&text).unwrap();
            assert!(
                u64::from(slot(&line).unwrap_or(0)) < concurrency,
                "{case}: {text}"
            );
            if line["stop"] != true {
                jobs.push((id(&line), slot(&line)));
            }
        }
        let answers = lines.iter().filter(|line| line.get("outcome").is_some());
        let mut answered: Vec<_> = answers.map(|line| (id(line), slot(line))).collect();
        jobs.sort();
        answered.sort();
        assert_eq!(jobs, answered, "{case}");
    }
}

#[test]
fn the_vectors_cover_every_key_of_a_job_and_every_kind_of_answer() {
    let (mut keys, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for vector in vectors() {
        for (text, is_later) in sent(&vector) {
            let line: Map<String, Value> = serde_json::from_str(&text).unwrap();
            let present = line
                .into_iter()
                .filter(|(_, value)| !is_later && !value.is_null());
            keys.extend(present.map(|(key, _)| key));
        }
        for line in expected(&vector) {
            kinds.extend(line["outcome"].as_str().map(str::to_owned));
            kinds.extend(line.as_object().unwrap().keys().cloned());
        }
    }
    let job = Job::new("p".into(), "q".into(), Arc::default(), 1, || "j".into());
    let line: Map<String, Value> = serde_json::from_slice(&job_line(&job, Some(0))).unwrap();
    for key in line
        .keys()
        .map(String::as_str)
        .chain(["body_base64", "stop"])
    {
        assert!(keys.contains(key), "no vector has {key}");
    }
    for kind in [
        "concurrency",
        "delay",
        "done",
        "error",
        "failed",
        "last",
        "progress",
        "reject",
        "reply",
        "reply_base64",
        "retry",
    ] {
        assert!(kinds.contains(kind), "no vector has {kind}");
    }
}
