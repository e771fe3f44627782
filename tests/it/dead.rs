//! `tidegate dead` on a real broker, compared with a plain client.

mod over_http;

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    message::BasicGetMessage,
    options::{
        BasicGetOptions, BasicPublishOptions, BasicRejectOptions, ConfirmSelectOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::support::{
    broker::{TestQueue, broker_url, unique_queue},
    daemon::{Daemon, tidegate},
    watched::{number, text},
};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A pool's queue, its dead letters, and a configuration that names them.
struct Rig {
    dir: TempDir,
    queue: TestQueue,
    channel: Channel,
    _connection: Connection,
}

/// The result of a command.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Rig {
    async fn new() -> Self {
        Self::with_dead(&[]).await
    }

    /// The same with these arguments for the queue of the dead letters.
    async fn with_dead(arguments: &[(&str, AMQPValue)]) -> Self {
        let queue = unique_queue("dead");
        let connection = Connection::connect(&broker_url(), ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .unwrap();
        let rig = Self {
            dir: TempDir::new().unwrap(),
            queue,
            channel,
            _connection: connection,
        };
        rig.configure("queue");
        rig.declare(&rig.live(), FieldTable::default()).await;
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        rig.declare(&rig.dead(), table).await;
        rig
    }

    fn configure(&self, dead_letter: &str) {
        let text = format!(
            "broker.url = {:?}\n[pools.p]\nqueue = \"{}\"\nretry.dead_letter = \"{dead_letter}\"\n\
             [pools.p.runner]\ncommand = [\"/bin/cat\"]\n",
            broker_url(),
            self.live()
        );
        std::fs::write(self.dir.path().join("tidegate.toml"), text).unwrap();
    }

    fn live(&self) -> String {
        self.queue.name().as_str().to_owned()
    }

    fn dead(&self) -> String {
        format!("{}.dead", self.live())
    }

    async fn declare(&self, name: &str, arguments: FieldTable) {
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        self.channel
            .queue_declare(name.into(), options, arguments)
            .await
            .unwrap();
    }

    async fn publish(&self, queue: &str, properties: BasicProperties, body: &[u8]) {
        let options = BasicPublishOptions::default();
        self.channel
            .basic_publish("".into(), queue.into(), options, body, properties)
            .await
            .unwrap()
            .await
            .unwrap();
    }

    /// A dead letter as a pool writes it.
    async fn bury(&self, id: &str, reason: &str) {
        let mut headers = FieldTable::default();
        for (name, text) in [
            ("tenant", "acme"),
            ("x-tidegate-reason", reason),
            ("x-tidegate-failed-at", "2026-01-02T03:04:05Z"),
            ("x-tidegate-error", "exit code 3"),
            ("x-tidegate-original-exchange", "orders"),
            ("x-tidegate-original-routing-key", "new"),
            ("x-tidegate-original-expiration", "250"),
        ] {
            headers.insert(name.into(), AMQPValue::LongString(text.into()));
        }
        for (name, number) in [("x-tidegate-attempts", 5), ("x-tidegate-exit-code", 3)] {
            headers.insert(name.into(), AMQPValue::LongLongInt(number));
        }
        let properties = BasicProperties::default()
            .with_message_id(id.into())
            .with_headers(headers);
        self.publish(&self.dead(), properties, b"the secret body")
            .await;
    }

    async fn get(&self, queue: &str) -> Option<BasicGetMessage> {
        let options = BasicGetOptions { no_ack: true };
        self.channel.basic_get(queue.into(), options).await.unwrap()
    }

    /// The ids in a queue, in order. Empties the queue.
    async fn ids(&self, queue: &str) -> Vec<String> {
        let mut ids = Vec::new();
        while let Some(message) = self.get(queue).await {
            let id = message.properties.message_id();
            ids.push(id.as_ref().map_or("-", |id| id.as_str()).to_owned());
        }
        ids
    }

    async fn ready(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let declare = self
            .channel
            .queue_declare(queue.into(), options, FieldTable::default());
        declare.await.unwrap().message_count()
    }

    /// Reads until a queue holds this number of messages. The broker returns what a process held only after it has
    /// noticed the process's end.
    async fn until_ready(&self, queue: &str, wanted: impl Fn(u32) -> bool) {
        let reached = async {
            while !wanted(self.ready(queue).await) {
                tokio::task::yield_now().await;
            }
        };
        timeout(TIMEOUT, reached)
            .await
            .unwrap_or_else(|_| panic!("{queue} never held what it ought to"));
    }

    fn run(&self, args: &[&str]) -> Ran {
        let output = tidegate(self.dir.path())
            .arg("dead")
            .args(args)
            .output()
            .unwrap();
        Ran {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_dead_letters_and_leaves_them_as_they_were() {
    let rig = Rig::new().await;
    for id in ["a", "b", "c"] {
        rig.bury(id, "attempts").await;
    }
    let ran = rig.run(&["list", "p", "--limit", "2"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let dead = rig.dead();
    assert_eq!(
        ran.err,
        format!("2 of 3 dead letters in {dead}, oldest first; 1 more (--limit N, --limit all)\n")
    );
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", ran.out);
    assert!(lines[0].starts_with("ID  DIED "), "{}", ran.out);
    assert!(
        lines[1]
            .starts_with("a   2026-01-02T03:04:05Z         5  attempts  3     15 B  exit code 3")
    );

    let ran = rig.run(&["list", "p", "--format", "json"]);
    assert!(!ran.out.contains("secret"), "{}", ran.out);
    let letters: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
    let ids: Vec<&str> = letters.iter().map(|l| l["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    let first = &letters[0];
    assert_eq!(first["time"], "2026-01-02T03:04:05Z");
    assert_eq!(first["reason"], "attempts");
    assert_eq!(
        (&first["attempts"], &first["exit_code"]),
        (&5.into(), &3.into())
    );
    assert_eq!(
        (&first["size"], &first["signal"]),
        (&15.into(), &Value::Null)
    );

    // No wait is needed here: a command that has ended has given its messages back.
    assert_eq!(rig.ids(&dead).await, ["a", "b", "c"]);
}

/// The broker answers the close of a channel before it has put back what was fetched on it.
async fn letters_are_back_in_the_queue_after_each_browse(kind: &str) {
    let rig = Rig::with_dead(&[("x-queue-type", text(kind))]).await;
    let dead = rig.dead();
    for n in 0..60 {
        rig.bury(&format!("letter {n}"), "attempts").await;
    }
    for limit in ["1", "30", "all"].repeat(3) {
        let ran = rig.run(&["list", "p", "--limit", limit]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(rig.ready(&dead).await, 60, "after a look at {limit}");
    }
    let ran = rig.run(&["retry", "p"]);
    let said = format!("put back 60 dead letters of {dead} into {}", rig.live());
    assert!(ran.err.starts_with(&said), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_a_classic_queue_are_back_when_browsing_has_ended() {
    letters_are_back_in_the_queue_after_each_browse("classic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_a_quorum_queue_are_back_when_browsing_has_ended() {
    letters_are_back_in_the_queue_after_each_browse("quorum").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_queue_that_may_drop_messages_is_a_warning_and_only_once() {
    let limit = [
        ("x-max-length", number(1)),
        ("x-overflow", text("drop-head")),
    ];
    let rig = Rig::with_dead(&limit).await;
    let daemon = Daemon::start(
        &broker_url(),
        &format!(
            "[pools.p]\nqueue = \"{}\"\n[pools.p.runner]\ncommand = [\"sh\", \"-c\", \"exit 65\"]\n",
            rig.live()
        ),
    );
    for _ in 0..3 {
        rig.publish(&rig.live(), BasicProperties::default(), b"bad")
            .await;
    }
    daemon.wait_for_pool("p", |pool| pool["jobs"]["dead"] == 3);
    let loses = |line: &Value| {
        let message = line["message"].as_str().unwrap_or_default();
        message.ends_with("it is used unchanged, and may drop letters")
    };
    let warning = daemon.heard("a warning", loses);
    assert_eq!(warning["level"], "WARN", "{warning}");
    let said = daemon.said();
    assert!(
        said.contains("it drops its oldest message for a new one beyond 1 message (x-max-length)"),
        "{said}"
    );
    assert_eq!(said.matches("and may drop letters").count(), 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shows_how_a_job_ended_that_was_rejected_or_asked_for_its_last_retry() {
    let rig = Rig::new().await;
    let daemon = Daemon::start(
        &broker_url(),
        &format!(
            "[pools.p]\nqueue = \"{}\"\nretry.max_attempts = 1\n[pools.p.runner]\n\
             command = [\"sh\", \"-c\", \"code=$(cat); echo of $code >&2; exit $code\"]\n",
            rig.live()
        ),
    );
    for code in ["65", "75"] {
        let id = BasicProperties::default().with_message_id(code.into());
        rig.publish(&rig.live(), id, code.as_bytes()).await;
    }
    rig.until_ready(&rig.dead(), |ready| ready == 2).await;
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.end().0, Some(0));

    let ran = rig.run(&["list", "p", "--format", "json"]);
    let mut letters: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
    letters.sort_by_key(|letter| letter["id"].to_string());
    let told: Vec<_> = letters
        .iter()
        .map(|letter| {
            let text = |key: &str| letter[key].as_str().unwrap_or("-");
            (
                text("reason"),
                text("error"),
                text("failure"),
                letter["exit_code"].as_i64(),
                text("stderr"),
            )
        })
        .collect();
    let refused = "refused by the job (exit code 65): of 65";
    let later = "asked to be run later at its last attempt";
    let expected = [
        ("rejected", refused, "exit", Some(65), "of 65"),
        ("attempts", later, "exit", Some(75), "of 75"),
    ];
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_one_some_and_all_back_with_no_attempt_spent() {
    let rig = Rig::new().await;
    for id in ["a", "b", "c", "d", "e"] {
        let reason = if id == "b" { "rejected" } else { "attempts" };
        rig.bury(id, reason).await;
    }
    let (live, dead) = (rig.live(), rig.dead());

    let ran = rig.run(&["retry", "p", "c"]);
    let said = format!("put back 1 of 5 dead letters of {dead} into {live}\n");
    assert_eq!(
        (ran.code, ran.err.as_str(), ran.out.as_str()),
        (Some(0), said.as_str(), "")
    );
    let back = rig.get(&live).await.expect("c");
    let (properties, body) = (&back.properties, &back.data);
    assert_eq!(
        properties.message_id().as_ref().map(|id| id.as_str()),
        Some("c")
    );
    assert_eq!(body, b"the secret body");
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert_eq!(*properties.expiration(), None);
    let headers = properties.headers().clone().unwrap();
    let names: Vec<&str> = headers.into_iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "tenant",
        "x-tidegate-original-exchange",
        "x-tidegate-original-expiration",
        "x-tidegate-original-routing-key",
    ];
    assert_eq!(names, expected);

    let ran = rig.run(&["retry", "p", "--reason", "attempts", "--limit", "2"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let some: BTreeSet<_> = rig.ids(&live).await.into_iter().collect();
    assert_eq!(some, BTreeSet::from(["a".to_owned(), "d".to_owned()]));

    let ran = rig.run(&["retry", "p", "--format", "json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (&report["letters"], &report["done"]),
        (&2.into(), &2.into())
    );
    let rest: BTreeSet<_> = rig.ids(&live).await.into_iter().collect();
    assert_eq!(rest, BTreeSet::from(["b".to_owned(), "e".to_owned()]));
    assert_eq!(rig.ready(&dead).await, 0);

    let ran = rig.run(&["retry", "p"]);
    assert_eq!(
        (ran.code, ran.err),
        (Some(0), format!("no dead letters in {dead}\n"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_the_queue_refuses_stays_in_the_dead_letter_queue() {
    let rig = Rig::new().await;
    let (live, dead) = (rig.live(), rig.dead());
    for id in ["a", "b", "c", "d"] {
        rig.bury(id, "attempts").await;
    }
    let options = lapin::options::QueueDeleteOptions::default();
    rig.channel
        .queue_delete(live.as_str().into(), options)
        .await
        .unwrap();
    let ran = rig.run(&["retry", "p"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let said = format!(
        "put back 0 of 4 dead letters of {dead} into {live}\n\
         error: failed to put all of them back\n  publish to \"{live}\": no queue takes it\nhint: "
    );
    assert!(ran.err.starts_with(&said), "{}", ran.err);

    // A full queue.
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(1));
    arguments.insert(
        "x-overflow".into(),
        AMQPValue::LongString("reject-publish".into()),
    );
    rig.declare(&live, arguments).await;
    let ran = rig.run(&["retry", "p"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("the broker refused it"), "{}", ran.err);
    // No message is in both queues, and none is lost.
    let mut all = rig.ids(&live).await;
    assert!(!all.is_empty());
    all.extend(rig.ids(&dead).await);
    all.sort();
    assert_eq!(all, ["a", "b", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_a_retry_or_a_list_is_killed_half_way() {
    const LETTERS: usize = 3000;
    let rig = Rig::new().await;
    let (live, dead) = (rig.live(), rig.dead());
    for n in 0..LETTERS {
        let properties = BasicProperties::default().with_message_id(n.to_string().into());
        let options = BasicPublishOptions::default();
        let confirm = rig
            .channel
            .basic_publish("".into(), dead.as_str().into(), options, b"x", properties)
            .await
            .unwrap();
        if n + 1 == LETTERS {
            confirm.await.unwrap();
        }
    }
    rig.until_ready(&dead, |ready| ready as usize == LETTERS)
        .await;

    let start = |args: &[&str]| {
        tidegate(rig.dir.path())
            .arg("dead")
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    // Killed while it holds letters.
    let mut list = start(&["list", "p", "--limit", "all"]);
    rig.until_ready(&dead, |ready| (ready as usize) < LETTERS)
        .await;
    kill(Pid::from_raw(list.id().cast_signed()), Signal::SIGKILL).unwrap();
    list.wait().unwrap();
    rig.until_ready(&dead, |ready| ready as usize == LETTERS)
        .await;

    let mut retry = start(&["retry", "p"]);
    rig.until_ready(&live, |ready| ready >= 100).await;
    kill(Pid::from_raw(retry.id().cast_signed()), Signal::SIGKILL).unwrap();
    assert!(
        !retry.wait().unwrap().success(),
        "it was over before it was killed"
    );
    let moved = rig.ready(&live).await as usize;
    assert!(moved < LETTERS, "it was over before it was killed");
    rig.until_ready(&dead, |ready| ready as usize + moved >= LETTERS)
        .await;

    let back = rig.ids(&live).await;
    let stay = rig.ids(&dead).await;
    let all: BTreeSet<&String> = back.iter().chain(&stay).collect();
    assert_eq!(all.len(), LETTERS);
    // Only letters that were held can appear twice.
    assert!(
        back.len() + stay.len() - LETTERS <= 32 + 1,
        "{} and {}",
        back.len(),
        stay.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_one_some_and_all() {
    let rig = Rig::new().await;
    let dead = rig.dead();
    for id in ["a", "b", "c", "d"] {
        rig.bury(id, "attempts").await;
    }
    let ran = rig.run(&["purge", "p", "b", "nobody"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let said = format!(
        "deleted 1 of 4 dead letters of {dead}\nerror: failed to find a dead letter with the id nobody in {dead}\n"
    );
    assert!(ran.err.starts_with(&said), "{}", ran.err);
    let ran = rig.run(&["purge", "p", "--limit", "1"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let letters: Vec<Value> =
        serde_json::from_str(&rig.run(&["list", "p", "--format", "json"]).out).unwrap();
    let ids: Vec<&str> = letters.iter().map(|l| l["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["c", "d"]);
    // Without a terminal nothing can be asked.
    let ran = rig.run(&["purge", "p"]);
    let said = format!(
        "error: failed to delete 2 dead letters of {dead} permanently: there is no terminal for a confirmation\nhint: --yes"
    );
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(ran.err.starts_with(&said), "{}", ran.err);
    assert_eq!(rig.ready(&dead).await, 2);
    let ran = rig.run(&["purge", "p", "--yes"]);
    let said = format!("deleted 2 dead letters of {dead}\n");
    assert_eq!((ran.code, ran.err), (Some(0), said));
    assert_eq!(rig.ready(&dead).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn shows_a_whole_letter_and_does_not_change_it() {
    let rig = Rig::new().await;
    for id in ["a", "b", "a"] {
        rig.bury(id, "attempts").await;
    }
    let ran = rig.run(&["show", "p", "b"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    for part in [
        "id           b\n",
        "\n  tenant  ",
        "body, 15 bytes:\n  the secret body\n",
    ] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
    let ran = rig.run(&["show", "p", "a", "nobody", "--format", "json"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("the id nobody in "), "{}", ran.err);
    let letters = serde_json::Deserializer::from_str(&ran.out).into_iter::<Value>();
    let letters: Vec<Value> = letters.map(Result::unwrap).collect();
    assert_eq!(letters.len(), 2, "{}", ran.out);
    for letter in letters {
        assert_eq!(letter["id"], "a");
        assert_eq!(letter["body"], "the secret body");
        assert_eq!(letter["headers"]["x-tidegate-exit-code"], 3);
        assert_eq!(letter["properties"]["message_id"], "a");
    }
    assert_eq!(rig.ids(&rig.dead()).await, ["a", "b", "a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn shows_and_puts_back_the_letters_of_the_broker_and_of_strangers() {
    let rig = Rig::new().await;
    rig.configure("broker");
    let (live, dead) = (rig.live(), rig.dead());
    let ran = rig.run(&["list", "p"]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(ran.err.contains("dead_letter = \"broker\""), "{}", ran.err);
    assert!(
        ran.err.contains("hint: name that queue: --queue NAME"),
        "{}",
        ran.err
    );

    // One that the broker dead-letters, and one of unknown origin with text that would control a terminal.
    let source = unique_queue("dead-source");
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-dead-letter-exchange".into(),
        AMQPValue::LongString("".into()),
    );
    let key = AMQPValue::LongString(dead.as_str().into());
    arguments.insert("x-dead-letter-routing-key".into(), key);
    rig.declare(source.name().as_str(), arguments).await;
    rig.publish(source.name().as_str(), BasicProperties::default(), b"work")
        .await;
    let options = BasicGetOptions::default();
    let message = rig
        .channel
        .basic_get(source.name().as_str().into(), options)
        .await;
    let reject = BasicRejectOptions { requeue: false };
    message.unwrap().unwrap().reject(reject).await.unwrap();
    rig.until_ready(&dead, |ready| ready == 1).await;
    let properties = BasicProperties::default().with_message_id("\u{1b}[2Jme".into());
    rig.publish(&dead, properties, b"").await;

    let ran = rig.run(&["list", "p", "--queue", &dead]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(!ran.out.contains('\u{1b}'), "{}", ran.out);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(
        lines[1].starts_with("-  ") && lines[1].contains("  rejected (broker)  "),
        "{}",
        ran.out
    );
    assert!(lines[2].starts_with("\\u{1b}[2Jme  -  "), "{}", ran.out);

    let ran = rig.run(&["retry", "p", "--queue", &dead, "\\u{1b}[2Jme"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(rig.ids(&live).await, ["\u{1b}[2Jme"]);
    let ran = rig.run(&["retry", "p", "--queue", &dead]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let back = rig.get(&live).await.expect("the broker's letter");
    let headers = back.properties.headers().clone().unwrap();
    assert!(!headers.inner().contains_key("x-death"), "{headers:?}");
    let origin = headers.inner().get("x-tidegate-original-routing-key");
    assert_eq!(
        origin,
        Some(&AMQPValue::LongString(source.name().as_str().into()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_queue_counts_as_empty_unless_it_was_named() {
    let rig = Rig::new().await;
    let dead = rig.dead();
    let options = lapin::options::QueueDeleteOptions::default();
    rig.channel
        .queue_delete(dead.as_str().into(), options)
        .await
        .unwrap();
    for command in ["list", "retry", "purge"] {
        let ran = rig.run(&[command, "p"]);
        let said = format!("no dead letters in {dead}\n");
        assert_eq!(
            (ran.code, ran.err, ran.out.as_str()),
            (Some(0), said, ""),
            "{command}"
        );
    }
    assert_eq!(rig.run(&["list", "p", "--format", "json"]).out, "[]\n");
    let ran = rig.run(&["list", "p", "--queue", "tidegate-test-nowhere"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("\nhint: see --queue"), "{}", ran.err);
}
