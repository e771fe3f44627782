//! Errors, durations and foreign texts as a reader sees them: in one line and of limited length.

use std::time::Duration;

use jiff::Timestamp;

use crate::escape::Escaped;

/// An error and its causes in one line. A cause that the error above it quotes at its end is not repeated.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// The same for an error that holds text of another program: control characters are escaped.
pub fn escaped_chain(error: &dyn std::error::Error) -> String {
    Escaped(&chain(error)).to_string()
}

/// A duration in the units of the configuration file, such as `1h 30m`.
pub fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// A duration in one word, such as `1h30m`.
pub fn short_duration(duration: Duration) -> String {
    self::duration(duration)
        .replace("days", "d")
        .replace("day", "d")
        .replace(' ', "")
}

/// A point in time: RFC 3339 in UTC with whole seconds, such as `2026-01-02T03:04:05Z`. JSON has the same form, with
/// fractions of a second.
pub fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The duration that `text` means, such as `500ms` or `1h 30m`. `None` if the text is invalid or far too long. Each
/// number needs a unit, also 0.
pub fn parse_duration(text: &str) -> Option<Duration> {
    // humantime panics if the sum of seconds and nanoseconds overflows. This limit on the length prevents that.
    let is_sane = text.len() <= 40
        && text
            .split(|c: char| !c.is_ascii_digit())
            .all(|digits| digits.len() <= 9);
    // humantime accepts 0 without a unit.
    match is_sane && text.trim() != "0" {
        true => humantime::parse_duration(text).ok(),
        false => None,
    }
}

/// A number with its noun: `1 job`, `2 jobs`. The noun is in the singular.
pub fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {}", noun_for(count, noun))
}

/// The noun alone, in the form for a number that is written in another way, such as `20,000`.
pub fn noun_for(count: impl TryInto<u64>, noun: &str) -> String {
    let plural = format!("{noun}{}", if noun.ends_with('s') { "es" } else { "s" });
    form_for(count, noun, &plural).to_owned()
}

/// The form of a verb, or of another word, that fits a number: `form_for(jobs, "was", "were")`.
pub fn form_for<'w>(count: impl TryInto<u64>, one: &'w str, more: &'w str) -> &'w str {
    match count.try_into() {
        Ok(1) => one,
        _ => more,
    }
}

/// The start of a text, at most `limit` characters long.
pub fn first_chars(text: &str, limit: usize) -> &str {
    match text.char_indices().nth(limit) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// The start of a text, at most `limit` bytes long.
pub fn first_bytes(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The end of a text, at most `limit` bytes long.
pub fn last_bytes(text: &str, limit: usize) -> &str {
    let mut start = text.len().saturating_sub(limit);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

#[cfg(test)]
mod tests {
    use std::{error::Error, fmt};

    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|layer| layer as _)
        }
    }

    #[test]
    fn a_cause_is_written_unless_the_error_above_it_quotes_it() {
        let error = |top| Layer(top, Some(Box::new(Layer("no", None))));
        assert_eq!(chain(&error("failed to publish")), "failed to publish: no");
        assert_eq!(chain(&error("protocol error: no")), "protocol error: no");
        assert_eq!(chain(&error("nothing works")), "nothing works: no");
    }

    #[test]
    fn a_duration_is_written_as_it_is_read() {
        for (text, short, seconds) in [
            ("1h 30m", "1h30m", 5400),
            ("2days", "2d", 172_800),
            ("1day 1s", "1d1s", 86_401),
            ("0s", "0s", 0),
        ] {
            let expected = Duration::from_secs(seconds);
            assert_eq!(parse_duration(text), Some(expected), "{text}");
            assert_eq!(parse_duration(short), Some(expected), "{short}");
            assert_eq!(duration(expected), text);
            assert_eq!(short_duration(expected), short);
        }
        // jiff accepts neither of these two.
        assert_eq!(parse_duration("30m 1h"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("1s 1s"), Some(Duration::from_secs(2)));
        for text in ["", "0", "5", "-5s", "5s ago", "PT5S", "5S", "9999999999s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_noun_and_a_verb_fit_their_number() {
        assert_eq!(counted(0_u32, "job"), "0 jobs");
        assert_eq!(counted(1_u64, "dead letter"), "1 dead letter");
        assert_eq!(counted(2_usize, "process"), "2 processes");
        assert_eq!(noun_for(1_i32, "worker"), "worker");
        assert_eq!(form_for(1_u8, "was", "were"), "was");
        assert_eq!(form_for(0_u8, "was", "were"), "were");
    }

    #[test]
    fn a_time_is_rfc_3339_in_utc_with_whole_seconds() {
        let text = "2026-01-02T03:04:05.678Z";
        assert_eq!(time(text.parse().unwrap()), "2026-01-02T03:04:05Z");
        let east = "2026-01-02T04:04:05+01:00";
        assert_eq!(time(east.parse().unwrap()), "2026-01-02T03:04:05Z");
    }

    #[test]
    fn a_text_is_cut_between_two_characters() {
        assert_eq!(first_chars("äöü", 2), "äö");
        assert_eq!(first_chars("äö", 2), "äö");
        assert_eq!(first_bytes("äöü", 3), "ä");
        assert_eq!(first_bytes("äö", 9), "äö");
        assert_eq!(last_bytes("äöü", 3), "ü");
        assert_eq!(last_bytes("äö", 9), "äö");
    }
}
