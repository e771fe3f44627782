//! The table of several runs, for people.

use tidegate::text::form_for;
use tidegate_sim::Report;

/// The columns. The first is words.
pub(crate) const COLUMNS: [&str; 12] = [
    "RUN", "MEAN", "P50", "P95", "P99", "MAX", "OVER", "WORKER-S", "BUSY", "STARTS", "STOPS",
    "PEAK",
];

/// A run as a row of the table.
pub(crate) fn row(report: &Report) -> [String; COLUMNS.len()] {
    let wait = &report.wait_s;
    let over = match report.over_target {
        0 => String::from("0"),
        over => percent(over as f64 / report.jobs.max(1) as f64),
    };
    [
        report.name.clone(),
        seconds(wait.mean),
        seconds(wait.p50),
        seconds(wait.p95),
        seconds(wait.p99),
        seconds(wait.max),
        over,
        thousands(report.worker_seconds.round() as u64),
        percent(report.busy_seconds / report.worker_seconds.max(f64::MIN_POSITIVE)),
        thousands(report.starts),
        thousands(report.stops),
        thousands(report.peak),
    ]
}

/// Remarks on a run, below its row.
pub(crate) fn notes(report: &Report) -> Vec<String> {
    let noted = [
        (
            report.retried,
            "attempt failed and was followed by another",
            "attempts failed and were followed by another",
        ),
        (
            report.dead,
            "job failed at every attempt",
            "jobs failed at every attempt",
        ),
        (
            report.interrupted,
            "job was stopped while it ran, and ran again",
            "jobs were stopped while they ran, and ran again",
        ),
        (
            report.left,
            "job was never done: no worker took it, or none finished it",
            "jobs were never done: no worker took them, or none finished them",
        ),
    ];
    let noted = noted.into_iter().filter(|(count, ..)| *count > 0);
    noted
        .map(|(count, one, more)| note(&report.name, count, one, more))
        .collect()
}

fn note(run: &str, count: u64, one: &str, more: &str) -> String {
    format!("{run}: {} {}", thousands(count), form_for(count, one, more))
}

/// A time in the unit that reads best.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        0.0 => String::from("0"),
        s if s < 1.0 => format!("{:.0}ms", s * 1000.0),
        s if s < 100.0 => format!("{s:.1}s"),
        s if s < 6000.0 => format!("{:.0}m{:02.0}s", (s / 60.0).floor(), (s % 60.0).floor()),
        s => format!(
            "{:.0}h{:02.0}m",
            (s / 3600.0).floor(),
            (s % 3600.0 / 60.0).floor()
        ),
    }
}

/// A share. One that is not zero does not read as zero.
pub(crate) fn percent(share: f64) -> String {
    match share * 100.0 {
        percent if percent > 0.0 && percent < 0.01 => String::from("<0.01%"),
        percent if percent < 1.0 => format!("{percent:.2}%"),
        percent => format!("{percent:.1}%"),
    }
}

pub(crate) use crate::load::thousands;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_about_one_job_is_in_the_singular() {
        let note = |count| note("a", count, "job failed", "jobs failed");
        assert_eq!(note(1), "a: 1 job failed");
        assert_eq!(note(1_234), "a: 1,234 jobs failed");
    }

    #[test]
    fn times_and_shares_are_short() {
        let times = [0.0, 0.0042, 0.25, 12.34, 125.9, 7300.0].map(seconds);
        assert_eq!(times, ["0", "4ms", "250ms", "12.3s", "2m05s", "2h01m"]);
        let shares = [0.000_01, 0.0042, 0.25].map(percent);
        assert_eq!(shares, ["<0.01%", "0.42%", "25.0%"]);
    }
}
