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
    rates::{self, Rates},
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
            // example, a queue that does not exist may be no error.
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
static RATES: OnceLock<Arc<Rates>> = OnceLock::new();

/// Logs could not be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogsError {
    /// A variable contains an invalid filter.
    #[error("read the log filter in {variable}")]
    Filter {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
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
    let rates = Arc::new(Rates::default());
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

/// The default hook would wait for the reader of standard error, and block every later panic.
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
    rates: Arc<Rates>,
}

impl<F> RateLimited<F> {
    fn new(lines: F, rates: &Arc<Rates>) -> Self {
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
        let is_bounded = *metadata.level() <= Level::WARN && !tells_of_the_log(metadata);
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

fn keeps_secrets(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_privy = SEES_CREDENTIALS.iter().any(|name| target.starts_with(name));
    !is_privy || *metadata.level() <= Level::WARN
}

/// Spans for traces. The log has spans of its own: a line would name its job twice.
fn is_for_traces(metadata: &Metadata<'_>) -> bool {
    metadata.target() == tidegate::run::traces::TARGET
}

/// What is logged: what the filter selects, without secrets. Lines that report missing lines are always logged.
struct LogFilter(EnvFilter);

fn tells_of_the_log(metadata: &Metadata<'_>) -> bool {
    [stderr::DROPPED_TARGET, rates::TARGET].contains(&metadata.target())
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Filter<S> for LogFilter {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        tells_of_the_log(metadata)
            || (!is_for_traces(metadata)
                && keeps_secrets(metadata)
                && Filter::enabled(&self.0, metadata, context))
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if tells_of_the_log(metadata) {
            Interest::always()
        } else if keeps_secrets(metadata) && !is_for_traces(metadata) {
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
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Result<EnvFilter, LogsError> {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let variable = |name: &str| {
            let found = pairs.iter().find(|(candidate, _)| candidate == name);
            found.map(|(_, value)| value.clone())
        };
        filter(variable, Verbosity::Normal)
    }

    #[test]
    fn logs_its_own_lines_at_info_by_default() {
        let filter = from(&[("TIDEGATE_LOG", "")]).unwrap().to_string();
        assert!(filter.contains("tidegate=info"), "{filter}");
        assert!(filter.contains("warn"), "{filter}");
    }

    #[test]
    fn takes_its_own_variable_before_the_common_one() {
        let both = [("RUST_LOG", "error"), ("TIDEGATE_LOG", "debug")];
        assert_eq!(from(&both).unwrap().to_string(), "lapin=off,debug");
        assert_eq!(from(&both[..1]).unwrap().to_string(), "lapin=off,error");
    }

    #[test]
    fn names_the_variable_whose_filter_cannot_be_read() {
        let error = from(&[("TIDEGATE_LOG", "tidegate=loud")]).unwrap_err();
        assert_eq!(error.to_string(), "read the log filter in TIDEGATE_LOG");
    }

    #[test]
    fn never_shows_the_frames_of_the_client_library() {
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let sink = seen.clone();
        let write = move || Sink(sink.clone());
        let filter = LogFilter(from(&[("TIDEGATE_LOG", "trace,lapin::channel=trace")]).unwrap());
        let layer = fmt::layer().with_writer(write).with_filter(filter);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::trace!(target: "lapin::channel", "s3cret");
            tracing::debug!(target: "amq_protocol", "s3cret");
            tracing::warn!(target: "lapin", "heartbeat missed");
            tracing::trace!("ours");
        });
        let text = String::from_utf8(seen.lock().unwrap().clone()).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        assert!(
            text.contains("heartbeat missed") && text.contains("ours"),
            "{text}"
        );
    }

    #[test]
    fn refuses_a_word_that_is_neither_a_level_nor_a_target_of_ours() {
        for text in ["loud", "info,loud", "tidegate=debug, Verbose", "inf"] {
            let error = from(&[("TIDEGATE_LOG", text)]).unwrap_err().to_string();
            assert!(error.contains("is not a level"), "{text}: {error}");
        }
        assert_eq!(
            from(&[("TIDEGATE_LOG", "loud")]).unwrap_err().to_string(),
            "read the log filter in TIDEGATE_LOG: \"loud\" is not a level"
        );
        for text in [
            "info",
            "DEBUG",
            "off",
            "3",
            "tidegate",
            "warn,lapin",
            "info,tidegate::run=debug",
            "tidegate::run",
            "loud=debug",
            "[job{id=1}]=debug",
            "info,",
        ] {
            from(&[("TIDEGATE_LOG", text)]).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }

    #[test]
    fn a_line_for_people_shows_nothing_hidden_and_stays_one_line() {
        let text = logged("info", || {
            tracing::info!(
                pool = %"mail",
                error = %"two\nlines \u{202e}",
                name = "a \"b\"\u{200b}",
                list = ?["\u{3164}"],
                "said {}",
                "\u{2066}\u{1b}[2J"
            );
        });
        let wanted = "INFO said \\u{2066}\\u{1b}[2J pool=mail error=two\\nlines \\u{202e} \
                      name=\"a \\\"b\\\"\\u{200b}\" list=[\"\\u{3164}\"]\n";
        assert!(text.ends_with(wanted), "{text:?}");
    }

    #[test]
    fn logs_the_first_of_a_kind_and_says_how_many_more_there_were() {
        let rates = Arc::new(Rates::default());
        let text = logged_by("info", &rates, || {
            for n in 0..rates::PER_SECOND + 7 {
                for pool in ["a", "b"] {
                    if n < 7 || pool == "a" {
                        tracing::warn!(pool = %pool, n, "job failed");
                        tracing::info!(pool = %pool, "not a warning");
                    }
                }
            }
            rates.finish();
        });
        let count = |what: &str| text.matches(what).count();
        assert_eq!(count("job failed pool=b"), 7, "{text}");
        assert_eq!(
            count("job failed pool=a"),
            rates::PER_SECOND as usize,
            "{text}"
        );
        let more =
            "more lines like this were left out within a second pool=a like=\"job failed\" lines=7";
        assert_eq!(count(more), 1, "{text}");
        assert_eq!(count("not a warning"), rates::PER_SECOND as usize + 14);
        assert_eq!(rates.left_out(), 7);
    }

    /// The output of `work` with this filter.
    fn logged(filter: &str, work: impl FnOnce()) -> String {
        logged_by(filter, &Arc::default(), work)
    }

    fn logged_by(filter: &str, rates: &Arc<Rates>, work: impl FnOnce()) -> String {
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let sink = seen.clone();
        let layer = fmt::layer()
            .fmt_fields(HumanFields)
            .with_target(false)
            .with_ansi(false)
            .map_event_format(|lines| RateLimited::new(lines, rates))
            .with_writer(move || Sink(sink.clone()))
            .with_filter(LogFilter(EnvFilter::new(filter)));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        String::from_utf8(seen.lock().unwrap().clone()).unwrap()
    }

    struct Sink(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
