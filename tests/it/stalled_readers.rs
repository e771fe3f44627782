//! The daemon with readers that do not read: of its log, of its events, of its HTTP answers. Nothing waits for them.

use std::{
    fs::{self, OpenOptions},
    io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write},
    net::TcpStream,
    os::{
        fd::AsFd,
        unix::{fs::FileTypeExt, net::UnixStream},
    },
    path::Path,
    process::{ExitStatus, Stdio},
    thread,
};

use nix::{pty::openpty, sys::signal, sys::stat::Mode, unistd::Pid};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    broker::broker_url,
    daemon::{DEADLINE, Daemon, Signal, poll, tidegate},
    queue::Queue,
};

/// A pool named `work` whose jobs log about 100 KiB each. A job named `bad` fails.
fn talkative(queue: &Queue) -> String {
    format!(
        "[pools.work]\nqueue = \"{}\"\npoll_interval = \"100ms\"\nretry.max_attempts = 1\n\
         [pools.work.policy]\nkind = \"backlog\"\njobs_per_worker = 10\nmax = 4\n\
         [pools.work.runner]\n\
         command = [\"/bin/sh\", \"-c\", \
         \"read job; yes said by $job | head -n 1000 >&2; test $job != bad\"]\n",
        queue.name()
    )
}

/// Publishes jobs and waits for all of them.
fn works(daemon: &Daemon, queue: &Queue) {
    for n in 0..30 {
        queue.publish(&format!("job-{n}\n"));
        queue.publish("bad\n");
    }
    daemon.wait_for_pool("work", |pool| {
        pool["jobs"]["done"] == 30 && pool["jobs"]["dead"] == 30
    });
}

fn ends(daemon: Daemon) {
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.end().0, Some(0));
}

/// A pipe that accepts no more data.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'x'; 512]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

fn metric(daemon: &Daemon, name: &str) -> u64 {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let value = answer.lines().find_map(|line| line.strip_prefix(name));
    let value = value.unwrap_or_else(|| panic!("{name} in:\n{answer}"));
    value.trim().parse().unwrap()
}

#[test]
fn jobs_run_and_term_is_obeyed_while_nobody_reads_the_log() {
    let queue = Queue::new();
    let (_reader, writer) = io::pipe().unwrap();
    let dir = TempDir::new().unwrap();
    let daemon = Daemon::start_unheard(dir, writer, &broker_url(), "", &talkative(&queue));
    works(&daemon, &queue);
    assert!(metric(&daemon, "tidegate_log_lines_dropped_total") > 0);
    ends(daemon);
}

#[test]
fn says_how_many_lines_are_missing_once_the_log_is_read_and_writes_its_last_lines() {
    let queue = Queue::new();
    let (reader, writer) = io::pipe().unwrap();
    let dir = TempDir::new().unwrap();
    let daemon = Daemon::start_unheard(dir, writer, &broker_url(), "", &talkative(&queue));
    works(&daemon, &queue);
    let dropped = metric(&daemon, "tidegate_log_lines_dropped_total");
    let mut lines = BufReader::new(reader).lines().map(|line| {
        let line = line.unwrap();
        serde_json::from_str::<Value>(&line).unwrap_or_else(|_| panic!("a whole line: {line}"))
    });
    let missing = lines.find(|line| line["target"] == "tidegate::log::dropped");
    // The pool may say something between the two.
    let missing = missing.unwrap()["lines"].as_u64().unwrap();
    assert!(missing >= dropped, "{missing} of {dropped}");
    daemon.signal(Signal::SIGTERM);
    assert!(lines.any(|line| line["message"] == "ended"));
    assert_eq!(daemon.end().0, Some(0));
}

#[test]
fn continues_if_standard_error_is_closed() {
    let queue = Queue::new();
    let dir = TempDir::new().unwrap();
    let closed = ["/bin/sh", "-c", "exec \"$@\" 2>&-", "sh"];
    let url = broker_url();
    let daemon = Daemon::start_unheard_by(
        &closed,
        dir,
        (Stdio::null(), Stdio::null()),
        &url,
        "",
        &talkative(&queue),
    );
    works(&daemon, &queue);
    ends(daemon);
}

#[test]
fn continues_in_the_background_of_a_terminal_with_tostop() {
    let queue = Queue::new();
    let dir = TempDir::new().unwrap();
    let terminal = openpty(None, None).unwrap();
    let tostop = [
        "setsid",
        "-c",
        "/bin/sh",
        "-c",
        "stty tostop && exec \"$@\"",
        "sh",
    ];
    let slave = |fd: &dyn AsFd| Stdio::from(fd.as_fd().try_clone_to_owned().unwrap());
    let daemon = Daemon::start_unheard_by(
        &tostop,
        dir,
        (slave(&terminal.slave), slave(&terminal.slave)),
        &broker_url(),
        "",
        &talkative(&queue),
    );
    works(&daemon, &queue);
    ends(daemon);
    // The lines are there: no writer was blocked.
    let mut said = [0; 1024];
    let length = rustix::io::read(&terminal.master, &mut said).unwrap();
    assert!(String::from_utf8_lossy(&said[..length]).contains("\"level\""));
}

#[test]
fn exits_with_its_code_even_if_nobody_reads_the_error() {
    for (config, args, code) in [
        ("colour = \"blue\"\n", &["run"][..], 78),
        ("", &["run", "--colour"], 2),
        // A folder that cannot be made.
        (
            "http.state_dir = \"/dev/null/state\"\n[pools.a.runner]\ncommand = [\"/bin/true\"]\n",
            &["run"],
            1,
        ),
    ] {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("tidegate.toml"), config).unwrap();
        let (_reader, writer) = full_pipe();
        let mut run = tidegate(dir.path())
            .args(args)
            .stderr(writer)
            .spawn()
            .unwrap();
        let status: Option<ExitStatus> = poll(|| run.try_wait().unwrap());
        let _ = run.kill();
        let status = status.unwrap_or_else(|| panic!("{config:?} {args:?} did not end"));
        assert_eq!(status.code(), Some(code), "{config:?} {args:?}");
    }
}

#[test]
fn a_guard_ends_even_if_nobody_reads_its_output() {
    let queue = Queue::new();
    let dir = TempDir::new().unwrap();
    let (_reader, writer) = full_pipe();
    let daemon = Daemon::start_unheard(dir, writer, &broker_url(), "", &talkative(&queue));
    let guard = daemon.pid();
    let children = fs::read_to_string(format!("/proc/{guard}/task/{guard}/children")).unwrap();
    let supervisor = children.trim().parse().unwrap();
    signal::kill(Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
    assert_eq!(daemon.end().0, Some(128 + signal::SIGKILL as i32));
}

#[test]
fn continues_if_the_events_file_is_a_fifo_without_a_reader_or_with_a_stalled_one() {
    for is_read in [false, true] {
        let queue = Queue::new();
        let dir = TempDir::new().unwrap();
        let events = dir.path().join("events");
        nix::unistd::mkfifo(&events, Mode::S_IRWXU).unwrap();
        assert!(fs::metadata(&events).unwrap().file_type().is_fifo());
        let stalled = is_read.then(|| {
            let mut options = OpenOptions::new();
            let mut fifo = options.read(true).write(true).open(&events).unwrap();
            // Nearly as much as the FIFO holds.
            fifo.write_all(&[b'x'; 60 * 1024]).unwrap();
            fifo
        });
        let head = format!("events_file = \"{}\"", events.display());
        let daemon =
            Daemon::start_unheard(dir, Stdio::null(), &broker_url(), &head, &talkative(&queue));
        works(&daemon, &queue);
        ends(daemon);
        drop(stalled);
    }
}

#[test]
fn begins_a_new_events_file_on_hup() {
    let queue = Queue::new();
    let dir = TempDir::new().unwrap();
    let (events, old) = (dir.path().join("events.jsonl"), dir.path().join("old"));
    let head = format!("events_file = \"{}\"", events.display());
    let daemon =
        Daemon::start_unheard(dir, Stdio::null(), &broker_url(), &head, &talkative(&queue));
    queue.publish("first\n");
    poll(|| has_job(&events, "first\n").then_some(())).expect("an event");
    fs::rename(&events, &old).unwrap();
    daemon.signal(Signal::SIGHUP);
    poll(|| events.exists().then_some(())).expect("a new file");
    queue.publish("second\n");
    poll(|| has_job(&events, "second\n").then_some(())).expect("an event in the new file");
    assert!(!has_job(&events, "first\n") && !has_job(&old, "second\n"));
    ends(daemon);
}

/// Whether a complete line reports a job's end.
fn has_job(events: &Path, job: &str) -> bool {
    let text = fs::read_to_string(events).unwrap_or_default();
    let mut events = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.any(|event| event["job_id"] == job && event["event"] == "runner_stop")
}

#[test]
fn answers_and_ends_even_if_clients_send_nothing_or_read_nothing() {
    let daemon = Daemon::start(
        &broker_url(),
        "[pools.work.runner]\ncommand = [\"/bin/true\"]\n",
    );
    let listen = daemon.listen().to_owned();
    let _silent: Vec<TcpStream> = (0..300)
        .map(|n| {
            let mut stream = TcpStream::connect(&listen).unwrap();
            let half = match n % 3 {
                0 => "",
                1 => "GET /healthz HTT",
                _ => "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
            };
            stream.write_all(half.as_bytes()).unwrap();
            stream
        })
        .collect();
    assert_eq!(daemon.get("/healthz").0, 200);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.end().0, Some(0));
}

#[test]
fn a_change_whose_body_never_comes_is_refused_with_408_and_changes_nothing() {
    let files = [("token", "s3cret\n")];
    let pools = "[pools.work.runner]\ncommand = [\"/bin/true\"]\n";
    let head = "http.token_file = \"token\"";
    let daemon = Daemon::start_with_files(&files, &broker_url(), head, pools);
    // All of the head, and a part of the body.
    let answer = daemon.send(
        b"POST /api/v1/pools/work/pause HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
          Authorization: Bearer s3cret\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    );
    assert_eq!(answer.status, 408, "{answer:?}");
    assert!(
        answer.body.contains("did not arrive within 10 s"),
        "{answer:?}"
    );
    assert_ne!(daemon.pool("work")["intake"], "paused");
    assert_eq!(daemon.get("/healthz").0, 200, "it answers others");
}

/// Opens the event stream, and reads the head of its answer.
fn follow(daemon: &Daemon) -> (u16, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(daemon.listen()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
        .write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, stream)
}

#[test]
fn jobs_run_beside_a_hundred_event_streams_of_which_half_are_never_read() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &talkative(&queue));
    let streams = (0..100).map(|_| follow(&daemon));
    let mut streams: Vec<_> = streams
        .map(|(status, stream)| {
            assert_eq!(status, 200);
            stream
        })
        .collect();
    let readers: Vec<_> = streams
        .drain(..50)
        .map(|stream| {
            thread::spawn(move || {
                let mut lines = stream.lines().map(Result::unwrap);
                // Everyone who reads sees the last job.
                lines.any(|line| line.contains("\"done\":30,"))
            })
        })
        .collect();
    works(&daemon, &queue);
    for reader in readers {
        assert!(reader.join().unwrap());
    }
    assert_eq!(daemon.get("/healthz").0, 200);
    ends(daemon);
    drop(streams);
}

#[test]
fn one_reader_of_events_too_many_is_told_so_and_gets_the_place_of_one_that_leaves() {
    let daemon = Daemon::start(
        &broker_url(),
        "[pools.work.runner]\ncommand = [\"/bin/true\"]\n",
    );
    let mut readers: Vec<_> = (0..128).map(|_| follow(&daemon)).collect();
    assert!(readers.iter().all(|(status, _)| *status == 200));
    let (status, body) = daemon.get("/api/v1/events");
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("too many"), "{body}");
    assert_eq!(daemon.get("/api/v1/pools").0, 200, "others are answered");
    readers.pop();
    let reader = poll(|| Some(follow(&daemon)).filter(|(status, _)| *status == 200));
    assert!(reader.is_some());
    ends(daemon);
}
