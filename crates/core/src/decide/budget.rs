//! Budget: the pools of one supervisor divide a limited number of workers.
//!
//! Each pool with work first gets its floor. The rest goes to the pools that need more, in proportion to their weights,
//! and no pool gets more than it needs. So no worker stays unused while a pool needs one.
//!
//! The limit holds for live workers, not only for the numbers: a pool grows only into workers that no other pool has.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use crate::text::counted;
use serde::{Deserialize, Serialize};

/// The need of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolNeed {
    /// Its weight: 1 or more.
    pub weight: u32,
    /// The number of workers that its own policy gives.
    pub wanted: u32,
    /// The workers that it gets before all others: its `min_active` while it has work, otherwise 0.
    pub floor: u32,
    /// The workers that it has: live ones, and those that it was allowed to start.
    pub taken: u32,
}

/// The workers that a pool may have, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// Workers.
    pub workers: u32,
    /// The reason, for `explain`.
    pub why: String,
}

/// Divides `total` workers among the pools. The result has one part for each pool, in the same order.
///
/// # Guarantees
/// The parts add up to `total`, or to all that the pools need if that is less. No pool gets more than it needs. Each
/// pool gets its floor, if the floors fit within `total`.
///
/// ```
/// use tidegate_core::decide::{PoolNeed, divide_workers};
///
/// let need = |weight, wanted| PoolNeed { weight, wanted, floor: 1, taken: 0 };
/// assert_eq!(divide_workers(12, &[need(1, 50), need(2, 50), need(1, 2)]), [3, 7, 2]);
/// ```
pub fn divide_workers(total: u32, needs: &[PoolNeed]) -> Vec<u32> {
    let floors: Vec<u32> = needs
        .iter()
        .map(|need| need.floor.min(need.wanted))
        .collect();
    let weights: Vec<u32> = needs.iter().map(|need| need.weight.max(1)).collect();
    let mut parts = fill(total, &weights, &floors, &vec![0; needs.len()]);
    let left = total.saturating_sub(sum(&parts));
    if left > 0 {
        let wanted: Vec<u32> = needs.iter().map(|need| need.wanted).collect();
        parts = fill(total, &weights, &wanted, &parts);
    }
    parts
}

/// The workers that each pool may have now: its part, but no more than the others leave.
pub fn allowances(total: u32, needs: &[PoolNeed]) -> Vec<Allowance> {
    let pools = needs.len();
    let all: u64 = needs.iter().map(|need| u64::from(need.taken)).sum();
    let allowance = |(need, part): (&PoolNeed, u32)| {
        let elsewhere = all - u64::from(need.taken);
        let room = u64::from(total).saturating_sub(elsewhere);
        let room = u32::try_from(room).unwrap_or(u32::MAX).max(need.taken);
        match room < part {
            true => Allowance {
                workers: room,
                why: format!(
                    "the other pools still have {elsewhere} of the supervisor's {}",
                    counted(total, "worker")
                ),
            },
            false => Allowance {
                workers: part,
                why: format!(
                    "its part of the supervisor's {} for {}, by weight and need",
                    counted(total, "worker"),
                    counted(pools, "pool")
                ),
            },
        }
    };
    needs
        .iter()
        .zip(divide_workers(total, needs))
        .map(allowance)
        .collect()
}

/// Raises `base` towards `limits` until `total` is used up. Each pool gets the same number of workers for each unit of its
/// weight, up to its limit. The last workers, fewer than there are pools, go to the pools that are lowest for their weight.
fn fill(total: u32, weights: &[u32], limits: &[u32], base: &[u32]) -> Vec<u32> {
    let mut parts: Vec<u32> = base.to_vec();
    let left = total.saturating_sub(sum(&parts));
    let level = |at: usize, part: u32| {
        Reverse(Level {
            workers: part.saturating_add(1),
            weight: weights[at],
            at,
        })
    };
    let mut hungry: BinaryHeap<_> = (0..parts.len())
        .filter(|&at| parts[at] < limits[at])
        .map(|at| level(at, parts[at]))
        .collect();
    // One worker at a time is fast enough, because `left` is a number of workers of one machine.
    for _ in 0..left {
        let Some(Reverse(lowest)) = hungry.pop() else {
            break;
        };
        parts[lowest.at] += 1;
        if parts[lowest.at] < limits[lowest.at] {
            hungry.push(level(lowest.at, parts[lowest.at]));
        }
    }
    parts
}

/// The fill level of a pool with one more worker, divided by its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Level {
    workers: u32,
    weight: u32,
    at: usize,
}

impl Ord for Level {
    fn cmp(&self, other: &Self) -> Ordering {
        let level = |a: &Self, b: &Self| u64::from(a.workers) * u64::from(b.weight);
        level(self, other)
            .cmp(&level(other, self))
            .then(self.at.cmp(&other.at))
    }
}

impl PartialOrd for Level {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn sum(numbers: &[u32]) -> u32 {
    numbers.iter().copied().fold(0, u32::saturating_add)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn need(weight: u32, wanted: u32, floor: u32) -> PoolNeed {
        PoolNeed {
            weight,
            wanted,
            floor,
            taken: 0,
        }
    }

    #[test]
    fn divides_by_floor_weight_and_need() {
        // (total, needs, parts)
        let cases: &[(u32, &[PoolNeed], &[u32])] = &[
            (10, &[need(1, 3, 1), need(1, 4, 1)], &[3, 4]),
            (10, &[need(1, 50, 1), need(1, 50, 1)], &[5, 5]),
            (10, &[need(4, 50, 0), need(1, 50, 0)], &[8, 2]),
            // Workers that one pool does not need go to the others.
            (10, &[need(1, 2, 1), need(1, 50, 1)], &[2, 8]),
            // The floor comes before the weight.
            (10, &[need(100, 50, 0), need(1, 50, 3)], &[7, 3]),
            // A pool without work has no floor and needs no worker.
            (10, &[need(1, 0, 0), need(1, 50, 1)], &[0, 10]),
            // The floors do not fit.
            (3, &[need(1, 9, 2), need(1, 9, 2)], &[2, 1]),
            (0, &[need(1, 9, 2)], &[0]),
            (5, &[], &[]),
        ];
        for (total, needs, parts) in cases {
            assert_eq!(
                divide_workers(*total, needs),
                *parts,
                "{total} for {needs:?}"
            );
        }
    }

    #[test]
    fn a_pool_grows_only_into_what_the_others_leave() {
        let taken = |need, taken| PoolNeed { taken, ..need };
        let busy = taken(need(1, 50, 1), 10);
        let new = need(1, 50, 1);
        let allowed = allowances(10, &[busy, new])[1].clone();
        assert_eq!(allowed.workers, 0);
        assert!(
            allowed.why.contains("still have 10 of the supervisor's 10"),
            "{}",
            allowed.why
        );
        assert_eq!(
            allowances(10, &[busy, new])[0].workers,
            5,
            "it gives up the other half"
        );
        assert_eq!(allowances(10, &[taken(busy, 5), new])[1].workers, 5);
    }

    fn some_needs() -> impl Strategy<Value = Vec<PoolNeed>> {
        prop::collection::vec((1u32..20, 0u32..60, 0u32..8, 0u32..60), 1..10).prop_map(|list| {
            list.into_iter()
                .map(|(weight, wanted, floor, taken)| PoolNeed {
                    weight,
                    wanted,
                    floor,
                    taken,
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn no_worker_stays_unused_while_a_pool_wants_one(total in 0u32..200, needs in some_needs()) {
            let parts = divide_workers(total, &needs);
            let wanted: u32 = needs.iter().map(|need| need.wanted).sum();
            prop_assert_eq!(parts.iter().sum::<u32>(), total.min(wanted));
            for (need, part) in needs.iter().zip(&parts) {
                prop_assert!(*part <= need.wanted);
            }
        }

        #[test]
        fn every_pool_gets_its_floor_if_the_floors_fit(total in 0u32..200, needs in some_needs()) {
            let floors: u32 = needs.iter().map(|need| need.floor.min(need.wanted)).sum();
            prop_assume!(floors <= total);
            for (need, part) in needs.iter().zip(divide_workers(total, &needs)) {
                prop_assert!(part >= need.floor.min(need.wanted));
            }
        }

        /// Others may have the workers at first. They leave after their jobs, one reconcile after the other.
        #[test]
        fn every_pool_with_work_comes_to_its_floor_whatever_the_others_had(
            total in 0u32..200,
            needs in some_needs(),
        ) {
            let mut needs = needs;
            for need in &mut needs {
                need.floor = need.floor.min(need.wanted);
            }
            prop_assume!(needs.iter().map(|need| need.floor).sum::<u32>() <= total);
            for _ in 0..2 {
                for own in 0..needs.len() {
                    let allowed = allowances(total, &needs)[own].workers;
                    needs[own].taken = needs[own].wanted.min(allowed);
                }
            }
            for need in &needs {
                prop_assert!(need.taken >= need.floor, "{:?} of {:?}", need, needs);
            }
        }

        #[test]
        fn a_pool_with_more_weight_and_the_same_need_gets_no_less(
            total in 0u32..200,
            mut needs in some_needs(),
        ) {
            let (mut light, mut heavy) = (needs[0], needs[0]);
            (light.weight, heavy.weight) = (1, 7);
            needs.extend([light, heavy]);
            let parts = divide_workers(total, &needs);
            prop_assert!(parts[needs.len() - 1] >= parts[needs.len() - 2]);
        }

        #[test]
        fn pools_that_follow_their_allowance_never_pass_the_limit(
            total in 0u32..60,
            needs in some_needs(),
            turns in prop::collection::vec((0usize..10, 0u32..60), 1..60),
        ) {
            let mut needs = needs;
            for need in &mut needs {
                need.taken = 0;
            }
            for (pool, wanted) in turns {
                let own = pool % needs.len();
                needs[own].wanted = wanted;
                let allowed = allowances(total, &needs)[own].workers;
                needs[own].taken = wanted.min(allowed);
                prop_assert!(needs.iter().map(|need| need.taken).sum::<u32>() <= total);
            }
        }
    }
}
