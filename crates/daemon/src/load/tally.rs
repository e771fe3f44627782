//! The counts of a load.

use std::{collections::VecDeque, time::Duration};

use super::report::Times;

/// The counts.
#[derive(Debug)]
pub(super) struct LoadCounts {
    pub(super) published: u64,
    pub(super) confirmed: u64,
    pub(super) returned: u64,
    pub(super) refused: u64,
    pub(super) unconfirmed: u64,
    pub(super) confirm: Times,
    pub(super) done: Times,
    pub(super) last_confirm: Duration,
    /// Since the last sample.
    pub(super) recent: RecentCounts,
}

#[derive(Debug)]
pub(super) struct RecentCounts {
    pub(super) since: Duration,
    pub(super) sent: u64,
    pub(super) confirm: Times,
    pub(super) done: Times,
}

impl LoadCounts {
    pub(super) fn new() -> Self {
        Self {
            published: 0,
            confirmed: 0,
            returned: 0,
            refused: 0,
            unconfirmed: 0,
            confirm: Times::new(),
            done: Times::new(),
            last_confirm: Duration::ZERO,
            recent: RecentCounts {
                since: Duration::ZERO,
                sent: 0,
                confirm: Times::new(),
                done: Times::new(),
            },
        }
    }
}

/// The rate of the last second.
#[derive(Debug, Default)]
pub(super) struct RecentRate(VecDeque<(Duration, u64)>);

impl RecentRate {
    pub(super) fn note(&mut self, elapsed: Duration, confirmed: u64) -> f64 {
        self.0.push_back((elapsed, confirmed));
        let is_old =
            |(at, _): &(Duration, u64)| elapsed.saturating_sub(*at) > Duration::from_secs(1);
        while self.0.len() > 2 && self.0.front().is_some_and(is_old) {
            self.0.pop_front();
        }
        let Some((at, before)) = self.0.front() else {
            return 0.0;
        };
        let time = elapsed.saturating_sub(*at).as_secs_f64();
        match time > 0.0 {
            true => (confirmed - before) as f64 / time,
            false => 0.0,
        }
    }
}
