//! A policy that is changed by hand.

use super::given;
use crate::{
    config::{
        ChangedPolicy, Origin, PolicyEdit, PoolSettings, Problems, change_policy, policy_keys,
        policy_toml,
    },
    decide::{Policy, Scaling, SetPolicy},
};

/// A pool of a file that gives some keys, and of an environment that gives one.
fn pool() -> PoolSettings {
    let text = "
[pools.a.runner]
command = [\"true\"]
[pools.a]
keep_warm = 2
[pools.a.policy]
jobs_per_worker = 10
max = 50
[pools.a.scaling]
down_step = 7
";
    let given = given(text).variable("TIDEGATE_POOLS__A__POLICY__MAX", "40");
    given.loaded().settings.pools.remove(0).pool
}

fn arguments(keys: &[&str]) -> PolicyEdit {
    PolicyEdit::Arguments(keys.iter().map(|key| (*key).to_owned()).collect())
}

fn change(by_hand: Option<&SetPolicy>, keys: &[&str]) -> Result<ChangedPolicy, Problems> {
    change_policy(&pool(), by_hand, &arguments(keys))
}

fn refused(change: &PolicyEdit) -> String {
    change_policy(&pool(), None, change)
        .unwrap_err()
        .to_string()
}

#[test]
fn shows_every_key_with_its_source() {
    let once = change(None, &["jobs_per_worker=2"]).unwrap();
    let twice = change(Some(&once.set), &["scaling.down_window=1m"]).unwrap();
    insta::assert_snapshot!(policy_toml(&policy_keys(&pool(), None)));
    insta::assert_snapshot!(policy_toml(&twice.keys));
    assert_eq!(twice.keys, policy_keys(&pool(), Some(&twice.set)));
}

#[test]
fn a_program_s_own_values_come_from_the_program() {
    let mut settings = PoolSettings::new("a");
    settings.policy = Policy::fixed(3);
    settings.scaling.up_step = 5;
    let keys = policy_keys(&settings, None);
    let given: Vec<_> = keys
        .iter()
        .filter(|key| key.origin == Origin::Program)
        .collect();
    let given: Vec<_> = given.iter().map(|key| key.key.as_str()).collect();
    assert_eq!(given, ["policy.kind", "policy.workers", "scaling.up_step"]);
    let changed = change_policy(&settings, None, &arguments(&["max=2"])).unwrap();
    assert_eq!(changed.set.policy, Policy::fixed(3).max(2));
    assert_eq!(changed.set.scaling, settings.scaling);
}

#[test]
fn a_change_keeps_what_it_does_not_touch() {
    let once = change(None, &["jobs_per_worker=2", "scaling.up_step = 5"]).unwrap();
    assert_eq!(once.set.policy, Policy::backlog(2).max(40));
    let scaling = Scaling {
        up_step: 5,
        down_step: 7,
        ..Scaling::default()
    };
    assert_eq!(once.set.scaling, scaling);
    let twice = change(Some(&once.set), &["policy.max=30"]).unwrap();
    assert_eq!(twice.set.policy, Policy::backlog(2).max(30));
    assert_eq!(twice.set.over.policy, Policy::backlog(10).max(40));
    assert_eq!(twice.warnings, []);
}

#[test]
fn a_change_of_kind_removes_the_keys_of_the_old_kind() {
    let fixed = change(None, &["kind=fixed", "workers=5"]).unwrap();
    assert_eq!(fixed.set.policy, Policy::fixed(5).max(40));
    let back = change(Some(&fixed.set), &["kind=backlog"]).unwrap();
    assert_eq!(back.set.policy, Policy::backlog(10).max(40));
    let keys: Vec<_> = back.set.keys.keys().collect();
    assert_eq!(keys, ["policy.kind"]);
}

#[test]
fn a_table_replaces_the_one_that_was_there() {
    let toml = |text: &str| PolicyEdit::Toml {
        text: text.to_owned(),
        origin: "new.toml".to_owned(),
    };
    let table = toml("[policy]\nkind = \"steps\"\nsteps = [\n  [1, 1], # few\n  [9, 3],\n]\n");
    let changed = change_policy(&pool(), None, &table).unwrap();
    // The file's max is gone with its table; its scaling is not.
    assert_eq!(changed.set.policy, Policy::steps([(1, 1), (9, 3)]));
    assert_eq!(changed.set.scaling.down_step, 7);
    let bare = toml("jobs_per_worker = 3\n");
    let changed = change_policy(&pool(), None, &bare).unwrap();
    assert_eq!(changed.set.policy, Policy::backlog(3));
    let text = [
        "[policy]\n\nmax = 1\nmaxx = 5\n[scaling]\nup_step = 0\n",
        "max = = 1",
        "",
    ];
    insta::assert_snapshot!(text.map(|text| refused(&toml(text))).join("\n\n"));
}

#[test]
fn json_changes_only_the_keys_that_it_contains() {
    let json = serde_json::json!({
        "kind": "steps", "steps": [[1, 1], [9, 3]], "scaling": {"down_window": "3s"}
    });
    let changed = change_policy(&pool(), None, &PolicyEdit::Json(json)).unwrap();
    assert_eq!(changed.set.policy, Policy::steps([(1, 1), (9, 3)]).max(40));
    assert_eq!(changed.set.scaling.down_window.as_secs(), 3);
    let json = [
        serde_json::json!([1]),
        serde_json::json!({}),
        serde_json::json!({"max": null, "a b": 1}),
        serde_json::json!({"max": "many", "scaling": {"up": 1}}),
    ];
    let refused = json.map(|json| refused(&PolicyEdit::Json(json)));
    insta::assert_snapshot!(refused.join("\n\n"));
}

#[test]
fn an_order_that_check_would_refuse_is_refused_with_the_same_text() {
    let changes: [&[&str]; 10] = [
        &["jobs_per_worker=0", "mx=5", "scaling.down_window=long"],
        &["min_active=60"],
        // The file's own keep_warm would be above it.
        &["max=1"],
        &["workers=5"],
        &["kind=fixed"],
        &["jobs_per_worker"],
        &["=2", "max=5", "policy.max=6", "a b=1"],
        &["max=5\nmin_active=9"],
        &["runner.command=x"],
        &[],
    ];
    let refused = changes.map(|keys| refused(&arguments(keys)));
    insta::assert_snapshot!(refused.join("\n\n"));
}
