//! The inputs of a decision: what a policy gets, and what the record of the decision shows.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Counts, Group, HeldBy, Intake, Measured, Rates, ScheduleState, TakenAhead};

/// The inputs of a decision. By default, those of an empty queue that was never read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Inputs {
    /// Messages ready in the queue, from the last trusted reading.
    pub ready: u64,
    /// Age of that reading. `None` before the first reading.
    #[serde(with = "crate::json_time::seconds_if_known", default)]
    pub age: Option<Duration>,
    /// Why the newest probe was not trusted. `None` if it was trusted.
    pub stale: Option<String>,
    /// Deliveries held by live workers.
    pub held: u64,
    /// Live workers that hold a delivery.
    pub holders: u32,
    /// How `held` and `holders` are known.
    #[serde(default, skip_serializing_if = "HeldBy::is_workers")]
    pub held_by: HeldBy,
    /// Held deliveries that wait behind their worker's running job. Zero if prefetch is 1.
    pub behind: u64,
    /// Deliveries that the pool has taken and no worker holds. `None` if it has no keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<TakenAhead>,
    /// Ready plus held, and what the pool has taken ahead. In a group, this includes what the other members hold.
    pub demand: u64,
    /// Time since a message was last seen or taken. `None` if there never was one.
    #[serde(with = "crate::json_time::seconds_if_known", default)]
    pub quiet: Option<Duration>,
    /// The workers and runners.
    pub census: Counts,
    /// Whether the pool takes messages.
    pub intake: Intake,
    /// Rates of the last minute, if the queue was watched long enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
    /// How long the oldest message has waited, if that is known.
    #[serde(
        with = "crate::json_time::seconds_if_known",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub oldest: Option<Duration>,
    /// The daemons that share the queue. `None` if the pool does not share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
    /// The state of the pool's schedule. `None` without a schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleState>,
    /// The pool's measurements of its own traffic.
    #[serde(default)]
    pub measured: Measured,
}

impl Inputs {
    /// Messages that could start at once if there were a worker for each: those that the pool has taken ahead and are not
    /// blocked, and those of the queue that it may take.
    pub(super) fn startable(&self) -> u64 {
        match &self.ahead {
            None => self.ready,
            Some(ahead) => ahead.ready.saturating_add(self.ready.min(ahead.room)),
        }
    }

    /// Deliveries that the pool has taken and no worker holds.
    pub(super) fn taken_ahead(&self) -> u64 {
        self.ahead.as_ref().map_or(0, TakenAhead::taken)
    }
}
