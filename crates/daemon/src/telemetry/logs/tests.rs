//! Tests of the logs: the filter, and the form of a line.

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
fn refuses_a_word_that_is_not_a_level_or_a_target_of_ours() {
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
fn a_text_line_of_the_log_escapes_hidden_characters_and_stays_one_line() {
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
    let rates = Arc::new(LogRates::default());
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
        "more lines like this were omitted within a second pool=a like=\"job failed\" lines=7";
    assert_eq!(count(more), 1, "{text}");
    assert_eq!(count("not a warning"), rates::PER_SECOND as usize + 14);
    assert_eq!(rates.left_out(), 7);
}

/// The output of `work` with this filter.
fn logged(filter: &str, work: impl FnOnce()) -> String {
    logged_by(filter, &Arc::default(), work)
}

fn logged_by(filter: &str, rates: &Arc<LogRates>, work: impl FnOnce()) -> String {
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
