//! `tidegate status --watch`: the table of `status` again and again, until Ctrl-C.
//!
//! A supervisor that stops answering is not the end: it may only be restarted.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    pin::pin,
};

use anyhow::Context;
use jiff::Timestamp;
use ratatui::crossterm::terminal;
use tokio::time::{self, MissedTickBehavior};

use super::{
    args::{Cli, Format, status::StatusArgs},
    status::{self, SeenPools},
    supervisor,
};
use crate::output::{self, CommandFailure, Exit};
use tidegate::{
    escape::{Escaped, escaped_json},
    text::{counted, time},
};

/// Rows of a terminal that does not say how many it has.
const ROWS: u16 = 24;

pub(super) async fn watch(cli: &Cli, args: &StatusArgs) -> Result<Exit, CommandFailure> {
    let supervisor = supervisor::find(cli, &args.socket)?;
    let mut stop = pin!(tokio::signal::ctrl_c());
    let mut ticks = time::interval(args.interval.0);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut view = WatchView::new(cli.format, io::stdout().is_terminal());
    let mut is_first = true;
    loop {
        let read = async {
            ticks.tick().await;
            status::read_all(&supervisor).await
        };
        let read = tokio::select! {
            // The first poll of `stop` starts to listen, so it comes before the first request.
            biased;
            _ = &mut stop => break,
            read = read => read,
        };
        let read = match read {
            Ok(seen) => Ok(seen),
            // Probably no supervisor runs, or the user meant another one.
            Err(error) if is_first => return Err(error.into()),
            Err(error) => Err(format!("failed to {}", tidegate::run::chain(&error))),
        };
        is_first = false;
        let text = view.next(read, Timestamp::now())?;
        view.show(&text)?;
    }
    view.end()?;
    Ok(Exit::Ok)
}

/// How the readings are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A terminal is drawn again at each reading.
    Screen,
    /// A table with its time, where something has changed.
    Blocks,
    /// A line of JSON, where something has changed.
    Lines,
}

struct WatchView {
    mode: Mode,
    /// The last output, without its time.
    shown: String,
}

impl WatchView {
    fn new(format: Format, is_terminal: bool) -> Self {
        let mode = match (format, is_terminal) {
            (Format::Json, _) => Mode::Lines,
            (Format::Human, true) => Mode::Screen,
            (Format::Human, false) => Mode::Blocks,
        };
        Self {
            mode,
            shown: String::new(),
        }
    }

    /// The text for the next reading: empty if there is no change to show.
    fn next(
        &mut self,
        read: Result<SeenPools, String>,
        now: Timestamp,
    ) -> Result<String, CommandFailure> {
        let text = match (read, self.mode) {
            (Ok(seen), Mode::Lines) => {
                let json = serde_json::to_string(&seen.pools).context("print as JSON");
                let json = json.map_err(|error| CommandFailure::new(Exit::Unexpected, error))?;
                format!("{}\n", escaped_json(&json))
            }
            (Ok(seen), Mode::Screen | Mode::Blocks) => status::text(seen),
            (Err(error), Mode::Screen | Mode::Blocks) => format!("{}\n", Escaped(&error)),
            (Err(error), Mode::Lines) => {
                if self.shown != error {
                    output::warn(&error);
                    self.shown = error;
                }
                return Ok(String::new());
            }
        };
        let is_same = text == self.shown;
        let now = time(now);
        let next = match self.mode {
            Mode::Screen => format!("{now}; Ctrl-C ends\n\n{text}"),
            _ if is_same => String::new(),
            Mode::Blocks => format!("{now}\n{text}\n"),
            Mode::Lines => text.clone(),
        };
        self.shown = text;
        Ok(next)
    }

    fn show(&self, text: &str) -> Result<(), CommandFailure> {
        if self.mode != Mode::Screen {
            return output::write(text.as_bytes());
        }
        let choice = anstream::AutoStream::choice(&io::stdout());
        let text = match choice {
            anstream::ColorChoice::Never => anstream::adapter::strip_str(text).to_string(),
            _ => text.to_owned(),
        };
        let rows = terminal::size().map_or(ROWS, |(_, rows)| rows);
        raw(&screen(&text, usize::from(rows)))
    }

    fn end(&self) -> Result<(), CommandFailure> {
        match self.mode {
            // The shell's `^C` and its prompt come after the table.
            Mode::Screen => raw("\n"),
            Mode::Blocks | Mode::Lines => Ok(()),
        }
    }
}

/// A whole screen. Lines are cut at the terminal's edge, and lines that do not fit are omitted, so that the terminal
/// does not scroll.
fn screen(text: &str, rows: usize) -> String {
    const NO_WRAP: &str = "\u{1b}[?7l";
    const WRAP: &str = "\u{1b}[?7h";
    const HOME: &str = "\u{1b}[H";
    const CLEAR_LINE: &str = "\u{1b}[K";
    const CLEAR_BELOW: &str = "\u{1b}[J";
    let mut screen = format!("{NO_WRAP}{HOME}");
    let lines = text.lines().count();
    // The last row stays free: a line break there would scroll.
    let room = rows.saturating_sub(1).max(1);
    let shown = if lines > room { room - 1 } else { lines };
    for line in text.lines().take(shown) {
        let _ = write!(screen, "{line}{CLEAR_LINE}\r\n");
    }
    if shown < lines {
        let hidden = counted(lines - shown, "more line");
        let _ = write!(screen, "... {hidden}{CLEAR_LINE}\r\n");
    }
    let _ = write!(screen, "{CLEAR_BELOW}{WRAP}");
    screen
}

/// Writes to the terminal without filtering: the screen is redrawn in place even with NO_COLOR.
fn raw(text: &str) -> Result<(), CommandFailure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    let written = written.context("write to the terminal");
    written.map_err(|error| CommandFailure::new(Exit::Unexpected, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(ready: u64) -> Result<SeenPools, String> {
        let pool = serde_json::json!({
            "name": "thumbnails", "queue": "thumbnails", "state": "active",
            "depth": {"ready": ready, "age_ms": 210, "stale": false},
            "delayed": 0, "demand": 1, "expected": 1,
            "workers": {"bare": 1, "live": 1, "draining": 0},
            "runners": {"idle": 0, "busy": 0},
            "jobs": {"done": 9, "retried": 0, "dead": 0, "requeued": 0, "lost": 0}
        });
        Ok(SeenPools {
            pools: vec![serde_json::from_value(pool).unwrap()],
            leaving: Vec::new(),
        })
    }

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    #[test]
    fn a_pipe_gets_a_block_for_each_change_and_no_other() {
        let mut view = WatchView::new(Format::Human, false);
        let first = view.next(pools(1), now()).unwrap();
        assert!(first.starts_with("2026-01-02T03:04:05Z\n"), "{first}");
        assert_eq!(view.next(pools(1), now()).unwrap(), "");
        assert_ne!(view.next(pools(2), now()).unwrap(), "");
        let gone = view.next(Err("failed to reach it".to_owned()), now());
        assert!(gone.unwrap().contains("failed to reach it"));
        assert_ne!(view.next(pools(2), now()).unwrap(), "");
    }

    #[test]
    fn json_is_one_line_for_each_change() {
        let mut view = WatchView::new(Format::Json, true);
        let line = view.next(pools(1), now()).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read[0]["name"], "thumbnails");
        assert_eq!(view.next(pools(1), now()).unwrap(), "");
        assert_eq!(view.next(Err("gone".to_owned()), now()).unwrap(), "");
    }

    #[test]
    fn a_screen_never_scrolls() {
        let text = "1\n2\n3\n4\n5\n6\n";
        assert!(!screen(text, 7).contains("more"));
        let cut = screen(text, 6);
        assert_eq!(cut.matches("\r\n").count(), 5);
        assert!(cut.contains("4\u{1b}[K\r\n... 2 more lines"), "{cut:?}");
        screen(text, 0);
    }
}
