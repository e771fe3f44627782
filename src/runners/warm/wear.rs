//! When a working warm process is replaced by another.

use std::time::Duration;

use tokio::time::Instant;

use super::{WarmSettings, memory::resident_bytes};
use crate::runner::Retirement;

/// How much a process has been used.
#[derive(Debug)]
pub(super) struct ProcessUsage {
    jobs_left: Option<u32>,
    ends_at: Option<Instant>,
    idle_since: Instant,
    /// A job has ended since memory was last checked.
    worked: bool,
    asked: bool,
}

impl ProcessUsage {
    /// A new process. `spread`, from 0 to 1, says how early its limits are reached.
    pub(super) fn new(settings: &WarmSettings, spread: f64) -> Self {
        let now = Instant::now();
        Self {
            jobs_left: settings.max_jobs.map(|jobs| jobs_within(jobs, spread)),
            ends_at: settings
                .max_age
                .and_then(|age| now.checked_add(age_within(age, spread))),
            idle_since: now,
            worked: false,
            asked: false,
        }
    }

    /// A job has ended, and its answer said whether the process asks to end.
    pub(super) fn worked(&mut self, last: bool) {
        self.jobs_left = self.jobs_left.map(|left| left.saturating_sub(1));
        self.idle_since = Instant::now();
        self.worked = true;
        self.asked |= last;
    }

    /// The process is at work.
    pub(super) fn touch(&mut self) {
        self.idle_since = Instant::now();
    }

    /// The reason to replace the process, if there is one. `process` is its id.
    pub(super) fn retires(&mut self, settings: &WarmSettings, process: i32) -> Option<Retirement> {
        let now = Instant::now();
        let worked = std::mem::take(&mut self.worked);
        if self.asked {
            return Some(Retirement::Asked);
        }
        if self.jobs_left == Some(0) {
            return Some(Retirement::MaxJobs);
        }
        if self.ends_at.is_some_and(|end| end <= now) {
            return Some(Retirement::MaxAge);
        }
        if worked
            && let Some(most) = settings.max_memory
            && resident_bytes(process).is_some_and(|bytes| bytes > most)
        {
            return Some(Retirement::MaxMemory);
        }
        let idle = now.saturating_duration_since(self.idle_since);
        match settings.idle_timeout {
            Some(timeout) if idle >= timeout => Some(Retirement::IdleTimeout),
            _ => None,
        }
    }
}

/// A number of jobs in the last quarter before `most`. If that range is empty, `most` itself.
fn jobs_within(most: u32, spread: f64) -> u32 {
    let early = (f64::from(most / 4) * spread).round();
    // Between zero and a quarter of a `u32`.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let early = early as u32;
    most - early
}

/// An age in the last quarter before `most`.
fn age_within(most: Duration, spread: f64) -> Duration {
    most - (most / 4).mul_f64(spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_limits_over_their_last_quarter() {
        let hour = Duration::from_secs(3600);
        assert_eq!(age_within(hour, 0.0), hour);
        assert_eq!(age_within(hour, 1.0), hour * 3 / 4);
        assert_eq!(age_within(Duration::MAX, 0.0), Duration::MAX);
        let table = [
            (1, 1),
            (3, 3),
            (4, 3),
            (1000, 750),
            (u32::MAX, 3_221_225_472),
        ];
        for (most, least) in table {
            assert_eq!(jobs_within(most, 0.0), most);
            assert_eq!(jobs_within(most, 1.0), least);
        }
    }
}
