//! What a pool measured of its jobs, kept beside its recording: after a restart of the daemon the pool has measured nothing
//! yet.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tidegate::decide::{PoolName, Spread, Timings};

use crate::files::{self, Links};

/// Steps between two writings: a minute and a half, or so.
const STEPS: u32 = 9;
/// Fewest jobs whose run times are kept.
const LEAST_JOBS: u64 = 5;
/// Largest file that is read.
const MAX_BYTES: u64 = 4096;
/// Longest time that a pool can have measured: a year. Arithmetic with longer ones may overflow.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Says which measurements are to be written.
#[derive(Debug, Default)]
pub(super) struct MeasurementSchedule {
    step: u32,
    /// The jobs that had finished at the last writing.
    written: BTreeMap<PoolName, u64>,
}

impl MeasurementSchedule {
    /// The measurements to write now: every few steps, those of pools whose jobs have finished since.
    pub(super) fn due(&mut self, pools: &[(PoolName, Timings)]) -> Vec<(PoolName, Timings)> {
        self.step = (self.step + 1) % STEPS;
        if self.step != 0 {
            return Vec::new();
        }
        let mut due = Vec::new();
        for (name, timings) in pools {
            let samples = timings.service.map_or(0, |service| service.samples);
            let is_new = self.written.get(name) != Some(&timings.finished);
            if samples >= LEAST_JOBS && is_new {
                self.written.insert(name.clone(), timings.finished);
                due.push((name.clone(), *timings));
            }
        }
        due
    }
}

fn path(folder: &Path, pool: &PoolName) -> PathBuf {
    folder.join(format!("{pool}.measured.json"))
}

pub(super) fn write(folder: &Path, pool: &PoolName, timings: &Timings) -> io::Result<()> {
    let path = path(folder, pool);
    let new = path.with_extension("json.new");
    // What a crash left, or something else at its place, is not written into.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
    file.write_all(&serde_json::to_vec(timings)?)?;
    fs::rename(new, path)
}

/// What the pool had measured when it was last written. `None` if nothing can be read, and if no pool can have measured it.
pub(crate) fn measured_before(state_dir: &Path, pool: &PoolName) -> Option<Timings> {
    let path = path(&state_dir.join("recordings"), pool);
    let bytes = files::read(&path, Links::Refuse, MAX_BYTES).ok()?;
    let timings: Timings = serde_json::from_slice(&bytes).ok()?;
    is_plausible(&timings).then_some(timings)
}

/// Whether a pool can have measured this.
fn is_plausible(timings: &Timings) -> bool {
    let Timings {
        service,
        start_up,
        wait,
        fruitless,
        ..
    } = timings;
    let mut spreads = [service, start_up, wait].into_iter().flatten();
    let is_measured = |spread: &Spread| {
        let times = [spread.mean, spread.p50, spread.p95, spread.age];
        times.iter().all(|time| *time <= LONGEST) && spread.p50 <= spread.p95
    };
    spreads.all(is_measured) && fruitless.is_none_or(|time| time <= LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timings(samples: u64) -> Timings {
        let second = Duration::from_secs(1);
        let mut timings = Timings::default();
        timings.service = Some(Spread::new(second, second, 2 * second, samples));
        timings.finished = samples;
        timings
    }

    #[test]
    fn what_was_written_is_read_again_and_anything_else_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let pool = PoolName::from("jobs");
        assert_eq!(measured_before(folder.path(), &pool), None);
        let recordings = folder.path().join("recordings");
        fs::create_dir(&recordings).unwrap();
        write(&recordings, &pool, &timings(7)).unwrap();
        assert_eq!(measured_before(folder.path(), &pool), Some(timings(7)));
        let file = path(&recordings, &pool);
        fs::write(&file, "{").unwrap();
        assert_eq!(measured_before(folder.path(), &pool), None);
        for wrong in [
            r#"{"service": {"mean": 1e18, "p50": 1, "p95": 2, "samples": 9, "age": 0}}"#,
            r#"{"service": {"mean": 1, "p50": 1, "p95": 1e18, "samples": 9, "age": 0}}"#,
            r#"{"service": {"mean": 1, "p50": 3, "p95": 2, "samples": 9, "age": 0}}"#,
            r#"{"start_up": {"mean": 1e18, "p50": 1, "p95": 2, "samples": 9, "age": 0}}"#,
            r#"{"wait": {"mean": 1, "p50": 1, "p95": 2, "samples": 9, "age": 1e18}}"#,
            r#"{"fruitless": 1e18}"#,
        ] {
            fs::write(&file, wrong).unwrap();
            assert_eq!(measured_before(folder.path(), &pool), None, "{wrong}");
        }
    }

    #[test]
    fn a_fifo_in_place_of_a_file_neither_blocks_a_reader_nor_a_writer() {
        let folder = tempfile::tempdir().unwrap();
        let pool = PoolName::from("jobs");
        let recordings = folder.path().join("recordings");
        fs::create_dir(&recordings).unwrap();
        let file = path(&recordings, &pool);
        for fifo in [file.clone(), file.with_extension("json.new")] {
            nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        assert_eq!(measured_before(folder.path(), &pool), None);
        write(&recordings, &pool, &timings(7)).unwrap();
        assert_eq!(measured_before(folder.path(), &pool), Some(timings(7)));
    }

    #[test]
    fn measurements_are_written_now_and_then_and_only_new_ones() {
        let mut measured = MeasurementSchedule::default();
        let pool = PoolName::from("jobs");
        let mut due = |samples: u64| {
            let pools = [(pool.clone(), timings(samples))];
            (0..STEPS)
                .map(|_| measured.due(&pools).len())
                .sum::<usize>()
        };
        assert_eq!([due(4), due(7), due(7), due(8)], [0, 1, 0, 1]);
    }
}
