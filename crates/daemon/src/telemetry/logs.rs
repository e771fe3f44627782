//! Logs on standard error, for a person or as JSON.
//!
//! Owns the process's only `tracing` subscriber. Logging never waits: see [`stderr`]. The client library's own
//! details are never logged: at `trace` it logs whole frames, and the frame that opens a connection contains the
//! password.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal},
    panic::{self, PanicHookInfo},
    sync::{Arc, OnceLock},
    thread,
};

use thiserror::Error;
use tracing::{
    Event, Level, Metadata, Subscriber, level_filters::LevelFilter, span, subscriber::Interest,
};
use tracing_subscriber::{
    EnvFilter, Layer, fmt,
    fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, format},
    layer::{Context, Filter, SubscriberExt},
    registry::LookupSpan,
    util::{SubscriberInitExt, TryInitError},
};

use super::{
    fields::HumanFields,
    otlp::Otlp,
    rates::{self, LogRates},
    stderr::{self, LogPriority, Stderr},
};
use tidegate::{config::LogFormat, escape::escaped_json};

/// Variables that may contain the filter, by precedence.
const VARIABLES: [&str; 2] = ["TIDEGATE_LOG", "RUST_LOG"];

/// How much is logged if the environment does not set a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Tidegate's lines at `info`; of other crates only warnings and errors.
    Normal,
    /// Only warnings and errors.
    Quiet,
}

impl Verbosity {
    fn filter(self) -> &'static str {
        match self {
            // The client library's errors are also returned to us and logged where their meaning is known. For
            // example, a missing queue is not always an error.
            Self::Normal => "warn,tidegate=info,lapin=off,async_rs=off",
            Self::Quiet => "warn,lapin=off,async_rs=off",
        }
    }
}

/// Crates that handle credentials for the broker, or variables of jobs for a container engine.
const SEES_CREDENTIALS: [&str; 4] = ["lapin", "amq_protocol", "async_rs", "bollard"];

/// Targets that a filter may name by a single word. Any other single word must be a level.
const TARGETS: [&str; 10] = [
    "tidegate",
    "lapin",
    "amq_protocol",
    "async_rs",
    "bollard",
    "hyper",
    "hyper_util",
    "axum",
    "tokio",
    "rustls",
];

/// The bound on repeated warnings. Set once, by [`init`].
static RATES: OnceLock<Arc<LogRates>> = OnceLock::new();

/// Logs could not be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogsError {
    /// A variable contains an invalid filter.
    #[error("read the log filter in {variable}")]
    Filter {
        /// The variable.
        variable: &'static str,
        /// The problem.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// A variable contains a word that is neither a level nor one of our targets.
    #[error("read the log filter in {variable}: {word:?} is not a level")]
    Word {
        /// The variable.
        variable: &'static str,
        /// The word.
        word: String,
    },
    /// A thread could not be started.
    #[error("start the thread that writes the log")]
    Thread(#[source] io::Error),
    /// A subscriber is installed already.
    #[error("install the log subscriber")]
    Install(#[source] TryInitError),
}

impl LogsError {
    /// The invalid environment variable, if there is one.
    pub fn variable(&self) -> Option<&'static str> {
        match self {
            Self::Filter { variable, .. } | Self::Word { variable, .. } => Some(variable),
            _ => None,
        }
    }
}

/// Installs the process's log subscriber, and logs panics through it. Spans of jobs go to `otlp`.
///
/// # Errors
/// The filter in the environment is invalid, a thread cannot be started, or a subscriber is installed already.
pub fn init(format: LogFormat, fallback: Verbosity, otlp: Option<&Otlp>) -> Result<(), LogsError> {
    let chosen = filter(|variable| std::env::var(variable).ok(), fallback)?;
    let rates = Arc::new(LogRates::default());
    let stderr = stderr::start().map_err(LogsError::Thread)?;
    let lines = StderrLines { stderr, format };
    let layer = match format {
        LogFormat::Human => fmt::layer()
            .fmt_fields(HumanFields)
            .with_writer(lines)
            .with_ansi(wants_colour())
            .with_target(false)
            .map_event_format(|lines| RateLimited::new(lines, &rates))
            .log_internal_errors(false)
            .boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .map_event_format(|lines| RateLimited::new(lines, &rates))
            .with_writer(lines)
            .log_internal_errors(false)
            .boxed(),
    };
    let filter = LogFilter(chosen);
    let registry = tracing_subscriber::registry();
    let installed = match otlp {
        None => registry.with(layer.with_filter(filter)).try_init(),
        Some(otlp) => (registry.with(layer.with_filter(filter)).with(otlp.layer())).try_init(),
    };
    installed.map_err(LogsError::Install)?;
    let telling = rates.clone();
    thread::Builder::new()
        .name("log-rates".to_owned())
        .spawn(move || telling.serve())
        .map_err(LogsError::Thread)?;
    let _ = RATES.set(rates);
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Checks the filter in the environment by the rules of [`init`].
///
/// # Errors
/// The filter is invalid.
pub fn inspect() -> Result<(), LogsError> {
    filter(|variable| std::env::var(variable).ok(), Verbosity::Normal).map(drop)
}

/// Waits at most [`stderr::END_TIMEOUT`] for the last lines to be written.
pub fn finish() {
    if let Some(rates) = RATES.get() {
        rates.finish();
    }
    if let Some(stderr) = stderr::started() {
        stderr.finish(stderr::END_TIMEOUT);
    }
}

/// Lines left out since the start because too many of their kind came at once.
pub fn left_out() -> u64 {
    RATES.get().map_or(0, |rates| rates.left_out())
}

/// The panic hook: logs a panic. The default hook would wait for the reader of standard error, and block every later
/// panic.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    let thread = thread::current();
    tracing::error!(
        target: "tidegate::panic",
        thread = thread.name(),
        place = panic.location().map(tracing::field::display),
        error = text.unwrap_or("no text"),
        backtrace = backtrace.as_ref().map(tracing::field::display),
        "panicked"
    );
}

/// Formats lines, and leaves out warnings that come too often.
///
/// A filter's `event_enabled` would be the usual place. But when it hides one event, tracing-subscriber 0.3.23 may
/// also hide the next event of that thread.
struct RateLimited<F> {
    lines: F,
    rates: Arc<LogRates>,
}

impl<F> RateLimited<F> {
    fn new(lines: F, rates: &Arc<LogRates>) -> Self {
        Self {
            lines,
            rates: rates.clone(),
        }
    }
}

impl<S, N, F> FormatEvent<S, N> for RateLimited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        line: format::Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let metadata = event.metadata();
        let is_bounded = *metadata.level() <= Level::WARN && !reports_missing_lines(metadata);
        if is_bounded && !self.rates.admits(event) {
            // Empty output is not written.
            return Ok(());
        }
        self.lines.format_event(context, line, event)
    }
}

/// Gives each line to the writer of standard error.
struct StderrLines {
    stderr: Stderr,
    format: LogFormat,
}

impl<'a> MakeWriter<'a> for StderrLines {
    type Writer = StderrLine<'a>;

    fn make_writer(&'a self) -> StderrLine<'a> {
        StderrLine {
            lines: self,
            weight: LogPriority::Usual,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> StderrLine<'a> {
        let weight = match *metadata.level() <= Level::WARN {
            _ if metadata.target() == stderr::DROPPED_TARGET => LogPriority::Notice,
            true => LogPriority::Important,
            false => LogPriority::Usual,
        };
        StderrLine {
            lines: self,
            weight,
        }
    }
}

/// One line. It is written in one piece.
struct StderrLine<'a> {
    lines: &'a StderrLines,
    weight: LogPriority,
}

impl io::Write for StderrLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stderr = &self.lines.stderr;
        match (self.lines.format, std::str::from_utf8(bytes)) {
            (LogFormat::Json, Ok(text)) => stderr.push(escaped_json(text).as_bytes(), self.weight),
            _ => stderr.push(bytes, self.weight),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn filter(
    variable: impl Fn(&str) -> Option<String>,
    fallback: Verbosity,
) -> Result<EnvFilter, LogsError> {
    let named = VARIABLES
        .into_iter()
        .find_map(|name| Some((name, variable(name).filter(|text| !text.is_empty())?)));
    match named {
        None => Ok(EnvFilter::new(fallback.filter())),
        Some((variable, text)) => {
            if let Some(word) = words(&text).find(|word| !is_level_or_target(word)) {
                let word = word.to_owned();
                return Err(LogsError::Word { variable, word });
            }
            // With lapin's errors on, lapin would log an error for each passive check of a queue that does not exist.
            // A filter that names lapin gets them.
            let text = if text.contains("lapin") {
                text
            } else {
                format!("{text},lapin=off")
            };
            EnvFilter::try_new(text).map_err(|source| LogsError::Filter { variable, source })
        }
    }
}

/// The directives of a filter that are a single word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(',').map(str::trim);
    words.filter(|word| !word.is_empty() && !word.contains(['=', '[', ']', '{', '}', ':']))
}

/// The filter would take any other word for a target's name. No target matches it, so nothing would be logged.
fn is_level_or_target(word: &str) -> bool {
    word.parse::<LevelFilter>().is_ok() || TARGETS.contains(&word)
}

/// Whether an event cannot show a credential. At levels finer than `warn`, some crates may log credentials.
fn shows_no_secret(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let sees_credentials = SEES_CREDENTIALS.iter().any(|name| target.starts_with(name));
    !sees_credentials || *metadata.level() <= Level::WARN
}

/// Whether this is a span for traces. The log leaves it out: it has spans of its own, and a line would name its job twice.
fn is_for_traces(metadata: &Metadata<'_>) -> bool {
    metadata.target() == tidegate::run::traces::TARGET
}

/// The log's filter: it keeps the lines that the filter of the user selects, without secrets. Lines that report missing
/// lines are always logged.
struct LogFilter(EnvFilter);

/// Whether this line reports that other lines are missing.
fn reports_missing_lines(metadata: &Metadata<'_>) -> bool {
    [stderr::DROPPED_TARGET, rates::TARGET].contains(&metadata.target())
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Filter<S> for LogFilter {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        reports_missing_lines(metadata)
            || (!is_for_traces(metadata)
                && shows_no_secret(metadata)
                && Filter::enabled(&self.0, metadata, context))
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if reports_missing_lines(metadata) {
            Interest::always()
        } else if shows_no_secret(metadata) && !is_for_traces(metadata) {
            Filter::<S>::callsite_enabled(&self.0, metadata)
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let hint = Filter::<S>::max_level_hint(&self.0)?;
        Some(hint.max(LevelFilter::WARN))
    }

    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        Filter::on_new_span(&self.0, attributes, id, context);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        Filter::on_record(&self.0, id, values, context);
    }

    fn on_enter(&self, id: &span::Id, context: Context<'_, S>) {
        Filter::on_enter(&self.0, id, context);
    }

    fn on_exit(&self, id: &span::Id, context: Context<'_, S>) {
        Filter::on_exit(&self.0, id, context);
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        Filter::on_close(&self.0, id, context);
    }
}

fn wants_colour() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && io::stderr().is_terminal()
}

#[cfg(test)]
mod tests;
