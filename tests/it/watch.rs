//! `tidegate status --watch`, on a pipe and on a terminal.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use nix::{
    pty::{Winsize, openpty},
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde_json::Value;

use crate::support::daemon::{DEADLINE, Daemon, poll, tidegate};

/// An address without a broker.
const NOWHERE: &str = "amqp://guest:guest@127.0.0.1:9/%2f";

const POOL: &str = "[pools.p.runner]\ncommand = [\"true\"]\n";

fn watch(daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = tidegate(daemon.dir());
    command
        .args(["status", "--watch", "--interval", "100ms", "--socket"])
        .arg(daemon.socket())
        .args(args);
    command
}

fn cells(count: u16) -> std::num::NonZeroU16 {
    std::num::NonZeroU16::new(count).unwrap()
}

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    signal::kill(pid, Signal::SIGINT).unwrap();
}

/// The lines of a child's standard output, as they come.
fn lines(child: &mut Child) -> mpsc::Receiver<String> {
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    lines
}

#[test]
fn a_pipe_gets_a_line_of_json_for_each_change_until_ctrl_c() {
    let daemon = Daemon::start(NOWHERE, POOL);
    let mut child = watch(&daemon, &["--format", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = lines(&mut child);
    let next =
        || -> Value { serde_json::from_str(&lines.recv_timeout(DEADLINE).unwrap()).unwrap() };
    assert_eq!(next()[0]["name"], "p");
    assert_eq!(daemon.run(&["pause", "p"]).0, Some(0));
    let paused = |pools: &Value| pools[0]["state"] == "paused";
    assert!(
        std::iter::repeat_with(next)
            .take(1000)
            .any(|pools| paused(&pools))
    );
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_pipe_gets_a_table_for_each_change_and_none_between() {
    let daemon = Daemon::start(NOWHERE, POOL);
    let mut child = watch(&daemon, &[]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = lines(&mut child);
    let until = |wanted: &str| {
        let mut seen = Vec::new();
        while let Ok(line) = lines.recv_timeout(DEADLINE) {
            seen.push(line);
            if seen.last().unwrap().contains(wanted) {
                return seen;
            }
        }
        panic!("no {wanted} in {seen:#?}");
    };
    let first = until("p ");
    assert!(
        first.iter().any(|line| line.starts_with("POOL")),
        "{first:?}"
    );
    assert_eq!(daemon.run(&["pause", "p"]).0, Some(0));
    until("paused by");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_terminal_is_drawn_again_and_keeps_the_last_table_at_the_end() {
    let daemon = Daemon::start(NOWHERE, POOL);
    let size = Winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = openpty(Some(&size), None).unwrap();
    let mut child = watch(&daemon, &[])
        .env("TERM", "xterm")
        .env("NO_COLOR", "1")
        .stdout(Stdio::from(terminal.slave))
        .spawn()
        .unwrap();
    let mut master: std::fs::File = terminal.master.into();
    let (sender, pieces) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = master.read(&mut bytes) {
            let _ = sender.send(bytes[..length].to_vec());
        }
    });
    let mut screen = vt100::Parser::new(cells(24), cells(80), 0);
    let mut shown = |wanted: &str| {
        poll(|| {
            pieces.try_iter().for_each(|piece| screen.process(&piece));
            let shown = screen.screen().contents();
            shown.contains(wanted).then_some(shown)
        })
        .unwrap_or_else(|| panic!("never {wanted}"))
    };
    let first = shown("POOL");
    assert!(
        first.lines().next().unwrap().ends_with("; Ctrl-C ends"),
        "{first}"
    );
    assert_eq!(daemon.run(&["pause", "p"]).0, Some(0));
    let paused = shown("paused by");
    assert_eq!(paused.matches("POOL").count(), 1, "{paused}");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn exits_with_69_if_no_supervisor_runs() {
    let dir = tempfile::TempDir::new().unwrap();
    let output = tidegate(dir.path())
        .args(["status", "--watch", "--socket", "./none.sock"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
}
