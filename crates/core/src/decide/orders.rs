//! The operator's will: what someone has ordered for a pool by hand, beside its configuration.
//!
//! One value for each pool, [`Orders`], and one command that changes it, [`Order`]. Nothing here knows a clock: the wall
//! time comes from outside. Nothing here is done either: the reconciler reads the orders, the pool carries out the plan.
//!
//! # What holds over a reload and a restart
//!
//! - A pause, a drain, a pin and "do not shrink" are not in the configuration file. They hold over a reload and a restart
//!   until the operator lifts them, or until their time is up.
//! - A policy set by hand holds until the file's own `policy` or `scaling` of that pool changes, in a reload or before a
//!   restart. Then the file wins: whoever edited it later knew more ([`Orders::yield_to`]).
//! - A pool that is removed from the file loses its orders.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Intake, Policy, Scaling};

/// Most bytes of a [`By`].
const BY_BYTES: usize = 128;

/// What the operator wants of one pool. Empty for a pool that nobody steers.
///
/// Serialises to JSON that later versions read: a field that is not there is an order that was not given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Orders {
    /// The pool takes no messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intake: Option<ByHand<Closed>>,
    /// The pool has this many workers, whatever the demand. Its `max` still binds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<ByHand<u32>>,
    /// The pool may grow, but not shrink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_shrink: Option<ByHand<Shrinking>>,
    /// The pool has this policy and not the configuration's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<ByHand<SetPolicy>>,
}

/// An order that is in force: what, by whom, since when, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByHand<T> {
    /// What was ordered.
    pub what: T,
    /// By whom.
    pub by: By,
    /// When it was ordered, in wall time.
    pub since: Timestamp,
    /// When it ends by itself. Without it, the operator lifts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Why a pool takes no messages by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closed {
    /// Paused: running jobs go on, messages stay in the queue.
    Paused,
    /// Drained: the same, and someone waits until the pool is empty. It stays empty until it is resumed.
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
    /// The policy, whole.
    pub policy: Policy,
    /// How fast the number of workers may move, whole.
    pub scaling: Scaling,
    /// The keys that were set by hand, as `policy.max`, each with its value as TOML. All others are the configuration's.
    #[serde(default)]
    pub keys: BTreeMap<String, String>,
    /// What the configuration said when this was set. A configuration that says something else wins.
    pub over: Configured,
}

/// What the configuration says of a pool's policy and scaling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    /// The policy.
    pub policy: Policy,
    /// How fast the number of workers may move.
    pub scaling: Scaling,
}

/// By whom something was ordered: a short text for people, such as `root over the socket`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct By(String);

impl By {
    /// Control characters become spaces, and what is beyond 128 bytes is cut off: the text goes to logs and tables.
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
    /// Take no messages; resume by itself at `until`, where it is given.
    Pause {
        /// When the pause ends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// Take no messages until the pool is resumed, and become empty.
    Drain,
    /// Take messages again, after a pause or a drain.
    Resume,
    /// Have this many workers.
    Pin {
        /// Workers.
        workers: u32,
    },
    /// Let go of the pin.
    Unpin,
    /// Do not shrink; until then, where it is given.
    ForbidShrinking {
        /// When the pool may shrink again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// Shrink again.
    AllowShrinking,
    /// Use this policy and scaling.
    SetPolicy(Box<SetPolicy>),
    /// Use the configuration's policy and scaling again.
    ResetPolicy,
}

impl Order {
    /// A word for it, for logs and metrics.
    pub fn act(&self) -> &'static str {
        match self {
            Self::Pause { .. } => "pause",
            Self::Drain => "drain",
            Self::Resume => "resume",
            Self::Pin { .. } | Self::Unpin => "scale",
            Self::ForbidShrinking { .. } | Self::AllowShrinking => "shrinking",
            Self::SetPolicy(_) | Self::ResetPolicy => "policy",
        }
    }

    /// Whether it closes intake: then nobody waits for a new reading of the queue before it takes effect.
    pub fn closes_intake(&self) -> bool {
        matches!(self, Self::Pause { .. } | Self::Drain)
    }
}

/// Whether an order has changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Changed {
    /// It has.
    Yes,
    /// The pool was under that order already: by whom and since when stay as they were.
    No,
}

/// An order that no pool can carry out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OrderRefused {
    /// It would end before it begins.
    #[error("its end, {until:.0}, has passed")]
    EndHasPassed {
        /// Its end.
        until: Timestamp,
    },
    /// The policy cannot be carried out.
    #[error("{0}")]
    Policy(&'static str),
}

/// An order whose time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expired {
    /// The pool takes messages again.
    Pause,
    /// The pool may shrink again.
    NoShrink,
}

impl Orders {
    /// Whether nobody steers the pool.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes an order in, given by `by` at `at`.
    ///
    /// # Errors
    /// It cannot be carried out. Nothing has changed then.
    pub fn apply(&mut self, order: Order, by: By, at: Timestamp) -> Result<Changed, OrderRefused> {
        let until = match &order {
            Order::Pause { until } | Order::ForbidShrinking { until } => *until,
            _ => None,
        };
        if let Some(until) = until.filter(|until| *until <= at) {
            return Err(OrderRefused::EndHasPassed { until });
        }
        let given = Given { by, at, until };
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

    /// Time from `now` until the first of them ends by itself; zero where it should have ended already.
    pub fn due(&self, now: Timestamp) -> Option<Duration> {
        let pause = self.intake.as_ref().and_then(|order| order.until);
        let no_shrink = self.no_shrink.as_ref().and_then(|order| order.until);
        let until = pause.into_iter().chain(no_shrink).min()?;
        Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
    }

    /// Lifts those whose time is up at `now`, and says which.
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

    /// Lifts the policy set by hand where the configuration says something else now than it did then. Returns what was
    /// lifted.
    #[must_use = "the operator is told that their policy is gone"]
    pub fn yield_to(&mut self, configured: &Configured) -> Option<ByHand<SetPolicy>> {
        self.policy.take_if(|set| set.what.over != *configured)
    }

    /// Lifts what could not have been ordered: orders come back from a file that anyone may have written. Says what was
    /// wrong.
    pub fn mend(&mut self) -> Option<&'static str> {
        let wrong = self.policy.as_ref()?.what.is_sound().err()?;
        self.policy = None;
        Some(wrong)
    }

    /// What they make of intake.
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

/// What comes with each order.
struct Given {
    by: By,
    at: Timestamp,
    until: Option<Timestamp>,
}

impl Given {
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
    /// Whether it says how demand becomes workers, and not only within which bounds and how fast.
    pub fn names_a_kind(&self) -> bool {
        let bounds = ["policy.min_active", "policy.max"];
        let is_kind = |key: &String| key.starts_with("policy.") && !bounds.contains(&key.as_str());
        self.keys.is_empty() || self.keys.keys().any(is_kind)
    }

    /// Whether a pool can be run by it; else what it lacks.
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

/// `by root over the socket since 2026-01-02T03:04:05Z`, with the end where there is one.
impl<T> fmt::Display for ByHand<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by {} since {:.0}", self.by, self.since)?;
        match self.until {
            Some(until) => write!(f, " until {until:.0}"),
            None => Ok(()),
        }
    }
}

/// Each order on a line of its own.
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
