//! The environment and the directory that a job starts in.

use std::{collections::BTreeMap, fs};

use tidegate::{
    config::ExecSettings,
    queue::{HeaderValue, Headers, Message, Properties},
    runner::{JobControl, JobEnd},
};

use super::{MIB, file, run, script};
use crate::support::witness::Witness;

/// The whole environment of a job, as its process sees it.
async fn environment(
    message: Message,
    adjust: impl FnOnce(&mut ExecSettings),
) -> BTreeMap<String, String> {
    let mut witness = Witness::new();
    let mut settings = script(&witness, "cat /proc/$$/environ >\"$FOLDER/environ\"");
    adjust(&mut settings);
    let end = run(settings, message, JobControl::default()).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    witness.gone().await;
    let environ = fs::read_to_string(witness.folder().join("environ")).expect("an environment");
    environ
        .split_terminator('\0')
        .map(|entry| entry.split_once('=').expect("name=value"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[tokio::test]
async fn clears_the_environment_except_for_the_listed_variables() {
    let ours = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for tests");
    let seen = environment(Message::default(), |settings| {
        settings.env.insert("LISTED".to_owned(), "a\nb".to_owned());
    });
    let seen = seen.await;
    assert_eq!(seen["LISTED"], "a\nb");
    assert_eq!(seen["PATH"], std::env::var("PATH").expect("a PATH"));
    let known = |name: &str| {
        ["PATH", "HOME", "LANG", "TZ", "FOLDER", "LISTED"].contains(&name)
            || name.starts_with("TIDEGATE_")
    };
    let unknown: Vec<_> = seen.keys().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");

    let seen = environment(Message::default(), |settings| {
        settings.env_pass.push("CARGO_MANIFEST_DIR".to_owned());
    });
    assert_eq!(seen.await["CARGO_MANIFEST_DIR"], ours);
}

#[tokio::test]
async fn the_job_gets_the_data_of_its_message() {
    let message = Message {
        exchange: "orders".into(),
        routing_key: "key".into(),
        properties: Properties {
            message_id: Some("m-1".into()),
            content_type: Some("application/json".into()),
            correlation_id: Some("c-1".into()),
            kind: Some("resize".into()),
            priority: Some(4),
            ..Properties::default()
        },
        headers: Headers::from([
            ("newline".into(), "a\nb".into()),
            ("nul".into(), "a\0b".into()),
            ("bytes".into(), HeaderValue::Text(b"\xff".as_slice().into())),
        ]),
        ..Message::default()
    };
    let seen = environment(message, |_| {}).await;
    let mut told: BTreeMap<_, _> = seen
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("TIDEGATE_")?, value.as_str())))
        .collect();
    let run = told.remove("RUN_ID").expect("a run has an id");
    assert!(
        run.starts_with(&format!("{}-", std::process::id())),
        "{run}"
    );
    let expected = BTreeMap::from([
        ("POOL", "pool"),
        ("QUEUE", "queue"),
        ("JOB_ID", "m-1"),
        ("ATTEMPT", "1"),
        ("REDELIVERED", "false"),
        ("EXCHANGE", "orders"),
        ("ROUTING_KEY", "key"),
        ("TYPE", "resize"),
        ("APP_ID", ""),
        ("MESSAGE_ID", "m-1"),
        ("CORRELATION_ID", "c-1"),
        ("REPLY_TO", ""),
        ("PRIORITY", "4"),
        ("TIMESTAMP", ""),
        ("CONTENT_TYPE", "application/json"),
        ("CONTENT_ENCODING", ""),
        (
            "HEADERS",
            r#"{"bytes":{"base64":"/w=="},"newline":"a\nb","nul":"a\u0000b"}"#,
        ),
    ]);
    assert_eq!(told, expected);
}

#[tokio::test]
async fn survives_hostile_values() {
    let message = Message {
        routing_key: "nul\0newline\n=".into(),
        properties: Properties {
            message_id: Some("\0".repeat(255)),
            correlation_id: Some("x".repeat(200 * 1024)),
            ..Properties::default()
        },
        headers: Headers::from([("h".into(), "{\"k\":1},".repeat(130 * 1024 / 8).into())]),
        ..Message::default()
    };
    let seen = environment(message, |_| {}).await;
    assert_eq!(seen["TIDEGATE_ROUTING_KEY"], "nul\u{fffd}newline\n=");
    assert_eq!(seen["TIDEGATE_JOB_ID"], "\u{fffd}".repeat(255));
    assert!(!seen.contains_key("TIDEGATE_CORRELATION_ID"));
    assert!(!seen.contains_key("TIDEGATE_HEADERS"));
    assert_eq!(seen["TIDEGATE_TRUNCATED"], "1");
}

#[tokio::test]
async fn omits_the_headers_if_the_system_has_no_room_for_them() {
    use rustix::process::{Resource, getrlimit};
    // Linux's rule: a quarter of the stack limit, and at most 6 MiB.
    let stack = getrlimit(Resource::Stack).current.unwrap_or(u64::MAX);
    let limit = usize::try_from((stack / 4).min(6 * MIB as u64)).expect("it fits");
    let message = Message {
        headers: Headers::from([("h".into(), "x".repeat(60 * 1024).into())]),
        ..Message::default()
    };
    let seen = environment(message, |settings| {
        let mut left = limit - 40 * 1024;
        for number in 0.. {
            let size = left.min(100 * 1024);
            settings
                .env
                .insert(format!("FILL_{number}"), "x".repeat(size));
            left -= size;
            if left == 0 {
                break;
            }
        }
    });
    let seen = seen.await;
    assert!(!seen.contains_key("TIDEGATE_HEADERS"));
    assert_eq!(seen["TIDEGATE_TRUNCATED"], "1");
    assert_eq!(seen["TIDEGATE_ATTEMPT"], "1");
}

#[tokio::test]
async fn starts_in_its_working_directory_under_its_own_name() {
    let mut witness = Witness::new();
    let inside = witness.folder().join("inside");
    fs::create_dir(&inside).expect("a folder");
    let text = "pwd >place; tr '\\0' '\\n' </proc/$$/cmdline | head -n 1 >name";
    let mut settings = script(&witness, text);
    settings.working_dir = Some(inside.clone());
    let end = run(settings.clone(), Message::default(), JobControl::default()).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    witness.gone().await;
    let read = |name: &str| fs::read_to_string(inside.join(name)).expect("a file");
    let place = inside.canonicalize().expect("a path");
    assert_eq!(read("place"), format!("{}\n", place.display()));
    // The name is not replaced by the path that was found: programs such as busybox depend on it.
    assert_eq!(read("name"), "sh\n");

    // A command with a relative path is found from there too.
    file(&inside.join("here"), 0o755, "#!/bin/sh\nexit 0\n");
    settings.command = vec!["./here".into()];
    let end = run(settings, Message::default(), JobControl::default()).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
}
