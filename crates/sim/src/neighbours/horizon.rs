//! Laravel Horizon with `balance = auto` and its defaults: `balanceMaxShift` 1, `balanceCooldown` 3 s, `minProcesses` 1.
//!
//! Source: `src/AutoScaler.php`, `src/Supervisor.php` and `src/Console/SupervisorCommand.php` of `laravel/horizon`.
//!
//! Horizon divides `max` among its queues by their share of the time to clear all of them:
//!
//! ```text
//! desired = ceil(max * time to clear this queue / time to clear all queues)
//! ```
//!
//! Only ready jobs count. A pool has one queue here, so its share is 1 if it has ready jobs: `desired` is `max`. With an
//! empty queue it is `min`. Every 3 s the number moves by 1 towards `desired`. A supervisor starts with `max` processes.
//! A process that is told to stop finishes its job first.

use std::time::Duration;

use tidegate_core::decide::Moment;

use crate::{scaler::Scaler, world::World};

const COOLDOWN: Duration = Duration::from_secs(3);
const SHIFT: u32 = 1;
const MIN: u32 = 1;

pub(super) struct Horizon {
    max: u32,
    next: Moment,
    is_started: bool,
}

impl Horizon {
    pub(super) fn new(max: u32) -> Self {
        Self {
            max,
            next: Moment::ZERO,
            is_started: false,
        }
    }
}

/// The desired number of each queue, by its time to clear.
fn desired(max: u32, times: &[f64]) -> Vec<u32> {
    let all: f64 = times.iter().sum();
    let share = |time: &f64| match all > 0.0 {
        true => (f64::from(max) * time / all).ceil() as u32,
        false => MIN,
    };
    times.iter().map(share).collect()
}

/// One step towards the desired number. `total` counts the processes of all queues.
fn shifted(current: u32, desired: u32, total: u32, max: u32) -> u32 {
    if desired > current {
        let up = max.saturating_sub(total).min(SHIFT);
        (current + up).min(desired)
    } else if desired < current {
        let down = total.saturating_sub(MIN).min(SHIFT);
        (current - down.min(current)).max(desired).max(MIN)
    } else {
        current
    }
}

impl Scaler for Horizon {
    fn next(&self) -> Moment {
        self.next
    }

    fn act(&mut self, world: &mut World<'_>) {
        self.next = world.now() + COOLDOWN;
        if !self.is_started {
            self.is_started = true;
            world.resize(self.max, false);
            return;
        }
        // All jobs of a queue have the same runtime to Horizon, so the time to clear it is in proportion to its size.
        let wanted = desired(self.max, &[world.ready() as f64])[0];
        let current = world.staying();
        world.resize(shifted(current, wanted, current, self.max), false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Several steps of several queues, each `(current, time to clear)`, smallest share first as Horizon does.
    fn steps(max: u32, queues: &[(u32, f64)], steps: usize) -> Vec<Vec<u32>> {
        let times: Vec<f64> = queues.iter().map(|(_, time)| *time).collect();
        let mut current: Vec<u32> = queues.iter().map(|(current, _)| *current).collect();
        let wanted = desired(max, &times);
        let mut order: Vec<usize> = (0..queues.len()).collect();
        order.sort_by_key(|queue| wanted[*queue]);
        let mut seen = Vec::new();
        for _ in 0..steps {
            for queue in &order {
                let total = current.iter().sum();
                current[*queue] = shifted(current[*queue], wanted[*queue], total, max);
            }
            seen.push(current.clone());
        }
        seen
    }

    /// The examples of Horizon's own `AutoScalerTest`.
    #[test]
    fn gives_the_results_of_horizons_own_examples() {
        let balance = steps(20, &[(10, 200.0), (10, 100.0)], 4);
        assert_eq!(balance, [[11, 9], [12, 8], [13, 7], [13, 7]].map(Vec::from));
        let empty = steps(10, &[(5, 0.0), (5, 0.0)], 4);
        assert_eq!(empty, [[4, 4], [3, 3], [2, 2], [1, 1]].map(Vec::from));
        let one_busy = steps(10, &[(1, 2500.0), (1, 0.0)], 9);
        assert_eq!([&one_busy[1], &one_busy[3]], [&vec![3, 1], &vec![5, 1]]);
        assert_eq!(one_busy[8], [9, 1]);
        let single = steps(5, &[(2, 0.0)], 1);
        assert_eq!(single, [[1]].map(Vec::from));
        let full = steps(20, &[(10, 5000.0), (10, 5000.0)], 1);
        assert_eq!(full, [[10, 10]].map(Vec::from));
    }
}
