//! The observation: what a reconcile is told of the world.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Moment;

/// What is known at the start of a reconcile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// When.
    pub at: Moment,
    /// When, in wall time, where that is known.
    pub wall: Option<Timestamp>,
    /// What this reconcile's probe of the queue came to.
    pub probe: Probe,
    /// Our consumers that the broker had confirmed before the probe was sent and that are still there. Where there are
    /// any, the broker must count one at least, or its answer is not to be believed.
    pub consumers: u32,
    /// Deliveries that our live workers hold.
    pub held: u64,
    /// Live workers that hold a delivery. Fewer than `held` where prefetch is above 1.
    pub holders: u32,
    /// When the last delivery was taken.
    pub last_taken: Option<Moment>,
    /// Jobs that ever left the queue by our hand: done, put off, or dead-lettered.
    pub gone: u64,
    /// How long the oldest message has waited, where that is known.
    pub oldest: Option<Duration>,
    /// Whether the pool may take messages at all.
    pub intake: Intake,
}

/// What a probe came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// None was made for this reconcile: what the last one said still stands.
    Held,
    /// The broker answered.
    Answered {
        /// Messages ready.
        ready: u64,
        /// Consumers of the queue, ours and others'.
        consumers: u32,
    },
    /// No answer: the last good reading is held.
    Failed {
        /// Why, without any credential.
        why: String,
    },
    /// The broker says that there is no such queue.
    Missing,
}

/// Whether the pool takes messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intake {
    /// As many as the policy says.
    #[default]
    Open,
    /// One worker at the most, to find out whether runners start again.
    Trial,
    /// One worker at the most, to find out whether jobs still fail.
    BreakerTrial,
    /// None: someone paused the pool.
    Paused,
    /// None: someone drained the pool, and it stays empty until it is resumed.
    Emptying,
    /// None: the pool is on its way out.
    Draining,
    /// None: runners cannot start.
    Faulted,
    /// None: too many jobs have failed.
    BreakerOpen,
    /// None: copies cannot be published, so a job that fails could not be kept.
    Blocked,
}

impl Intake {
    /// Whether it is open for one worker alone.
    pub fn is_trial(self) -> bool {
        matches!(self, Self::Trial | Self::BreakerTrial)
    }
}

/// How long a queue is empty before its workers drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainAfter {
    /// This long without a ready message or a delivery. Zero is literal.
    After(Duration),
    /// Never: the policy alone decides.
    Never,
}

impl Default for DrainAfter {
    fn default() -> Self {
        Self::After(Duration::from_secs(5))
    }
}

/// A reading of the queue's depth that was believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// When it was taken.
    pub at: Moment,
    /// Messages ready.
    pub ready: u64,
}

/// What a probe's answer is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Believed {
    Fresh(u64),
    Stale(String),
    Missing,
}

impl Observation {
    /// What the probe's answer is worth, after `last`. Zero from a broker that sees none of our own consumers is not an
    /// empty queue: a quorum queue without a leader answers 0 messages and 0 consumers. A broker that counts any is the
    /// queue's leader, though it counts fewer than ours: a quorum queue with a single active consumer counts that one.
    pub(super) fn believed(&self, last: &Believed) -> Believed {
        match &self.probe {
            Probe::Held => last.clone(),
            Probe::Answered {
                ready: 0,
                consumers: 0,
            } if self.consumers > 0 => Believed::Stale(format!(
                "0 ready, but the broker counts no consumers where we hold {}",
                self.consumers
            )),
            Probe::Answered { ready, .. } => Believed::Fresh(*ready),
            Probe::Failed { why } => Believed::Stale(why.clone()),
            Probe::Missing => Believed::Missing,
        }
    }
}
