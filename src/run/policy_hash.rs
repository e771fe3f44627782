//! A hash of all that decides the number of workers of a whole group.
//!
//! Daemons of different versions compare it. So it must not change with a new key that nobody has set, or with the order
//! of fields in our code: it is taken from names and values, sorted, without those that have their default.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::{
    config::PoolSettings,
    decide::{Orders, Policy, PolicyKind, Rules, Scaling, TargetWait},
};

/// Keys of a policy without a default.
const REQUIRED: [&str; 5] = ["kind", "workers", "jobs_per_worker", "steps", "target"];

/// The hash. FNV-1a, because it must be the same in every build.
pub(super) fn policy_hash(settings: &PoolSettings, orders: &Orders) -> u64 {
    let Rules {
        policy,
        scaling,
        drain_after,
        keep_warm,
        schedule,
        ..
    } = Rules::from(settings);
    let by_hand = orders
        .policy
        .as_ref()
        .map(|set| (&set.what.policy, &set.what.scaling));
    let (policy, scaling) = by_hand.unwrap_or((&policy, &scaling));
    let entries = schedule.entries().iter().map(|entry| {
        let (zone, bounds) = (entry.zone.iana_name(), entry.bounds);
        (entry.cron.to_string(), zone, entry.lasts, bounds)
    });
    let entries: Vec<_> = entries.collect();
    let mut all = set_keys(policy, &usual(policy));
    let rest = [
        ("scaling", value(&set_keys(scaling, &Scaling::default()))),
        ("drain_after", value(&drain_after)),
        ("keep_warm", value(&keep_warm)),
        ("schedule", value(&entries)),
    ];
    all.extend(rest.map(|(name, value)| (name.to_owned(), value)));
    let text = value(&all).to_string();
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A policy of the same kind with the defaults.
fn usual(policy: &Policy) -> Policy {
    Policy::new(match &policy.kind {
        PolicyKind::TargetWait(own) => PolicyKind::TargetWait(TargetWait::new(own.target)),
        other => other.clone(),
    })
}

/// The keys of `it` that have another value than in `usual`, and the required ones.
fn set_keys<T: Serialize>(it: &T, usual: &T) -> BTreeMap<String, Value> {
    let usual = value(usual);
    let Value::Object(keys) = value(it) else {
        return BTreeMap::new();
    };
    let is_set = |name: &str, value: &Value| {
        REQUIRED.contains(&name) || usual.get(name).is_none_or(|usual| usual != value)
    };
    keys.into_iter()
        .filter(|(name, value)| is_set(name, value))
        .collect()
}

fn value<T: Serialize>(it: &T) -> Value {
    // Numbers, texts and durations: this cannot fail.
    serde_json::to_value(it).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hash(policy: Policy) -> u64 {
        let settings = PoolSettings {
            policy,
            ..PoolSettings::new("jobs")
        };
        policy_hash(&settings, &Orders::default())
    }

    #[test]
    fn each_part_of_the_policy_changes_the_hash() {
        let wait = |seconds| Policy::target_wait(Duration::from_secs(seconds));
        let hashes = [
            hash(Policy::backlog(1)),
            hash(Policy::backlog(2)),
            hash(Policy::backlog(2).max(7)),
            hash(Policy::backlog(2).min_active(3)),
            hash(Policy::fixed(2)),
            hash(Policy::steps([(0, 1), (5, 2)])),
            hash(Policy::steps([(0, 1), (5, 3)])),
            hash(wait(1)),
            hash(wait(2)),
            {
                let mut settings = PoolSettings::new("jobs");
                settings.scaling.up_step = 3;
                policy_hash(&settings, &Orders::default())
            },
            {
                let mut settings = PoolSettings::new("jobs");
                settings.keep_warm = 1;
                policy_hash(&settings, &Orders::default())
            },
        ];
        for (at, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..at].contains(hash), "{at}");
        }
        assert_eq!(hash(Policy::steps([(5, 2), (0, 1)])), hashes[5]);
    }

    #[test]
    fn the_hash_is_the_same_in_the_next_version() {
        // A daemon of a newer version must get these numbers for these settings, or groups stop growing in an upgrade.
        assert_eq!(hash(Policy::backlog(10)), 14_861_807_747_608_224_050);
        let wait = Policy::target_wait(Duration::from_secs(30));
        assert_eq!(hash(wait), 5_713_438_739_476_123_605);
    }
}
