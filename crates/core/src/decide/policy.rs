//! Policies: how many workers a demand needs, and why.

use std::{fmt, num::NonZeroU32, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    DrainAfter, Inputs, Recommendation, ScalingPolicy, ScheduledBounds, Situation, TargetWait,
    Utilisation,
};
use crate::text::{counted, form_for};

/// A pure function from the queue's state to a number of workers, with its bounds.
///
/// Demand is in jobs: messages ready in the queue plus deliveries that our live workers hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The function.
    #[serde(flatten)]
    pub kind: PolicyKind,
    /// The minimum number of workers, from the first message until the queue is empty.
    pub min_active: u32,
    /// The maximum number of workers of this pool, for any demand. It applies to one daemon: the limits of several
    /// daemons on one queue add up.
    pub max: u32,
}

/// The function of a [`Policy`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PolicyKind {
    /// The same number for every demand.
    Fixed {
        /// Workers.
        workers: u32,
    },
    /// One worker for each `jobs_per_worker` jobs of demand, rounded up.
    Backlog {
        /// Jobs of demand for one worker.
        jobs_per_worker: NonZeroU32,
    },
    /// Steps: the last step whose demand is reached gives the number. Below the first step the number is 0.
    Steps {
        /// The steps, sorted by demand.
        steps: Vec<Step>,
    },
    /// Enough workers to keep the waiting time of messages under a target, from measured arrivals and run times.
    TargetWait(TargetWait),
}

impl PolicyKind {
    /// How long a queue must be empty before all workers stop, if the pool does not say. 15 s for programs that consume the
    /// queue themselves (`consumes`): what they hold is known some seconds later than what our own workers hold.
    pub fn drain_after(&self, consumes: bool) -> DrainAfter {
        match self {
            Self::TargetWait(wait) => wait.drain_after(),
            _ if consumes => DrainAfter::After(Duration::from_secs(15)),
            _ => DrainAfter::default(),
        }
    }
}

/// One step of [`PolicyKind::Steps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u32)", into = "(u64, u32)")]
pub struct Step {
    /// Demand in jobs at which the step begins.
    pub demand: u64,
    /// Workers.
    pub workers: u32,
}

impl From<(u64, u32)> for Step {
    fn from((demand, workers): (u64, u32)) -> Self {
        Self { demand, workers }
    }
}

impl From<Step> for (u64, u32) {
    fn from(step: Step) -> Self {
        (step.demand, step.workers)
    }
}

/// Default for the maximum number of workers of a pool.
pub const DEFAULT_MAX: u32 = 50;

impl Default for Policy {
    fn default() -> Self {
        Self::backlog(10)
    }
}

impl Policy {
    /// The same number of workers for every demand.
    pub fn fixed(workers: u32) -> Self {
        Self::new(PolicyKind::Fixed { workers })
    }

    /// One worker for each `jobs_per_worker` jobs of demand, rounded up.
    ///
    /// # Panics
    /// If `jobs_per_worker` is 0.
    pub fn backlog(jobs_per_worker: u32) -> Self {
        Self::new(PolicyKind::Backlog {
            jobs_per_worker: NonZeroU32::new(jobs_per_worker)
                .expect("jobs_per_worker is at least 1"),
        })
    }

    /// Steps of `(demand, workers)`, in any order.
    pub fn steps(steps: impl IntoIterator<Item = (u64, u32)>) -> Self {
        let mut steps: Vec<Step> = steps.into_iter().map(Step::from).collect();
        steps.sort_by_key(|step| step.demand);
        Self::new(PolicyKind::Steps { steps })
    }

    /// Enough workers to keep the 95th percentile of waiting times under `target`.
    ///
    /// # Panics
    /// If `target` is zero.
    pub fn target_wait(target: Duration) -> Self {
        assert!(!target.is_zero(), "target is above zero");
        Self::new(PolicyKind::TargetWait(TargetWait::new(target)))
    }

    /// The same policy, with workers planned to be busy for this share of their time: 0.8 is 80 %. Only `target_wait`
    /// uses it. Values outside 0.1 to 1 are moved to the nearest bound.
    #[must_use]
    pub fn utilisation(mut self, share: f64) -> Self {
        if let PolicyKind::TargetWait(wait) = &mut self.kind {
            wait.utilisation = Utilisation::clamped(share);
        }
        self
    }

    /// A policy of this kind with its default bounds: a floor of 1, and as the ceiling the highest number that the kind
    /// names. The ceiling is [`DEFAULT_MAX`] if the kind names no number of workers.
    pub fn new(kind: PolicyKind) -> Self {
        let max = match &kind {
            PolicyKind::Fixed { workers } => *workers,
            PolicyKind::Backlog { .. } | PolicyKind::TargetWait(_) => DEFAULT_MAX,
            PolicyKind::Steps { steps } => steps.iter().map(|step| step.workers).max().unwrap_or(0),
        };
        Self {
            min_active: max.min(1),
            kind,
            max,
        }
    }

    /// The same policy with this ceiling. Lowers the floor if it would be above the ceiling.
    #[must_use]
    pub fn max(mut self, workers: u32) -> Self {
        self.max = workers;
        self.min_active = self.min_active.min(workers);
        self
    }

    /// The same policy with this floor, which applies from the first work until the queue is empty. Raises the ceiling
    /// if it would be below the floor.
    #[must_use]
    pub fn min_active(mut self, workers: u32) -> Self {
        self.min_active = workers;
        self.max = self.max.max(workers);
        self
    }

    /// Workers for this queue, before any bound, and why. `expected` is the number until now.
    pub fn recommendation(&self, inputs: &Inputs, expected: u32) -> Recommendation {
        let demand = inputs.demand;
        match &self.kind {
            PolicyKind::Fixed { workers } => {
                Recommendation::new(*workers, format!("fixed at {workers}"))
            }
            PolicyKind::Backlog { jobs_per_worker } => {
                let workers = demand.div_ceil(u64::from(jobs_per_worker.get()));
                let each = match jobs_per_worker.get() {
                    1 => String::from("job"),
                    jobs => jobs.to_string(),
                };
                Recommendation::new(
                    u32::try_from(workers).unwrap_or(u32::MAX),
                    format!(
                        "{} of demand, one worker for each {each}",
                        counted(demand, "job")
                    ),
                )
            }
            PolicyKind::Steps { steps } => match steps.iter().rfind(|step| step.demand <= demand) {
                Some(Step {
                    demand: from,
                    workers,
                }) => Recommendation::new(
                    *workers,
                    format!(
                        "{} of demand {} the step [{from}, {workers}]",
                        counted(demand, "job"),
                        form_for(demand, "reaches", "reach")
                    ),
                ),
                None => {
                    let reach = form_for(demand, "reaches", "reach");
                    let jobs = counted(demand, "job");
                    Recommendation::new(0, format!("{jobs} of demand {reach} no step"))
                }
            },
            PolicyKind::TargetWait(wait) => wait.recommendation(inputs, expected),
        }
    }

    /// The policy in force while a schedule sets these bounds. `self` is the configured policy. If a bound of `by_hand`
    /// differs from it, the operator has set that bound, and it stays. A floor above the ceiling is lowered to it.
    pub(super) fn scheduled(&self, bounds: &ScheduledBounds, by_hand: Option<&Self>) -> Self {
        let mut policy = by_hand.unwrap_or(self).clone();
        if let Some(max) = bounds.max.filter(|_| policy.max == self.max) {
            policy.max = max;
        }
        if let Some(floor) = bounds
            .min_active
            .filter(|_| policy.min_active == self.min_active)
        {
            policy.min_active = floor;
        }
        policy.min_active = policy.min_active.min(policy.max);
        policy
    }

    /// Whether the policy also uses measurements of arrivals and run times, and not only the demand.
    pub fn needs_measurements(&self) -> bool {
        matches!(self.kind, PolicyKind::TargetWait(_))
    }
}

impl ScalingPolicy for Policy {
    fn recommend(&mut self, situation: &Situation<'_>) -> Recommendation {
        self.recommendation(situation.inputs, situation.expected)
    }

    fn describe(&self) -> String {
        self.to_string()
    }
}

/// `one worker for each 10 jobs, 1 to 50 workers`.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            PolicyKind::Fixed { workers } => write!(f, "fixed at {workers}")?,
            PolicyKind::Backlog { jobs_per_worker } => match jobs_per_worker.get() {
                1 => f.write_str("one worker for each job")?,
                jobs => write!(f, "one worker for each {jobs} jobs")?,
            },
            PolicyKind::Steps { steps } => {
                f.write_str("steps")?;
                for Step { demand, workers } in steps {
                    write!(f, " [{demand}, {workers}]")?;
                }
            }
            PolicyKind::TargetWait(wait) => write!(f, "{wait}")?,
        }
        write!(
            f,
            ", {} to {}",
            self.min_active,
            counted(self.max, "worker")
        )
    }
}
