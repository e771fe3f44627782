//! Reads what was recorded of a pool in the last day.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tidegate::{decide::PoolName, trace::Trace};

use super::{DAY, HEAD, MAX_BYTES, STEP, time_of, whole_seconds};

/// Shortest recording that says anything.
const SHORTEST: Duration = Duration::from_secs(60);

/// The arrivals of a pool's last day.
#[derive(Debug, Clone)]
pub(crate) struct LastDay {
    pub(crate) trace: Trace,
    pub(crate) from: Timestamp,
}

/// There is no recording that can be used. Reads as a sentence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoRecording {
    #[error(
        "nothing is recorded of this pool yet: its daemon writes a line each 10 s while messages arrive"
    )]
    Nothing,
    #[error("the recording is too short: it has {} of at least {} s", tidegate::text::duration(*.0), SHORTEST.as_secs())]
    TooShort(Duration),
    #[error("no message arrived in the recording, which began at {0}")]
    NoArrivals(Timestamp),
    #[error("the recording {} cannot be used: {why}", .file.display())]
    Unusable { file: PathBuf, why: String },
}

/// What was recorded until `now`, at most a day. It ends at `now`: silence is not written.
///
/// # Errors
/// There is no recording, or it is too short or damaged.
pub(crate) fn last_day(
    state_dir: &Path,
    pool: &PoolName,
    now: Timestamp,
) -> Result<LastDay, NoRecording> {
    let folder = state_dir.join("recordings");
    let newest = folder.join(format!("{pool}.csv"));
    let unusable = |why: String| NoRecording::Unusable {
        file: newest.clone(),
        why,
    };
    let mut text = String::from(HEAD);
    let mut covered = None;
    for file in [folder.join(format!("{pool}.1.csv")), newest.clone()] {
        let rows = read(&file).map_err(|error| NoRecording::Unusable {
            file: file.clone(),
            why: error.to_string(),
        })?;
        let Some(rows) = rows else { continue };
        // What a crash left of a line is not read.
        let rows = rows.split_inclusive('\n').filter(|row| row.ends_with('\n'));
        let mut last = None;
        for row in rows {
            let Some(at) = time_of(row).filter(|at| *at <= now) else {
                continue;
            };
            // Between two files, and from the last line until now, nothing came.
            if last.is_none() {
                silence(&mut text, covered, at);
            }
            text.push_str(row);
            last = Some(at);
        }
        let end = |last: Timestamp| last + SignedDuration::try_from(STEP).unwrap_or_default();
        covered = last.map(end).or(covered);
    }
    let Some(covered) = covered else {
        return Err(NoRecording::Nothing);
    };
    let now = whole_seconds(now).max(covered);
    text.push_str(&format!("{covered},0\n{now},0\n"));
    let trace = Trace::parse(&text).map_err(|error| unusable(error.to_string()))?;
    let begin = trace.begin().ok_or(NoRecording::Nothing)?;
    let length = Duration::try_from(now.duration_since(begin)).unwrap_or_default();
    // The last line's span has no end of its own.
    let trace = trace.split(length).0;
    let day = Duration::try_from(DAY).unwrap_or_default();
    let trace = trace.split(length.saturating_sub(day)).1;
    let from = trace.begin().unwrap_or(begin);
    match (trace.length(), trace.arrivals()) {
        (length, _) if length < SHORTEST => Err(NoRecording::TooShort(length)),
        (_, arrivals) if arrivals < 0.5 => Err(NoRecording::NoArrivals(from)),
        _ => Ok(LastDay { trace, from }),
    }
}

fn silence(text: &mut String, covered: Option<Timestamp>, next: Timestamp) {
    if let Some(covered) = covered.filter(|covered| *covered + SignedDuration::from_secs(1) < next)
    {
        text.push_str(&format!("{covered},0\n"));
    }
}

/// The rows of a recording without their head line. `None` if there is no such file.
fn read(file: &Path) -> io::Result<Option<String>> {
    let file = match fs::File::open(file) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("it is larger than any recording"));
    }
    match text.strip_prefix(HEAD) {
        Some(rows) => Ok(Some(rows.to_owned())),
        None => Err(io::Error::other("it does not begin with time,arrivals")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn folder(files: &[(&str, &[(i64, u64)])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("recordings")).unwrap();
        for (name, rows) in files {
            let rows: String = rows
                .iter()
                .map(|(second, arrivals)| format!("{},{arrivals}\n", at(*second)))
                .collect();
            let path = folder.path().join("recordings").join(name);
            fs::write(path, format!("{HEAD}{rows}")).unwrap();
        }
        folder
    }

    fn read_at(folder: &Path, second: i64) -> Result<LastDay, NoRecording> {
        last_day(folder, &"jobs".into(), at(second))
    }

    fn spans(day: &LastDay) -> Vec<(u64, f64)> {
        let spans = day.trace.spans().iter();
        spans
            .map(|span| (span.length.as_secs(), span.arrivals))
            .collect()
    }

    #[test]
    fn a_recording_ends_now_and_what_was_not_written_is_silence() {
        let folder = folder(&[("jobs.csv", &[(0, 7), (10, 0), (600, 30)])]);
        let day = read_at(folder.path(), 900).unwrap();
        assert_eq!(day.from, at(0));
        assert_eq!(spans(&day), [(10, 7.0), (590, 0.0), (10, 30.0), (290, 0.0)]);
    }

    #[test]
    fn a_day_may_lie_in_two_files_and_more_than_a_day_is_left_out() {
        let folder = folder(&[
            ("jobs.1.csv", &[(0, 100), (10, 0), (80_000, 5)]),
            ("jobs.csv", &[(86_500, 3), (86_510, 0)]),
        ]);
        let day = read_at(folder.path(), 100_000).unwrap();
        assert_eq!(day.from, at(100_000 - 86_400));
        assert_eq!(day.trace.length().as_secs(), 86_400);
        assert_eq!(day.trace.arrivals(), 8.0);
        let spans = spans(&day);
        assert_eq!(spans[1], (10, 5.0), "{spans:?}");
        assert_eq!(spans[2], (86_500 - 80_010, 0.0), "{spans:?}");
    }

    #[test]
    fn no_recording_a_short_one_and_a_silent_one_are_told_apart() {
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(
            read_at(empty.path(), 0),
            Err(NoRecording::Nothing)
        ));
        let rows: &[(i64, u64)] = &[(0, 7), (10, 0)];
        let short = folder(&[("jobs.csv", rows)]);
        let error = read_at(short.path(), 40).unwrap_err();
        assert!(
            error.to_string().contains("40s of at least 60 s"),
            "{error}"
        );
        assert!(read_at(short.path(), 60).is_ok());
        let silent = folder(&[("jobs.csv", &[(0, 0)])]);
        let error = read_at(silent.path(), 900).unwrap_err();
        assert!(matches!(error, NoRecording::NoArrivals(_)), "{error}");
    }

    #[test]
    fn a_torn_line_and_lines_of_the_future_are_not_read_and_another_file_is_refused() {
        let folder = folder(&[("jobs.csv", &[(0, 7), (10, 9), (20, 0), (5000, 3)])]);
        let path = folder.path().join("recordings/jobs.csv");
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("2027-01-1");
        fs::write(&path, text).unwrap();
        let day = read_at(folder.path(), 900).unwrap();
        assert_eq!(day.trace.arrivals(), 16.0);
        fs::write(&path, "hello\n").unwrap();
        let error = read_at(folder.path(), 900).unwrap_err();
        assert!(error.to_string().contains("time,arrivals"), "{error}");
    }
}
