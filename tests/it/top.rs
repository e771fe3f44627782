//! `tidegate top` in a pseudo-terminal, as a person would use it.

use std::{
    io::{Read, Write},
    num::NonZeroU16,
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use nix::{
    pty::{Winsize, openpty},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{
    broker::broker_url,
    daemon::{Daemon, poll, tidegate},
    queue::Queue,
};

fn config(queue: &Queue) -> String {
    format!(
        "[pools.work]\nqueue = \"{}\"\npoll_interval = \"100ms\"\n\
         [pools.work.runner]\ncommand = [\"/bin/true\"]\n",
        queue.name()
    )
}

const ROWS: u16 = 24;
const COLUMNS: u16 = 80;

/// The command on a terminal of its own.
struct Screen {
    child: Child,
    keys: std::fs::File,
    heard: Arc<Mutex<Heard>>,
}

/// The output of the command, and the screen that it draws.
struct Heard {
    screen: vt100::Parser,
    said: String,
}

impl Screen {
    fn open(daemon: &Daemon, environment: &[(&str, &str)]) -> Self {
        let size = Winsize {
            ws_row: ROWS,
            ws_col: COLUMNS,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let terminal = openpty(Some(&size), None).unwrap();
        let slave = || Stdio::from(terminal.slave.try_clone().unwrap());
        let child = tidegate(daemon.dir())
            .args(["top", "--socket"])
            .arg(daemon.socket())
            .env("TERM", "xterm")
            .envs(environment.iter().copied())
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .unwrap();
        drop(terminal.slave);
        let keys: std::fs::File = terminal.master.into();
        let heard = Arc::new(Mutex::new(Heard {
            screen: vt100::Parser::new(cells(ROWS), cells(COLUMNS), 0),
            said: String::new(),
        }));
        let (mut reader, hears) = (keys.try_clone().unwrap(), heard.clone());
        // Ends when the command has closed its end.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                let mut heard = hears.lock().unwrap();
                heard.screen.process(&bytes[..length]);
                heard
                    .said
                    .push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        Self { child, keys, heard }
    }

    fn said(&self) -> String {
        self.heard.lock().unwrap().said.clone()
    }

    fn shown(&self) -> String {
        self.heard.lock().unwrap().screen.screen().contents()
    }

    fn wait_for(&self, text: &str) {
        let seen = poll(|| self.shown().contains(text).then_some(()));
        seen.unwrap_or_else(|| panic!("no {text:?}:\n{}", self.shown()));
    }

    fn wait_until_gone(&self, text: &str) {
        let gone = poll(|| (!self.shown().contains(text)).then_some(()));
        gone.unwrap_or_else(|| panic!("still {text:?}:\n{}", self.shown()));
    }

    /// Gives the terminal another size, as a terminal does whose window is dragged.
    fn resize(&self, columns: u16, rows: u16) {
        let size = rustix::termios::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let mut heard = self.heard.lock().unwrap();
        let screen = heard.screen.screen_mut();
        screen.set_size(cells(rows), cells(columns));
        rustix::termios::tcsetwinsize(&self.keys, size).unwrap();
        drop(heard);
        // The kernel tells only those whose controlling terminal it is.
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, Signal::SIGWINCH).unwrap();
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end. Returns the exit code and all that was written.
    fn end(mut self) -> (Option<i32>, String) {
        let status = poll(|| self.child.try_wait().unwrap());
        let status = status.unwrap_or_else(|| panic!("did not end:\n{}", self.said()));
        // The last bytes may come a moment after the end.
        let _ = poll(|| self.said().contains(SHOW_CURSOR).then_some(()));
        (status.code(), self.said())
    }
}

const SHOW_CURSOR: &str = "\u{1b}[?25h";
const LEAVE_SCREEN: &str = "\u{1b}[?1049l";
/// The beginning of a colour: of text in the 256 that crossterm names colours by.
const COLOUR: &str = "\u{1b}[38;5;";

#[test]
fn shows_pools_and_gives_the_terminal_back() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &config(&queue));
    let mut screen = Screen::open(&daemon, &[]);
    screen.wait_for("work");
    screen.wait_for("idle");
    screen.press("?");
    screen.wait_for("pin to a number of workers");
    screen.press("x\r");
    screen.wait_for("why this size");
    screen.press("q");
    let (code, said) = screen.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(LEAVE_SCREEN), "{said:?}");
    assert!(said.contains(SHOW_CURSOR), "{said:?}");
}

#[test]
fn pauses_and_resumes_the_selected_pool() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &config(&queue));
    let mut screen = Screen::open(&daemon, &[]);
    screen.wait_for("work");
    screen.press("p");
    daemon.wait_for_pool("work", |pool| pool["state"] == "paused");
    screen.wait_for("work: paused");
    screen.press("r");
    daemon.wait_for_pool("work", |pool| pool["state"] == "idle");
    screen.press("s3\r");
    daemon.wait_for_pool("work", |pool| {
        pool["pinned"] == 3 && pool["workers"]["live"] == 3
    });
    screen.press("a");
    daemon.wait_for_pool("work", |pool| pool["workers"]["live"] == 0);
    screen.press("\u{3}");
    assert_eq!(screen.end().0, Some(0));
}

#[test]
fn drains_the_selected_pool_when_the_question_is_answered_with_yes() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &config(&queue));
    let mut screen = Screen::open(&daemon, &[]);
    screen.wait_for("work");
    screen.press("d");
    screen.wait_for("drain work? y or n");
    screen.press("n");
    screen.wait_until_gone("y or n");
    assert_eq!(daemon.pool("work")["intake"], "open");
    screen.press("d");
    screen.wait_for("drain work? y or n");
    screen.press("y");
    screen.wait_for("work: drains");
    daemon.wait_for_pool("work", |pool| pool["intake"] == "draining");
    screen.press("q");
    assert_eq!(screen.end().0, Some(0));
}

#[test]
fn fits_the_terminal_when_its_size_changes() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &config(&queue));
    let mut screen = Screen::open(&daemon, &[]);
    screen.wait_for("TREND");
    // The totals have no room.
    assert!(!screen.shown().contains("RETRY"), "{}", screen.shown());
    screen.resize(200, 50);
    screen.wait_for("RETRY");
    let rows = screen.shown().lines().count();
    assert_eq!(
        rows,
        50,
        "the keys are in the last row:\n{}",
        screen.shown()
    );
    screen.resize(30, 8);
    screen.wait_until_gone("TREND");
    screen.wait_for("work");
    screen.wait_for("? keys");
    assert_eq!(screen.shown().lines().count(), 8, "{}", screen.shown());
    // Too small for anything, and it lives.
    screen.resize(3, 1);
    screen.wait_until_gone("work");
    screen.resize(COLUMNS, ROWS);
    screen.wait_for("TREND");
    screen.press("q");
    assert_eq!(screen.end().0, Some(0));
}

#[test]
fn says_that_the_supervisor_is_gone_and_has_no_colour_under_no_color() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &config(&queue));
    let mut screen = Screen::open(&daemon, &[("NO_COLOR", "1")]);
    screen.wait_for("work");
    drop(daemon);
    screen.wait_for("cut off");
    screen.press("q");
    let (code, said) = screen.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains(COLOUR), "{said:?}");
}

#[test]
fn without_a_terminal_it_names_status() {
    let dir = tempfile::TempDir::new().unwrap();
    let output = tidegate(dir.path())
        .arg("top")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("tidegate status"), "{said}");
}

fn cells(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).unwrap()
}
