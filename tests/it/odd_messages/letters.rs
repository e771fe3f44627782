//! `tidegate dead` on a queue with odd letters among others.

use std::path::Path;

use lapin::options::QueuePurgeOptions;
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::support::{broker::unique_queue, daemon::tidegate};

fn run(dir: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = tidegate(dir).arg("dead").args(args).output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_letters_are_listed_put_back_and_deleted_with_the_others() {
    let queue = unique_queue("odd-letters");
    let (live, dead) = (
        queue.name().as_str().to_owned(),
        format!("{}.dead", queue.name()),
    );
    let connection = Connection::connect(&broker_url(), ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    for name in [&live, &dead] {
        channel
            .queue_declare(name.as_str().into(), options, FieldTable::default())
            .await
            .unwrap();
    }
    let dir = TempDir::new().unwrap();
    let text = format!(
        "broker.url = {:?}\n[pools.p]\nqueue = \"{live}\"\n[pools.p.runner]\ncommand = [\"/bin/cat\"]\n",
        broker_url(),
    );
    std::fs::write(dir.path().join("tidegate.toml"), text).unwrap();
    let mut raw = Raw::connect(&broker_url());
    let letters = [
        List::default().message_id(b"good-1"),
        List::default().message_id(b"bin\xff\xfe"),
        List::default()
            .message_id(b"name")
            .text_header(b"\xc3(", b"v"),
        List::default()
            .message_id(b"reason")
            .text_header(b"x-tidegate-reason", b"\xff"),
        List::default()
            .message_id(b"deep")
            .header(b"k", &nested(5_000, b'A')),
        List::default()
            .message_id(b"deaths")
            .header(b"x-death", &nested(1_000, b'F')),
        List::default().message_id(b"good-2"),
    ];
    let bury = |raw: &mut Raw| {
        for letter in &letters {
            raw.publish(b"", dead.as_bytes(), &letter.clone().bytes(), b"body");
        }
    };
    bury(&mut raw);
    let (code, out, err) = run(dir.path(), &["list", "p", "--format", "json"]);
    assert_eq!(code, Some(0), "{err}");
    let listed: Value = serde_json::from_str(&out).unwrap();
    let ids: Vec<&str> = listed
        .as_array()
        .unwrap_or_else(|| panic!("{out}"))
        .iter()
        .map(|letter| letter["id"].as_str().unwrap())
        .collect();
    let all = [
        "good-1",
        r"bin\xff\xfe",
        "name",
        "reason",
        "deep",
        "deaths",
        "good-2",
    ];
    assert_eq!(ids, all);
    let (code, out, err) = run(dir.path(), &["list", "p"]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out.lines().count(), 1 + all.len(), "{out}");

    // By the displayed name.
    let (code, out, err) = run(dir.path(), &["retry", "p", r"bin\xff\xfe"]);
    assert_eq!(code, Some(0), "{out}{err}");
    let back = raw.take(live.as_bytes()).expect("it is back");
    assert!(
        back.list
            .windows(6)
            .any(|bytes| bytes == b"\x05bin\xff\xfe")
    );
    let (code, out, err) = run(dir.path(), &["retry", "p"]);
    assert_eq!(code, Some(0), "{out}{err}");
    let mut put_back = 0;
    while let Some(message) = raw.take(live.as_bytes()) {
        assert_eq!(message.body, b"body");
        put_back += 1;
    }
    assert_eq!(put_back, all.len() - 1);
    assert!(raw.take(dead.as_bytes()).is_none());

    bury(&mut raw);
    let (code, out, err) = run(dir.path(), &["purge", "p", "--yes"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(raw.take(dead.as_bytes()).is_none());
    channel
        .queue_purge(dead.as_str().into(), QueuePurgeOptions::default())
        .await
        .unwrap();
}
