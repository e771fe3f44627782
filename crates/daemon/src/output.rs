//! Output of the command line: exit codes, errors and data. Every command uses it.

use std::{
    error::Error,
    fmt,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use tidegate::{
    config::{NotFound, Source},
    escape::{Escaped, escaped_json},
    text::counted,
};

use crate::telemetry::stderr::{self, LogPriority};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// The documented exit codes of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Ok,
    /// An unexpected error.
    Unexpected,
    /// The command was used wrongly.
    Usage,
    /// The broker or the supervisor is not reachable.
    Unavailable,
    /// Jobs were given back because a drain took too long or was interrupted.
    GivenBack,
    /// The configuration is invalid.
    BadConfiguration,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Unexpected => 1,
            Exit::Usage => 2,
            Exit::Unavailable => 69,
            Exit::GivenBack => 75,
            Exit::BadConfiguration => 78,
        })
    }
}

/// Why a command failed.
#[derive(Debug)]
pub struct CommandFailure {
    /// The exit code of the process.
    pub(super) exit: Exit,
    error: anyhow::Error,
    hint: Option<String>,
}

impl CommandFailure {
    /// A failure with `error`, whose text is read after "failed to" or begins with it.
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
            hint: None,
        }
    }

    /// Adds a hint for the user.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether the reader of our output closed it. That is not an error.
    pub(super) fn is_broken_pipe(&self) -> bool {
        self.error.chain().any(|cause| {
            let cause = cause.downcast_ref::<io::Error>();
            cause.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        })
    }

    /// Prints the failure on standard error.
    pub(super) fn print(&self) {
        let mut text = Vec::new();
        // Writing to memory does not fail.
        let _ = self.write(&mut text);
        tell(&text);
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let what = after_failed_to(&*self.error);
        writeln!(out, "{ERROR}error:{ERROR:#} failed to {}", Escaped(&what))?;
        let mut last = what;
        for cause in self.error.chain().skip(1) {
            let cause = after_failed_to(cause);
            // A transparent link repeats the text above it, and lapin quotes its own cause.
            if !last.ends_with(&cause) {
                writeln!(out, "  {}", Escaped(&cause))?;
            }
            last = cause;
        }
        match &self.hint {
            Some(hint) => writeln!(out, "{HINT}hint:{HINT:#} {}", Escaped(hint)),
            None => Ok(()),
        }
    }
}

/// A failure. Errors of the library are complete sentences. The texts of the program omit the first words, which
/// are printed once for a whole chain.
fn after_failed_to(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    match text.strip_prefix("failed to ") {
        Some(rest) => rest.to_owned(),
        None => text,
    }
}

/// The failure that a configuration is needed and does not exist.
pub(super) fn no_configuration(error: NotFound) -> CommandFailure {
    CommandFailure::new(Exit::BadConfiguration, error)
        .hint(
            "`tidegate init --queue QUEUE -- COMMAND` writes ./tidegate.toml; --config or $TIDEGATE_CONFIG names another file",
        )
}

/// An invalid configuration whose problems were already printed.
pub(super) fn bad_configuration(source: &Source, problems: usize) -> CommandFailure {
    let count = counted(problems, "problem");
    let file = source.file().display().to_string();
    CommandFailure::new(
        Exit::BadConfiguration,
        Said(format!("take the configuration {file}: {count}")),
    )
    .hint("each line above says what to write instead; `tidegate check` shows them again")
}

/// Prints a warning on standard error. The command continues.
pub(super) fn warn(what: &str) {
    let mut err = anstream::stderr().lock();
    // If standard error is closed, the warning cannot be read.
    let _ = writeln!(err, "{WARNING}warning:{WARNING:#} {}", Escaped(what));
}

/// An error that consists only of its text.
#[derive(Debug)]
struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Said {}

/// Names the file of a picture that was drawn, on standard error.
pub(super) fn tell_of_plot(file: &Path) {
    let file = file.display().to_string();
    tell(format!("wrote the plot to {}\n", Escaped(&file)).as_bytes());
}

/// Writes to standard error, with colours only if it is a terminal that supports them. In a process with a log the text
/// goes through the log's writer, after earlier log lines, and this call never waits for the reader.
pub(super) fn tell(text: &[u8]) {
    let Some(log) = stderr::started() else {
        // If writing to standard error fails, the exit code still reports the error.
        let _ = anstream::stderr().lock().write_all(text);
        return;
    };
    let choice = anstream::AutoStream::choice(&io::stderr());
    let mut shown = anstream::AutoStream::new(Vec::new(), choice);
    let _ = shown.write_all(text);
    log.push(&shown.into_inner(), LogPriority::Important);
}

/// Writes data to standard output, with colours only if it is a terminal that supports them.
pub(super) fn write(bytes: &[u8]) -> Result<(), CommandFailure> {
    let mut out = anstream::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|error| {
            CommandFailure::new(
                Exit::Unexpected,
                anyhow::Error::new(error).context("write to standard output"),
            )
        })
}

/// Writes data to standard output as JSON. Hidden characters are escaped, so the JSON still decodes to the same
/// values.
pub(super) fn json(data: &impl Serialize) -> Result<(), CommandFailure> {
    let mut text = serde_json::to_vec_pretty(data).map_err(|error| {
        CommandFailure::new(
            Exit::Unexpected,
            anyhow::Error::new(error).context("print as JSON"),
        )
    })?;
    text.push(b'\n');
    match std::str::from_utf8(&text) {
        Ok(text) => write(escaped_json(text).as_bytes()),
        Err(_) => write(&text),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn printed(failure: &CommandFailure) -> String {
        let mut out = anstream::StripStream::new(Vec::new());
        failure.write(&mut out).unwrap();
        String::from_utf8(out.into_inner()).unwrap()
    }

    #[test]
    fn prints_an_error_with_its_causes_and_a_hint() {
        let error = anyhow!("connection refused")
            .context("connect to 127.0.0.1:5672")
            .context("reach the broker");
        let failure = CommandFailure::new(Exit::Unavailable, error).hint("is it running?");
        insta::assert_snapshot!(printed(&failure), @r"
        error: failed to reach the broker
          connect to 127.0.0.1:5672
          connection refused
        hint: is it running?
        ");
    }

    #[test]
    fn a_cause_that_was_quoted_is_not_said_again() {
        let error = anyhow!("no such queue")
            .context("protocol error: no such queue")
            .context("look for it");
        let failure = CommandFailure::new(Exit::Unexpected, error);
        insta::assert_snapshot!(printed(&failure), @r"
        error: failed to look for it
          protocol error: no such queue
        ");
    }

    #[test]
    fn writes_failed_to_only_once_if_the_error_has_it_too() {
        let error = anyhow!("failed to publish").context("failed to put all of them back");
        let failure = CommandFailure::new(Exit::Unexpected, error);
        insta::assert_snapshot!(printed(&failure), @r"
        error: failed to put all of them back
          publish
        ");
    }

    #[test]
    fn escapes_control_characters_of_others() {
        let failure = CommandFailure::new(Exit::Unexpected, anyhow!("read \u{1b}[31m\nnonsense"));
        insta::assert_snapshot!(printed(&failure), @r"error: failed to read \u{1b}[31m\nnonsense");
    }

    #[test]
    fn recognizes_a_broken_pipe_below_other_errors() {
        let pipe = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(CommandFailure::new(Exit::Unexpected, pipe.context("write")).is_broken_pipe());
        assert!(!CommandFailure::new(Exit::Unexpected, anyhow!("write")).is_broken_pipe());
    }
}
