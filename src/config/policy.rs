//! The `policy` and `scaling` tables of a pool.

use std::{num::NonZeroU32, time::Duration};

use toml::de::DeValue;

use super::{
    schema::{Choice, Item, Key, KeyKind, KeyPresence, Span, Table, ValuePosition, WholeNumber},
    settings::MAX_WORKERS,
};
use crate::decide::{Policy, PolicyKind, Scaling, Step, TargetWait, Utilisation};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PolicyName {
    Fixed,
    Backlog,
    Steps,
    TargetWait,
}

impl PolicyName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Backlog => "backlog",
            Self::Steps => "steps",
            Self::TargetWait => "target_wait",
        }
    }
}

/// Keys that belong to only one kind, with the kind.
pub(super) const KINDS_KEYS: [(&str, &str); 5] = [
    ("backlog", "jobs_per_worker"),
    ("fixed", "workers"),
    ("steps", "steps"),
    ("target_wait", "target"),
    ("target_wait", "utilisation"),
];

/// Reads a pool's policy. Returns it as a key, because its maximum limits other keys.
pub(super) fn policy(pool: &mut Table<'_, '_>) -> Key<Policy> {
    let mut table = pool.table(
        "policy",
        "How many workers run for which demand. The demand is the number of jobs that are ready in the queue or held \
        by our workers.",
    );
    let named = table.key(
        "kind",
        "`fixed`: `workers` workers, but not more than there are jobs. `backlog`: one worker for each \
        `jobs_per_worker` jobs of demand, rounded up. `steps`: the number of workers of the highest step that the \
        demand reaches. `target_wait`: as many workers as keep the waiting time below `target`, calculated from \
        measured arrivals and run times.",
        Choice(&[
            ("fixed", PolicyName::Fixed),
            ("backlog", PolicyName::Backlog),
            ("steps", PolicyName::Steps),
            ("target_wait", PolicyName::TargetWait),
        ]),
        PolicyName::Backlog,
    );
    let jobs_per_worker = table.key(
        "jobs_per_worker",
        "Of `backlog`: jobs of demand for each worker.",
        WholeNumber(1..=1_000_000_000),
        10,
    );
    let workers = table.optional(
        "workers",
        "Of `fixed`: the number of workers.",
        WholeNumber(1..=MAX_WORKERS),
        "5",
    );
    let steps = table.optional(
        "steps",
        "Of `steps`: pairs of a demand and the number of workers from this demand on. Below the first demand there are \
        no workers.",
        StepsKey,
        "[[1, 1], [100, 10]]",
    );
    let target = table.optional(
        "target",
        "Of `target_wait`: 95 of 100 messages should wait no longer.",
        Span::from(Duration::from_secs(1)),
        "\"30s\"",
    );
    let utilisation = table.optional(
        "utilisation",
        "Of `target_wait`: the share of their time that workers are planned to be busy with the messages that arrive. \
         Less leaves more room for bursts, and costs more workers. When absent, 0.8.",
        UtilisationKey,
        "0.8",
    );
    refuse_of_other_kinds(&mut table, &named, &jobs_per_worker, PolicyName::Backlog);
    refuse_of_other_kinds(&mut table, &named, &workers, PolicyName::Fixed);
    refuse_of_other_kinds(&mut table, &named, &steps, PolicyName::Steps);
    refuse_of_other_kinds(&mut table, &named, &target, PolicyName::TargetWait);
    refuse_of_other_kinds(&mut table, &named, &utilisation, PolicyName::TargetWait);
    for (kind, given, name, example) in [
        (PolicyName::Fixed, workers.given, "workers", "5"),
        (
            PolicyName::Steps,
            steps.given,
            "steps",
            "[[1, 1], [100, 10]]",
        ),
        (PolicyName::TargetWait, target.given, "target", "\"30s\""),
    ] {
        if named.is_sound() && named.value == kind && given == KeyPresence::Absent {
            let key = format!("{}.{name}", table.path());
            table.missing(key, format!("write {name} = {example}"));
        }
    }

    let kind = match named.value {
        PolicyName::Fixed => PolicyKind::Fixed {
            workers: workers.value.unwrap_or(1),
        },
        PolicyName::Steps => PolicyKind::Steps {
            steps: steps.value.clone().unwrap_or_default(),
        },
        PolicyName::Backlog => PolicyKind::Backlog {
            jobs_per_worker: NonZeroU32::new(jobs_per_worker.value).unwrap_or(NonZeroU32::MIN),
        },
        PolicyName::TargetWait => {
            let target = target.value.unwrap_or(Duration::from_secs(30));
            PolicyKind::TargetWait(
                TargetWait::new(target).utilisation(utilisation.value.unwrap_or_default()),
            )
        }
    };
    let is_sound = named.is_sound()
        && workers.is_sound()
        && steps.is_sound()
        && target.is_sound()
        && utilisation.is_sound();
    let policy = bounds(&mut table, Policy::new(kind), is_sound);
    let max = policy.value.max;
    if policy.is_sound()
        && named.value == PolicyName::Fixed
        && workers.value.is_some_and(|n| n > max)
    {
        table.warn_of(
            &workers,
            format!(
                "write at most max, which is {max}, or raise max: there are never more workers"
            ),
        );
    }
    policy
}

/// Reads the bounds of the policy, and applies them.
fn bounds(table: &mut Table<'_, '_>, policy: Policy, is_sound: bool) -> Key<Policy> {
    let max = table.optional(
        "max",
        "Maximum number of workers of this pool. When absent, 50 for `backlog` and `target_wait`, otherwise the number \
         in `workers` or in the highest step. It counts for one daemon: the workers of several daemons on one queue \
         add up.",
        WholeNumber(1..=MAX_WORKERS),
        "50",
    );
    let min_active = table.optional(
        "min_active",
        "Minimum number of workers while there is work. When absent, 1.",
        WholeNumber(0..=MAX_WORKERS),
        "1",
    );
    let ceiling = max.value.unwrap_or(policy.max);
    let is_known = is_sound && max.is_sound();
    let floor = min_active.value.unwrap_or(policy.min_active.min(ceiling));
    if is_known && floor > ceiling {
        table.refuse(
            &min_active,
            format!("write at most max, which is {ceiling}, or raise max"),
        );
    }
    let given = match (is_known, max.given) {
        (false, _) => KeyPresence::Invalid,
        (true, given) => given,
    };
    let policy = Policy {
        kind: policy.kind,
        min_active: floor.min(ceiling),
        max: ceiling,
    };
    max.with(policy, given)
}

fn refuse_of_other_kinds<T>(
    table: &mut Table<'_, '_>,
    named: &Key<PolicyName>,
    key: &Key<T>,
    belongs_to: PolicyName,
) {
    if named.is_sound() && named.value != belongs_to && key.given != KeyPresence::Absent {
        let (is, other) = (named.value.as_str(), belongs_to.as_str());
        let fix = format!("remove it, or write kind = \"{other}\": it has no effect for \"{is}\"");
        table.refuse(key, fix);
    }
}

/// A share of time as a number: 0.8.
#[derive(Debug)]
struct UtilisationKey;

impl KeyKind for UtilisationKey {
    type Value = Utilisation;
    const IS_TEXT: bool = false;

    fn wants(&self) -> String {
        format!("a number from {} to 1", Utilisation::LEAST)
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<Utilisation> {
        let number: Option<f64> = match item.get_ref() {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) => number.as_str().parse().ok(),
            _ => None,
        };
        let share = number.and_then(Utilisation::new);
        if share.is_none() {
            spot.wrong(item, format!("write {}", self.wants()));
        }
        share
    }

    fn toml(&self, value: &Utilisation) -> String {
        value.share().to_string()
    }
}

/// The steps of the policy `steps`: `[[1, 1], [100, 10]]`.
#[derive(Debug)]
struct StepsKey;

impl KeyKind for StepsKey {
    type Value = Vec<Step>;
    const IS_TEXT: bool = false;

    fn wants(&self) -> String {
        "[demand, workers] pairs by rising demand".to_owned()
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<Vec<Step>> {
        let DeValue::Array(items) = item.get_ref() else {
            spot.wrong(item, "write [demand, workers] pairs: [[1, 1], [100, 10]]");
            return None;
        };
        let mut steps: Vec<Step> = Vec::new();
        let mut are_all_read = true;
        for item in items.iter() {
            let Some(step) = step(item) else {
                spot.wrong(item, "write a pair of whole numbers: [demand, workers]");
                are_all_read = false;
                continue;
            };
            if let Some(last) = steps.last().filter(|last| last.demand >= step.demand) {
                let found = format!("[{}, {}]", step.demand, step.workers);
                let fix = format!(
                    "write a demand above {}, the demand of the step before",
                    last.demand
                );
                spot.wrong_shown_as(item, found, fix);
            }
            steps.push(step);
        }
        if are_all_read && steps.iter().all(|step| step.workers == 0) {
            spot.wrong_shown_as(
                item,
                "no step with a worker",
                "write at least one: [[1, 1]]",
            );
        }
        Some(steps)
    }

    fn toml(&self, steps: &Vec<Step>) -> String {
        let steps: Vec<_> = steps
            .iter()
            .map(|step| format!("[{}, {}]", step.demand, step.workers))
            .collect();
        format!("[{}]", steps.join(", "))
    }
}

fn step(item: &Item<'_>) -> Option<Step> {
    let mut pair = item.get_ref().as_array()?.iter();
    let (Some(demand), Some(workers), None) = (pair.next(), pair.next(), pair.next()) else {
        return None;
    };
    Some(Step {
        demand: WholeNumber(0..=u64::from(u32::MAX)).within(demand)?,
        workers: WholeNumber(0..=MAX_WORKERS).within(workers)?,
    })
}

/// Reads how fast a pool may change.
pub(super) fn scaling(pool: &mut Table<'_, '_>) -> Scaling {
    let default = Scaling::default();
    let mut table = pool.table("scaling", "How fast the number of workers may change.");
    let up_step = table.key(
        "up_step",
        "Maximum number of workers that one reconcile adds.",
        WholeNumber(1..=MAX_WORKERS),
        default.up_step,
    );
    let down_window = table.key(
        "down_window",
        "Scale down to the highest recommendation within this window.",
        Span::from(Duration::ZERO),
        default.down_window,
    );
    let down_step = table.key(
        "down_step",
        "Maximum number of workers that one reconcile removes.",
        WholeNumber(1..=MAX_WORKERS),
        default.down_step,
    );
    let churn = table.optional(
        "churn",
        "Maximum number of starts and stops of workers within a minute, added together. When absent, no limit.",
        WholeNumber(1..=MAX_WORKERS),
        "60",
    );
    Scaling {
        up_step: up_step.value,
        down_window: down_window.value,
        down_step: down_step.value,
        churn: churn.value,
    }
}
