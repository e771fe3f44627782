//! `tidegate check --broker` on a broker with the management API.

use std::time::Duration;

use lapin::{
    Connection, ConnectionProperties,
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use tempfile::TempDir;

use crate::support::{
    broker::PrivateBroker,
    daemon::tidegate,
    watched::{number, text},
};

/// The output of `check --broker` for these pools, and its exit code.
fn check(broker: &PrivateBroker, management: &str, pools: &[&str]) -> (String, Option<i32>) {
    let folder = TempDir::new().unwrap();
    let mut text = format!("[broker]\nurl = {:?}\n{management}\n", broker.url());
    for pool in pools {
        text.push_str(&format!("[pools.{pool}.runner]\ncommand = [\"true\"]\n"));
    }
    std::fs::write(folder.path().join("tidegate.toml"), text).unwrap();
    let output = tidegate(folder.path())
        .args(["check", "--broker"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (text, output.status.code())
}

async fn declare(broker: &PrivateBroker) {
    let connection = Connection::connect(&broker.url(), ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    for (name, arguments) in [
        ("plain", vec![]),
        (
            "plain.dead",
            vec![
                ("x-max-length", number(10)),
                ("x-overflow", text("drop-head")),
            ],
        ),
        (
            "hasty.dead",
            vec![
                ("x-queue-type", text("quorum")),
                ("x-message-ttl", number(60_000)),
            ],
        ),
        ("hasty", vec![("x-consumer-timeout", number(60_000))]),
        (
            "single",
            vec![
                ("x-single-active-consumer", AMQPValue::Boolean(true)),
                ("x-expires", number(600_000)),
            ],
        ),
        ("stream", vec![("x-queue-type", text("stream"))]),
    ] {
        let mut table = FieldTable::default();
        for (key, value) in arguments {
            table.insert(key.into(), value);
        }
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(name.into(), options, table)
            .await
            .unwrap();
    }
    connection.close(200, "OK".into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_management_api_shows_what_amqp_does_not() {
    let broker = tokio::task::spawn_blocking(PrivateBroker::start_managed)
        .await
        .unwrap();
    declare(&broker).await;
    let management = format!("management_url = {:?}", broker.management_url());

    let loses = |pool: &str, how: &str| {
        format!(
            "warning: pool {pool}: queue {pool}.dead is used for dead letters as it is, and loses some: it drops {how}"
        )
    };
    let loses_plain = loses(
        "plain",
        "its oldest message for a new one beyond 10 messages (x-max-length)",
    );
    let loses_hasty = loses("hasty", "each message after 60000 ms (x-message-ttl)");

    // The API starts a little later than AMQP, and learns about a queue a little later still.
    let time_limit = tokio::time::Instant::now() + Duration::from_secs(60);
    let text = loop {
        let (text, code) = check(&broker, &management, &["plain"]);
        if code == Some(0)
            && text.contains("queue plain is of type classic")
            && text.contains(&loses_plain)
        {
            break text;
        }
        assert!(tokio::time::Instant::now() < time_limit, "{text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(text.contains("may configure \".*\""), "{text}");
    assert!(
        text.contains("not seen: the node's consumer timeout"),
        "{text}"
    );
    assert!(!text.contains("broker.management_url"), "{text}");

    let (text, code) = check(&broker, &management, &["plain", "hasty", "single"]);
    assert_eq!(code, Some(78), "{text}");
    assert!(text.contains(&loses_hasty), "{text}");
    for line in [
        "error: pool hasty: queue hasty has a consumer timeout of 1m by its argument x-consumer-timeout, below the \
         pool's ack_deadline of 30m",
        "warning: pool single: queue single has a single active consumer",
        "warning: pool single: queue single expires",
    ] {
        assert!(text.contains(line), "{line}:\n{text}");
    }

    // A user that may not ask, and an API that does not exist.
    let refused = management.replace("127.0.0.1", "guest:wr0ng@127.0.0.1");
    let (text, code) = check(&broker, &refused, &["plain"]);
    assert_eq!(code, Some(78), "{text}");
    assert!(text.contains("log in"), "{text}");
    assert!(!text.contains("wr0ng"), "{text}");
    let nowhere = "management_url = \"http://127.0.0.1:9\"";
    let (text, code) = check(&broker, nowhere, &["plain"]);
    assert_eq!(code, Some(78), "{text}");
    assert!(text.contains("failed to ask the management API"), "{text}");

    // A pool cannot work on a stream. The check sees that through AMQP and through the API.
    for management in [management.as_str(), ""] {
        let (text, code) = check(&broker, management, &["plain", "stream"]);
        assert_eq!(code, Some(78), "{text}");
        let line = "error: pool stream: queue stream is a stream";
        assert!(text.contains(line), "{text}");
    }
    let (text, code) = check(&broker, "", &["plain", "single"]);
    assert_eq!(code, Some(0), "{text}");
    let line = "warning: pool single: queue single has a single active consumer";
    assert!(text.contains(line), "{text}");

    let (text, code) = check(&broker, "", &["plain", "hasty"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains(&loses_plain) && text.contains(&loses_hasty),
        "{text}"
    );
    assert!(text.contains("Write broker.management_url"), "{text}");
}
