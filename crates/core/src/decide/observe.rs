//! The observation: the input of a reconcile.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Allowance, Arrivals, Group, HeldBy, Moment, TakenAhead, Timings};

/// The facts at the start of a reconcile.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// The time of the reconcile.
    pub at: Moment,
    /// The same time on the wall clock, if that is known.
    pub wall: Option<Timestamp>,
    /// The result of this reconcile's probe of the queue.
    pub probe: Probe,
    /// Our consumers that the broker had confirmed before the probe was sent and that still exist. If there are any,
    /// the broker must count at least one, or its answer is not trusted.
    pub consumers: u32,
    /// Deliveries that our live workers hold.
    pub held: u64,
    /// Live workers that hold a delivery. Fewer than `held` if prefetch is above 1.
    pub holders: u32,
    /// How `held` and `holders` are known.
    pub held_by: HeldBy,
    /// Deliveries that the pool has taken and no worker holds. `None` if it has no keys.
    pub ahead: Option<TakenAhead>,
    /// When the last delivery was taken.
    pub last_taken: Option<Moment>,
    /// Jobs that this pool has ever removed from the queue: done, moved to a retry queue, or dead-lettered.
    pub gone: u64,
    /// How long the oldest message has waited, if that is known.
    pub oldest: Option<Duration>,
    /// How long jobs run and wait, and how long workers take to start.
    pub timings: Timings,
    /// Whether the pool may take messages at all.
    pub intake: Intake,
    /// The daemons that share the queue. `None` if this pool does not share it.
    pub group: Option<Group>,
    /// The part of the supervisor's workers that this pool may have. `None` if the supervisor sets no limit.
    pub allowance: Option<Allowance>,
    /// Why the host has no room for more workers. `None` if it has.
    pub pressure: Option<String>,
}

/// The result of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// No probe was made for this reconcile: the last result still holds.
    Skipped,
    /// The broker answered.
    Answered {
        /// Messages ready.
        ready: u64,
        /// Consumers of the queue, ours and others.
        consumers: u32,
    },
    /// No answer: the last good reading is kept.
    Failed {
        /// The cause, without credentials.
        why: String,
    },
    /// The broker says that the queue does not exist.
    Missing,
}

/// Whether the pool takes messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intake {
    /// Yes, with as many workers as the policy gives.
    #[default]
    Open,
    /// One worker at most, to test whether runners start again.
    Trial,
    /// One worker at most, to test whether jobs still fail.
    BreakerTrial,
    /// No: the operator paused the pool.
    Paused,
    /// No: the operator drained the pool, and it stays empty until it is resumed.
    Emptying,
    /// No: the pool is ending.
    Draining,
    /// No: runners cannot start.
    Faulted,
    /// No: too many jobs have failed.
    BreakerOpen,
    /// No: copies cannot be published, so a job that fails could not be kept.
    Blocked,
}

impl Intake {
    /// Whether it is open for one worker only.
    pub fn is_trial(self) -> bool {
        matches!(self, Self::Trial | Self::BreakerTrial)
    }
}

/// How long a queue must be empty before its workers are stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainAfter {
    /// After this time without a ready message or a delivery. Zero means at once.
    After(Duration),
    /// After this time, or after [`DrainAfter::OFTEN_FACTOR`] times this time while messages come often: on average at
    /// least one in twice this time. Then keeping a worker costs little, and stopping it would start it again soon.
    ByArrivals(Duration),
    /// Never: the policy alone decides.
    Never,
}

impl DrainAfter {
    /// How many times longer [`Self::ByArrivals`] waits while messages come often.
    pub const OFTEN_FACTOR: u32 = 6;

    /// The time at these arrivals. `None` is never.
    pub fn at(self, arrivals: Option<Arrivals>) -> Option<Duration> {
        match self {
            Self::After(time) => Some(time),
            Self::ByArrivals(time) => {
                let in_twice = arrivals.map_or(0.0, |arrivals| arrivals.slow) * 2.0;
                let is_often = in_twice * time.as_secs_f64() >= 1.0;
                Some(if is_often {
                    time * Self::OFTEN_FACTOR
                } else {
                    time
                })
            }
            Self::Never => None,
        }
    }
}

impl Default for DrainAfter {
    fn default() -> Self {
        Self::After(Duration::from_secs(5))
    }
}

/// A trusted reading of the queue's depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// When it was taken.
    pub at: Moment,
    /// Messages ready.
    pub ready: u64,
}

/// The result of a probe, after the check whether it can be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CheckedProbe {
    Fresh(u64),
    Stale(String),
    Missing,
}

impl Observation {
    /// Checks the probe's answer, given the `last` result. Zero messages from a broker that counts none of our own
    /// consumers do not mean an empty queue: a quorum queue without a leader answers 0 messages and 0 consumers. A
    /// broker that counts any consumer is the queue's leader, even if it counts fewer than we have: a quorum queue with
    /// a single active consumer counts only that one.
    pub(super) fn check_probe(&self, last: &CheckedProbe) -> CheckedProbe {
        match &self.probe {
            Probe::Skipped => last.clone(),
            Probe::Answered {
                ready: 0,
                consumers: 0,
            } if self.consumers > 0 => CheckedProbe::Stale(format!(
                "0 ready, but the broker counts no consumers where we hold {}",
                self.consumers
            )),
            Probe::Answered { ready, .. } => CheckedProbe::Fresh(*ready),
            Probe::Failed { why } => CheckedProbe::Stale(why.clone()),
            Probe::Missing => CheckedProbe::Missing,
        }
    }
}
