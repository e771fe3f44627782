//! What a pool measured of its jobs, kept beside its recording: after a restart of the daemon the pool has measured nothing
//! yet.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use tidegate::decide::{PoolName, Timings};

/// Steps between two writings: a minute and a half, or so.
const STEPS: u32 = 9;
/// Fewest jobs whose run times are kept.
const LEAST_JOBS: u64 = 5;
/// Largest file that is read.
const MAX_BYTES: u64 = 4096;

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
    fs::write(&new, serde_json::to_vec(timings)?)?;
    fs::rename(new, path)
}

/// What the pool had measured when it was last written. `None` if nothing can be read.
pub(crate) fn measured_before(state_dir: &Path, pool: &PoolName) -> Option<Timings> {
    let path = path(&state_dir.join("recordings"), pool);
    if fs::metadata(&path).ok()?.len() > MAX_BYTES {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate::decide::Spread;

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
        fs::write(path(&recordings, &pool), "{").unwrap();
        assert_eq!(measured_before(folder.path(), &pool), None);
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
