//! Reads what was recorded of a pool in the last day.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use tidegate::{decide::PoolName, trace::Trace};

use super::{DAY, HEAD, MAX_BYTES, STEP, after, time_of, whole_seconds};
use crate::files::{self, Links};

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
    let mut latest = None;
    for file in [folder.join(format!("{pool}.1.csv")), newest.clone()] {
        let rows = read(&file).map_err(|error| NoRecording::Unusable {
            file: file.clone(),
            why: error.to_string(),
        })?;
        let Some(rows) = rows else { continue };
        // What a crash left of a line is not read.
        let rows = rows.split_inclusive('\n').filter(|row| row.ends_with('\n'));
        let mut last: Option<Timestamp> = None;
        for row in rows {
            // A clock that was set back leaves lines that are earlier than those above them.
            let least = last.or(latest);
            let is_next = |at: &Timestamp| *at <= now && least.is_none_or(|least| least <= *at);
            let Some(at) = time_of(row).filter(is_next) else {
                continue;
            };
            // Between two files, and from the last line until now, nothing came.
            if last.is_none() {
                silence(&mut text, covered, at);
            }
            text.push_str(row);
            last = Some(at);
        }
        latest = last.or(latest);
        covered = last.map(|last| after(last, STEP)).or(covered);
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
    let second = Duration::from_secs(1);
    if let Some(covered) = covered.filter(|covered| after(*covered, second) < next) {
        text.push_str(&format!("{covered},0\n"));
    }
}

/// The rows of a recording without their head line. `None` if there is no such file.
fn read(file: &Path) -> io::Result<Option<String>> {
    let text = match files::read_text(file, Links::Refuse, MAX_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match text.strip_prefix(HEAD) {
        Some(rows) => Ok(Some(rows.to_owned())),
        None => Err(io::Error::other("it does not begin with time,arrivals")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

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

    #[test]
    fn lines_of_a_clock_that_was_set_back_are_left_out() {
        let folder = folder(&[
            ("jobs.1.csv", &[(0, 5), (500, 7)]),
            ("jobs.csv", &[(400, 100), (520, 3), (510, 200), (530, 2)]),
        ]);
        let day = read_at(folder.path(), 600).unwrap();
        assert_eq!(day.trace.arrivals(), 17.0, "{:?}", spans(&day));
    }

    #[test]
    fn something_else_at_the_place_of_a_recording_is_refused_at_once() {
        let rows: &[(i64, u64)] = &[(0, 7), (10, 0)];
        let folder = folder(&[("jobs.csv", rows)]);
        let other = folder.path().join("recordings/jobs.1.csv");
        nix::unistd::mkfifo(&other, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = read_at(folder.path(), 900).unwrap_err().to_string();
        assert!(
            error.contains("jobs.1.csv") && error.contains("regular file"),
            "{error}"
        );
        fs::remove_file(&other).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &other).unwrap();
        let error = read_at(folder.path(), 900).unwrap_err().to_string();
        assert!(error.contains("jobs.1.csv"), "{error}");
    }

    /// A line as a recording has it, or one that only looks like it.
    fn any_line() -> impl Strategy<Value = String> {
        let number = prop_oneof![
            any::<u64>().prop_map(|number| number.to_string()),
            any::<f64>().prop_map(|number| number.to_string()),
            (0u64..100).prop_map(|number| number.to_string()),
        ];
        let time = prop_oneof![
            5 => (0i64..200_000).prop_map(|second| at(second).to_string()),
            1 => (-377_705_023_201i64..=253_402_207_200)
                .prop_map(|second| Timestamp::from_second(second).unwrap().to_string()),
            1 => Just(Timestamp::MAX.to_string()),
            1 => Just(Timestamp::MIN.to_string()),
        ];
        prop_oneof![
            9 => (time, number).prop_map(|(time, number)| format!("{time},{number}\n")),
            1 => "\\PC{0,40}\n?",
        ]
    }

    proptest! {
        #[test]
        fn no_content_of_the_state_directory_makes_a_reader_panic(
            files in proptest::collection::vec(proptest::collection::vec(any_line(), 0..20), 2),
            now in prop_oneof![0i64..200_000, Just(Timestamp::MAX.as_second() - 1_800_000_000)],
        ) {
            let folder = folder(&[]);
            for (name, lines) in ["jobs.1.csv", "jobs.csv"].iter().zip(&files) {
                let text = format!("{HEAD}{}", lines.concat());
                fs::write(folder.path().join("recordings").join(name), text).unwrap();
            }
            let day = read_at(folder.path(), now);
            if let Ok(day) = day {
                prop_assert!(day.trace.length() <= Duration::try_from(DAY).unwrap());
                prop_assert!(day.trace.arrivals().is_finite());
            }
        }
    }
}
