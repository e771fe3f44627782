//! `tidegate record`: a trace of what a running pool sees.

use std::fs;

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tidegate::trace::Trace;

use crate::support::{
    broker::broker_url,
    daemon::{Daemon, poll, tidegate},
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
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    signal::kill(pid, Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
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

fn arrivals(text: &str) -> f64 {
    let trace = Trace::parse(text);
    trace.map_or(0.0, |trace| {
        trace.spans().iter().map(|span| span.arrivals).sum()
    })
}
