//! The interface of a policy: its inputs, and its recommendation.
//!
//! The configuration file names the fixed kinds of [`Policy`](super::Policy). A program may use any implementation of
//! [`ScalingPolicy`]. In both cases the answer is a recommendation: bounds, windows and steps apply after it.

use std::time::Duration;

use jiff::Timestamp;

use super::{Inputs, Measured, Moment, Rates};

/// Recommends how many workers a pool needs. Asked at each reconcile, if the queue is known and not empty.
///
/// Asked by one pool at a time, never concurrently, and never while the pool is paused, pinned or without a reading. It
/// must not block: the pool waits for its answer.
pub trait ScalingPolicy: Send + 'static {
    /// How many workers there should be, and why.
    fn recommend(&mut self, situation: &Situation<'_>) -> Recommendation;

    /// A short description of the policy, for `status`.
    fn describe(&self) -> String;
}

/// The input of a policy: all that a pool knows at one instant.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Situation<'a> {
    /// The time on the supervisor's monotonic clock.
    pub now: Moment,
    /// The same time on the wall clock, if that is known.
    pub wall: Option<Timestamp>,
    /// The queue (ready, the reading's age, whether it is stale), the deliveries that our workers hold, demand, and the
    /// census.
    pub inputs: &'a Inputs,
    /// The expected number of workers until now.
    pub expected: u32,
    /// How long the oldest message has waited, if that is known.
    pub oldest: Option<Duration>,
    /// Rates of the last minute, if the queue was watched long enough.
    pub rates: Option<Rates>,
    /// Decayed averages and quantiles: arrivals, run times, start-up times and waiting times.
    pub measured: Measured,
}

/// A policy's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recommendation {
    /// The number of workers. Bounds, windows and steps apply after it.
    pub workers: u32,
    /// The calculation as text, for `explain`.
    pub why: String,
}

impl Recommendation {
    /// This many workers, for this reason.
    pub fn new(workers: u32, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { workers, why }
    }
}
