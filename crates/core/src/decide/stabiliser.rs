//! The stabiliser: how fast the number of workers may change.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

use super::Moment;

/// How fast a pool may grow and shrink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaling {
    /// The maximum number of workers to start in one reconcile: 1 or more.
    pub up_step: u32,
    /// Scale down only to the highest recommendation within this window.
    #[serde(with = "crate::json_time::text")]
    pub down_window: Duration,
    /// The maximum number of workers to stop in one reconcile: 1 or more.
    pub down_step: u32,
    /// The maximum number of starts and stops of workers within a minute, together. `None` means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub churn: Option<u32>,
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            up_step: 100,
            down_window: Duration::from_secs(10),
            down_step: 100,
            churn: None,
        }
    }
}

/// Length of the window of [`Scaling::churn`].
const CHURN_WINDOW: Duration = Duration::from_secs(60);
/// Changes closer together than this are merged, so that the window has a limited number of them.
const CHURN_APART: Duration = Duration::from_secs(1);

/// Remembers how many workers were started and stopped within the last minute.
#[derive(Debug, Clone, Default)]
pub(super) struct ChurnMeter {
    changes: VecDeque<(Moment, u32)>,
}

impl ChurnMeter {
    /// How many more workers may be started or stopped at `now`.
    pub(super) fn left(&mut self, now: Moment, churn: u32) -> u32 {
        while self
            .changes
            .front()
            .is_some_and(|&(at, _)| now.since(at) >= CHURN_WINDOW)
        {
            self.changes.pop_front();
        }
        let spent = self.changes.iter().map(|&(_, workers)| workers);
        churn.saturating_sub(spent.fold(0, u32::saturating_add))
    }

    /// Counts starts or stops.
    pub(super) fn count(&mut self, now: Moment, workers: u32) {
        match self.changes.back_mut() {
            // Counted at the earlier time, so these workers leave the window up to a second early.
            Some((at, sum)) if now.since(*at) < CHURN_APART => {
                *sum = sum.saturating_add(workers);
            }
            _ if workers > 0 => self.changes.push_back((now, workers)),
            _ => {}
        }
    }
}

/// Remembers recommendations, so that a short dip in demand does not stop workers.
///
/// Growth is immediate, except for the limit `up_step`. Shrinking follows the highest recommendation of the last
/// `down_window`. This is the scale-down stabilisation window of Kubernetes' horizontal pod autoscaler.
#[derive(Debug, Clone, Default)]
pub(super) struct Stabiliser {
    /// Recommendations that can still be the highest of some window, sorted by rising time and falling number. A new
    /// recommendation removes the earlier, lower ones, so the length is limited by the distinct numbers in a window.
    peaks: VecDeque<(Moment, u32)>,
}

/// How far a pool may move at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Movement {
    /// The upper limit of the move.
    pub(super) up_to: u32,
    /// The highest recommendation within the window.
    pub(super) highest: u32,
    /// The lower limit that this recommendation sets.
    pub(super) held_at: u32,
    /// The lower limit for one step.
    pub(super) down_to: u32,
}

impl Stabiliser {
    /// Adds a recommendation, and returns how far `current` may move towards it now.
    pub(super) fn movement(
        &mut self,
        now: Moment,
        recommended: u32,
        current: u32,
        scaling: &Scaling,
    ) -> Movement {
        while self
            .peaks
            .back()
            .is_some_and(|&(_, peak)| peak <= recommended)
        {
            self.peaks.pop_back();
        }
        self.peaks.push_back((now, recommended));
        while self
            .peaks
            .front()
            .is_some_and(|&(at, _)| now.since(at) > scaling.down_window)
        {
            self.peaks.pop_front();
        }

        let highest = self.peaks.front().map_or(recommended, |&(_, peak)| peak);
        Movement {
            up_to: current.saturating_add(scaling.up_step),
            highest,
            held_at: highest.min(current),
            down_to: current.saturating_sub(scaling.down_step),
        }
    }

    /// Forgets every recommendation.
    pub(super) fn clear(&mut self) {
        self.peaks.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Stabiliser {
        /// The number that a recommendation leads to.
        fn stabilise(
            &mut self,
            now: Moment,
            recommended: u32,
            current: u32,
            scaling: &Scaling,
        ) -> u32 {
            let Movement {
                up_to,
                held_at,
                down_to,
                ..
            } = self.movement(now, recommended, current, scaling);
            recommended.min(up_to).max(held_at).max(down_to)
        }
    }

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    #[test]
    fn shrinks_to_the_highest_recommendation_within_the_window() {
        let scaling = Scaling::default();
        let mut stabiliser = Stabiliser::default();
        let mut current = 0;
        let mut seen = Vec::new();
        for (second, recommended) in [
            (0, 10),
            (4, 3),
            (8, 6),
            (10, 2),
            (11, 2),
            (18, 2),
            (19, 2),
            (30, 0),
        ] {
            current = stabiliser.stabilise(at(second), recommended, current, &scaling);
            seen.push(current);
        }
        assert_eq!(seen, [10, 10, 10, 10, 6, 6, 2, 0]);
    }

    #[test]
    fn up_step_and_down_step_limit_each_change() {
        let scaling = Scaling {
            up_step: 3,
            down_window: Duration::ZERO,
            down_step: 2,
            churn: None,
        };
        let mut stabiliser = Stabiliser::default();
        let mut current = 0;
        let mut seen = Vec::new();
        for (second, recommended) in [(0, 8), (1, 8), (2, 8), (3, 1), (4, 1), (5, 1), (6, 1)] {
            current = stabiliser.stabilise(at(second), recommended, current, &scaling);
            seen.push(current);
        }
        assert_eq!(seen, [3, 6, 8, 6, 4, 2, 1]);
    }

    #[test]
    fn after_a_clear_no_earlier_recommendation_delays_a_stop() {
        let mut stabiliser = Stabiliser::default();
        let scaling = Scaling::default();
        let _ = stabiliser.stabilise(at(0), 10, 0, &scaling);
        stabiliser.clear();
        assert_eq!(stabiliser.stabilise(at(1), 1, 10, &scaling), 1);
    }

    proptest! {
        /// The short list of peaks gives the same result as the whole history.
        #[test]
        fn remembering_peaks_gives_the_same_result_as_the_whole_history(
            recommendations in proptest::collection::vec((0u64..4, 0u32..20), 1..60),
        ) {
            let scaling = Scaling { up_step: 7, down_window: Duration::from_secs(5), down_step: 4, churn: None };
            let mut stabiliser = Stabiliser::default();
            let (mut now, mut current) = (0, 0);
            let mut history = Vec::new();
            for (wait, recommended) in recommendations {
                now += wait;
                history.push((now, recommended));
                let highest = history.iter().filter(|(t, _)| now - t <= 5).map(|(_, r)| *r).max().unwrap();
                let naive = if recommended >= current {
                    recommended.min(current + 7)
                } else {
                    highest.min(current).max(current.saturating_sub(4))
                };
                current = stabiliser.stabilise(at(now), recommended, current, &scaling);
                prop_assert_eq!(current, naive);
            }
        }
    }
}
