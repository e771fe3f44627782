//! Policies of one's own: asked at each reconcile with all that is known, and free to remember.
//!
//! The configuration file names the closed kinds of [`Policy`]; a program may bring anything that implements
//! [`ScalingPolicy`]. Either way the answer is a recommendation: bounds, windows and steps come after it.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Inputs, Moment, Policy};

/// How many workers a pool deserves, asked at each reconcile on a known queue that is not empty.
///
/// Asked by one pool at a time, never concurrently, and never while the pool is paused, pinned or without a reading. It must
/// not wait: the pool waits with it.
pub trait ScalingPolicy: Send + 'static {
    /// How many workers there should be, and why.
    fn recommend(&mut self, situation: &Situation<'_>) -> Recommendation;

    /// The policy in a few words, for `status`.
    fn describe(&self) -> String;
}

/// What a policy is asked with: everything that a pool knows at one instant.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Situation<'a> {
    /// When, on the supervisor's monotonic clock.
    pub now: Moment,
    /// When, in wall time, where that is known.
    pub wall: Option<Timestamp>,
    /// The queue (ready, the reading's age, whether it is stale), what our workers hold, demand, and the census.
    pub inputs: &'a Inputs,
    /// How many workers were expected until now.
    pub expected: u32,
    /// How long the oldest message has waited, where that is known.
    pub oldest: Option<Duration>,
    /// What came and went of late, where it was seen for long enough.
    pub rates: Option<Rates>,
}

/// Messages a second, over the last minute or as much of it as was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Messages that came into the queue. Those that others consume from it are not seen.
    pub arrivals: f64,
    /// Jobs that left it: done, put off, or dead-lettered.
    pub done: f64,
}

/// A policy's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recommendation {
    /// Workers. Bounds, windows and steps come after it.
    pub workers: u32,
    /// The calculation in words, for `explain`.
    pub why: String,
}

impl Recommendation {
    /// So many workers, for this reason.
    pub fn new(workers: u32, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { workers, why }
    }
}

impl ScalingPolicy for Policy {
    fn recommend(&mut self, situation: &Situation<'_>) -> Recommendation {
        let demand = situation.inputs.demand;
        Recommendation::new(self.workers_for(demand), self.reason_for(demand))
    }

    fn describe(&self) -> String {
        self.to_string()
    }
}

/// A policy of a program's own, with the bounds it lives in. Clones are the same policy, with one memory: a pool that is
/// started again, or gets other settings, goes on with it.
#[derive(Clone)]
pub struct OwnPolicy {
    policy: Arc<Mutex<dyn ScalingPolicy>>,
    bounds: Policy,
}

impl OwnPolicy {
    /// Has this policy asked, between 1 worker and 50.
    pub fn new(policy: impl ScalingPolicy) -> Self {
        Self {
            policy: Arc::new(Mutex::new(policy)),
            bounds: Policy::default(),
        }
    }

    /// The same with this ceiling. Lowers the floor where it would be above.
    #[must_use]
    pub fn max(mut self, workers: u32) -> Self {
        self.bounds = self.bounds.max(workers);
        self
    }

    /// The same with this floor, which holds from the first work until the queue is empty. Raises the ceiling where it
    /// would be below.
    #[must_use]
    pub fn min_active(mut self, workers: u32) -> Self {
        self.bounds = self.bounds.min_active(workers);
        self
    }

    /// A policy of a closed kind with the same bounds: what a pool falls back to by hand.
    pub fn bounds(&self) -> &Policy {
        &self.bounds
    }

    /// Asks it. One that panics is answered for: the pool stays as it is.
    pub fn recommend(&self, situation: &Situation<'_>) -> Recommendation {
        let asked = || self.policy().recommend(situation);
        catch_unwind(AssertUnwindSafe(asked)).unwrap_or_else(|_| {
            Recommendation::new(
                situation.expected,
                "the pool's own policy panicked: it stays as it is",
            )
        })
    }

    /// The policy in a few words.
    pub fn describe(&self) -> String {
        let asked = || self.policy().describe();
        let words = catch_unwind(AssertUnwindSafe(asked));
        words.unwrap_or_else(|_| String::from("a policy of its own"))
    }

    fn policy(&self) -> MutexGuard<'_, dyn ScalingPolicy> {
        // What a panic left behind is the policy's own to judge.
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

/// Whether they are the same policy, not whether they would answer the same.
impl PartialEq for OwnPolicy {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.policy, &other.policy) && self.bounds == other.bounds
    }
}

impl Eq for OwnPolicy {}

/// A pool's choice of a policy: of a closed kind, or one of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyChoice {
    /// A kind that the configuration file has, too.
    Kind(Policy),
    /// One of the program's own.
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
    use crate::decide::{Counts, Intake};

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
    fn clones_share_one_memory_and_a_panic_leaves_the_pool_as_it_is() {
        let inputs = Inputs {
            ready: 0,
            age: None,
            stale: None,
            held: 0,
            holders: 0,
            behind: 0,
            demand: 0,
            quiet: None,
            census: Counts::default(),
            intake: Intake::Open,
            rates: None,
            oldest: None,
        };
        let situation = Situation {
            now: Moment::ZERO,
            wall: None,
            inputs: &inputs,
            expected: 7,
            oldest: None,
            rates: None,
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
