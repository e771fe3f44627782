//! Judoscale: a range of queue times.
//!
//! Sources: Judoscale's pages "Refining your autoscaling behavior" (metrics are aggregated every 10 s) and "Tuning your
//! application" (one dyno at a time; before a first shrink and between shrinks, queue times must be below the lower
//! threshold for 10 minutes).
//!
//! ```text
//! queue time = the longest that a ready message has waited in the last 10 s
//! up by one    if the queue time is above the upper end
//! down by one  if every queue time of the last 10 minutes was below the lower end, and the last step down is 10 minutes ago
//! ```
//!
//! The upper end is `TIME`. Judoscale leaves the lower end to its users: here it is half of the upper end. The pause
//! between two steps up is a setting too: here it is the 10 s between two measurements. The range of workers is 1 to `max`.
//! A worker that is told to stop finishes its job.

use std::time::Duration;

use tidegate_core::decide::Moment;

use crate::{scaler::Scaler, world::World};

const METRICS: Duration = Duration::from_secs(10);
const SAMPLE: Duration = Duration::from_secs(1);
const SAMPLES: u32 = 10;
const DOWN_DELAY: Duration = Duration::from_secs(600);
const STEP: u32 = 1;
const MIN: u32 = 1;

pub(super) struct Judoscale {
    range: Range,
    max: u32,
    next: Moment,
    samples: u32,
    longest: Duration,
}

impl Judoscale {
    pub(super) fn new(target: Duration, max: u32) -> Self {
        Self {
            range: Range::new(target / 2, target),
            max,
            next: Moment::ZERO,
            samples: 0,
            longest: Duration::ZERO,
        }
    }
}

impl Scaler for Judoscale {
    fn next(&self) -> Moment {
        self.next
    }

    fn act(&mut self, world: &mut World<'_>) {
        let now = world.now();
        self.next = now + SAMPLE;
        self.longest = self.longest.max(world.oldest().unwrap_or_default());
        if self.samples == 0 {
            world.resize(MIN.min(self.max), false);
        }
        self.samples += 1;
        if self.samples.is_multiple_of(SAMPLES) {
            let queue_time = std::mem::take(&mut self.longest);
            let wanted = self.range.step(now, queue_time, world.staying());
            world.resize(wanted.clamp(MIN.min(self.max), self.max), false);
        }
    }
}

/// Judoscale's rule.
struct Range {
    low: Duration,
    high: Duration,
    /// The time since which every queue time was below the range. A step down starts it again.
    calm_since: Option<Moment>,
}

impl Range {
    fn new(low: Duration, high: Duration) -> Self {
        Self {
            low,
            high,
            calm_since: None,
        }
    }

    fn step(&mut self, now: Moment, queue_time: Duration, workers: u32) -> u32 {
        if queue_time > self.high {
            self.calm_since = None;
            return workers + STEP;
        }
        if queue_time >= self.low {
            self.calm_since = None;
            return workers;
        }
        // A metric covers the 10 s before it.
        let since = *self.calm_since.get_or_insert(now.before(METRICS));
        if now.since(since) < DOWN_DELAY {
            return workers;
        }
        self.calm_since = Some(now);
        workers.saturating_sub(STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    /// Judoscale's page: up one at a time while the queue time is above the range; down after 10 minutes below it, and
    /// again after 10 more.
    #[test]
    fn grows_at_each_metric_and_shrinks_every_ten_minutes() {
        let mut range = Range::new(Duration::from_secs(1), Duration::from_secs(5));
        let mut workers = 2;
        let mut step = |second: u64, queue_time: f64| {
            workers = range.step(at(second), Duration::from_secs_f64(queue_time), workers);
            workers
        };
        assert_eq!([step(10, 9.0), step(20, 8.0), step(30, 3.0)], [3, 4, 4]);
        let calm: Vec<u32> = (40..=1840)
            .step_by(10)
            .map(|second| step(second, 0.2))
            .collect();
        let downs: Vec<usize> = (1..calm.len()).filter(|n| calm[*n] < calm[n - 1]).collect();
        assert_eq!(downs, [59, 119, 179]);
        // One metric within the range, and the ten minutes begin again.
        assert_eq!(
            [step(1850, 2.0), step(1860, 0.1), step(2440, 0.1)],
            [1, 1, 1]
        );
    }
}
