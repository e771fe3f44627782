//! A custom policy of a program. It is asked at each reconcile with all known facts, and may keep state.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Policy, Recommendation, ScalingPolicy, Situation};

/// A program's own policy, with its bounds. Clones share the policy and its state: a pool that is restarted, or gets
/// other settings, continues with the same state.
#[derive(Clone)]
pub struct OwnPolicy {
    policy: Arc<Mutex<dyn ScalingPolicy>>,
    bounds: Policy,
}

impl OwnPolicy {
    /// Uses this policy, with bounds of 1 to 50 workers.
    pub fn new(policy: impl ScalingPolicy) -> Self {
        Self {
            policy: Arc::new(Mutex::new(policy)),
            bounds: Policy::default(),
        }
    }

    /// The same policy with this ceiling. Lowers the floor if it would be above the ceiling.
    #[must_use]
    pub fn max(mut self, workers: u32) -> Self {
        self.bounds = self.bounds.max(workers);
        self
    }

    /// The same policy with this floor, which applies from the first work until the queue is empty. Raises the ceiling
    /// if it would be below the floor.
    #[must_use]
    pub fn min_active(mut self, workers: u32) -> Self {
        self.bounds = self.bounds.min_active(workers);
        self
    }

    /// A policy of a fixed kind with the same bounds. Used when an operator sets a policy by hand.
    pub fn bounds(&self) -> &Policy {
        &self.bounds
    }

    /// Asks the policy. If it panics, the number of workers stays the same.
    pub fn recommend(&self, situation: &Situation<'_>) -> Recommendation {
        let asked = || self.policy().recommend(situation);
        catch_unwind(AssertUnwindSafe(asked)).unwrap_or_else(|_| {
            Recommendation::new(
                situation.expected,
                "the pool's own policy panicked: the number of workers stays the same",
            )
        })
    }

    /// A short description of the policy.
    pub fn describe(&self) -> String {
        let asked = || self.policy().describe();
        let words = catch_unwind(AssertUnwindSafe(asked));
        words.unwrap_or_else(|_| String::from("a policy of its own"))
    }

    fn policy(&self) -> MutexGuard<'_, dyn ScalingPolicy> {
        // After a panic the policy itself is responsible for its state.
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for OwnPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnPolicy")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

/// Whether both are the same policy object, not whether they would give the same answer.
impl PartialEq for OwnPolicy {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.policy, &other.policy) && self.bounds == other.bounds
    }
}

impl Eq for OwnPolicy {}

/// The policy of a pool: a fixed kind, or the program's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyChoice {
    /// A kind that the configuration file also has.
    Kind(Policy),
    /// The program's own policy.
    Own(OwnPolicy),
}

impl From<Policy> for PolicyChoice {
    fn from(policy: Policy) -> Self {
        Self::Kind(policy)
    }
}

impl From<OwnPolicy> for PolicyChoice {
    fn from(policy: OwnPolicy) -> Self {
        Self::Own(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::{Inputs, Measured, Moment};

    struct Counting(u32);

    impl ScalingPolicy for Counting {
        fn recommend(&mut self, situation: &Situation<'_>) -> Recommendation {
            self.0 += 1;
            assert!(self.0 != 2, "the second time it panics");
            Recommendation::new(self.0, format!("asked at {:?}", situation.now))
        }

        fn describe(&self) -> String {
            format!("asked {} times", self.0)
        }
    }

    #[test]
    fn clones_share_one_state_and_a_panic_keeps_the_number_of_workers() {
        let inputs = Inputs::default();
        let situation = Situation {
            now: Moment::ZERO,
            wall: None,
            inputs: &inputs,
            expected: 7,
            oldest: None,
            rates: None,
            measured: Measured::default(),
        };
        let policy = OwnPolicy::new(Counting(0)).max(9);
        let other = policy.clone();
        let asked = [&policy, &other, &policy].map(|policy| policy.recommend(&situation).workers);
        assert_eq!(asked, [1, 7, 3]);
        assert_eq!(other.describe(), "asked 3 times");
        assert_eq!(policy, other);
        assert_ne!(policy, OwnPolicy::new(Counting(0)).max(9));
        assert_ne!(policy.clone().max(8), policy);
    }
}
