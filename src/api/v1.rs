//! The wire types of `/api/v1`: what status, explain, steering and the command line exchange.
//!
//! Each type reads and writes, so that one definition serves the daemon, its command line, and a program that talks to a
//! daemon. Fields are only ever added; a reader ignores those that it does not know.

use std::{fmt, str::FromStr, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    config::PolicyKey,
    decide::{Decision, Policy, PoolName, Scaling},
    run::{PoolStatus, RunningJob, StopThen},
};

/// The answer of `/healthz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`.
    pub status: String,
}

/// The answer of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Whether the supervisor is connected and every pool can work.
    pub ready: bool,
    /// What keeps it from being ready; empty when it is.
    pub reasons: Vec<String>,
}

/// The body of every answer that is no success.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What went wrong, in one line.
    pub error: String,
    /// Each problem by itself, where several were found at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// A pool with what is the whole daemon's to tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// The pool.
    #[serde(flatten)]
    pub status: PoolStatus,
    /// The newest configuration, where it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload_refused: Option<RefusedReload>,
}

/// A configuration that was refused, so that the pools run an older one than the file has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedReload {
    /// When.
    pub at: Timestamp,
    /// The file.
    pub file: String,
    /// Why: the first of its problems.
    pub why: Vec<String>,
    /// How many problems there are.
    pub problems: usize,
}

/// Why a pool has the size that it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The pool.
    pub name: PoolName,
    /// The pool at this instant.
    pub status: PoolStatus,
    /// The record of the last decision; absent before the first.
    pub decision: Option<Decision>,
    /// The record in words, several lines.
    pub text: Option<String>,
}

/// A length of time, written as `"30m"` or `"1h 30m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write a length of time above zero, such as 30s, 10m or 1h30m".to_owned();
        let span: SignedDuration = text.parse().map_err(|_| wrong())?;
        match Duration::try_from(span) {
            Ok(span) if !span.is_zero() => Ok(Self(span)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SignedDuration::try_from(self.0) {
            Ok(span) => write!(f, "{span:#}"),
            Err(_) => write!(f, "{}s", self.0.as_secs()),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// The body of `pause`. Empty is `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pause {
    /// After which it ends by itself. Without it, someone ends it.
    #[serde(
        rename = "for",
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub span: Option<Span>,
    /// Only shrinking is paused: the pool works, and may grow.
    pub shrinking: bool,
}

/// A value that may be missing, and is not null where it is there.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The body of `resume`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resume {
    /// Only shrinking is resumed.
    pub shrinking: bool,
}

/// The body of an act that takes nothing: `drain`, `reload`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nothing {}

/// The body of `flush`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flush {
    /// Runners that have a job too: their jobs are stopped and given back.
    pub busy: bool,
}

/// The body of `scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// How many workers.
    pub workers: Workers,
}

/// How many workers a pool is to have: a number, or `"auto"` for what its policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Workers {
    /// As its policy says.
    Auto,
    /// So many.
    Count(u32),
}

impl FromStr for Workers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            number => number
                .parse()
                .map(Self::Count)
                .map_err(|_| "write a number of workers, or auto".to_owned()),
        }
    }
}

impl Serialize for Workers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Count(workers) => serializer.serialize_u32(*workers),
        }
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number of workers from 0, or \"auto\"")]
        enum Given {
            Count(u32),
            // JSON does not tell 5.0 from 5.
            Whole(f64),
            Word(Auto),
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Auto {
            Auto,
        }
        Ok(match Given::deserialize(deserializer)? {
            Given::Count(workers) => Self::Count(workers),
            Given::Whole(workers)
                if workers.fract() == 0.0 && (0.0..=u32::MAX.into()).contains(&workers) =>
            {
                Self::Count(workers as u32)
            }
            Given::Whole(_) => {
                return Err(D::Error::custom("a number of workers from 0, or \"auto\""));
            }
            Given::Word(Auto::Auto) => Self::Auto,
        })
    }
}

/// What steering a pool came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Steered {
    /// Whether anything changed. It does not where the pool was so already.
    pub changed: bool,
    /// Bare workers that the reconcile after it started, or stopped where negative.
    pub workers_diff: i64,
    /// Runners that were stopped.
    pub runners_stopped: u64,
    /// Why it could not be stored for the next start, where it could not. It holds all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_stored: Option<String>,
    /// The pool after it.
    pub pool: Pool,
}

/// A pool's policy and scaling, with the origin of each key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyView {
    /// The pool.
    pub name: PoolName,
    /// In words.
    pub text: String,
    /// The policy.
    pub policy: Policy,
    /// How fast the number of workers may move.
    pub scaling: Scaling,
    /// Each key with its value and where that comes from.
    pub keys: Vec<PolicyKey>,
    /// The same as TOML.
    pub toml: String,
    /// By whom keys were set by hand, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<ByWhom>,
}

/// By whom something was ordered, and since when it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByWhom {
    /// A user's name, or `token`.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
}

/// What a change of a policy comes to, or would.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// Whether it holds now. Not so for a trial.
    pub applied: bool,
    /// Keys whose values differ.
    pub changes: Vec<KeyChange>,
    /// What the old policy says to what is in the queue now.
    pub before: Outlook,
    /// What the new one says.
    pub after: Outlook,
    /// What is likely not meant.
    pub warnings: Vec<String>,
    /// Why it could not be stored for the next start, where it could not. It holds all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_stored: Option<String>,
    /// The policy after it.
    pub policy: PolicyView,
}

/// A key whose value differs. Absent where the key means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// The key: `policy.max`.
    pub key: String,
    /// Its value before, as TOML.
    #[serde(default)]
    pub before: Option<String>,
    /// Its value after, as TOML.
    #[serde(default)]
    pub after: Option<String>,
}

/// What a policy says to a demand, before the speed of scaling and other orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlook {
    /// The policy in words.
    pub policy: String,
    /// The demand in jobs.
    pub demand: u64,
    /// Workers for it, within the policy's bounds.
    pub workers: u32,
    /// Why.
    pub why: String,
}

/// A configuration that was read again and taken over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The file.
    pub file: String,
    /// Pools that run now.
    pub pools: usize,
    /// Pools that are new.
    pub added: Vec<String>,
    /// Pools that are on their way out.
    pub removed: Vec<String>,
    /// Pools with other settings.
    pub changed: Vec<String>,
    /// Keys that have changed, which takes effect at the next start.
    pub needs_restart: Vec<String>,
}

/// The body of stopping a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StopJob {
    /// What becomes of its message.
    pub then: StopThen,
}

/// Jobs that were told to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoppedJobs {
    /// How many: ids come from whoever published the messages, so several may have one.
    pub stopped: usize,
    /// What becomes of their messages.
    pub then: StopThen,
}

/// A job that runs, with its pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The pool.
    pub pool: PoolName,
    /// The job.
    #[serde(flatten)]
    pub job: RunningJob,
}

#[cfg(test)]
mod tests {
    use serde_json::{from_str, to_string};

    use super::*;

    #[test]
    fn workers_are_a_number_or_auto_and_nothing_else() {
        for (text, workers) in [("5", Workers::Count(5)), ("\"auto\"", Workers::Auto)] {
            let scale = Scale { workers };
            let json = format!("{{\"workers\":{text}}}");
            assert_eq!(to_string(&scale).unwrap(), json);
            assert_eq!(from_str::<Scale>(&json).unwrap(), scale);
        }
        for text in [
            "-1",
            "1.5",
            "\"5\"",
            "\"Auto\"",
            "null",
            "4294967296",
            "true",
        ] {
            let error = from_str::<Scale>(&format!("{{\"workers\":{text}}}")).unwrap_err();
            assert!(error.to_string().contains("a number of workers"), "{error}");
        }
    }

    #[test]
    fn a_length_of_time_reads_as_people_write_it() {
        for (text, seconds) in [
            ("30m", 1800),
            ("1h30m", 5400),
            ("90s", 90),
            ("1h 30m", 5400),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0.as_secs(), seconds, "{text}");
            let json = to_string(&span).unwrap();
            assert_eq!(from_str::<Span>(&json).unwrap(), span, "{json}");
        }
        for text in ["", "0s", "-5m", "5", "soon"] {
            text.parse::<Span>().unwrap_err();
        }
        from_str::<Pause>("{\"for\": null}").unwrap_err();
        assert_eq!(from_str::<Pause>("{}").unwrap(), Pause::default());
    }
}
