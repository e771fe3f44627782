//! The basic types that all other modules use: names, ids, and instants.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name! {
    /// Name of a pool: the key of its table in the configuration, and a label in the metrics.
    PoolName
}
name! {
    /// Name of a queue at the broker.
    QueueName
}
name! {
    /// Id of a job: the message's `message-id`, or a generated one. Never a metric label.
    JobId
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id! {
    /// Id of a worker within its pool. Ids rise, so a higher id is a newer worker.
    WorkerId, "w"
}
id! {
    /// Id of a runner within its pool. Ids rise, so a higher id is a newer runner.
    RunnerId, "r"
}

/// An instant of the supervisor's own monotonic clock: time since it started.
///
/// Pure code takes an instant as an argument and reads no clock, so that it can be tested and simulated without
/// waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(#[serde(with = "crate::json_time::seconds")] Duration);

impl Moment {
    /// The supervisor's start.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// The instant `elapsed` after the start.
    pub const fn after_start(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// Time from `earlier` to this instant. Zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The instant `duration` earlier, but not before the supervisor's start.
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}
