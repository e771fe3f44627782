//! `tidegate load`, `publish` and `init`: the built program against a real broker and a real daemon.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use lapin::{message::Delivery, types::AMQPValue, uri::AMQPUri};
use nix::{pty::openpty, sys::signal, unistd::Pid};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    broker::{broker_url, faulty_broker},
    daemon::{Daemon, Signal, poll, tidegate},
    queue::Queue,
};

/// The result of a command.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn report(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{}\n{}", self.out, self.err))
    }
}

fn at(dir: &Path, url: &str) -> Command {
    let mut command = tidegate(dir);
    command.env("AMQP_URL", url);
    command
}

fn ended(mut command: Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn load_in(dir: &Path, queue: &str, args: &[&str]) -> Ran {
    let mut command = at(dir, &broker_url());
    command.args(["load", "--format", "json", "--queue", queue]);
    command.args(args);
    ended(command)
}

fn load(queue: &str, args: &[&str]) -> Ran {
    load_in(TempDir::new().unwrap().path(), queue, args)
}

fn header(message: &Delivery, name: &str) -> AMQPValue {
    let headers = message.properties.headers().as_ref().unwrap();
    headers.inner()[name].clone()
}

fn message_id(message: &Delivery) -> u64 {
    let id = message.properties.message_id().as_ref().unwrap();
    id.as_str().parse().unwrap()
}

const ANSWERING: &str = "poll_interval = \"100ms\"\nreply = true\n[pools.work.policy]\njobs_per_worker = 10\n\
                         [pools.work.runner]\ncommand = [\"/bin/cat\"]\n";

fn answering(queue: &Queue) -> Daemon {
    let pool = format!("[pools.work]\nqueue = \"{}\"\n{ANSWERING}", queue.name());
    Daemon::start(&broker_url(), &pool)
}

#[test]
fn a_load_is_confirmed_counted_and_in_the_queue() {
    let queue = Queue::new();
    let ran = load(queue.name(), &["--count", "300", "--size", "64"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let report = ran.report();
    let mut keys: Vec<&String> = report.as_object().unwrap().keys().collect();
    keys.sort_unstable();
    let expected = [
        "confirm_ms",
        "confirmed",
        "published",
        "rate",
        "refused",
        "returned",
        "seconds",
    ];
    assert_eq!(keys, expected);
    for (key, count) in [
        ("published", 300),
        ("confirmed", 300),
        ("returned", 0),
        ("refused", 0),
    ] {
        assert_eq!(report[key], count, "{key} in {report}");
    }
    for key in ["p50", "p95", "p99", "max"] {
        assert!(report["confirm_ms"][key].as_f64() > Some(0.0), "{report}");
    }
    assert_eq!(queue.ready(""), 300);

    let [first, second] = [queue.take_from("").unwrap(), queue.take_from("").unwrap()];
    assert_eq!(first.data.len(), 64);
    assert_eq!(*first.properties.delivery_mode(), Some(2));
    assert!(message_id(&first) < message_id(&second));
    let AMQPValue::LongLongInt(sent_at) = header(&first, "timestamp_in_ms") else {
        panic!("{first:?}");
    };
    assert!(sent_at > 1_700_000_000_000, "{sent_at}");
    // No answer is requested.
    assert!(first.properties.reply_to().is_none());
}

#[test]
fn messages_that_the_broker_refuses_are_counted_and_fail_the_load() {
    let queue = Queue::undeclared();
    queue.declare_bounded(10);
    let ran = load(queue.name(), &["--count", "40", "--size", "16"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let report = ran.report();
    let of = |key: &str| report[key].as_u64().unwrap();
    assert!(of("refused") > 0, "{report}");
    assert_eq!(of("confirmed") + of("refused"), 40, "{report}");
    assert_eq!(u64::from(queue.ready("")), of("confirmed"), "{report}");
}

#[test]
fn a_load_with_a_rate_takes_the_time_that_the_rate_gives() {
    let queue = Queue::new();
    let args = ["--duration", "2s", "--rate", "100", "--shape", "burst"];
    let report = load(queue.name(), &args).report();
    assert_eq!(report["published"], 200);
    // The second burst begins after a second, and lasts a quarter of one.
    let seconds = report["seconds"].as_f64().unwrap();
    assert!((1.2..10.0).contains(&seconds), "{report}");
    assert_eq!(queue.ready(""), 200);
}

#[test]
fn a_trace_is_played() {
    let queue = Queue::new();
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("t.csv"), "time,arrivals\n0,7\n0.5,3\n").unwrap();
    let ran = load_in(dir.path(), queue.name(), &["--shape", "t.csv"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(ran.report()["confirmed"], 10);
}

#[test]
fn at_a_terminal_a_bar_shows_how_far_it_is() {
    let queue = Queue::new();
    let dir = TempDir::new().unwrap();
    for (no_colour, has_colour) in [("", true), ("1", false)] {
        let terminal = openpty(None, None).unwrap();
        let mut command = at(dir.path(), &broker_url());
        command
            .args(["load", "--queue", queue.name()])
            .args(["--duration", "1s", "--rate", "50"])
            .env("TERM", "xterm")
            .env("NO_COLOR", no_colour)
            .stdout(Stdio::piped())
            .stderr(terminal.slave);
        let mut child = command.spawn().unwrap();
        // This process has an end of the terminal open too.
        drop(command);
        let mut shown = Vec::new();
        // Writing to a terminal that is no longer open ends with an error.
        let _ = File::from(terminal.master).read_to_end(&mut shown);
        assert!(child.wait().unwrap().success());
        let shown = String::from_utf8_lossy(&shown);
        assert!(shown.contains("confirmed, "), "{shown:?}");
        assert_eq!(shown.contains("\u{1b}[36m"), has_colour, "{shown:?}");
    }
}

#[test]
fn messages_that_no_queue_takes_are_returned_and_end_it_with_1() {
    let ran = load("tidegate-test-nowhere", &["--count", "20"]);
    assert_eq!(ran.code, Some(1));
    let report = ran.report();
    assert_eq!(
        (&report["published"], &report["returned"]),
        (&20.into(), &20.into())
    );
    assert_eq!(report["confirmed"], 0);
    assert_eq!(report["confirm_ms"]["p50"], Value::Null);
    assert!(ran.err.contains("20 returned"), "{}", ran.err);
    assert!(ran.err.contains("hint: is there a queue"), "{}", ran.err);
}

#[test]
fn every_message_of_a_verified_load_is_answered_by_its_pool() {
    let queue = Queue::new();
    let daemon = answering(&queue);
    let plot = daemon.dir().join("tide.svg");
    let args = [
        "--count",
        "80",
        "--rate",
        "80",
        "--shape",
        "sine",
        "--verify",
        "--plot",
        plot.to_str().unwrap(),
    ];
    let ran = load_in(daemon.dir(), queue.name(), &args);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let report = ran.report();
    for (key, count) in [("answered", 80), ("lost", 0), ("repeated", 0)] {
        assert_eq!(report[key], count, "{key} in {report}");
    }
    let [confirmed, done] =
        ["confirm_ms", "done_ms"].map(|key| report[key]["p50"].as_f64().unwrap());
    assert!(done > confirmed, "{report}");
    let wrote = format!("wrote the plot to {}\n", plot.display());
    assert!(ran.err.contains(&wrote), "{}", ran.err);
    let svg = std::fs::read_to_string(plot).unwrap();
    assert!(svg.contains("80 answered") && svg.contains("done, p95"));
    // The daemon's socket was found, and its workers seen.
    assert!(!svg.contains("no supervisor answered"), "{svg}");
}

#[test]
fn a_picture_without_a_supervisor_has_no_workers_and_that_is_told_before_the_load() {
    let queue = Queue::new();
    let dir = TempDir::new().unwrap();
    let plot = dir.path().join("tide.svg");
    let plot = plot.to_str().unwrap();
    let socket = ["--socket", "nowhere.sock"];
    let args = [&["--count", "3", "--plot", plot][..], &socket[..]].concat();
    let ran = load_in(dir.path(), queue.name(), &args);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let warning =
        "the picture will have no workers: failed to reach the supervisor at nowhere.sock";
    assert!(ran.err.contains(warning), "{}", ran.err);
    // A supervisor that has nothing to do with the queue.
    let other = answering(&Queue::new());
    let ran = load_in(other.dir(), queue.name(), &["--count", "3", "--plot", plot]);
    let warning = format!("no pool of the supervisor works on {}", queue.name());
    assert!(ran.err.contains(&warning), "{}", ran.err);
}

#[test]
fn messages_that_nobody_answers_are_lost() {
    let queue = Queue::new();
    let args = ["--count", "5", "--verify", "--patience", "1s"];
    let ran = load(queue.name(), &args);
    assert_eq!(ran.code, Some(1));
    let report = ran.report();
    assert_eq!(report["confirmed"], 5);
    assert_eq!(
        (&report["answered"], &report["lost"]),
        (&0.into(), &5.into())
    );
    assert!(ran.err.contains("reply = true"), "{}", ran.err);
}

#[test]
fn a_load_that_is_interrupted_ends_with_its_report() {
    let queue = Queue::new();
    let dir = TempDir::new().unwrap();
    let mut command = at(dir.path(), &broker_url());
    command.args(["load", "--format", "json", "--queue", queue.name()]);
    command.args(["--count", "1000000", "--rate", "100"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    poll(|| (queue.ready("") > 10).then_some(())).expect("a load in progress");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    signal::kill(pid, Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let confirmed = report["confirmed"].as_u64().unwrap();
    assert!((10..1_000_000).contains(&confirmed), "{report}");
    assert_eq!(u64::from(queue.ready("")), confirmed);
}

#[test]
fn a_broker_that_is_lost_during_the_load_ends_it_with_its_report() {
    let queue = Queue::new();
    let way = Way::to_broker();
    let dir = TempDir::new().unwrap();
    let mut command = at(dir.path(), &way.url);
    command.args(["load", "--format", "json", "--queue", queue.name()]);
    command.args(["--count", "1000000", "--rate", "100"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    poll(|| (queue.ready("") > 10).then_some(())).expect("a load in progress");
    way.cut();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let count = |key: &str| report[key].as_u64().unwrap();
    assert_eq!(
        count("published"),
        count("confirmed") + count("refused"),
        "{report}"
    );
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(
        err.contains("the connection to the broker was lost"),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_confirms_nothing_ends_the_load_after_a_timeout() {
    let broker = faulty_broker().await;
    let url = broker.url();
    broker.set_alarm(true);
    let run = move || {
        let dir = TempDir::new().unwrap();
        let mut command = at(dir.path(), &url);
        command.args(["load", "--format", "json", "--queue", "work"]);
        command.args(["--count", "5", "--patience", "2s"]);
        ended(command)
    };
    let ran = tokio::task::spawn_blocking(run).await.unwrap();
    broker.set_alarm(false);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert_eq!(ran.report()["refused"], 5);
    assert!(ran.err.contains("nothing is confirmed"), "{}", ran.err);
    assert!(ran.err.contains("an alarm"), "{}", ran.err);
}

#[test]
fn contradictory_arguments_exit_with_2_and_a_missing_broker_with_69() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("bad.csv"), "time,arrivals\nnoon,1\n").unwrap();
    let run = |url: &str, args: &[&str]| {
        let mut command = at(dir.path(), url);
        command.args(["load", "--queue", "work"]).args(args);
        ended(command)
    };
    let nobody = "amqp://guest:s3cret@127.0.0.1:1/%2f";
    for args in [
        &[][..],
        &["--count", "1", "--duration", "1s"],
        &["--count", "0"],
        &["--count", "1", "--rate", "0"],
        &["--count", "1", "--shape", "sine"],
        &["--count", "1", "--shape", "sinus"],
        &["--shape", "bad.csv"],
        &["--count", "1", "--size", "1GiB"],
        &["--count", "1", "--url", "http://localhost"],
    ] {
        let ran = run(nobody, args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.err);
        assert_eq!(ran.out, "", "{args:?}");
    }
    let ran = run(nobody, &["--count", "1"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(69), ""), "{}", ran.err);
    assert!(!ran.err.contains("s3cret"), "{}", ran.err);
}

#[test]
fn a_message_is_published_from_a_file_or_standard_input() {
    let queue = Queue::new();
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("job.json"), "{\"a\": 1}\n").unwrap();
    let mut command = at(dir.path(), &broker_url());
    command.args(["publish", queue.name(), "job.json"]);
    command.args(["--header", "tenant=acme", "--header", "empty="]);
    command.args(["--content-type", "application/json"]);
    let ran = ended(command);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let message = queue.take_from("").unwrap();
    assert_eq!(message.data, b"{\"a\": 1}\n");
    assert_eq!(
        header(&message, "tenant"),
        AMQPValue::LongString("acme".into())
    );
    let content_type = message.properties.content_type().as_ref().unwrap();
    assert_eq!(content_type.as_str(), "application/json");
    let id = message_id(&message).to_string();
    assert!(ran.out.contains(&id), "{}", ran.out);

    let mut child = at(dir.path(), &broker_url())
        .args(["publish", queue.name(), "--count", "3", "--format", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"cat.png").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let published: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(published["published"], 3);
    assert_eq!(queue.ready(""), 3);
    assert_eq!(queue.take().unwrap(), b"cat.png");
}

#[test]
fn publishing_to_a_missing_queue_is_an_error() {
    let dir = TempDir::new().unwrap();
    let mut command = at(dir.path(), &broker_url());
    command.args(["publish", "tidegate-test-nowhere", "/etc/hostname"]);
    let ran = ended(command);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains("no queue takes it"), "{}", ran.err);
    assert!(ran.err.contains("hint: there is no queue"), "{}", ran.err);
}

#[test]
fn the_first_configuration_counts_as_loaded_and_replaces_no_other() {
    let dir = TempDir::new().unwrap();
    let run = |args: &[&str]| {
        let mut command = tidegate(dir.path());
        command.args(args);
        ended(command)
    };
    let init = [
        "init",
        "--queue",
        "img.resize",
        "--",
        "/bin/sh",
        "-c",
        "cat > /dev/null",
    ];
    let ran = run(&init);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert!(ran.out.contains("tidegate check"), "{}", ran.out);
    let ran = run(&["check"]);
    assert_eq!(ran.out, "tidegate.toml: ok, 1 pool\n", "{}", ran.err);
    let written = std::fs::read(dir.path().join("tidegate.toml")).unwrap();
    // The schema that its first line names is what `check --schema` prints.
    assert!(written.starts_with(b"#:schema ./tidegate.schema.json\n"));
    let schema = std::fs::read_to_string(dir.path().join("tidegate.schema.json")).unwrap();
    assert_eq!(schema, run(&["check", "--schema"]).out);

    let again = run(&init);
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("was not changed"), "{}", again.err);
    let now = std::fs::read(dir.path().join("tidegate.toml")).unwrap();
    assert_eq!(now, written);

    let ran = run(&[
        "-c",
        "other.toml",
        "init",
        "--queue",
        "q",
        "--",
        "no-such-program",
    ]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.err.contains("no-such-program"), "{}", ran.err);
    assert_eq!(run(&["check", "-c", "other.toml"]).code, Some(78));
}

/// A proxy to the broker that can be cut.
struct Way {
    url: String,
    /// Both ends of each connection. Written by the proxy's thread.
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    fn to_broker() -> Self {
        let url = broker_url();
        let uri: AMQPUri = url.parse().unwrap();
        let there = (uri.authority.host.clone(), uri.authority.port);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap().port();
        let user = &uri.authority.userinfo;
        let streams: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let held = streams.clone();
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let far = TcpStream::connect(&there).unwrap();
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || carry(from, to));
                }
                held.lock().unwrap().extend([near, far]);
            }
        });
        let vhost = uri.vhost.replace('/', "%2f");
        Self {
            url: format!(
                "amqp://{}:{}@127.0.0.1:{here}/{vhost}",
                user.username, user.password
            ),
            streams,
        }
    }

    fn cut(&self) {
        for stream in self.streams.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return to.shutdown(Shutdown::Write),
            read => to.write_all(&buffer[..read])?,
        }
    }
}

/// `run`, `load` and `publish` take the same broker.
#[test]
fn the_broker_of_the_configuration_comes_before_the_one_of_the_environment() {
    let dir = TempDir::new().unwrap();
    let text =
        "broker.url = \"amqp://a:b@127.0.0.1:1/%2f\"\n[pools.p.runner]\ncommand = [\"true\"]\n";
    std::fs::write(dir.path().join("tidegate.toml"), text).unwrap();
    for command in [
        &["publish", "q", "tidegate.toml"][..],
        &["load", "--queue", "q", "--count", "1"],
    ] {
        let mut ran = at(dir.path(), "amqp://a:b@127.0.0.1:2/%2f");
        ran.args(command);
        let ran = ended(ran);
        assert_eq!(ran.code, Some(69), "{}", ran.err);
        assert!(ran.err.contains("127.0.0.1:1/"), "{}", ran.err);

        // If the file names no broker, the variable is used.
        let bare = "[pools.p.runner]\ncommand = [\"true\"]\n";
        std::fs::write(dir.path().join("bare.toml"), bare).unwrap();
        let mut ran = at(dir.path(), "amqp://a:b@127.0.0.1:2/%2f");
        ran.args(["--config", "bare.toml"]).args(command);
        let ran = ended(ran);
        assert!(ran.err.contains("127.0.0.1:2/"), "{}", ran.err);
    }
}
