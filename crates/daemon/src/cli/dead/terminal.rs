//! The dialogue with the user at the terminal: messages, questions, and interrupts.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::output::{CommandFailure, Exit};
use tidegate::escape::Escaped;

/// Prints a message on standard error. If standard error is closed, it cannot be read.
pub(super) fn say(text: &str) {
    let mut err = anstream::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(err, "{}", Escaped(line));
    }
}

/// Whether a user can answer a question.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks the user at the terminal.
pub(super) fn confirmed(question: &str) -> Result<bool, CommandFailure> {
    let _ = write!(io::stderr(), "{} [y/N] ", Escaped(question));
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .context("read the answer")
        .map_err(|error| CommandFailure::new(Exit::Unexpected, error))?;
    let answer = answer.trim().to_lowercase();
    Ok(answer == "y" || answer == "yes")
}

/// Cancelled by Ctrl-C, so that work in progress is finished. A second Ctrl-C ends the program, which loses no letter.
pub(super) fn on_interrupt() -> CancellationToken {
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            told.cancel();
        }
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    });
    stop
}

/// A progress line, if standard error is a terminal.
pub(super) struct ProgressLine {
    verb: &'static str,
    of: u64,
    shown: Option<Instant>,
    is_terminal: bool,
}

impl ProgressLine {
    pub(super) fn new(verb: &'static str, of: u64) -> Self {
        Self {
            verb,
            of,
            shown: None,
            is_terminal: io::stderr().is_terminal(),
        }
    }

    pub(super) fn at(&mut self, done: u64) {
        const EVERY: Duration = Duration::from_millis(200);
        if !self.is_terminal || self.shown.is_some_and(|shown| shown.elapsed() < EVERY) {
            return;
        }
        self.shown = Some(Instant::now());
        let _ = write!(io::stderr(), "\r{} {done} of {}", self.verb, self.of);
    }

    pub(super) fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
