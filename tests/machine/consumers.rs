//! Programs that consume the queue themselves: a small one of the tests' own, real Celery, and dramatiq.

pub(crate) mod frameworks;

use std::{fs, path::Path};

use serde_json::Value;

use crate::needs::Need;
use crate::support::{
    broker::broker_url,
    daemon::{Daemon, Signal, poll},
    queue::Queue,
};

trials! {
    plain(Need::Interpreter("python3")): [
        programs_grow_with_the_queue_and_shrink_without_ending_a_message,
        programs_that_end_by_themselves_are_replaced_until_the_work_is_done,
        a_program_that_cannot_work_makes_the_pool_faulted_with_its_last_words,
        a_pause_lets_programs_finish_and_a_resume_starts_others,
        a_program_that_ignores_its_stop_signal_is_killed_after_stop_timeout,
        the_end_of_the_daemon_gives_back_what_programs_still_hold,
        no_program_outlives_a_supervisor_that_is_killed,
    ],
}

/// The program of the tests.
pub(crate) const HANDLERS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/machine/handlers");

/// The table of a pool named `work`. `command` is TOML.
pub(crate) fn pool(queue: &str, pool: &str, command: &str, runner: &str) -> String {
    format!(
        "[pools.work]\nqueue = \"{queue}\"\npoll_interval = \"100ms\"\n{pool}\n\
         [pools.work.scaling]\ndown_window = \"1s\"\n\
         [pools.work.runner]\nkind = \"consumer\"\ncommand = {command}\n{runner}\n"
    )
}

fn program(queue: &Queue, more: &str) -> String {
    let (url, queue) = (broker_url(), queue.name());
    format!("[\"python3\", \"{HANDLERS}/consumer.py\", \"{url}\", \"{queue}\"{more}]")
}

/// The lines of a file that programs write, one for each message.
pub(crate) fn lines(folder: &Path, name: &str) -> Vec<String> {
    let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn until_lines(daemon: &Daemon, name: &str, count: usize) {
    let reached = poll(|| (lines(daemon.dir(), name).len() >= count).then_some(()));
    assert!(reached.is_some(), "{name}: {}", daemon.said());
}

pub(crate) fn is_idle(pool: &Value) -> bool {
    pool["state"] == "idle" && pool["workers"]["draining"] == 0 && pool["workers"]["live"] == 0
}

fn programs_grow_with_the_queue_and_shrink_without_ending_a_message() {
    let queue = Queue::new();
    for _ in 0..12 {
        queue.publish("0.5");
    }
    let policy =
        "policy = { kind = \"backlog\", jobs_per_worker = 3, max = 4 }\ndrain_after = \"1s\"";
    let pools = pool(queue.name(), policy, &program(&queue, ""), "");
    let daemon = Daemon::start(&broker_url(), &pools);
    let risen = daemon.wait_for_pool("work", |pool| pool["workers"]["live"] == 4);
    assert_eq!(risen["workers"]["bare"], 0);
    daemon.wait_for_pool("work", is_idle);
    assert_eq!(lines(daemon.dir(), "taken").len(), 12);
    assert_eq!(lines(daemon.dir(), "done").len(), 12);
    assert_eq!(queue.ready(""), 0);
    // Each has a number, and its output is in the log.
    let line = daemon.heard("its output", |line| {
        line["message"] == "program output" && line["line"] == "consumes as 4"
    });
    assert_eq!(
        (&line["pool"], &line["process"]),
        (&"work".into(), &4.into())
    );
    let (code, explained, _) = daemon.run(&["explain", "work"]);
    assert_eq!(code, Some(0));
    assert!(
        explained.contains("assumed: one for each consumer"),
        "{explained}"
    );
}

fn programs_that_end_by_themselves_are_replaced_until_the_work_is_done() {
    let queue = Queue::new();
    for _ in 0..8 {
        queue.publish("0.6");
    }
    let policy = "policy = { kind = \"fixed\", workers = 2 }";
    // Each ends after two messages, as `messenger:consume --limit=2` does.
    let pools = pool(queue.name(), policy, &program(&queue, ", \"2\""), "");
    let daemon = Daemon::start(&broker_url(), &pools);
    until_lines(&daemon, "done", 8);
    let mut programs = lines(daemon.dir(), "done");
    programs.sort_unstable();
    programs.dedup();
    assert!(programs.len() >= 4, "{programs:?}");
    assert!(!daemon.said().contains("runners cannot start"));
}

fn a_program_that_cannot_work_makes_the_pool_faulted_with_its_last_words() {
    let queue = Queue::new();
    queue.publish("0");
    let command = "[\"python3\", \"-c\", \"import no_such_module\"]";
    let pools = pool(queue.name(), "", command, "");
    let daemon = Daemon::start(&broker_url(), &pools);
    let faulted = daemon.wait_for_pool("work", |pool| pool["state"] == "faulted");
    let cause = faulted["cause"].as_str().unwrap();
    assert!(
        cause.starts_with("exit code 1: ModuleNotFoundError: No module named 'no_such_module'"),
        "{cause}"
    );
    assert_eq!(queue.ready(""), 1);
}

fn a_pause_lets_programs_finish_and_a_resume_starts_others() {
    let queue = Queue::new();
    queue.publish("3");
    queue.publish("0");
    let policy = "policy = { kind = \"fixed\", workers = 1 }";
    let pools = pool(queue.name(), policy, &program(&queue, ""), "");
    let daemon = Daemon::start(&broker_url(), &pools);
    until_lines(&daemon, "taken", 1);
    assert_eq!(daemon.run(&["pause", "work"]).0, Some(0));
    daemon.wait_for_pool("work", |pool| {
        pool["state"] == "paused" && pool["workers"]["draining"] == 1
    });
    daemon.wait_for_pool("work", |pool| pool["workers"]["draining"] == 0);
    assert_eq!(lines(daemon.dir(), "done").len(), 1, "{}", daemon.said());
    assert_eq!(queue.ready(""), 1);
    assert_eq!(daemon.run(&["resume", "work"]).0, Some(0));
    until_lines(&daemon, "done", 2);
}

fn a_program_that_ignores_its_stop_signal_is_killed_after_stop_timeout() {
    let queue = Queue::new();
    queue.publish("600");
    let policy = "policy = { kind = \"fixed\", workers = 1 }";
    let pools = pool(
        queue.name(),
        policy,
        &program(&queue, ""),
        "stop_timeout = \"500ms\"",
    );
    let daemon = Daemon::start(&broker_url(), &pools);
    until_lines(&daemon, "taken", 1);
    assert_eq!(daemon.run(&["pause", "work"]).0, Some(0));
    daemon.heard("killed", |line| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("program killed"))
    });
    daemon.wait_for_pool("work", |pool| pool["workers"]["draining"] == 0);
    let is_back = poll(|| (queue.ready("") == 1).then_some(()));
    assert!(is_back.is_some(), "the broker has it again");
}

fn the_end_of_the_daemon_gives_back_what_programs_still_hold() {
    let queue = Queue::new();
    queue.publish("600");
    let policy = "policy = { kind = \"fixed\", workers = 1 }\nshutdown_grace = \"1s\"";
    let pools = pool(queue.name(), policy, &program(&queue, ""), "");
    let daemon = Daemon::start(&broker_url(), &pools);
    until_lines(&daemon, "taken", 1);
    let program: i32 = lines(daemon.dir(), "taken")[0].parse().unwrap();
    daemon.signal(Signal::SIGTERM);
    let (code, said) = daemon.end();
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("program killed"), "{said}");
    assert!(!Path::new(&format!("/proc/{program}")).exists());
    let is_back = poll(|| (queue.ready("") == 1).then_some(()));
    assert!(is_back.is_some(), "the broker has it again");
}

fn no_program_outlives_a_supervisor_that_is_killed() {
    let queue = Queue::new();
    queue.publish("600");
    let policy = "policy = { kind = \"fixed\", workers = 2 }";
    let pools = pool(queue.name(), policy, &program(&queue, ""), "");
    let daemon = Daemon::start(&broker_url(), &pools);
    until_lines(&daemon, "taken", 1);
    let program: i32 = lines(daemon.dir(), "taken")[0].parse().unwrap();
    // The parent of a program is the supervisor; the guard is its parent.
    let stat = fs::read_to_string(format!("/proc/{program}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let supervisor: i32 = rest.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_ne!(supervisor, daemon.pid().as_raw());
    let supervisor = nix::unistd::Pid::from_raw(supervisor);
    nix::sys::signal::kill(supervisor, Signal::SIGKILL).unwrap();
    let gone = poll(|| (!Path::new(&format!("/proc/{program}")).exists()).then_some(()));
    assert!(gone.is_some(), "{}", daemon.said());
    let is_back = poll(|| (queue.ready("") == 1).then_some(()));
    assert!(is_back.is_some(), "the broker has it again");
}
