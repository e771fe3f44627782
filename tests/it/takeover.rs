//! A daemon that takes over from another, which finishes its jobs.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt, path::Path};

use nix::{sys::signal, unistd::Pid};
use serde_json::json;

use crate::support::{
    broker::broker_url,
    daemon::{Daemon, Signal, free_address, poll, tidegate},
    queue::Queue,
};

const NOWHERE: &str = "amqp://guest:guest@127.0.0.1:9/%2f";

const POOL: &str = "[pools.p]\n[pools.p.runner]\ncommand = [\"true\"]\n";

/// Two workers, whose jobs note their start and their end. A job named `long-...` runs until there is a file `go`.
fn pool(queue: &Queue, runner: &str) -> String {
    let script = "id=$(cat); echo \"$id\" >> started; \
                  case $id in long-*) until [ -e go ]; do sleep 0.05; done;; esac; \
                  echo \"$id\" >> ended";
    format!(
        "[pools.work]\nqueue = \"{}\"\npoll_interval = \"100ms\"\nshutdown_grace = \"100ms\"\n\
         [pools.work.policy]\nkind = \"backlog\"\njobs_per_worker = 1\nmax = 2\n\
         [pools.work.runner]\ncommand = [\"/bin/sh\", \"-c\", '{script}']\n{runner}",
        queue.name()
    )
}

fn lines(daemon: &Daemon, name: &str) -> Vec<String> {
    let text = fs::read_to_string(daemon.dir().join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn wait_for_lines(daemon: &Daemon, name: &str, count: usize) {
    let found = poll(|| (lines(daemon, name).len() >= count).then_some(()));
    found.unwrap_or_else(|| panic!("{:?}\n{}", lines(daemon, name), daemon.said()));
}

/// The process id of a supervisor, whose parent is the guard.
fn supervisor(dir: &Path) -> Pid {
    let lock = fs::read_to_string(dir.join("state/tidegate.lock")).unwrap();
    Pid::from_raw(lock.split_whitespace().nth(2).unwrap().parse().unwrap())
}

#[test]
fn a_successor_takes_the_queue_while_the_old_daemon_finishes_its_jobs() {
    let queue = Queue::new();
    let pools = pool(&queue, "");
    let listen = format!("http.listen = \"{}\"", free_address());
    let mut old = Daemon::start_with(&broker_url(), &listen, &pools);
    let mut expected = BTreeMap::new();
    let mut publish = |id: &str| {
        queue.publish(id);
        expected.insert(id.to_owned(), 1);
    };
    for id in ["long-1", "long-2"] {
        publish(id);
    }
    wait_for_lines(&old, "started", 2);
    for id in ["3", "4", "5", "6", "7"] {
        publish(id);
    }
    let old_supervisor = supervisor(old.dir());

    let new = old.take_over();
    // The same address, the same socket, another supervisor.
    assert_eq!(new.get("/healthz").0, 200);
    assert_ne!(supervisor(old.dir()), old_supervisor);
    wait_for_lines(&new, "ended", 5);
    let pool = new.wait_for_pool("work", |pool| pool["jobs"]["done"] == 5);
    assert_eq!(pool["jobs"]["retried"], 0, "{pool}");
    assert_eq!(lines(&new, "started").len(), 7);
    old.heard("the end of the handover", |line| {
        line["message"] == "handed over"
    });
    // The new daemon shows what still runs at the old one.
    let pid = json!(old_supervisor.as_raw());
    let jobs = poll(|| {
        let (_, out, _) = new.run(&["jobs", "--format", "json"]);
        let jobs: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
        let all = jobs.iter().filter(|job| job["predecessor"] == pid).count();
        (all == 2).then_some(jobs)
    });
    let jobs = jobs.unwrap_or_else(|| panic!("{}", new.said()));
    assert!(
        jobs.iter()
            .all(|job| job["id"].as_str().unwrap().starts_with("long-")),
        "{jobs:?}"
    );
    let (_, status, _) = new.run(&["status"]);
    let line = "2 jobs of the supervisor that this one has taken over from still run";
    assert!(status.contains(line), "{status}");
    // Others still see that the old daemon is alive.
    let finishing = tidegate::host::instance::finishing(&old.dir().join("state"));
    assert_eq!(finishing, [old_supervisor]);

    fs::write(old.dir().join("go"), "").unwrap();
    let (code, said) = old.wait_for_end();
    assert_eq!(code, Some(0), "{said}");
    let mut runs = BTreeMap::new();
    for id in lines(&new, "ended") {
        *runs.entry(id).or_insert(0) += 1;
    }
    assert_eq!(runs, expected);
    assert_eq!(lines(&new, "started").len(), 7, "{said}");
    assert!(tidegate::host::instance::finishing(&old.dir().join("state")).is_empty());
    new.wait_for_pool("work", |pool| pool["predecessors"].is_null());
    let left = fs::read_dir(old.dir().join("state")).unwrap();
    let left = left.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("finishing-")
    });
    assert_eq!(left.count(), 0, "lock and socket are gone");
    // The old daemon left the files of the new one unchanged when it ended.
    assert_eq!(new.pool("work")["jobs"]["done"], 5);
    new.signal(Signal::SIGTERM);
    let (code, said) = new.end();
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_daemon_that_has_handed_over_still_drains_when_it_is_told_to() {
    let queue = Queue::new();
    let mut old = Daemon::start(&broker_url(), &pool(&queue, "kill_grace = \"1s\"\n"));
    queue.publish("long-1");
    wait_for_lines(&old, "started", 1);
    let new = old.take_over();
    old.signal(Signal::SIGTERM);
    let (code, said) = old.wait_for_end();
    assert_eq!(code, Some(75), "{said}");
    // Its job was given back, and runs again at the successor.
    wait_for_lines(&new, "started", 2);
    fs::write(new.dir().join("go"), "").unwrap();
    new.wait_for_pool("work", |pool| pool["jobs"]["done"] == 1);
}

#[test]
fn a_job_of_a_daemon_that_has_handed_over_is_stopped_through_its_successor() {
    let queue = Queue::new();
    let mut old = Daemon::start(&broker_url(), &pool(&queue, "kill_grace = \"1s\"\n"));
    queue.publish("long-1");
    wait_for_lines(&old, "started", 1);
    let new = old.take_over();
    let shown = poll(|| new.run(&["jobs"]).1.contains("(pid ").then_some(()));
    shown.unwrap_or_else(|| panic!("{}", new.said()));
    let (code, out, err) = new.run(&["jobs", "stop", "long-1", "--then", "reject"]);
    assert_eq!(code, Some(0), "{out}{err}");
    let (code, said) = old.wait_for_end();
    assert_eq!(code, Some(0), "{said}");
    new.wait_for_pool("work", |pool| pool["dead_waiting"] == 1);
}

#[test]
fn a_takeover_from_nobody_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "http.listen = \"127.0.0.1:0\"\nhttp.state_dir = \"{0}/state\"\nhttp.socket = \"{0}/run/s\"\n{POOL}",
        dir.path().display()
    );
    fs::write(dir.path().join("tidegate.toml"), text).unwrap();
    let run = || {
        let mut run = tidegate(dir.path());
        let output = run.args(["run", "--takeover"]).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), err)
    };
    // First none has ever run here, then the last one is dead.
    for _ in 0..2 {
        let (code, err) = run();
        assert_eq!(code, Some(69), "{err}");
        assert!(err.contains("error: failed to take over"), "{err}");
        assert!(err.contains("start without --takeover"), "{err}");
        drop(tidegate::host::instance::InstanceLock::take(&dir.path().join("state")).unwrap());
    }
}

#[test]
fn a_daemon_that_does_not_answer_in_time_keeps_its_pools() {
    let daemon = Daemon::start(NOWHERE, POOL);
    let supervisor = supervisor(daemon.dir());
    signal::kill(supervisor, Signal::SIGSTOP).unwrap();
    let (code, _, err) = daemon.run(&["run", "--takeover"]);
    signal::kill(supervisor, Signal::SIGCONT).unwrap();
    assert_eq!(code, Some(69), "{err}");
    assert!(err.contains("it still has its pools"), "{err}");
    assert_eq!(daemon.pool("p")["intake"], "open");
}

#[test]
fn a_successor_that_does_not_wait_any_longer_is_refused() {
    let daemon = Daemon::start(NOWHERE, POOL);
    let lock = fs::metadata(daemon.dir().join("state/tidegate.lock")).unwrap();
    let ask = |before: &str| {
        let body = json!({"lock": [lock.dev(), lock.ino()], "before": before}).to_string();
        daemon.post_over_socket("/api/v1/takeover", &body)
    };
    let answer = ask("2001-01-01T00:00:00Z");
    assert_eq!(answer.status, 409, "{}", answer.body);
    assert!(
        answer.body.contains("does not wait any longer"),
        "{}",
        answer.body
    );
    assert_eq!(daemon.pool("p")["intake"], "open");
}

#[test]
fn only_the_same_state_dir_over_the_socket_takes_over() {
    let daemon = Daemon::start_with_files(
        &[("token", "s3cret")],
        NOWHERE,
        "http.token_file = \"token\"",
        POOL,
    );
    let other = daemon.dir().join("other");
    drop(tidegate::host::instance::InstanceLock::take(&other).unwrap());
    let text = format!(
        "http.listen = \"127.0.0.1:0\"\nhttp.state_dir = \"{}\"\nhttp.socket = \"{}\"\n{POOL}",
        other.display(),
        daemon.socket().display()
    );
    fs::write(daemon.dir().join("other.toml"), text).unwrap();
    let (code, _, err) = daemon.run(&["run", "--takeover", "--config", "other.toml"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("has another state_dir"), "{err}");

    let body = json!({"lock": [1, 2], "before": "2100-01-01T00:00:00Z"}).to_string();
    let headers = [("Host", "localhost"), ("Authorization", "Bearer s3cret")];
    let answer = daemon.request("POST", "/api/v1/takeover", &headers, &body);
    assert_eq!(answer.status, 403, "{}", answer.body);
    assert_eq!(daemon.pool("p")["intake"], "open");
}
