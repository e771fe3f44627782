//! Traces: recorded arrivals, as text.
//!
//! A trace is CSV with a head line. `time,arrivals`: the number of arrivals from this time until the time of the next
//! line. `time` alone: one arrival at each line's time. Times are seconds, or RFC 3339, and never decrease. This module
//! does not depend on the use of a trace (a load, a simulation).

use std::time::Duration;

use jiff::Timestamp;

/// The maximum number of arrivals in one line. A higher count is a mistake in the file.
const MAX_COUNT: f64 = 1e12;

/// The longest duration of a trace: a hundred years.
const MAX_SECONDS: f64 = 100.0 * 366.0 * 86_400.0;

/// Arrivals over time, from the trace's first line on.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    begin: Option<Timestamp>,
    spans: Vec<ArrivalSpan>,
}

/// A span of time, and the number of arrivals in it, at an even rate.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ArrivalSpan {
    /// How long it is. All of a span without length arrives at once.
    pub length: Duration,
    /// The number of arrivals. It may be a fraction, because a trace may contain averages.
    pub arrivals: f64,
}

/// A text is not a trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to read line {line} of the trace: {what}")]
pub struct TraceError {
    /// The line, 1 for the first.
    pub line: usize,
    what: String,
}

/// What the lines of a trace mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Each line has a count.
    Counted,
    /// Each line is one arrival.
    Single,
}

impl Trace {
    /// Reads a trace.
    ///
    /// The last line of counted arrivals has no next line. Its span is as long as the span before it. In a trace of one
    /// line, all jobs arrive at once.
    ///
    /// # Errors
    /// The text has no such head line, has no line after it, or a line that cannot be read or goes back in time.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        // Spreadsheets write a byte order mark at the start.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut lines = (1..).zip(text.lines());
        let form = match lines.next() {
            Some((line, head)) => form(head).ok_or_else(|| TraceError {
                line,
                what: "the head line is `time,arrivals`, or `time` alone".to_owned(),
            })?,
            None => return Err(empty(1)),
        };
        let mut points: Vec<(f64, f64)> = Vec::new();
        let mut begin = None;
        let mut last = 1;
        for (line, row) in lines {
            if row.trim().is_empty() {
                continue;
            }
            last = line;
            let wrong = |what: String| TraceError { line, what };
            let (time, arrivals) = row_of(form, row).map_err(wrong)?;
            if let Some((before, _)) = points.last()
                && time < *before
            {
                return Err(wrong(
                    "its time is before that of the line above".to_owned(),
                ));
            }
            if points.is_empty() {
                begin = row
                    .split(',')
                    .next()
                    .and_then(|time| time.trim().parse().ok());
            }
            points.push((time, arrivals));
        }
        let (Some((first, _)), Some((end, _))) = (points.first(), points.last()) else {
            return Err(empty(last));
        };
        if end - first > MAX_SECONDS {
            return Err(TraceError {
                line: last,
                what: "it is more than a hundred years after the first".to_owned(),
            });
        }
        Ok(Self {
            begin,
            spans: spans(form, &points),
        })
    }

    /// When it begins, if its first time is of RFC 3339.
    pub fn begin(&self) -> Option<Timestamp> {
        self.begin
    }

    /// Its spans, in their order.
    pub fn spans(&self) -> &[ArrivalSpan] {
        &self.spans
    }

    /// The total number of arrivals.
    pub fn arrivals(&self) -> f64 {
        self.spans.iter().map(|span| span.arrivals).sum()
    }

    /// Its two parts, before and after this time from its beginning. If the time is inside a span, the span and its
    /// arrivals are divided.
    #[must_use]
    pub fn split(&self, at: Duration) -> (Self, Self) {
        let mut parts = (Vec::new(), Vec::new());
        let mut left = at;
        for span in &self.spans {
            // What arrives at this time itself is after it. A span without length is never divided.
            if !left.is_zero() && span.length <= left {
                parts.0.push(*span);
                left -= span.length;
                continue;
            }
            let share = match left.is_zero() {
                true => 0.0,
                false => left.as_secs_f64() / span.length.as_secs_f64(),
            };
            let part = |length: Duration, share: f64| ArrivalSpan {
                length,
                arrivals: span.arrivals * share,
            };
            if left > Duration::ZERO {
                parts.0.push(part(left, share));
            }
            parts.1.push(part(span.length - left, 1.0 - share));
            left = Duration::ZERO;
        }
        let later = self.begin.and_then(|begin| begin.checked_add(at).ok());
        let part = |begin, spans| Self { begin, spans };
        (part(self.begin, parts.0), part(later, parts.1))
    }

    /// How long it lasts.
    pub fn length(&self) -> Duration {
        self.spans.iter().map(|span| span.length).sum()
    }
}

fn empty(line: usize) -> TraceError {
    TraceError {
        line,
        what: "there is no arrival after the head line".to_owned(),
    }
}

fn form(head: &str) -> Option<Form> {
    let names: Vec<String> = head
        .split(',')
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    match names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["time", "arrivals"] => Some(Form::Counted),
        ["time"] => Some(Form::Single),
        _ => None,
    }
}

fn row_of(form: Form, row: &str) -> Result<(f64, f64), String> {
    let fields: Vec<&str> = row.split(',').map(str::trim).collect();
    match (form, &fields[..]) {
        (Form::Counted, [time, arrivals]) => Ok((seconds(time)?, count(arrivals)?)),
        (Form::Single, [time]) => Ok((seconds(time)?, 1.0)),
        (Form::Counted, _) => Err(format!("it has {} fields and not 2", fields.len())),
        (Form::Single, _) => Err(format!("it has {} fields and not 1", fields.len())),
    }
}

/// Seconds since some beginning: of the trace's own, or the epoch.
fn seconds(text: &str) -> Result<f64, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return match seconds.is_finite() {
            true => Ok(seconds),
            false => Err(format!("{text:?} is not a time")),
        };
    }
    let time: Timestamp = text
        .parse()
        .map_err(|_| format!("{text:?} is not a number of seconds, and not an RFC 3339 time"))?;
    // The precision is about a microsecond, which is enough for sending.
    Ok(time.as_microsecond() as f64 / 1e6)
}

fn count(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(count) if (0.0..=MAX_COUNT).contains(&count) => Ok(count),
        _ => Err(format!("{text:?} is not a number of arrivals")),
    }
}

fn spans(form: Form, points: &[(f64, f64)]) -> Vec<ArrivalSpan> {
    let span = |length: f64, arrivals| ArrivalSpan {
        length: Duration::from_secs_f64(length.max(0.0)),
        arrivals,
    };
    let gaps = points.windows(2).map(|pair| (pair[1].0 - pair[0].0, pair));
    match form {
        Form::Counted => {
            let mut spans: Vec<ArrivalSpan> =
                gaps.map(|(gap, pair)| span(gap, pair[0].1)).collect();
            let gap = spans.last().map_or(0.0, |last| last.length.as_secs_f64());
            spans.extend(points.last().map(|last| span(gap, last.1)));
            spans
        }
        // Each arrives at once. Nothing arrives until the next.
        Form::Single => {
            let mut spans = vec![span(0.0, 1.0)];
            for (gap, _) in gaps {
                spans.extend([span(gap, 0.0), span(0.0, 1.0)]);
            }
            spans
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(spans: &[(f64, f64)]) -> Vec<ArrivalSpan> {
        let span = |&(length, arrivals): &(f64, f64)| ArrivalSpan {
            length: Duration::from_secs_f64(length),
            arrivals,
        };
        spans.iter().map(span).collect()
    }

    #[test]
    fn counted_arrivals_come_until_the_next_line() {
        let trace = Trace::parse("time,arrivals\n0,5\n10,0\n12.5,7.5\n").expect("a trace");
        assert_eq!(trace.spans(), of(&[(10.0, 5.0), (2.5, 0.0), (2.5, 7.5)]));
        assert_eq!(trace.length(), Duration::from_secs(15));
        assert!((trace.arrivals() - 12.5).abs() < 1e-9);
    }

    #[test]
    fn a_line_without_a_count_is_one_arrival() {
        let trace = Trace::parse("time\n3\n3\n4\n").expect("a trace");
        let expected = [(0.0, 1.0), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (0.0, 1.0)];
        assert_eq!(trace.spans(), of(&expected));
        assert_eq!(trace.length(), Duration::from_secs(1));
    }

    #[test]
    fn times_are_seconds_or_of_rfc_3339() {
        let text =
            "Time, Arrivals\r\n2026-11-26T10:00:00Z,3\r\n2026-11-26T11:01:00+01:00,4\r\n\r\n";
        let trace = Trace::parse(text).expect("a trace");
        assert_eq!(trace.spans(), of(&[(60.0, 3.0), (60.0, 4.0)]));
        assert_eq!(trace.begin(), "2026-11-26T10:00:00Z".parse().ok());
        let seconds = Trace::parse("time\n3\n").expect("a trace");
        assert_eq!(seconds.begin(), None);
    }

    #[test]
    fn a_split_divides_the_span_that_it_falls_in() {
        let trace = Trace::parse("time,arrivals\n0,5\n10,8\n14,1\n").expect("a trace");
        let (before, after) = trace.split(Duration::from_secs(13));
        assert_eq!(before.spans(), of(&[(10.0, 5.0), (3.0, 6.0)]));
        assert_eq!(after.spans(), of(&[(1.0, 2.0), (4.0, 1.0)]));
        let (all, nothing) = trace.split(Duration::from_secs(100));
        assert_eq!(all, trace);
        assert_eq!(nothing.spans(), []);
    }

    #[test]
    fn arrivals_without_a_length_stay_on_their_side_of_a_split() {
        let trace = Trace::parse("time\n0\n10\n20\n30\n").expect("a trace");
        for (at, before) in [
            (0, 0.0),
            (5, 1.0),
            (10, 1.0),
            (15, 2.0),
            (30, 3.0),
            (31, 4.0),
        ] {
            let (first, rest) = trace.split(Duration::from_secs(at));
            assert_eq!(
                (first.arrivals(), rest.arrivals()),
                (before, 4.0 - before),
                "{at}"
            );
            assert_eq!(first.length() + rest.length(), trace.length(), "{at}");
        }
    }

    #[test]
    fn a_single_line_arrives_at_once() {
        let trace = Trace::parse("time,arrivals\n7,100").expect("a trace");
        assert_eq!(trace.spans(), of(&[(0.0, 100.0)]));
    }

    #[test]
    fn a_problem_is_reported_with_its_line() {
        for (text, line, word) in [
            ("", 1, "no arrival"),
            ("time,arrivals\n", 1, "no arrival"),
            ("timestamp,value\n0,1\n", 1, "head line"),
            ("time,arrivals\n0\n", 2, "1 fields"),
            ("time\n0\n1,2\n", 3, "2 fields"),
            ("time,arrivals\n0,1\nnoon,1\n", 3, "\"noon\""),
            ("time,arrivals\n0,1\n1,-2\n", 3, "\"-2\""),
            ("time,arrivals\n0,1\n1,many\n", 3, "\"many\""),
            ("time,arrivals\n0,1e30\n", 2, "\"1e30\""),
            ("time,arrivals\n0,NaN\n", 2, "\"NaN\""),
            ("time\ninf\n", 2, "\"inf\""),
            ("time,arrivals\n5,1\n4,1\n", 3, "before"),
            ("time\n0\n1e300\n", 3, "a hundred years"),
        ] {
            let error = Trace::parse(text).expect_err(text);
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.to_string().contains(word), "{text:?}: {error}");
        }
    }
}
