//! Quorum queues with a low delivery limit, on a real broker and with the built daemon: no message is lost, whatever
//! the limit, and a message that kills the daemon ends as a dead letter.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use lapin::{BasicProperties, message::Delivery, types::AMQPValue};
use nix::{sys::signal::kill, unistd::Pid};
use tempfile::TempDir;

use crate::support::{
    broker::broker_url,
    daemon::{DEADLINE, Daemon, Signal, poll, tidegate},
    queue::Queue,
};

fn limited(limit: u32) -> Queue {
    let queue = Queue::undeclared();
    queue.declare_limited("", limit);
    queue
}

fn pool(queue: &Queue, more: &str) -> String {
    format!(
        "[pools.work]\nqueue = \"{}\"\npoll_interval = \"50ms\"\nprefetch = 2\n\
         retry.backoff = \"200ms\"\nretry.backoff_max = \"200ms\"\n\
         policy = {{ kind = \"fixed\", workers = 2, max = 2 }}\n\
         {more}\n",
        queue.name()
    )
}

/// Waits until the broker has returned the held messages.
fn until_ready(queue: &Queue, suffix: &str, messages: u32) {
    let found = poll(|| (queue.ready(suffix) == messages).then_some(()));
    assert!(
        found.is_some(),
        "{} of {messages} messages are left in {}{suffix}",
        queue.ready(suffix),
        queue.name()
    );
}

fn header(message: &Delivery, name: &str) -> Option<AMQPValue> {
    let headers = message.properties.headers().as_ref()?;
    headers.inner().get(name).cloned()
}

/// A warm pool whose worker does not start. A changed command ends each pause early.
fn survives_a_fault(limit: u32) {
    let queue = limited(limit);
    for n in 0..3 {
        queue.publish(&format!("job {n}"));
    }
    let broken = |round: usize| {
        pool(
            &queue,
            &format!(
                "runner = {{ kind = \"warm\", command = [\"python3\", \"-c\", \"import nosuchmodule # {round}\"] }}"
            ),
        )
    };
    let daemon = Daemon::start(&broker_url(), &broken(0));
    for round in 1..=8 {
        let before = daemon.pool("work")["jobs"]["requeued"].as_u64().unwrap();
        daemon.wait_for_pool("work", |pool| {
            pool["jobs"]["requeued"].as_u64().unwrap() > before
        });
        daemon.configure(&broker_url(), "", &broken(round));
        daemon.signal(Signal::SIGHUP);
    }
    let mended = "runner = { kind = \"exec\", command = [\"/bin/true\"] }";
    daemon.configure(&broker_url(), "", &pool(&queue, mended));
    daemon.signal(Signal::SIGHUP);
    let after = daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == 3);
    assert_eq!(after["jobs"]["dead"], 0);
}

#[test]
fn a_fault_loses_no_message_with_a_delivery_limit_of_two() {
    survives_a_fault(2);
}

#[test]
fn a_fault_loses_no_message_with_a_delivery_limit_of_three() {
    survives_a_fault(3);
}

#[test]
fn no_signal_uses_up_a_delivery_limit_of_two() {
    let queue = limited(2);
    for n in 0..4 {
        queue.publish(&format!("job {n}"));
    }
    let endless = "shutdown_grace = \"100ms\"\n\
                   runner = { kind = \"exec\", command = [\"/bin/sh\", \"-c\", \"echo >> started; exec sleep 600\"], \
                   kill_grace = \"1s\" }";
    for signal in [Signal::SIGQUIT, Signal::SIGTERM].repeat(4) {
        let daemon = Daemon::start(&broker_url(), &pool(&queue, endless));
        daemon.wait_for_pool("work", |pool| pool["runners"]["busy"] == 2);
        let held = daemon.wait_for_pool("work", |pool| pool["demand"] == 4);
        assert_eq!(held["jobs"]["dead"], 0);
        daemon.signal(signal);
        let (code, said) = daemon.end();
        assert_eq!(code, Some(75), "{said}");
        // A copy whose confirm comes too late for a QUIT may exist besides its message.
        let found = poll(|| (queue.ready("") >= 4).then_some(()));
        assert!(
            found.is_some(),
            "{} of 4 messages are left",
            queue.ready("")
        );
    }
    let mut left = BTreeSet::new();
    for _ in 0..queue.ready("") {
        let message = queue.take_from("").unwrap();
        // Jobs that we stop or that never began do not count.
        let sum = header(&message, "x-tidegate-give-backs");
        assert!(
            matches!(sum, None | Some(AMQPValue::LongLongInt(0))),
            "{sum:?}"
        );
        left.insert(String::from_utf8_lossy(&message.data).into_owned());
    }
    assert_eq!(left.len(), 4, "{left:?}");
}

/// A job that kills the daemon, as the kernel does when memory runs out, and jobs that take longer than the daemon
/// lives.
fn outlives_a_killed_daemon(limit: u32) {
    const OTHERS: usize = 3;
    let queue = limited(limit);
    queue.declare_beside(".dead");
    queue.publish("poison");
    for n in 0..OTHERS {
        queue.publish(&format!("job-{n}"));
    }
    let dir = TempDir::new().unwrap();
    let script = r#"body=$(cat); if [ "$body" = poison ]; then kill -KILL $PPID; exit; fi; sleep 0.2; echo "$body" >> done"#;
    let text = format!(
        "http.listen = \"off\"\nhttp.state_dir = \"{dir}/state\"\nhttp.socket = \"{dir}/socket\"\nbroker.url = \"{url}\"\n{pool}",
        dir = dir.path().display(),
        url = broker_url(),
        pool = pool(
            &queue,
            &format!("runner = {{ kind = \"exec\", command = [\"/bin/sh\", \"-c\", '{script}'] }}")
        )
    );
    fs::write(dir.path().join("tidegate.toml"), text).unwrap();
    let begun = Instant::now();
    let is_over = || {
        queue.ready(".dead") == 1 && queue.ready("") == 0 && {
            let done = fs::read_to_string(dir.path().join("done")).unwrap_or_default();
            // A job whose daemon died before sending the body writes an empty line.
            let jobs = done.lines().filter(|line| !line.is_empty());
            jobs.collect::<BTreeSet<_>>().len() == OTHERS
        }
    };
    let mut lives = 0;
    loop {
        lives += 1;
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut daemon = tidegate(dir.path())
            .args(["run", "--no-guard"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let died = poll(|| match daemon.try_wait().unwrap() {
            Some(_) => Some(true),
            None => is_over().then_some(false),
        });
        match died {
            Some(true) => {}
            Some(false) => {
                // A second run may still be going on.
                let id = i32::try_from(daemon.id()).unwrap();
                kill(Pid::from_raw(id), Signal::SIGTERM).unwrap();
                assert!(daemon.wait().unwrap().success());
                break;
            }
            None => {
                daemon.kill().unwrap();
                let log = fs::read_to_string(dir.path().join("log")).unwrap();
                let done = fs::read_to_string(dir.path().join("done")).unwrap_or_default();
                panic!(
                    "life {lives}: {} ready, {} dead, done {done:?}\n{log}",
                    queue.ready(""),
                    queue.ready(".dead")
                );
            }
        }
        assert!(begun.elapsed() < 5 * DEADLINE, "still after {lives} lives");
    }
    // 21 runs, plus some if the daemon died before the copy was published.
    assert!(lives >= 21, "{lives}");
    let letter = queue.take_from(".dead").unwrap();
    assert_eq!(letter.data, b"poison");
    assert_eq!(
        header(&letter, "x-tidegate-reason"),
        Some(AMQPValue::LongString("crash-loop".into()))
    );
    assert_eq!(queue.ready(".dead"), 0);
}

#[test]
fn a_message_that_kills_the_daemon_is_dead_lettered_with_a_limit_of_two() {
    outlives_a_killed_daemon(2);
}

#[test]
fn a_message_that_kills_the_daemon_is_dead_lettered_with_a_limit_of_three() {
    outlives_a_killed_daemon(3);
}

#[test]
fn a_message_that_kills_the_daemon_is_dead_lettered_with_a_limit_of_twenty() {
    outlives_a_killed_daemon(20);
}

/// Twenty workers: busy ones with room for more, and idle ones.
const MESSAGES: u32 = 15;

fn many_workers(queue: &Queue, workers: u32, prefetch: u32, script: &str) -> String {
    format!(
        "[pools.work]\nqueue = \"{}\"\npoll_interval = \"50ms\"\nprefetch = {prefetch}\n\
         drain_after = \"never\"\npolicy = {{ kind = \"fixed\", workers = {workers}, max = {workers} }}\n\
         runner = {{ kind = \"exec\", command = [\"/bin/sh\", \"-c\", '{script}'] }}\n",
        queue.name()
    )
}

fn queue_with_delivery_limit(limit: u32) -> Queue {
    let queue = Queue::undeclared();
    queue.declare_with_delivery_limit(limit);
    for n in 0..MESSAGES {
        queue.publish(&format!("job-{n}"));
    }
    queue
}

/// Each message ran, and the broker gave none up.
fn assert_all_ran(queue: &Queue, ran: &Path) {
    let text = fs::read_to_string(ran).unwrap_or_default();
    let bodies: BTreeSet<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(bodies.len(), MESSAGES as usize, "{bodies:?}");
    until_ready(queue, "", 0);
    assert_eq!(queue.ready(".given-up"), 0);
}

/// The process below the guard, which holds the connections.
fn supervisor(daemon: &Daemon) -> Pid {
    let guard = daemon.pid();
    let children = fs::read_to_string(format!("/proc/{guard}/task/{guard}/children")).unwrap();
    Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap())
}

/// Kills the daemon again and again while jobs run beside idle workers.
fn survives_kills(limit: u32) {
    let queue = queue_with_delivery_limit(limit);
    let endless = many_workers(&queue, 20, 2, "exec sleep 600");
    for _ in 0..3 {
        let daemon = Daemon::start(&broker_url(), &endless);
        daemon.wait_for_pool("work", |pool| {
            let busy = pool["runners"]["busy"].as_u64().unwrap();
            let (ready, held) = (&pool["depth"]["ready"], &pool["demand"]);
            // Some wait behind a job, and some workers wait for one.
            busy >= u64::from(MESSAGES / 2) && *ready == 0 && *held == MESSAGES
        });
        kill(supervisor(&daemon), Signal::SIGKILL).unwrap();
        daemon.end();
        until_ready(&queue, "", MESSAGES);
        assert_eq!(queue.ready(".given-up"), 0);
    }
    let dir = TempDir::new().unwrap();
    let ran = dir.path().join("ran");
    let script = format!("body=$(cat); echo \"$body\" >> {}", ran.display());
    let daemon = Daemon::start(&broker_url(), &many_workers(&queue, 20, 2, &script));
    daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == MESSAGES);
    assert_all_ran(&queue, &ran);
}

#[test]
fn a_killed_daemon_loses_no_message_with_a_delivery_limit_of_one() {
    survives_kills(1);
}

#[test]
fn a_killed_daemon_loses_no_message_with_a_delivery_limit_of_two() {
    survives_kills(2);
}

#[test]
fn a_killed_daemon_loses_no_message_with_a_delivery_limit_of_three() {
    survives_kills(3);
}

/// A proxy to the broker that can be cut.
struct Relay {
    url: String,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    fn new() -> Self {
        let mut url = url::Url::parse(&broker_url()).unwrap();
        let target = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5672));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(port)).unwrap();
        let streams = Arc::<Mutex<Vec<TcpStream>>>::default();
        let kept = streams.clone();
        thread::spawn(move || {
            for near in listener.incoming() {
                let (near, far) = (near.unwrap(), TcpStream::connect(&target).unwrap());
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                kept.lock().unwrap().extend([near, far]);
            }
        });
        Self {
            url: url.into(),
            streams,
        }
    }

    fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Cuts all connections again and again while jobs run. What ran on one that is lost runs again.
fn survives_cuts(limit: u32) {
    let queue = queue_with_delivery_limit(limit);
    let dir = TempDir::new().unwrap();
    let (gate, ran) = (dir.path().join("gate"), dir.path().join("ran"));
    let script = format!(
        "body=$(cat); echo >> {begun}; until [ -e {gate} ]; do sleep 0.1; done; echo \"$body\" >> {ran}",
        begun = dir.path().join("begun").display(),
        gate = gate.display(),
        ran = ran.display(),
    );
    let relay = Relay::new();
    // More than are needed, for those whose channel was lost work on.
    let pool = many_workers(&queue, 80, 1, &script);
    let daemon = Daemon::start(&relay.url, &pool);
    let begun = || {
        let text = fs::read_to_string(dir.path().join("begun")).unwrap_or_default();
        text.lines().count()
    };
    for cut in 1..=3 {
        let all = cut * MESSAGES as usize;
        assert!(
            poll(|| (begun() >= all).then_some(())).is_some(),
            "{} jobs of {all} began, {} given up\n{}",
            begun(),
            queue.ready(".given-up"),
            daemon.said()
        );
        relay.cut();
    }
    let all = 4 * MESSAGES as usize;
    assert!(
        poll(|| (begun() >= all).then_some(())).is_some(),
        "{}",
        begun()
    );
    fs::write(&gate, "").unwrap();
    daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == MESSAGES);
    assert_all_ran(&queue, &ran);
}

#[test]
fn cut_connections_lose_no_message_with_a_delivery_limit_of_one() {
    survives_cuts(1);
}

#[test]
fn cut_connections_lose_no_message_with_a_delivery_limit_of_two() {
    survives_cuts(2);
}

#[test]
fn browsing_dead_letters_does_not_use_up_their_delivery_limit() {
    let queue = limited(2);
    queue.declare_limited(".dead", 2);
    for id in ["a", "b"] {
        queue.publish_to(".dead", id, BasicProperties::default());
    }
    // A letter that the broker made: an unchanged copy would be refused.
    let user = url::Url::parse(&broker_url())
        .unwrap()
        .username()
        .to_owned();
    let theirs = BasicProperties::default().with_user_id(user.as_str().into());
    queue.publish_to(".dead", "c", theirs);
    let dir = TempDir::new().unwrap();
    let text = format!(
        "broker.url = \"{}\"\n{}",
        broker_url(),
        pool(
            &queue,
            "runner = { kind = \"exec\", command = [\"/bin/true\"] }"
        )
    );
    fs::write(dir.path().join("tidegate.toml"), text).unwrap();
    for look in 0..9 {
        let looked = tidegate(dir.path())
            .args(["dead", "list", "work"])
            .output()
            .unwrap();
        assert!(looked.status.success(), "{looked:?}");
        let shown = String::from_utf8(looked.stdout).unwrap();
        // The header line and three letters.
        assert_eq!(shown.lines().count(), 4, "look {look}: {shown}");
        until_ready(&queue, ".dead", 3);
    }
}
