//! The history of the pools over the last hour, for the dashboard: a limited number of samples in memory, one each five
//! seconds.
//!
//! Written by one task of the daemon, read by the HTTP routes. Nothing of it is kept over a restart.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;
use tidegate::{
    decide::PoolName,
    run::{JobTotals, PoolStatus, Supervisor},
};
use tokio::time::{self, MissedTickBehavior};

use crate::failures::Failures;

/// Time between two samples.
const STEP: Duration = Duration::from_secs(5);

/// Samples of a pool: an hour of them. With 64 bytes each, 45 KiB a pool.
const SAMPLES: usize = 720;

/// Samples that the overview of all pools makes one point of: a minute.
const OVERVIEW: usize = 12;

/// The last hour of every pool.
#[derive(Debug, Clone, Default)]
pub struct PoolHistory(Arc<Mutex<HashMap<PoolName, Ring>>>);

#[derive(Debug, Default)]
struct Ring {
    samples: VecDeque<Sample>,
    /// The pool's counts at the last sample. `None` before the first sample: earlier jobs are in no sample.
    counted: Option<JobTotals>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    /// Seconds since 1970.
    at: i64,
    ready: u64,
    demand: u64,
    expected: u32,
    live: u32,
    idle: u32,
    busy: u32,
    ended: Ended,
}

/// Jobs that came to their end between two samples, by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ended {
    done: u32,
    retried: u32,
    dead: u32,
    requeued: u32,
}

impl Ended {
    fn between(before: JobTotals, now: JobTotals) -> Self {
        // A pool that was removed and came back counts from zero.
        let more = |before: u64, now: u64| {
            let count = now.checked_sub(before).unwrap_or(now);
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        Self {
            done: more(before.done, now.done),
            retried: more(before.retried, now.retried),
            dead: more(before.dead, now.dead),
            requeued: more(before.requeued + before.lost, now.requeued + now.lost),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            done: self.done.saturating_add(other.done),
            retried: self.retried.saturating_add(other.retried),
            dead: self.dead.saturating_add(other.dead),
            requeued: self.requeued.saturating_add(other.requeued),
        }
    }
}

impl Sample {
    fn of(pool: &PoolStatus, at: i64, counted: Option<JobTotals>) -> Self {
        Self {
            at,
            ready: pool.depth.ready,
            demand: pool.demand,
            expected: pool.expected,
            live: pool.workers.live,
            idle: pool.runners.idle,
            busy: pool.runners.busy,
            ended: Ended::between(counted.unwrap_or(pool.jobs), pool.jobs),
        }
    }

    /// The higher of each number and the sum of ended jobs, at the time of the later sample.
    fn merged(self, later: Self) -> Self {
        Self {
            at: later.at,
            ready: self.ready.max(later.ready),
            demand: self.demand.max(later.demand),
            expected: self.expected.max(later.expected),
            live: self.live.max(later.live),
            idle: self.idle.max(later.idle),
            busy: self.busy.max(later.busy),
            ended: self.ended.plus(later.ended),
        }
    }
}

/// Samples of a pool, a list for each number: the oldest first, all lists of one length.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Columns {
    /// When, in seconds since 1970.
    pub at: Vec<i64>,
    /// Messages ready.
    pub ready: Vec<u64>,
    /// Demand in jobs.
    pub demand: Vec<u64>,
    /// How many workers there should be.
    pub expected: Vec<u32>,
    /// Live workers.
    pub live: Vec<u32>,
    /// Idle runners.
    pub idle: Vec<u32>,
    /// Busy runners.
    pub busy: Vec<u32>,
    /// Jobs done since the sample before.
    pub done: Vec<u32>,
    /// Jobs put off to a retry queue since then.
    pub retried: Vec<u32>,
    /// Jobs dead-lettered since then.
    pub dead: Vec<u32>,
    /// Jobs given back to their queue since then, or whose settlement was lost.
    pub requeued: Vec<u32>,
}

impl FromIterator<Sample> for Columns {
    fn from_iter<I: IntoIterator<Item = Sample>>(samples: I) -> Self {
        let mut columns = Self::default();
        for sample in samples {
            columns.at.push(sample.at);
            columns.ready.push(sample.ready);
            columns.demand.push(sample.demand);
            columns.expected.push(sample.expected);
            columns.live.push(sample.live);
            columns.idle.push(sample.idle);
            columns.busy.push(sample.busy);
            columns.done.push(sample.ended.done);
            columns.retried.push(sample.ended.retried);
            columns.dead.push(sample.ended.dead);
            columns.requeued.push(sample.ended.requeued);
        }
        columns
    }
}

/// A pool's samples, with its name.
#[derive(Debug, Serialize)]
pub struct NamedColumns {
    name: PoolName,
    #[serde(flatten)]
    columns: Columns,
}

impl PoolHistory {
    /// Takes samples until it is dropped. When a pool is removed, its failures are forgotten too.
    pub async fn keep(self, supervisor: Supervisor, failures: Failures) {
        let mut ticks = time::interval(STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let pools = supervisor.pools();
            self.take(&pools, Timestamp::now().as_second());
            failures.keep_only(|name| pools.iter().any(|pool| pool.name == *name));
        }
    }

    fn take(&self, pools: &[PoolStatus], at: i64) {
        let mut rings = self.lock();
        // A removed pool has no history.
        rings.retain(|name, _| pools.iter().any(|pool| pool.name == *name));
        for pool in pools {
            let ring = rings.entry(pool.name.clone()).or_default();
            if ring.samples.len() == SAMPLES {
                ring.samples.pop_front();
            }
            let counted = ring.counted.replace(pool.jobs);
            ring.samples.push_back(Sample::of(pool, at, counted));
        }
    }

    /// All samples of a pool; none for one that is not known.
    pub fn of(&self, pool: &PoolName) -> Columns {
        let rings = self.lock();
        let samples = rings.get(pool).into_iter();
        samples.flat_map(|ring| &ring.samples).copied().collect()
    }

    /// Every pool, a point a minute: the highest of each number in it, and the sum of ended jobs.
    pub fn overview(&self) -> Vec<NamedColumns> {
        let rings = self.lock();
        let pools = rings.iter().map(|(name, ring)| {
            let samples: Vec<_> = ring.samples.iter().copied().collect();
            // From the end, so that only the oldest point is of fewer samples.
            let points = samples.rchunks(OVERVIEW).rev();
            let points = points.filter_map(|chunk| chunk.iter().copied().reduce(Sample::merged));
            NamedColumns {
                name: name.clone(),
                columns: points.collect(),
            }
        });
        pools.collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PoolName, Ring>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str, demand: u64) -> PoolStatus {
        with_done(name, demand, 0)
    }

    fn with_done(name: &str, demand: u64, done: u64) -> PoolStatus {
        let status = serde_json::json!({
            "name": name, "queue": name, "state": "active",
            "depth": {"ready": demand, "age_ms": 0, "stale": false},
            "delayed": 0, "demand": demand, "expected": 1,
            "workers": {"bare": 0, "live": 2, "draining": 0},
            "runners": {"idle": 0, "busy": 3},
            "jobs": {"done": done, "retried": 0, "dead": 0, "requeued": 0, "lost": 0},
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn keeps_an_hour_and_forgets_older_samples() {
        let history = PoolHistory::default();
        for n in 0..SAMPLES + 3 {
            history.take(&[pool("a", n as u64)], n as i64 * 5);
        }
        let columns = history.of(&"a".into());
        assert_eq!(columns.at.len(), SAMPLES);
        assert_eq!(columns.demand.first(), Some(&3));
        assert_eq!(columns.demand.last(), Some(&(SAMPLES as u64 + 2)));
    }

    #[test]
    fn forgets_a_pool_that_is_gone() {
        let history = PoolHistory::default();
        history.take(&[pool("a", 1), pool("b", 1)], 0);
        history.take(&[pool("b", 2)], 5);
        assert_eq!(history.of(&"a".into()), Columns::default());
        assert_eq!(history.of(&"b".into()).demand, [1, 2]);
    }

    #[test]
    fn the_overview_has_the_highest_of_each_minute() {
        let history = PoolHistory::default();
        for n in 0..OVERVIEW + 2 {
            let demand = if n == 3 { 100 } else { 1 };
            history.take(&[pool("a", demand)], n as i64);
        }
        let overview = history.overview();
        assert_eq!(overview[0].columns.at, [1, 13]);
        assert_eq!(overview[0].columns.demand, [1, 100]);
    }

    #[test]
    fn a_sample_has_the_jobs_that_ended_since_the_one_before() {
        let history = PoolHistory::default();
        // What was done before the first sample was done at no time that is known; 2 is of a pool that came back.
        for (at, done) in [(0, 40), (5, 40), (10, 47), (15, 2)] {
            history.take(&[with_done("a", 1, done)], at);
        }
        assert_eq!(history.of(&"a".into()).done, [0, 0, 7, 2]);
        assert_eq!(history.overview()[0].columns.done, [9]);
    }
}
