//! `tidegate record`: a trace of what a running pool sees.

use std::{
    fs,
    path::Path,
    process::Child,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{self, Signal},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use serde_json::Value;
use tidegate::trace::Trace;

use crate::support::{
    broker::broker_url,
    daemon::{Daemon, end_of, poll, tidegate},
    queue::Queue,
};

#[test]
fn records_the_messages_that_arrive_until_ctrl_c() {
    let queue = Queue::new();
    let pools = format!(
        "[pools.jobs]\nqueue = \"{}\"\npoll_interval = \"50ms\"\nrunner.command = [\"true\"]\n",
        queue.name()
    );
    let daemon = Daemon::start(&broker_url(), &pools);
    daemon.wait_for_pool("jobs", |pool| pool["depth"]["stale"] == false);
    let file = daemon.dir().join("trace.csv");
    let mut child = tidegate(daemon.dir())
        .args(["record", "jobs", "--duration", "1h", "--socket"])
        .arg(daemon.socket())
        .arg("--output")
        .arg(&file)
        .spawn()
        .unwrap();
    let read = || fs::read_to_string(&file).unwrap_or_default();
    // From the first line on, what arrives is counted.
    poll(|| (read().lines().count() > 1).then_some(())).expect("a line of the recording");
    for n in 0..20 {
        queue.publish(&n.to_string());
    }
    daemon.wait_for_pool("jobs", |pool| pool["jobs"]["done"] == 20);
    poll(|| (arrivals(&read()) >= 20.0).then_some(())).expect("the arrivals");
    end(&mut child);
    assert_eq!(arrivals(&read()), 20.0, "{}", read());
}

#[test]
fn exporting_an_unknown_pool_leaves_no_file() {
    let pools = "[pools.jobs.runner]\ncommand = [\"true\"]\n";
    let daemon = Daemon::start("amqp://guest:guest@127.0.0.1:9/%2f", pools);
    let file = daemon.dir().join("trace.csv");
    let output = file.to_str().unwrap();
    let args = ["record", "other", "--duration", "1s", "--output", output];
    let (code, _, said) = daemon.run(&args);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("other"), "{said}");
    assert!(!file.exists());
}

/// A pool that takes nothing until it is told to, so that messages wait over a restart.
fn paused(queue: &Queue) -> (String, Daemon) {
    let pools = format!(
        "[pools.jobs]\nqueue = \"{}\"\npoll_interval = \"50ms\"\nrunner.command = [\"true\"]\n",
        queue.name()
    );
    let daemon = Daemon::start(&broker_url(), &pools);
    let (code, _, said) = daemon.run(&["pause", "jobs"]);
    assert_eq!(code, Some(0), "{said}");
    watches(&daemon);
    (pools, daemon)
}

fn watches(daemon: &Daemon) {
    daemon.wait_for_pool("jobs", |pool| pool["depth"]["stale"] == false);
}

/// Publishes messages, and waits until the pool has counted them: `total` since it began to watch.
fn publish(queue: &Queue, daemon: &Daemon, messages: u64, total: u64) {
    for n in 0..messages {
        queue.publish(&n.to_string());
    }
    let counted = || {
        let (_, out, _) = daemon.run(&["explain", "jobs", "--format", "json"]);
        let answer: Value = serde_json::from_str(&out).ok()?;
        let counted = answer.pointer("/decision/inputs/measured/arrivals/total")?;
        (*counted == total).then_some(())
    };
    poll(counted).unwrap_or_else(|| panic!("{} never counted {total}", queue.name()));
}

fn restart(daemon: Daemon, pools: &str) -> Daemon {
    daemon.signal(Signal::SIGTERM);
    let daemon = daemon.again(&broker_url(), "", pools);
    watches(&daemon);
    daemon
}

fn recording_of(daemon: &Daemon, file: &Path, duration: &str) -> Child {
    let child = tidegate(daemon.dir())
        .args(["record", "jobs", "--duration", duration, "--socket"])
        .arg(daemon.socket())
        .arg("--output")
        .arg(file)
        .spawn()
        .unwrap();
    poll(|| (read(file).lines().count() > 1).then_some(())).expect("a line of the recording");
    child
}

/// Ends a recording as Ctrl-C does.
fn end(recording: &mut Child) {
    let pid = Pid::from_raw(i32::try_from(recording.id()).unwrap());
    signal::kill(pid, Signal::SIGINT).unwrap();
    assert_eq!(recording.wait().unwrap().code(), Some(0));
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

#[test]
fn a_recording_ends_by_itself_after_its_duration_and_can_be_simulated() {
    let queue = Queue::new();
    let (_, daemon) = paused(&queue);
    let file = daemon.dir().join("trace.csv");
    let begun = Instant::now();
    let mut child = recording_of(&daemon, &file, "12s");
    publish(&queue, &daemon, 7, 7);
    let code = poll(|| child.try_wait().unwrap()).expect("it ends by itself");
    assert!(begun.elapsed() >= Duration::from_secs(12));
    assert_eq!(code.code(), Some(0));
    assert_eq!(arrivals(&read(&file)), 7.0, "{}", read(&file));
    let file = file.to_str().unwrap();
    let simulate = ["simulate", "--trace", file, "--service", "fixed:1s"];
    let (code, out, said) = daemon.run(&[&simulate[..], &["--format", "json"]].concat());
    assert_eq!(code, Some(0), "{said}");
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found["runs"][0]["jobs"], 7, "{found}");
}

#[test]
fn a_recording_over_a_restart_of_the_supervisor_counts_each_message_once() {
    let queue = Queue::new();
    let (pools, daemon) = paused(&queue);
    publish(&queue, &daemon, 9, 9);
    let file = daemon.dir().join("trace.csv");
    let mut child = recording_of(&daemon, &file, "1h");
    publish(&queue, &daemon, 3, 12);
    let recorded = |messages: f64| {
        let enough = || (arrivals(&read(&file)) >= messages).then_some(());
        poll(enough).unwrap_or_else(|| panic!("never {messages}: {}", read(&file)));
    };
    recorded(3.0);
    let daemon = restart(daemon, &pools);
    // More than its predecessor has counted.
    publish(&queue, &daemon, 20, 20);
    recorded(23.0);
    end(&mut child);
    assert_eq!(arrivals(&read(&file)), 23.0, "{}", read(&file));
}

#[test]
fn the_recording_of_the_last_day_goes_on_after_a_restart_and_counts_no_message_twice() {
    let queue = Queue::new();
    let (pools, daemon) = paused(&queue);
    let file = daemon.dir().join("state/recordings/jobs.csv");
    publish(&queue, &daemon, 9, 9);
    poll(|| (arrivals(&read(&file)) >= 9.0).then_some(())).expect("the first arrivals");
    let daemon = restart(daemon, &pools);
    publish(&queue, &daemon, 4, 4);
    poll(|| (arrivals(&read(&file)) >= 13.0).then_some(())).expect("the arrivals after it");
    let text = read(&file);
    assert_eq!(arrivals(&text), 13.0, "{text}");
    // The nine wait still: the successor has not counted them as its own.
    assert_eq!(daemon.pool("jobs")["depth"]["ready"], 13);
}

#[test]
fn an_output_that_is_not_a_file_is_refused_at_once() {
    let pools = "[pools.jobs.runner]\ncommand = [\"true\"]\n";
    let daemon = Daemon::start("amqp://guest:guest@127.0.0.1:9/%2f", pools);
    let fifo = daemon.dir().join("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    for output in [fifo.to_str().unwrap(), "/dev/zero", "/"] {
        let mut record = tidegate(daemon.dir());
        record.args(["record", "jobs", "--duration", "1h", "--output", output]);
        let (code, said) = end_of(&mut record);
        assert_eq!(code, Some(1), "{output}: {said}");
        assert!(said.contains("regular file"), "{output}: {said}");
    }
}

fn arrivals(text: &str) -> f64 {
    let trace = Trace::parse(text);
    trace.map_or(0.0, |trace| {
        trace.spans().iter().map(|span| span.arrivals).sum()
    })
}
