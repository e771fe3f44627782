//! The daemon when its output cannot be written: a full disk under its log and its events, or a log whose reader is
//! gone. The jobs continue.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::needs::Need;
use crate::support::{
    broker::broker_url,
    daemon::{Daemon, Signal, poll, tidegate},
    queue::Queue,
};

trials! {
    plain(Need::Nothing): [
        continues_with_a_log_on_a_full_disk,
        continues_when_the_reader_of_its_log_is_gone,
        exits_with_78_even_if_the_error_cannot_be_written,
    ],
    plain(Need::Mount): [
        keeps_whole_lines_when_a_disk_fills_up_and_writes_again_when_it_has_room,
    ],
}

/// A pool named `work` that logs for every job: each job writes to its standard error, and one fails.
fn talkative(queue: &Queue) -> String {
    format!(
        "[pools.work]\nqueue = \"{}\"\npoll_interval = \"100ms\"\nretry.max_attempts = 1\n\
         [pools.work.runner]\n\
         command = [\"/bin/sh\", \"-c\", \"read job; echo said by $job >&2; test $job != bad\"]\n",
        queue.name()
    )
}

/// Makes the daemon do everything that it logs, and checks that it ends well.
fn check_that_the_daemon_continues(daemon: Daemon, queue: &Queue, head: &str) {
    for job in ["one\n", "bad\n", "two\n"] {
        queue.publish(job);
    }
    daemon.wait_for_pool("work", |pool| {
        pool["jobs"]["done"] == 2 && pool["jobs"]["dead"] == 1
    });
    daemon.signal(Signal::SIGUSR1);
    daemon.configure(&broker_url(), head, "[pools.work]\ncolour = \"blue\"\n");
    daemon.signal(Signal::SIGHUP);
    queue.publish("three\n");
    daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == 3);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.end().0, Some(0));
}

fn continues_with_a_log_on_a_full_disk() {
    let queue = Queue::new();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let head = "events_file = \"/dev/full\"";
    let dir = TempDir::new().unwrap();
    let daemon = Daemon::start_unheard(dir, full, &broker_url(), head, &talkative(&queue));
    check_that_the_daemon_continues(daemon, &queue, head);
}

fn continues_when_the_reader_of_its_log_is_gone() {
    let queue = Queue::new();
    let (reader, writer) = io::pipe().unwrap();
    let dir = TempDir::new().unwrap();
    let daemon = Daemon::start_unheard(dir, writer, &broker_url(), "", &talkative(&queue));
    drop(reader);
    check_that_the_daemon_continues(daemon, &queue, "");
}

fn exits_with_78_even_if_the_error_cannot_be_written() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("tidegate.toml"), "colour = \"blue\"\n").unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut run = tidegate(dir.path());
    let status = run.arg("run").stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(78));
}

fn keeps_whole_lines_when_a_disk_fills_up_and_writes_again_when_it_has_room() {
    let disk = SmallDisk::mount();
    let queue = Queue::new();
    let events = disk.path("events.jsonl");
    let head = format!("events_file = \"{}\"", events.display());
    let log = File::create(disk.path("log")).unwrap();
    let dir = TempDir::new().unwrap();
    let daemon = Daemon::start_unheard(dir, log, &broker_url(), &head, &talkative(&queue));
    queue.publish("before\n");
    poll(|| stopped(&events, "before\n")).expect("an event");

    disk.fill();
    let had = fs::metadata(&events).unwrap().len();
    for n in 0..50 {
        queue.publish(&format!("full-{n}\n"));
    }
    daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == 51);
    assert!(
        fs::metadata(&events).unwrap().len() < had + 4096,
        "the disk was not full"
    );

    fs::remove_file(disk.path("filler")).unwrap();
    let mut sent = 0;
    // The writer's pace decides which job's event is written first.
    poll(|| {
        queue.publish(&format!("after-{sent}\n"));
        sent += 1;
        (0..sent).find_map(|n| stopped(&events, &format!("after-{n}\n")))
    })
    .expect("an event after the disk had room again");
    for line in fs::read_to_string(&events).unwrap().lines() {
        let _: Value = serde_json::from_str(line).expect("a whole line");
    }
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.end().0, Some(0));
}

/// The event of a job's end.
fn stopped(events: &Path, job: &str) -> Option<Value> {
    let text = fs::read_to_string(events).unwrap_or_default();
    let events = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut ends = events.filter(|event| event["event"] == "runner_stop");
    ends.find(|event| event["job_id"] == job)
}

/// A file system of 64 KiB in memory. Unmounted on drop.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    fn mount() -> Self {
        let dir = TempDir::new().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tidegate-test"])
            .arg(dir.path())
            .status();
        assert!(mount.is_ok_and(|status| status.success()));
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn fill(&self) {
        let mut filler = File::create(self.path("filler")).unwrap();
        let block = [b'x'; 1024];
        while filler.write_all(&block).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A lazy unmount, because the daemon of a failed test may still have files open on it.
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.dir.path())
            .status();
    }
}
