//! The report: the result of a load, for people and for programs, and whether it succeeded.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest time that is recorded exactly: a day.
const MAX_US: u64 = 24 * 3600 * 1_000_000;

/// Times, to three digits.
#[derive(Debug)]
pub(super) struct Times(Histogram<u64>);

impl Times {
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, MAX_US, 3).expect("the bounds are in order"))
    }

    pub(super) fn record(&mut self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(MAX_US);
        self.0.saturating_record(us);
    }

    /// Milliseconds. `None` if nothing was recorded: this differs from a time of 0.
    pub(super) fn ms_at(&self, quantile: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| ms(self.0.value_at_quantile(quantile)))
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn percentiles(&self) -> Percentiles {
        Percentiles {
            p50: self.ms_at(0.5),
            p95: self.ms_at(0.95),
            p99: self.ms_at(0.99),
            max: (!self.0.is_empty()).then(|| ms(self.0.max())),
        }
    }
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// Percentiles in milliseconds, from when a message was due.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: Option<f64>,
    pub(super) p95: Option<f64>,
    pub(super) p99: Option<f64>,
    pub(super) max: Option<f64>,
}

/// The result of a load. Its form as JSON is part of the contract.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct LoadReport {
    /// Messages that were sent.
    pub(super) published: u64,
    /// Messages that the broker confirmed.
    pub(super) confirmed: u64,
    /// Messages that were returned, because no queue receives them.
    pub(super) returned: u64,
    /// Messages that the broker refused, or did not confirm before the end.
    pub(super) refused: u64,
    /// From when the first message was due to the last confirm.
    pub(super) seconds: f64,
    /// Confirms a second.
    pub(super) rate: f64,
    pub(super) confirm_ms: Percentiles,
    #[serde(flatten)]
    pub(super) verified: Option<Verified>,
    /// The refused messages for which no confirm came. Only in the text form.
    #[serde(skip)]
    pub(super) unconfirmed: u64,
    /// Messages that were due and not sent by the end. Only in the text form.
    #[serde(skip)]
    pub(super) unsent: u64,
}

/// How the pool handled the messages.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Verified {
    /// Messages that were answered.
    pub(super) answered: u64,
    /// Messages that were confirmed and not answered.
    pub(super) lost: u64,
    /// Answers beyond the first of their message.
    pub(super) repeated: u64,
    pub(super) done_ms: Percentiles,
    /// The answered messages whose job finally failed. Only in the text form.
    #[serde(skip)]
    pub(super) failed: u64,
}

impl LoadReport {
    /// Whether every message arrived, and with verification was answered.
    pub(super) fn is_good(&self) -> bool {
        let lost = self.verified.as_ref().map_or(0, |verified| verified.lost);
        self.returned == 0 && self.refused == 0 && lost == 0
    }

    /// Label and value of each line.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("published", thousands(self.published)),
            (
                "confirmed",
                format!(
                    "{} in {:.1} s, {}/s",
                    thousands(self.confirmed),
                    self.seconds,
                    thousands(self.rate.round() as u64)
                ),
            ),
        ];
        if self.returned > 0 {
            let returned = thousands(self.returned);
            lines.push(("returned", format!("{returned}: no queue takes them")));
        }
        if self.refused > 0 {
            let refused = thousands(self.refused);
            let how = match self.unconfirmed {
                0 => String::new(),
                unknown => format!(", {} of them without a word", thousands(unknown)),
            };
            lines.push(("refused", format!("{refused}{how}")));
        }
        if self.unsent > 0 {
            let unsent = thousands(self.unsent);
            lines.push(("not sent", format!("{unsent} that were due")));
        }
        lines.push(("confirm", shown(&self.confirm_ms)));
        if let Some(verified) = &self.verified {
            let failed = match verified.failed {
                0 => String::new(),
                failed => format!(", {} of them as failed", thousands(failed)),
            };
            let answered = thousands(verified.answered);
            lines.extend([
                ("answered", format!("{answered}{failed}")),
                ("lost", thousands(verified.lost)),
                ("repeated", thousands(verified.repeated)),
                ("done", shown(&verified.done_ms)),
            ]);
        }
        lines
    }
}

fn shown(percentiles: &Percentiles) -> String {
    let Percentiles { p50, p95, p99, max } = *percentiles;
    let (Some(p50), Some(p95), Some(p99), Some(max)) = (p50, p95, p99, max) else {
        return "never".to_owned();
    };
    let [p50, p95, p99, max] = [p50, p95, p99, max].map(time);
    format!("p50 {p50}  p95 {p95}  p99 {p99}  max {max}")
}

/// A time in a suitable unit.
fn time(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms if ms < 100_000.0 => format!("{:.2} s", ms / 1000.0),
        ms => format!("{:.0} s", ms / 1000.0),
    }
}

/// A count with separators for thousands.
pub(crate) fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> LoadReport {
        let mut times = Times::new();
        for ms in 1..=100 {
            times.record(Duration::from_millis(ms));
        }
        LoadReport {
            published: 12_345,
            confirmed: 12_345,
            returned: 0,
            refused: 0,
            seconds: 1.5,
            rate: 8230.0,
            confirm_ms: times.percentiles(),
            verified: None,
            unconfirmed: 0,
            unsent: 0,
        }
    }

    fn verified(lost: u64) -> Verified {
        Verified {
            answered: 7,
            lost,
            repeated: 2,
            done_ms: Times::new().percentiles(),
            failed: 1,
        }
    }

    #[test]
    fn as_json_it_has_the_keys_of_the_contract_and_no_others() {
        let keys = |report: &LoadReport| -> Vec<String> {
            let value = serde_json::to_value(report).unwrap();
            value.as_object().unwrap().keys().cloned().collect()
        };
        let mut plain = vec![
            "confirm_ms",
            "confirmed",
            "published",
            "rate",
            "refused",
            "returned",
            "seconds",
        ];
        assert_eq!(keys(&report()), plain);
        let all = LoadReport {
            verified: Some(verified(0)),
            ..report()
        };
        plain.extend(["answered", "done_ms", "lost", "repeated"]);
        plain.sort_unstable();
        assert_eq!(keys(&all), plain);
    }

    #[test]
    fn returned_refused_or_lost_messages_make_a_load_fail() {
        assert!(report().is_good());
        for bad in [
            LoadReport {
                returned: 1,
                ..report()
            },
            LoadReport {
                refused: 1,
                ..report()
            },
            LoadReport {
                verified: Some(verified(1)),
                ..report()
            },
        ] {
            assert!(!bad.is_good(), "{bad:?}");
        }
        // Pools promise to run a job at least once.
        let repeated = LoadReport {
            verified: Some(verified(0)),
            ..report()
        };
        assert!(repeated.is_good());
    }

    #[test]
    fn reads_as_a_table() {
        let all = LoadReport {
            returned: 3,
            refused: 2000,
            unconfirmed: 1000,
            unsent: 5,
            verified: Some(verified(4)),
            ..report()
        };
        let text: String = all
            .lines()
            .into_iter()
            .map(|(label, value)| format!("{label:<10}{value}\n"))
            .collect();
        insta::assert_snapshot!(text, @r"
        published 12,345
        confirmed 12,345 in 1.5 s, 8,230/s
        returned  3: no queue takes them
        refused   2,000, 1,000 of them without a word
        not sent  5 that were due
        confirm   p50 50 ms  p95 95 ms  p99 99 ms  max 100 ms
        answered  7, 1 of them as failed
        lost      4
        repeated  2
        done      never
        ");
    }

    #[test]
    fn times_have_a_suitable_unit() {
        for (ms, text) in [
            (0.25, "0.25 ms"),
            (12.3, "12 ms"),
            (1234.0, "1.23 s"),
            (123_400.0, "123 s"),
        ] {
            assert_eq!(time(ms), text);
        }
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_000_000), "1,000,000");
    }

    #[test]
    fn a_time_beyond_all_bounds_is_the_longest() {
        let mut times = Times::new();
        times.record(Duration::MAX);
        times.record(Duration::ZERO);
        let percentiles = times.percentiles();
        assert!(percentiles.max.unwrap() >= 86_400_000.0);
    }
}
