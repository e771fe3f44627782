//! Logs on standard error, for a person or as JSON.
//!
//! Owns the process's one `tracing` subscriber. Never lets the client library's own detail through: at `trace` it
//! logs whole frames, and the frame that opens a connection has the password in it.

use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, filter_fn},
    fmt,
    layer::SubscriberExt,
    util::{SubscriberInitExt, TryInitError},
};

use tidegate::config::LogFormat;

/// Variables that may hold the filter, by precedence.
const VARIABLES: [&str; 2] = ["TIDEGATE_LOG", "RUST_LOG"];

/// How much is logged where the environment does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Ours at `info`; of others only what someone should know.
    Normal,
    /// Only what someone should know.
    Quiet,
}

impl Verbosity {
    fn filter(self) -> &'static str {
        match self {
            // The client library's errors reach us as errors too, and are said once, by whoever can tell what they
            // mean: a queue that is not there is no error of the library's.
            Self::Normal => "warn,tidegate=info,lapin=off,async_rs=off",
            Self::Quiet => "warn,lapin=off,async_rs=off",
        }
    }
}

/// Crates that see credentials on their way to the broker, and jobs' variables on their way to a container engine.
const SEES_CREDENTIALS: [&str; 4] = ["lapin", "amq_protocol", "async_rs", "bollard"];

/// Logs could not be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogsError {
    /// A variable holds something that is no filter.
    #[error("read the log filter in {variable}")]
    Filter {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// There is a subscriber already.
    #[error("install the log subscriber")]
    Install(#[source] TryInitError),
}

/// Installs the process's log subscriber.
///
/// # Errors
/// The filter in the environment cannot be read, or a subscriber is there already.
pub fn init(format: LogFormat, fallback: Verbosity) -> Result<(), LogsError> {
    let filter = filter(|variable| std::env::var(variable).ok(), fallback)?;
    let filter = filter.and(filter_fn(keeps_secrets));
    let layer = match format {
        LogFormat::Human => fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(wants_colour())
            .with_target(false)
            // A closed standard error must not become a panic in whoever logs.
            .log_internal_errors(false)
            .boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_writer(io::stderr)
            .log_internal_errors(false)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .map_err(LogsError::Install)
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
            // Asked for in general, the client library would log an error for each passive look at a queue that is
            // not there. Who wants to see that names it.
            let text = if text.contains("lapin") {
                text
            } else {
                format!("{text},lapin=off")
            };
            EnvFilter::try_new(text).map_err(|source| LogsError::Filter { variable, source })
        }
    }
}

fn keeps_secrets(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_privy = SEES_CREDENTIALS.iter().any(|name| target.starts_with(name));
    !is_privy || *metadata.level() <= Level::WARN
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
    fn logs_its_own_lines_at_info_where_nothing_is_said() {
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
        let filter = from(&[("TIDEGATE_LOG", "trace,lapin::channel=trace")])
            .unwrap()
            .and(filter_fn(keeps_secrets));
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
