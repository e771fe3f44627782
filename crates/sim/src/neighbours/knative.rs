//! Knative's pod autoscaler (KPA) with its defaults.
//!
//! Source: `pkg/autoscaler/scaling/autoscaler.go` of `knative/serving`, and the defaults of `config-autoscaler`: stable
//! window 60 s, panic window 10 % of it, panic threshold 200 %, at most 1000 times up and 2 times down at once, a tick of
//! 2 s, a target utilisation of 70 %, and 30 s of grace before zero.
//!
//! The metric is concurrency: jobs that run and jobs that wait, averaged over each window.
//!
//! ```text
//! target  = JOBS * 0.7
//! stable  = ceil(average of 60 s / target), within [floor(ready pods / 2), 1000 * ready pods]
//! panic   = ceil(average of  6 s / target), within the same bounds
//! panic begins if ceil(average of 6 s / target) / ready pods >= 2, and ends when this was false for 60 s desired =
//! stable; in panic the highest of stable and panic since the panic began, so it never shrinks in panic
//! ```
//!
//! A pod that is told to stop finishes its request first: Knative drains the pod before it ends it.

use std::{collections::VecDeque, num::NonZeroU32, time::Duration};

use tidegate_core::decide::Moment;

use crate::{scaler::Scaler, world::World};

const SAMPLE: Duration = Duration::from_secs(1);
const TICKS: u32 = 2;
const STABLE: Duration = Duration::from_secs(60);
const PANIC: Duration = Duration::from_secs(6);
const PANIC_THRESHOLD: f64 = 2.0;
const UP_RATE: f64 = 1000.0;
const DOWN_RATE: f64 = 2.0;
const UTILISATION: f64 = 0.7;
const GRACE_BEFORE_ZERO: Duration = Duration::from_secs(30);

pub(super) struct Knative {
    autoscaler: Autoscaler,
    max: u32,
    next: Moment,
    seen: u32,
    /// Concurrency, one sample a second.
    samples: VecDeque<f64>,
    /// Since when no pods are wanted.
    zero_since: Option<Moment>,
}

impl Knative {
    pub(super) fn new(jobs: NonZeroU32, max: u32) -> Self {
        Self {
            autoscaler: Autoscaler::new(f64::from(jobs.get()) * UTILISATION),
            max,
            next: Moment::ZERO,
            seen: 0,
            samples: VecDeque::new(),
            zero_since: None,
        }
    }

    /// The average of the newest samples.
    fn average(&self, window: Duration) -> f64 {
        let length = window.as_secs() as usize;
        let newest = self.samples.iter().rev().take(length);
        newest.sum::<f64>() / self.samples.len().clamp(1, length) as f64
    }
}

impl Scaler for Knative {
    fn next(&self) -> Moment {
        self.next
    }

    fn act(&mut self, world: &mut World<'_>) {
        let now = world.now();
        self.next = now + SAMPLE;
        let (_, held) = world.census();
        self.samples
            .push_back((world.ready() + held.deliveries) as f64);
        if self.samples.len() > STABLE.as_secs() as usize {
            self.samples.pop_front();
        }
        self.seen += 1;
        // The activator reports the first request of a pool at zero at once.
        let is_poked = world.live() == 0 && world.ready() > 0;
        if !self.seen.is_multiple_of(TICKS) && !is_poked {
            return;
        }
        let (stable, panic) = (self.average(STABLE), self.average(PANIC));
        let desired = self.autoscaler.desired(now, stable, panic, world.up());
        let desired = if is_poked { desired.max(1) } else { desired };
        if desired > 0 {
            self.zero_since = None;
            world.resize(desired.min(self.max), false);
            return;
        }
        let since = *self.zero_since.get_or_insert(now);
        let kept = u32::from(now.since(since) < GRACE_BEFORE_ZERO);
        world.resize(kept.min(world.staying()), false);
    }
}

/// Knative's calculation.
struct Autoscaler {
    target: f64,
    panic_since: Option<Moment>,
    most_in_panic: u32,
}

impl Autoscaler {
    fn new(target: f64) -> Self {
        Self {
            target,
            panic_since: None,
            most_in_panic: 0,
        }
    }

    fn desired(&mut self, now: Moment, stable: f64, panic: f64, ready: u32) -> u32 {
        let ready = f64::from(ready.max(1));
        let most = (UP_RATE * ready).ceil();
        let fewest = (ready / DOWN_RATE).floor();
        let for_stable = (stable / self.target).ceil();
        let for_panic = (panic / self.target).ceil();
        let bounded = |pods: f64| pods.max(fewest).min(most) as u32;

        if for_panic / ready >= PANIC_THRESHOLD {
            self.panic_since = Some(now);
        } else if self
            .panic_since
            .is_some_and(|since| now.since(since) > STABLE)
        {
            self.panic_since = None;
            self.most_in_panic = 0;
        }
        let mut desired = bounded(for_stable);
        if self.panic_since.is_some() {
            self.most_in_panic = self.most_in_panic.max(desired).max(bounded(for_panic));
            desired = self.most_in_panic;
        }
        desired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    /// The examples of Knative's own `autoscaler_test.go`: target, then `(seconds, stable, panic, ready)` and the pods.
    #[test]
    fn gives_the_results_of_knatives_own_examples() {
        type Example<'a> = (&'a str, f64, &'a [(u64, f64, f64, u32, u32)]);
        let examples: [Example<'_>; 5] = [
            (
                "StableModeIncrease",
                10.0,
                &[(0, 50.0, 10.0, 1, 5), (0, 100.0, 10.0, 1, 10)],
            ),
            (
                "StableModeDecrease",
                10.0,
                &[(0, 100.0, 100.0, 8, 10), (0, 50.0, 50.0, 8, 5)],
            ),
            (
                "StableModeNoTrafficScaleToZero",
                10.0,
                &[(0, 1.0, 0.0, 1, 1), (0, 0.0, 0.0, 1, 0)],
            ),
            (
                "UnpanicAfterSlowIncrease",
                1.0,
                &[
                    (0, 11.0, 25.0, 10, 25),
                    (30, 30.0, 41.0, 40, 41),
                    (62, 50.0, 56.0, 55, 50),
                ],
            ),
            (
                "ExtendPanicWindow",
                1.0,
                &[(0, 11.0, 25.0, 10, 25), (30, 30.0, 80.0, 40, 80)],
            ),
        ];
        for (name, target, steps) in examples {
            let mut autoscaler = Autoscaler::new(target);
            for &(second, stable, panic, ready, pods) in steps {
                let found = autoscaler.desired(at(second), stable, panic, ready);
                assert_eq!(found, pods, "{name} at {second}");
            }
        }
    }

    #[test]
    fn never_shrinks_in_panic_mode_and_at_most_halves_after_it() {
        let mut autoscaler = Autoscaler::new(1.0);
        assert_eq!(autoscaler.desired(at(0), 10.0, 100.0, 10), 100);
        assert_eq!(autoscaler.desired(at(30), 5.0, 1.0, 100), 100);
        assert_eq!(autoscaler.desired(at(62), 5.0, 1.0, 100), 50);
    }
}
