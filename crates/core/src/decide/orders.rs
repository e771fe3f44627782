//! Orders: what the operator has set by hand for a pool, in addition to its configuration.
//!
//! Each pool has one value, [`Orders`], and one command that changes it, [`Order`]. This module reads no clock: the
//! wall time is an argument. It also carries nothing out: the reconciler reads the orders, and the pool carries out the
//! plan.
//!
//! # What survives a reload and a restart
//!
//! - A pause, a drain, a pin and "do not shrink" are not in the configuration file. They survive a reload and a restart
//!   until the operator removes them or they expire.
//! - A policy set by hand is in force until the `policy` or `scaling` of that pool in the file changes, in a reload or
//!   before a restart. Then the file wins, because it is the later decision ([`Orders::yield_to`]).
//! - A pool that is removed from the file loses its orders.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Intake, Policy, Scaling, SteeringAct};
use crate::text::time;

/// The author of an order that is only tried. No user has this name.
const DRY_RUN: &str = "this dry run";

/// The maximum length of a [`By`] in bytes.
const BY_BYTES: usize = 128;

/// The operator's orders for one pool. Empty if there are none.
///
/// Serialises to JSON that later versions can read: an absent field is an order that was not given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Orders {
    /// The pool takes no messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intake: Option<ByHand<Closed>>,
    /// The pool has this many workers for any demand. Its `max` still applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<ByHand<u32>>,
    /// The pool may grow, but not shrink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_shrink: Option<ByHand<Shrinking>>,
    /// The pool has this policy in place of the configured one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<ByHand<SetPolicy>>,
}

/// An order in force: what, by whom, since when, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByHand<T> {
    /// What was ordered.
    pub what: T,
    /// Who ordered it.
    pub by: By,
    /// When it was ordered, in wall time.
    pub since: Timestamp,
    /// When it ends by itself. Without this, the operator must remove it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Why the operator closed a pool's intake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closed {
    /// Paused: running jobs continue, messages stay in the queue.
    Paused,
    /// Drained: like paused, and a caller waits until the pool is empty. The pool stays empty until it is resumed.
    Draining,
}

/// Whether a pool may shrink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shrinking {
    /// It may not.
    Forbidden,
}

/// A policy and the speed of scaling, set by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetPolicy {
    /// The complete policy.
    pub policy: Policy,
    /// How fast the number of workers may change, complete.
    pub scaling: Scaling,
    /// The keys that were set by hand, such as `policy.max`, each with its value as TOML. All other keys come from the
    /// configuration.
    #[serde(default)]
    pub keys: BTreeMap<String, String>,
    /// The configuration at the time of the order. If the configuration changes later, it wins.
    pub over: Configured,
}

/// The configured policy and scaling of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    /// The policy.
    pub policy: Policy,
    /// How fast the number of workers may change.
    pub scaling: Scaling,
}

/// Who gave an order: a short text for people, such as `root over the socket`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct By(String);

impl By {
    /// The author of a policy that is only tried: nobody has set it.
    pub fn dry_run() -> Self {
        Self(DRY_RUN.to_owned())
    }

    /// Whether the order is only tried.
    pub(super) fn is_dry_run(&self) -> bool {
        self.0 == DRY_RUN
    }

    /// Replaces control characters with spaces, and cuts the text to 128 bytes, because it goes to logs and tables.
    pub fn new(text: impl AsRef<str>) -> Self {
        let mut by = String::new();
        for c in text.as_ref().trim().chars() {
            if by.len() + c.len_utf8() > BY_BYTES {
                break;
            }
            by.push(if c.is_control() { ' ' } else { c });
        }
        if by.is_empty() {
            by.push_str("someone");
        }
        Self(by)
    }

    /// A program that uses the library.
    pub fn program() -> Self {
        Self::new("the program")
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for By {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for By {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<By> for String {
    fn from(by: By) -> Self {
        by.0
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A command to one pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Order {
    /// Take no messages, and resume at `until`, if it is given.
    Pause {
        /// When the pause ends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// Take no messages until the pool is resumed, and stop each worker after its job.
    Drain,
    /// Take messages again, after a pause or a drain.
    Resume,
    /// Have this many workers.
    Pin {
        /// Workers.
        workers: u32,
    },
    /// Remove the pin.
    Unpin,
    /// Do not shrink before `until`, or at all if it is not given.
    ForbidShrinking {
        /// When the pool may shrink again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// Allow shrinking again.
    AllowShrinking,
    /// Use this policy and scaling.
    SetPolicy(Box<SetPolicy>),
    /// Use the configuration's policy and scaling again.
    ResetPolicy,
}

impl Order {
    /// Name of the order, for logs and metrics.
    pub fn act(&self) -> SteeringAct {
        match self {
            Self::Pause { .. } => SteeringAct::Pause,
            Self::Drain => SteeringAct::Drain,
            Self::Resume => SteeringAct::Resume,
            Self::Pin { .. } | Self::Unpin => SteeringAct::Scale,
            Self::ForbidShrinking { .. } | Self::AllowShrinking => SteeringAct::Shrinking,
            Self::SetPolicy(_) | Self::ResetPolicy => SteeringAct::Policy,
        }
    }

    /// Whether the order closes intake. Such an order takes effect without a new reading of the queue.
    pub fn closes_intake(&self) -> bool {
        matches!(self, Self::Pause { .. } | Self::Drain)
    }
}

/// Whether an order has changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Changed {
    /// It has changed something.
    Yes,
    /// The order was already in force. Its author and its time stay the same.
    No,
}

/// An order that no pool can carry out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OrderRefused {
    /// The end is in the past.
    #[error("its end, {}, has passed", time(*until))]
    EndHasPassed {
        /// Its end.
        until: Timestamp,
    },
    /// The policy cannot be carried out.
    #[error("{0}")]
    Policy(&'static str),
}

/// An order that has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expired {
    /// The pool takes messages again.
    Pause,
    /// The pool may shrink again.
    NoShrink,
}

impl Orders {
    /// Whether the pool has no orders.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Applies an order that `by` gave at `at`.
    ///
    /// # Errors
    /// The order cannot be carried out. Nothing has changed then.
    pub fn apply(&mut self, order: Order, by: By, at: Timestamp) -> Result<Changed, OrderRefused> {
        let until = match &order {
            Order::Pause { until } | Order::ForbidShrinking { until } => *until,
            _ => None,
        };
        if let Some(until) = until.filter(|until| *until <= at) {
            return Err(OrderRefused::EndHasPassed { until });
        }
        let given = GivenOrder { by, at, until };
        Ok(match order {
            Order::Pause { .. } => given.put(&mut self.intake, Closed::Paused),
            Order::Drain => given.put(&mut self.intake, Closed::Draining),
            Order::Resume => lift(&mut self.intake),
            Order::Pin { workers } => given.put(&mut self.pin, workers),
            Order::Unpin => lift(&mut self.pin),
            Order::ForbidShrinking { .. } => given.put(&mut self.no_shrink, Shrinking::Forbidden),
            Order::AllowShrinking => lift(&mut self.no_shrink),
            Order::SetPolicy(set) => {
                set.is_sound().map_err(OrderRefused::Policy)?;
                given.put(&mut self.policy, *set)
            }
            Order::ResetPolicy => lift(&mut self.policy),
        })
    }

    /// Time from `now` until the first order expires. Zero if it has already expired.
    pub fn due(&self, now: Timestamp) -> Option<Duration> {
        let pause = self.intake.as_ref().and_then(|order| order.until);
        let no_shrink = self.no_shrink.as_ref().and_then(|order| order.until);
        let until = pause.into_iter().chain(no_shrink).min()?;
        Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
    }

    /// Removes the orders that have expired at `now`, and returns their kinds.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Expired> {
        let mut expired = Vec::new();
        if is_over(&self.intake, now) {
            self.intake = None;
            expired.push(Expired::Pause);
        }
        if is_over(&self.no_shrink, now) {
            self.no_shrink = None;
            expired.push(Expired::NoShrink);
        }
        expired
    }

    /// Removes the policy set by hand if the configuration has changed since that order. Returns what was removed.
    #[must_use = "the operator is told that their policy is gone"]
    pub fn yield_to(&mut self, configured: &Configured) -> Option<ByHand<SetPolicy>> {
        self.policy.take_if(|set| set.what.over != *configured)
    }

    /// Removes invalid orders: the orders come from a file that other programs may have changed. Returns the problem.
    pub fn drop_invalid(&mut self) -> Option<&'static str> {
        let wrong = self.policy.as_ref()?.what.is_sound().err()?;
        self.policy = None;
        Some(wrong)
    }

    /// The intake that the orders demand.
    pub fn intake(&self) -> Option<Intake> {
        Some(match self.intake.as_ref()?.what {
            Closed::Paused => Intake::Paused,
            Closed::Draining => Intake::Emptying,
        })
    }

    /// The number of workers that the pool is pinned to.
    pub fn pinned(&self) -> Option<u32> {
        self.pin.as_ref().map(|pin| pin.what)
    }
}

/// The author, the time and the end of an order.
struct GivenOrder {
    by: By,
    at: Timestamp,
    until: Option<Timestamp>,
}

impl GivenOrder {
    fn put<T: PartialEq>(self, place: &mut Option<ByHand<T>>, what: T) -> Changed {
        if place
            .as_ref()
            .is_some_and(|old| old.what == what && old.until == self.until)
        {
            return Changed::No;
        }
        *place = Some(ByHand {
            what,
            by: self.by,
            since: self.at,
            until: self.until,
        });
        Changed::Yes
    }
}

fn lift<T>(place: &mut Option<ByHand<T>>) -> Changed {
    match place.take() {
        Some(_) => Changed::Yes,
        None => Changed::No,
    }
}

fn is_over<T>(order: &Option<ByHand<T>>, now: Timestamp) -> bool {
    let until = order.as_ref().and_then(|order| order.until);
    until.is_some_and(|until| until <= now)
}

impl SetPolicy {
    /// Whether it sets the kind of the policy, and not only bounds and speed.
    pub fn names_a_kind(&self) -> bool {
        let bounds = ["policy.min_active", "policy.max"];
        let is_kind = |key: &String| key.starts_with("policy.") && !bounds.contains(&key.as_str());
        self.keys.is_empty() || self.keys.keys().any(is_kind)
    }

    /// Whether a pool can run with this policy. The error says what is wrong.
    fn is_sound(&self) -> Result<(), &'static str> {
        if self.policy.min_active > self.policy.max {
            return Err("its min_active is above its max");
        }
        if self.scaling.up_step == 0 || self.scaling.down_step == 0 {
            return Err("a step of its scaling is 0");
        }
        Ok(())
    }
}

/// `by root over the socket since 2026-01-02T03:04:05Z`, with the end if there is one.
impl<T> fmt::Display for ByHand<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by {} since {}", self.by, time(self.since))?;
        match self.until {
            Some(until) => write!(f, " until {}", time(until)),
            None => Ok(()),
        }
    }
}

/// Each order on its own line.
impl fmt::Display for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = [
            self.intake.as_ref().map(|order| match order.what {
                Closed::Paused => format!("paused {order}"),
                Closed::Draining => format!("drained {order}"),
            }),
            (self.pin.as_ref()).map(|order| format!("pinned to {} {order}", order.what)),
            (self.no_shrink.as_ref()).map(|order| format!("kept from shrinking {order}")),
            self.policy.as_ref().map(|order| {
                let keys = order.what.keys.iter();
                let keys: Vec<_> = keys
                    .map(|(key, value)| format!("{key} = {value}"))
                    .collect();
                match keys.is_empty() {
                    true => format!("policy set {order}"),
                    false => format!("policy set {order}: {}", keys.join(", ")),
                }
            }),
        ];
        let lines: Vec<String> = lines.into_iter().flatten().collect();
        f.write_str(&lines.join("\n"))
    }
}

#[cfg(test)]
mod tests;
