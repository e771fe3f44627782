//! Changes by hand to a pool's policy and scaling. They are read and checked by the same code as the configuration
//! file.
//!
//! A change is written as TOML, together with the keys that it does not change, and is read like a configuration. So
//! all bounds and all problem texts are the same as those of `check`. Owns nothing, does no I/O.

mod change;

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};

pub use self::change::PolicyEdit;
use tidegate_core::text::short_duration;

use super::{
    origin::{Origin, Origins},
    policy::{KINDS_KEYS, policy, scaling},
    problem::{Place, Problem, Problems},
    schema::{Table, quoted, read},
    settings::PoolSettings,
};
use crate::decide::{Configured, Policy, PolicyKind, Scaling, SetPolicy};

/// A key of `policy` or `scaling`, with its value in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PolicyKey {
    /// The key with its table: `policy.max`.
    pub key: String,
    /// The value as TOML.
    pub value: String,
    /// The source of the value.
    pub origin: Origin,
}

/// A change that can be made.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ChangedPolicy {
    /// The order to send: [`Order::SetPolicy`](crate::decide::Order::SetPolicy).
    pub set: SetPolicy,
    /// Every key with its value after the change.
    pub keys: Vec<PolicyKey>,
    /// Warnings: values that are valid, but most likely a mistake.
    pub warnings: Vec<Problem>,
}

/// Every key of a pool's `policy` and `scaling` with its present value and the source of the value.
pub fn policy_keys(settings: &PoolSettings, by_hand: Option<&SetPolicy>) -> Vec<PolicyKey> {
    let (policy, scaling) = match by_hand {
        Some(set) => (&set.policy, &set.scaling),
        None => (&settings.policy, &settings.scaling),
    };
    let default_policy = Policy::new(policy.kind.clone());
    let defaults: BTreeMap<_, _> = values(&default_policy, &Scaling::default())
        .into_iter()
        .collect();
    let given = given(settings);
    // A program's own policy has no kind. Only its bounds have keys.
    let is_own = settings.own_policy.is_some() && by_hand.is_none_or(|set| !set.names_a_kind());
    let is_shown = |key: &str| {
        let bounds = ["policy.min_active", "policy.max"];
        !is_own || !key.starts_with("policy.") || bounds.contains(&key)
    };
    let shown = values(policy, scaling)
        .into_iter()
        .filter(|(key, _)| is_shown(key));
    let keys = shown.map(|(key, value)| {
        let origin = match given.get(key) {
            _ if by_hand.is_some_and(|set| set.keys.contains_key(key)) => Origin::ByHand,
            // The file's own value, and not the default of a kind that was set by hand.
            Some((given, origin)) if *given == value => *origin,
            _ if by_hand.is_some_and(|set| set.keys.is_empty())
                && defaults.get(key) != Some(&value) =>
            {
                Origin::ByHand
            }
            _ => Origin::Default,
        };
        PolicyKey {
            key: key.to_owned(),
            value,
            origin,
        }
    });
    keys.collect()
}

/// The keys as TOML, each with the source of its value.
pub fn policy_toml(keys: &[PolicyKey]) -> String {
    let mut text = String::new();
    let mut table = "";
    let width = keys
        .iter()
        .map(|key| name_of(&key.key).len() + key.value.len() + 3);
    let width = width.max().unwrap_or(0).min(48);
    for key in keys {
        let (of, name) = key.key.split_once('.').unwrap_or(("", &key.key));
        if of != table {
            let gap = if table.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}[{of}]");
            table = of;
        }
        let line = format!("{name} = {}", key.value);
        let _ = writeln!(text, "{line:width$}  # {}", key.origin.as_str());
    }
    text
}

/// Makes a change of a pool's policy, on top of earlier changes by hand.
///
/// # Errors
/// All problems of the change, with the texts of `check`.
pub fn change_policy(
    settings: &PoolSettings,
    by_hand: Option<&SetPolicy>,
    change: &PolicyEdit,
) -> Result<ChangedPolicy, Problems> {
    let change = change.read().map_err(Problems::new)?;

    let mut keys: BTreeMap<String, String> = BTreeMap::new();
    if let Some(set) = by_hand {
        keys.extend(set.keys.clone());
    }
    keys.retain(|key, _| !change.replaces(key));
    for entry in &change.entries {
        keys.insert(entry.key.clone(), entry.value.clone());
    }

    // The changed keys come first, so that a problem with them is found at their own line. The unchanged keys follow.
    let mut lines = PlacedLines::default();
    for entry in &change.entries {
        lines.push(&entry.key, &entry.value, &entry.place);
    }
    let is_new = |key: &str| change.entries.iter().any(|entry| entry.key == key);
    let stays = Place::File {
        file: "the pool as it is".to_owned(),
    };
    let mut base: BTreeMap<String, String> = given(settings)
        .into_iter()
        .filter(|(key, _)| !change.replaces(key))
        .map(|(key, (value, _))| (key.to_owned(), value))
        .collect();
    base.extend(keys.clone());
    let kind = base.get("policy.kind").cloned();
    for (key, value) in &base {
        // Keys of another kind are removed with that kind. But if the change itself contains them, they are a mistake.
        // They stay, so that the check finds them.
        let is_foreign = KINDS_KEYS.iter().any(|(owner, own)| {
            key.strip_prefix("policy.") == Some(own)
                && kind.as_deref() != Some(quoted(owner).as_str())
        });
        if is_foreign && kind.is_some() && !is_new(key) {
            keys.remove(key);
        } else if !is_new(key) {
            lines.push(key, value, &stays);
        }
    }

    let (read, finished) = read(&lines.text, "", &[], |root| {
        let policy = policy(root);
        let scaling = scaling(root);
        if policy.is_sound() && settings.keep_warm > policy.value.max {
            let fix = format!(
                "write at least keep_warm, which is {}, or lower keep_warm",
                settings.keep_warm
            );
            let found = policy.value.max.to_string();
            root.problem(Problem::new(policy.place.clone(), "policy.max", found, fix));
        }
        (policy.value, scaling)
    });
    let placed = |problem| lines.placed(problem);
    let problems: Vec<_> = finished.problems.into_iter().map(placed).collect();
    if !problems.is_empty() {
        return Err(Problems::new(problems));
    }
    let (policy, scaling) = read;
    let set = SetPolicy {
        policy,
        scaling,
        keys,
        over: Configured {
            policy: settings.policy.clone(),
            scaling: settings.scaling,
        },
    };
    Ok(ChangedPolicy {
        keys: policy_keys(settings, Some(&set)),
        set,
        warnings: finished.warnings.into_iter().map(placed).collect(),
    })
}

/// The positions of the keys of a pool's table.
pub(super) fn origins(pool: &Table<'_, '_>) -> Origins {
    let keys = ALL_KEYS.iter().filter_map(|key| {
        let origin = match pool.given_at(key)? {
            Place::Variable { .. } => Origin::Environment,
            _ => Origin::File,
        };
        Some(((*key).to_owned(), origin))
    });
    keys.collect()
}

const ALL_KEYS: [&str; 12] = [
    "policy.kind",
    "policy.jobs_per_worker",
    "policy.workers",
    "policy.steps",
    "policy.target",
    "policy.utilisation",
    "policy.min_active",
    "policy.max",
    "scaling.up_step",
    "scaling.down_window",
    "scaling.down_step",
    "scaling.churn",
];

fn name_of(key: &str) -> &str {
    key.split_once('.').map_or(key, |(_, name)| name)
}

/// Each key with its value as TOML, in the order of the reference page.
fn values(policy: &Policy, scaling: &Scaling) -> Vec<(&'static str, String)> {
    let (kind, own) = match &policy.kind {
        PolicyKind::Fixed { workers } => ("fixed", vec![("policy.workers", workers.to_string())]),
        PolicyKind::Steps { steps } => {
            let steps: Vec<_> = steps
                .iter()
                .map(|step| format!("[{}, {}]", step.demand, step.workers))
                .collect();
            (
                "steps",
                vec![("policy.steps", format!("[{}]", steps.join(", ")))],
            )
        }
        PolicyKind::Backlog { jobs_per_worker } => (
            "backlog",
            vec![("policy.jobs_per_worker", jobs_per_worker.to_string())],
        ),
        PolicyKind::TargetWait(wait) => (
            "target_wait",
            vec![
                ("policy.target", quoted(&short_duration(wait.target))),
                ("policy.utilisation", wait.utilisation.share().to_string()),
            ],
        ),
        other => unreachable!("a kind of policy without keys: {other:?}"),
    };
    let mut values = vec![("policy.kind", quoted(kind))];
    values.extend(own);
    values.extend([
        ("policy.min_active", policy.min_active.to_string()),
        ("policy.max", policy.max.to_string()),
        ("scaling.up_step", scaling.up_step.to_string()),
        (
            "scaling.down_window",
            quoted(&short_duration(scaling.down_window)),
        ),
        ("scaling.down_step", scaling.down_step.to_string()),
    ]);
    let churn = scaling
        .churn
        .map(|churn| ("scaling.churn", churn.to_string()));
    values.extend(churn);
    values
}

/// The values of the pool's own settings: from the file or a variable, or set by a program to a value other than the
/// default.
fn given(settings: &PoolSettings) -> BTreeMap<&'static str, (String, Origin)> {
    let default_policy = Policy::new(settings.policy.kind.clone());
    let mut defaults: BTreeMap<_, _> = values(&default_policy, &Scaling::default())
        .into_iter()
        .collect();
    // The default kind is `backlog` with 10 jobs. Any other kind or number was given.
    defaults.extend(
        values(&Policy::default(), &Scaling::default())
            .into_iter()
            .filter(|(key, _)| matches!(*key, "policy.kind" | "policy.jobs_per_worker")),
    );
    for (_, own) in KINDS_KEYS {
        // These two have a default of their own.
        if ["jobs_per_worker", "utilisation"].contains(&own) {
            continue;
        }
        defaults.remove(format!("policy.{own}").as_str());
    }
    let values = values(&settings.policy, &settings.scaling).into_iter();
    values
        .filter_map(|(key, value)| {
            let origin = match settings.policy_origins.get(key) {
                Some(origin) => *origin,
                None if defaults.get(key) == Some(&value) => return None,
                None => Origin::Program,
            };
            Some((key, (value, origin)))
        })
        .collect()
}

/// A text whose lines come from several sources.
#[derive(Debug, Default)]
struct PlacedLines {
    text: String,
    /// The source of each line.
    places: Vec<Place>,
}

impl PlacedLines {
    fn push(&mut self, key: &str, value: &str, place: &Place) {
        let _ = writeln!(self.text, "{key} = {value}");
        let lines = value.matches('\n').count() + 1;
        self.places
            .extend(std::iter::repeat_n(place.clone(), lines));
    }

    /// Moves the problem to the source of its line.
    fn placed(&self, mut problem: Problem) -> Problem {
        problem.place = match problem.place {
            Place::Line { line, .. } => self.places.get(line - 1).cloned(),
            _ => self.places.first().cloned(),
        }
        .unwrap_or(problem.place);
        problem
    }
}
