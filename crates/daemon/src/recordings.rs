//! Recordings: the arrivals of the last day of every pool, as traces in the state directory.
//!
//! `recordings/POOL.csv` has a line for each ten seconds in which the number of arrivals changed. After a day it becomes
//! `POOL.1.csv`, and a new file begins. So there is always the last day, and never more than two: at most 17,280 lines, or
//! 600 KB, for each pool. `POOL.measured.json` has what the pool measured of its jobs. Each CSV file is a trace that
//! `simulate` and `tune` read. Only the holder of the instance lock writes them. A disk that is full costs lines, and
//! nothing else.

mod last_day;
mod measured;

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tidegate::{
    decide::{Decision, PoolName, Timings},
    run::{Supervisor, chain},
};
use tokio::time::{self, Instant, MissedTickBehavior};
use tracing::warn;

use self::measured::MeasurementSchedule;
pub(crate) use self::{
    last_day::{LastDay, last_day},
    measured::measured_before,
};
use crate::files::{self, Links};

/// Time that a line covers.
const STEP: Duration = Duration::from_secs(10);
/// Time that a file covers.
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Largest file that is continued. A larger one is not ours.
const MAX_BYTES: u64 = 1 << 20;
const HEAD: &str = "time,arrivals\n";

/// Writes the recordings of all pools until it is aborted.
pub(crate) async fn keep(supervisor: Supervisor, state_dir: PathBuf) {
    let folder = state_dir.join("recordings");
    let mut pools: BTreeMap<PoolName, Recording> = BTreeMap::new();
    let mut steps = time::interval(STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut measured = MeasurementSchedule::default();
    let mut warned = false;
    loop {
        steps.tick().await;
        let now = Timestamp::now();
        let (totals, timings) = seen(&supervisor);
        let timings = measured.due(&timings);
        pools.retain(|name, _| totals.contains_key(name));
        let mut lines = Vec::new();
        for (name, total) in totals {
            let recording = pools.entry(name.clone()).or_default();
            if let Some(line) = recording.step(now, total) {
                lines.push((name, line));
            }
        }
        if lines.is_empty() && timings.is_empty() {
            continue;
        }
        let folder = folder.clone();
        let written = tokio::task::spawn_blocking(move || write(&folder, &lines, &timings)).await;
        match written.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(()) => warned = false,
            Err(error) if !warned => {
                warned = true;
                warn!(
                    error = chain(&error),
                    "could not write the recordings of pools"
                );
            }
            Err(_) => {}
        }
    }
}

/// What each pool has seen arrive, and what it measured of its jobs.
type SeenMessages = (
    BTreeMap<PoolName, Option<Arrived>>,
    Vec<(PoolName, Timings)>,
);

/// What a pool has seen arrive since it began to watch its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) total: u64,
    pub(crate) watched: Duration,
    /// When this was read.
    pub(crate) at: Instant,
}

impl Arrived {
    /// What a decision says.
    pub(crate) fn of(decision: &Decision) -> Option<Self> {
        let arrivals = decision.inputs.measured.arrivals?;
        Some(Self {
            total: arrivals.total,
            watched: arrivals.watched,
            at: Instant::now(),
        })
    }

    /// How many arrived after an earlier reading.
    pub(crate) fn since(self, before: Self) -> u64 {
        match self.begun_after(before) {
            true => self.total,
            false => self.total.saturating_sub(before.total),
        }
    }

    /// Whether the pool began to watch its queue after an earlier reading: the supervisor was restarted, or the queue was
    /// created again. Then the total counts from zero. It may be the higher one nevertheless.
    fn begun_after(self, before: Self) -> bool {
        let is_same = (self.total, self.watched) == (before.total, before.watched);
        let elapsed = self.at.duration_since(before.at);
        !is_same
            && (self.watched < before.watched
                || self.total < before.total
                || self.watched < elapsed)
    }
}

fn seen(supervisor: &Supervisor) -> SeenMessages {
    let (mut totals, mut timings) = SeenMessages::default();
    for pool in supervisor.pools() {
        let decision = supervisor.explain(&pool.name);
        // Absent for a pool that has not measured yet.
        let arrived = decision.as_ref().and_then(Arrived::of);
        totals.insert(pool.name.clone(), arrived);
        let measured = decision.map(|decision| decision.inputs.measured);
        timings.extend(measured.map(|measured| (pool.name, measured.timings)));
    }
    (totals, timings)
}

/// One line of a recording: the arrivals from a time until the next line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RecordedLine {
    from: Timestamp,
    arrivals: u64,
}

/// The recording of a pool so far.
#[derive(Debug, Default)]
struct Recording {
    arrived: Option<Arrived>,
    /// When the present line begins.
    from: Option<Timestamp>,
    /// The arrivals of the last line that was written.
    written: Option<u64>,
}

impl Recording {
    /// The line that ends at `now`. `None` if it would repeat that nothing arrived.
    fn step(&mut self, now: Timestamp, arrived: Option<Arrived>) -> Option<RecordedLine> {
        let from = self.from.replace(now)?;
        let arrivals = match (self.arrived, arrived) {
            (_, None) => 0,
            (Some(before), Some(now)) => now.since(before),
            (None, Some(now)) => now.total,
        };
        self.arrived = arrived.or(self.arrived);
        if arrivals == 0 && self.written == Some(0) {
            return None;
        }
        self.written = Some(arrivals);
        Some(RecordedLine { from, arrivals })
    }
}

fn write(
    folder: &Path,
    lines: &[(PoolName, RecordedLine)],
    timings: &[(PoolName, Timings)],
) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // One pool's fault does not keep the others from being written.
    let lines = lines.iter().map(|(name, line)| {
        let named = |error: io::Error| {
            let kind = error.kind();
            io::Error::new(kind, format!("{}: {error}", csv(folder, name).display()))
        };
        append(folder, name, *line).map_err(named)
    });
    let timings = timings
        .iter()
        .map(|(name, timings)| measured::write(folder, name, timings));
    let faults: Vec<io::Error> = lines.chain(timings).filter_map(Result::err).collect();
    faults.into_iter().next().map_or(Ok(()), Err)
}

fn csv(folder: &Path, name: &PoolName) -> PathBuf {
    folder.join(format!("{name}.csv"))
}

fn append(folder: &Path, name: &PoolName, line: RecordedLine) -> io::Result<()> {
    let path = csv(folder, name);
    let mut text = String::new();
    match state_of(&path)? {
        RecordingFile::Absent => text.push_str(HEAD),
        // The clock was set back. The lines of a trace are in the order of their times.
        RecordingFile::Current { last, .. } if line.from < last => {
            fs::rename(&path, folder.join(format!("{name}.1.csv")))?;
            text.push_str(HEAD);
        }
        RecordingFile::Current { end, last } => {
            // What a crash left of a line is cut off.
            OpenOptions::new().write(true).open(&path)?.set_len(end)?;
            // A pause of the recording, such as a restart, is not part of the last line.
            let covered = after(last, STEP);
            if after(covered, Duration::from_secs(1)) < line.from {
                text.push_str(&format!("{covered},0\n"));
            }
        }
        RecordingFile::Old => {
            fs::rename(&path, folder.join(format!("{name}.1.csv")))?;
            text.push_str(HEAD);
        }
    }
    text.push_str(&format!("{},{}\n", whole_seconds(line.from), line.arrivals));
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    file.write_all(text.as_bytes())
}

fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// The file that exists at the path of a recording.
enum RecordingFile {
    Absent,
    /// A recording that may be continued: its length without a torn line, and the time of its last line.
    Current {
        end: u64,
        last: Timestamp,
    },
    /// A recording of a whole day, or something else.
    Old,
}

fn state_of(path: &Path) -> io::Result<RecordingFile> {
    let mut file = match files::open(path, Links::Refuse) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(RecordingFile::Absent),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    if length > MAX_BYTES {
        return Ok(RecordingFile::Old);
    }
    let mut begin = [0; 128];
    let read = file.read(&mut begin)?;
    let begin = String::from_utf8_lossy(&begin[..read]);
    let mut lines = begin.split_inclusive('\n');
    let first = match (lines.next(), lines.next()) {
        (Some(HEAD), None) => None,
        (Some(HEAD), Some(first)) => time_of(first),
        _ => return Ok(RecordingFile::Old),
    };
    file.seek(SeekFrom::Start(length.saturating_sub(128)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let torn = tail.iter().rev().take_while(|byte| **byte != b'\n').count();
    tail.truncate(tail.len() - torn);
    let tail = String::from_utf8_lossy(&tail);
    let last = tail.lines().next_back().and_then(time_of);
    match (first, last) {
        (Some(first), Some(last)) if last.duration_since(first) < DAY => {
            Ok(RecordingFile::Current {
                end: length - torn as u64,
                last,
            })
        }
        _ => Ok(RecordingFile::Old),
    }
}

/// Later by this much, or the last time that there is.
fn after(at: Timestamp, by: Duration) -> Timestamp {
    let later = SignedDuration::try_from(by).ok();
    let later = later.and_then(|by| at.checked_add(by).ok());
    later.unwrap_or(Timestamp::MAX)
}

fn time_of(line: &str) -> Option<Timestamp> {
    line.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate::trace::Trace;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn append_at(folder: &Path, second: i64, arrivals: u64) {
        let line = RecordedLine {
            from: at(second),
            arrivals,
        };
        append(folder, &"jobs".into(), line).unwrap();
    }

    fn text(folder: &Path) -> String {
        fs::read_to_string(folder.join("jobs.csv")).unwrap()
    }

    #[test]
    fn a_time_without_arrivals_is_one_line() {
        let mut recording = Recording::default();
        let seen = [
            None,
            None,
            None,
            Some((5, 10)),
            Some((5, 20)),
            Some((5, 30)),
            Some((9, 40)),
            // The queue was created again.
            Some((2, 5)),
            Some((8, 3)),
        ];
        let begin = Instant::now();
        let steps = (0..).zip(seen);
        let lines: Vec<_> = steps
            .filter_map(|(n, seen)| {
                let seen = seen.map(|(total, watched)| Arrived {
                    total,
                    watched: Duration::from_secs(watched),
                    at: begin + n * STEP,
                });
                recording.step(at(10 * i64::from(n)), seen)
            })
            .map(|line| (line.from.as_second() - 1_800_000_000, line.arrivals))
            .collect();
        assert_eq!(lines, [(0, 0), (20, 5), (30, 0), (50, 4), (60, 2), (70, 8)]);
    }

    #[test]
    fn a_recording_is_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        for (second, arrivals) in [(0, 7), (10, 0), (600, 3), (610, 0)] {
            append_at(folder.path(), second, arrivals);
        }
        let trace = Trace::parse(&text(folder.path())).expect("a trace");
        let arrivals: f64 = trace.spans().iter().map(|span| span.arrivals).sum();
        assert_eq!(arrivals, 10.0);
    }

    #[test]
    fn a_pause_does_not_count_as_part_of_the_last_line() {
        let folder = tempfile::tempdir().unwrap();
        append_at(folder.path(), 0, 7);
        append_at(folder.path(), 3600, 3);
        let text = text(folder.path());
        let times: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            times,
            [
                "2027-01-15T08:00:00Z,7",
                "2027-01-15T08:00:10Z,0",
                "2027-01-15T09:00:00Z,3"
            ]
        );
    }

    #[test]
    fn an_incomplete_last_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        append_at(folder.path(), 0, 7);
        let path = folder.path().join("jobs.csv");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"2027-01-15T08:0").unwrap();
        append_at(folder.path(), 10, 3);
        assert!(
            text(folder.path()).ends_with(":00Z,7\n2027-01-15T08:00:10Z,3\n"),
            "{}",
            text(folder.path())
        );
    }

    #[test]
    fn after_a_day_a_new_file_begins_and_of_the_old_ones_the_last_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        for day in 0..4 {
            append_at(folder.path(), day * 86_400, 1);
            append_at(folder.path(), day * 86_400 + 10, 2);
        }
        let mut files: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|file| file.unwrap().file_name())
            .collect();
        files.sort();
        assert_eq!(files, ["jobs.1.csv", "jobs.csv"]);
        assert!(
            text(folder.path()).starts_with("time,arrivals\n2027-01-18"),
            "{}",
            text(folder.path())
        );
    }

    #[test]
    fn a_state_file_of_another_user_is_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        for content in ["", "hello\n", "time,arrivals\nnever,1\n", "time,arrivals\n"] {
            fs::write(folder.path().join("jobs.csv"), content).unwrap();
            append_at(folder.path(), 0, 7);
            assert_eq!(
                text(folder.path()),
                "time,arrivals\n2027-01-15T08:00:00Z,7\n",
                "{content:?}"
            );
        }
    }

    #[test]
    fn a_clock_that_is_set_back_begins_a_new_file_so_that_each_file_is_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        for (second, arrivals) in [(7200, 5), (7210, 6), (3600, 7), (3610, 8)] {
            append_at(folder.path(), second, arrivals);
        }
        let old = fs::read_to_string(folder.path().join("jobs.1.csv")).unwrap();
        for (text, arrivals) in [(old, 11.0), (text(folder.path()), 15.0)] {
            let trace = Trace::parse(&text).expect("a trace");
            assert_eq!(trace.arrivals(), arrivals, "{text}");
        }
    }

    #[test]
    fn something_else_at_the_place_of_a_recording_is_an_error_and_the_other_pools_are_written() {
        let folder = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(
            &folder.path().join("odd.csv"),
            nix::sys::stat::Mode::S_IRWXU,
        )
        .unwrap();
        let line = RecordedLine {
            from: at(0),
            arrivals: 7,
        };
        let lines = [("odd".into(), line), ("jobs".into(), line)];
        let error = write(folder.path(), &lines, &[]).unwrap_err().to_string();
        assert!(
            error.contains("odd.csv") && error.contains("regular file"),
            "{error}"
        );
        assert!(text(folder.path()).ends_with(",7\n"));
        // The last time that there is.
        let end = format!("{HEAD}{},1\n", Timestamp::MAX);
        fs::write(folder.path().join("jobs.csv"), end).unwrap();
        append_at(folder.path(), 0, 7);
    }
}
