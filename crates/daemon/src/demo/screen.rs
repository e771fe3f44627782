//! The output of the demo: one line for each reading of the pool, the same in a terminal and in a log.

use std::{
    fmt,
    io::{self, Write},
    time::Duration,
};

use anstyle::{AnsiColor, Style};

use super::{broker::DemoBroker, summary::Summary};
use tidegate::run::PoolStatus;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const WATER: Style = AnsiColor::Blue.on_default();
const BUSY: Style = AnsiColor::Green.on_default();
const WAITING: Style = AnsiColor::Yellow.on_default();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Cells of the queue's bar, and the number of jobs that fill it.
const QUEUE_CELLS: usize = 20;
const QUEUE_FULL: f64 = 240.0;

/// Cells of the workers' bar, and the number of workers that a cell shows.
const WORKER_CELLS: usize = 16;
const WORKERS_PER_CELL: u32 = 2;

/// Writes the demo's output to standard output.
#[derive(Debug)]
pub(super) struct Screen {
    out: anstream::Stdout,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            out: anstream::stdout(),
        }
    }

    pub(super) fn opening(&mut self, broker: &DemoBroker) -> io::Result<()> {
        let out = &mut self.out;
        match broker.url() {
            Some(url) => writeln!(out, "{BOLD}tidegate demo{BOLD:#} on the broker {url}")?,
            None => writeln!(
                out,
                "{BOLD}tidegate demo{BOLD:#} on the embedded in-memory queue (set AMQP_URL for a real broker)"
            )?,
        }
        let queue = broker.queue();
        writeln!(
            out,
            "{DIM}queue {queue}, one worker for each 8 jobs, at most 32, each job a process of 0.25 s{DIM:#}"
        )?;
        writeln!(out)?;
        writeln!(
            out,
            "{BOLD}  time  ready {:QUEUE_CELLS$}  workers {:WORKER_CELLS$}  busy idle  done{BOLD:#}",
            "", ""
        )
    }

    /// Prints the step that begins now.
    pub(super) fn announce(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{DIM}        ~ {text}{DIM:#}")
    }

    pub(super) fn pool(&mut self, time: Duration, pool: &PoolStatus) -> io::Result<()> {
        write_pool(&mut self.out, time, pool)?;
        self.out.flush()
    }

    pub(super) fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        let out = &mut self.out;
        writeln!(out)?;
        for (label, value) in summary.lines() {
            writeln!(out, "  {DIM}{label:<12}{DIM:#} {value}")?;
        }
        writeln!(out)?;
        match summary.problem() {
            None => writeln!(
                out,
                "  {GOOD}every job ran, none was lost, and the pool drained to zero{GOOD:#}"
            ),
            Some(problem) => writeln!(out, "  {BAD}{problem}{BAD:#}"),
        }
    }
}

fn write_pool(out: &mut impl Write, time: Duration, pool: &PoolStatus) -> io::Result<()> {
    let (workers, runners) = (pool.workers, pool.runners);
    let ready = pool.depth.ready;
    let live = workers.live + workers.draining;
    let queue_bar = QueueBar(ready as f64 / QUEUE_FULL);
    let workers_bar = WorkersBar {
        busy: runners.busy.min(live),
        live,
    };
    writeln!(
        out,
        "{:>5.1}s  {ready:>5} {queue_bar}  {live:>7} {workers_bar}  {:>4} {:>4}  {:>4}",
        time.as_secs_f64(),
        runners.busy,
        runners.idle,
        pool.jobs.done
    )
}

/// The queue's bar, filled to this share, in eighths of a cell.
struct QueueBar(f64);

impl fmt::Display for QueueBar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        let most = QUEUE_CELLS * 8;
        // A queue that is not empty never has an empty bar.
        let least = usize::from(self.0 > 0.0);
        let eighths = (self.0 * most as f64).round() as usize;
        let eighths = eighths.clamp(least, most);
        let (whole, rest) = (eighths / 8, eighths % 8);
        let used = whole + usize::from(rest > 0);
        let (full, edge) = ("█".repeat(whole), EIGHTHS[rest]);
        let empty = " ".repeat(QUEUE_CELLS - used);
        write!(f, "{WATER}{full}{edge}{WATER:#}{empty}")
    }
}

/// The workers' bar, in whole cells. Busy workers come first, then waiting workers. The two differ without colour too.
struct WorkersBar {
    busy: u32,
    live: u32,
}

impl fmt::Display for WorkersBar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = |workers: u32| (workers.div_ceil(WORKERS_PER_CELL) as usize).min(WORKER_CELLS);
        let (busy, live) = (cells(self.busy), cells(self.live));
        let (working, waiting) = ("█".repeat(busy), "░".repeat(live - busy));
        let empty = " ".repeat(WORKER_CELLS - live);
        write!(
            f,
            "{BUSY}{working}{BUSY:#}{WAITING}{waiting}{WAITING:#}{empty}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(ready: u64, busy: u32, idle: u32, live: u32) -> String {
        let pool = serde_json::from_value(serde_json::json!({
            "name": "demo", "queue": "demo", "state": "active",
            "depth": {"ready": ready, "age_ms": 10, "stale": false},
            "delayed": 0, "demand": ready, "expected": live,
            "workers": {"bare": live - idle - busy, "live": live, "draining": 0},
            "runners": {"idle": idle, "busy": busy},
            "jobs": {"done": 42, "retried": 0, "dead": 0, "requeued": 0, "lost": 0}
        }));
        let mut out = anstream::StripStream::new(Vec::new());
        write_pool(&mut out, Duration::from_millis(1250), &pool.unwrap()).unwrap();
        String::from_utf8(out.into_inner()).unwrap()
    }

    #[test]
    fn draws_the_bars_of_the_queue_and_the_workers() {
        let lines = [
            line(0, 0, 0, 0),
            line(1, 1, 0, 1),
            line(120, 14, 1, 16),
            line(100_000, 32, 0, 32),
        ];
        insta::assert_snapshot!(lines.concat());
    }

    #[test]
    fn keeps_every_line_as_wide_as_the_others() {
        let widths: Vec<usize> = [line(0, 0, 0, 0), line(3, 5, 1, 7), line(999, 30, 9, 40)]
            .iter()
            .map(|line| line.chars().count())
            .collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{widths:?}");
    }
}
