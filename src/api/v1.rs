//! The wire types of `/api/v1`: the data of status, explain, steering and the command line.
//!
//! Each type can be serialised and deserialised, so that the daemon, its command line, and other clients use one
//! definition. New versions only add fields. A reader ignores fields that it does not know.

mod policy_keys;
mod trial;

use std::{fmt, str::FromStr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

pub use self::policy_keys::{PolicyKeys, PolicyValue};
pub use self::trial::{
    TrialAssumptions, TrialCurve, TrialDecision, TrialNow, TrialOnRecording, TrialRun, TrialWaits,
};
use crate::{
    config::PolicyKey,
    decide::{Decision, Policy, PoolName, Scaling},
    run::{PoolStatus, RunningJob, StopThen},
    text::{duration, parse_duration},
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
    /// Why it is not ready. Empty when it is ready.
    pub reasons: Vec<String>,
}

/// The body of every error answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The error, in one line.
    pub error: String,
    /// Each problem separately, if several were found at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// A pool, together with facts about the whole daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// The pool.
    #[serde(flatten)]
    pub status: PoolStatus,
    /// The newest configuration, if it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload_refused: Option<RefusedReload>,
    /// The supervisors that have handed over to this one, and still run jobs of the pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub predecessors: Vec<Predecessor>,
    /// A reload has removed the pool from the configuration, and it still drains. Absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
}

/// A supervisor that has handed over, and finishes its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    /// Its process id.
    pub pid: u32,
    /// Jobs that it runs. Absent if it has not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<usize>,
}

/// A configuration that was refused. The pools run an older configuration than the file contains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedReload {
    /// When it was refused.
    pub at: Timestamp,
    /// The file.
    pub file: String,
    /// The first problems of the file.
    pub why: Vec<String>,
    /// The number of all problems.
    pub problems: usize,
}

/// Why a pool has its current size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The pool.
    pub name: PoolName,
    /// The current status of the pool.
    pub status: PoolStatus,
    /// The record of the last decision. Absent before the first decision.
    pub decision: Option<Decision>,
    /// The record as text, several lines.
    pub text: Option<String>,
}

/// A length of time above zero, in the units of the configuration file, such as `"30m"` or `"1h 30m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeSpan(pub Duration);

impl FromStr for TimeSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write a length of time above zero, such as 30s, 10m or 1h30m".to_owned();
        let span = parse_duration(text).filter(|span| !span.is_zero());
        span.map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration(self.0))
    }
}

impl Serialize for TimeSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// The body of `pause`. Empty is `{}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pause {
    /// Time after which the pause ends by itself. Without it, an operator must end the pause.
    #[serde(
        rename = "for",
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub span: Option<TimeSpan>,
    /// Only shrinking is paused: the pool works, and may grow.
    pub shrinking: bool,
}

/// A value that may be absent, but must not be null.
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

/// The body of an action without parameters: `drain`, `reload`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nothing {}

/// The body of `flush`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flush {
    /// Also stop busy runners: their jobs are stopped and given back.
    pub busy: bool,
}

/// The body of `scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// The number of workers.
    pub workers: Workers,
}

/// The number of workers that a pool should have: a number, or `"auto"` for the policy's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Workers {
    /// The policy's number.
    Auto,
    /// This number.
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
        enum GivenWorkers {
            Count(u32),
            // JSON does not distinguish 5.0 from 5.
            Whole(f64),
            Word(Auto),
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Auto {
            Auto,
        }
        Ok(match GivenWorkers::deserialize(deserializer)? {
            GivenWorkers::Count(workers) => Self::Count(workers),
            GivenWorkers::Whole(workers)
                if workers.fract() == 0.0 && (0.0..=u32::MAX.into()).contains(&workers) =>
            {
                Self::Count(workers as u32)
            }
            GivenWorkers::Whole(_) => {
                return Err(D::Error::custom("a number of workers from 0, or \"auto\""));
            }
            GivenWorkers::Word(Auto::Auto) => Self::Auto,
        })
    }
}

/// The result of steering a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Steered {
    /// Whether anything changed. False if the pool was already in that state.
    pub changed: bool,
    /// Bare workers that the next reconcile started. Negative if it stopped workers.
    pub workers_diff: i64,
    /// Idle runners that were stopped.
    pub runners_stopped: u64,
    /// Running jobs that were told to stop, each with its runner. They end later.
    #[serde(default)]
    pub jobs_told: u64,
    /// Why the order could not be stored for the next start. Absent if it was stored. The order is in force in both
    /// cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_stored: Option<String>,
    /// The pool after the order.
    pub pool: Pool,
}

/// A pool's policy and scaling, with the origin of each key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyView {
    /// The pool.
    pub name: PoolName,
    /// The policy as text.
    pub text: String,
    /// The policy.
    pub policy: Policy,
    /// How fast the number of workers may change.
    pub scaling: Scaling,
    /// Each key with its value and its origin.
    pub keys: Vec<PolicyKey>,
    /// The policy as TOML.
    pub toml: String,
    /// Who set keys by hand, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<ByWhom>,
}

/// Who gave an order, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByWhom {
    /// The name of a user, or `token`.
    pub by: String,
    /// When the order was given.
    pub since: Timestamp,
}

/// What a change does with the keys that are set by hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PolicyAct {
    /// Sets keys in addition to those that were set before.
    #[default]
    Set,
    /// Sets keys in place of all that were set before.
    Replace,
    /// Sets none, so that the configuration applies.
    Reset,
}

/// The result of a change of a policy, or of a trial of one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// What the change does with the keys that are set by hand.
    #[serde(default)]
    pub act: PolicyAct,
    /// Whether the change is in force. False for a trial.
    pub applied: bool,
    /// Keys whose values differ.
    pub changes: Vec<KeyChange>,
    /// The number of workers that the old policy gives for the current queue.
    pub before: Outlook,
    /// The number of workers that the new policy gives.
    pub after: Outlook,
    /// What the pool would decide now, with everything that holds now. Absent for a change that was made, and for a pool
    /// that does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<TrialNow>,
    /// Both policies on the pool's recording. Absent for a change that was made, and where nothing was simulated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<Box<TrialOnRecording>>,
    /// Why a dry run simulated nothing. Absent if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_recording: Option<String>,
    /// Warnings about values that are probably a mistake.
    pub warnings: Vec<String>,
    /// Why the policy could not be stored for the next start. Absent if it was stored. The policy is in force in both
    /// cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_stored: Option<String>,
    /// The policy after the change.
    pub policy: PolicyView,
}

/// A key whose value differs. A value is absent if the key does not apply to that policy.
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

/// What a policy recommends for a demand, before limits on the speed of scaling and before other orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlook {
    /// The policy as text.
    pub policy: String,
    /// The demand, in jobs.
    pub demand: u64,
    /// Workers for that demand, within the policy's bounds.
    pub workers: u32,
    /// The reason.
    pub why: String,
}

/// A configuration that was read again and applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The file.
    pub file: String,
    /// The number of running pools.
    pub pools: usize,
    /// New pools.
    pub added: Vec<String>,
    /// Pools that are being removed.
    pub removed: Vec<String>,
    /// Pools with changed settings.
    pub changed: Vec<String>,
    /// Changed keys that take effect only at the next start.
    pub needs_restart: Vec<String>,
}

/// The body of a takeover: a supervisor asks the running one to hand over to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Takeover {
    /// Device and inode of the lock file in the `state_dir` of the supervisor that asks. Both must have the same one.
    pub lock: [u64; 2],
    /// The supervisor that asks waits until then. A later answer would leave the pools without a supervisor.
    pub before: jiff::Timestamp,
}

/// The supervisor hands over: it takes no more messages, and finishes its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedOver {
    /// Its process id.
    pub pid: u32,
    /// Jobs that it still runs.
    pub jobs: u32,
}

/// The body of stopping a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StopJob {
    /// What happens to its message.
    pub then: StopThen,
}

/// The jobs that were told to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoppedJobs {
    /// The number of jobs. Ids come from the publishers of the messages, so several jobs may have the same id.
    pub stopped: usize,
    /// What happens to their messages.
    pub then: StopThen,
}

/// The oldest dead letters of a pool, and the number of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetters {
    /// Their queue.
    pub queue: String,
    /// The number of all letters.
    pub count: u64,
    /// The oldest of them.
    pub letters: Vec<DeadLetter>,
}

/// A dead letter. Anyone may have written the message: all of its text is foreign text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its id. Without one it can be retried and purged only with all others.
    pub id: Option<String>,
    /// When it was dead-lettered.
    pub at: Option<Timestamp>,
    /// Attempts spent.
    pub attempts: Option<u64>,
    /// Why it was dead-lettered, in one word.
    pub reason: Option<String>,
    /// Who gave the reason: `tidegate` or `broker`.
    pub by: Option<String>,
    /// The last failure, in one line.
    pub error: Option<String>,
    /// The size of its body in bytes.
    pub size: u64,
    /// The first bytes of its body as text. Bytes that are not text, and characters that cannot be seen, are escaped.
    pub body: String,
}

/// The body of a retry and of a purge of dead letters: ids, or all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadChoice {
    /// The ids of the letters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// All letters that are there at the start.
    pub all: bool,
}

/// The result of a retry or a purge of dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadWork {
    /// The queue of the dead letters.
    pub queue: String,
    /// Letters that were there at the start.
    pub letters: u64,
    /// Letters that were put back or deleted.
    pub done: u64,
    /// Letters of `done` that may be in both queues.
    pub twice: u64,
    /// Ids that no letter has.
    pub missing: Vec<String>,
    /// Why some of the chosen letters stay. Absent if none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
}

/// A running job, with its pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The pool.
    pub pool: PoolName,
    /// The job.
    #[serde(flatten)]
    pub job: RunningJob,
    /// The process id of the supervisor that runs it, if that one has handed over to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<u32>,
}

/// A running job of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOfPool {
    /// The job.
    #[serde(flatten)]
    pub job: RunningJob,
    /// The process id of the supervisor that runs it, if that one has handed over to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<u32>,
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
    fn a_duration_is_displayed_as_people_write_it() {
        for (text, seconds) in [
            ("30m", 1800),
            ("1h30m", 5400),
            ("90s", 90),
            ("1h 30m", 5400),
        ] {
            let span: TimeSpan = text.parse().unwrap();
            assert_eq!(span.0.as_secs(), seconds, "{text}");
            let json = to_string(&span).unwrap();
            assert_eq!(from_str::<TimeSpan>(&json).unwrap(), span, "{json}");
        }
        for text in ["", "0s", "-5m", "5", "soon"] {
            text.parse::<TimeSpan>().unwrap_err();
        }
        from_str::<Pause>("{\"for\": null}").unwrap_err();
        assert_eq!(from_str::<Pause>("{}").unwrap(), Pause::default());
    }
}
