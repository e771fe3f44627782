//! A pool's policy: shows the origin of each key, and sets keys by hand with the same rules as `check`.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};

use super::{
    answers::{count, error, failed, no_such_pool, refusal},
    api::Api,
    body::Body,
    caller::Caller,
};
use crate::actions::{as_typed, done};
use tidegate::{
    api::v1::{self, ByWhom, KeyChange, Outlook, PolicyAct, PolicyView},
    config::{
        PolicyChange, PolicyKey, PoolSettings, Problem, Problems, change_policy, policy_keys,
        policy_toml,
    },
    decide::{
        By, ByHand, Inputs, Order, Policy, PoolName, Recommendation, SetPolicy, SteeringAct,
        SteeringOutcome,
    },
    run::{IntakeStatus, PoolStatus},
    text::counted,
};

pub(super) async fn get(State(api): State<Api>, Path(name): Path<PoolName>) -> Response {
    let Ok(settings) = api.supervisor.settings(&name) else {
        return no_such_pool(&name);
    };
    let by_hand = by_hand(&api, &name);
    let set = by_hand.as_ref().map(|order| &order.what);
    let keys = policy_keys(&settings, set);
    Json(view(&settings, by_hand.as_ref(), keys)).into_response()
}

/// Sets these keys by hand, and resets all others.
pub(super) async fn put(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<PoolName>,
    uri: Uri,
    body: Body<Map<String, Value>>,
) -> Response {
    change(&api, caller, &name, &uri, RequestedChange::Replace(body.0)).await
}

/// Sets these keys by hand in addition to the others.
pub(super) async fn patch(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<PoolName>,
    uri: Uri,
    body: Body<Map<String, Value>>,
) -> Response {
    change(&api, caller, &name, &uri, RequestedChange::Add(body.0)).await
}

/// Resets every key that was set by hand.
pub(super) async fn delete(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<PoolName>,
    uri: Uri,
) -> Response {
    change(&api, caller, &name, &uri, RequestedChange::Reset).await
}

/// For a pool with `share = true`: its policy is compared with those of the other members.
const OF_A_GROUP: &str = "the pool shares its queue (share = true), and no member grows while their policies differ; \
                          change every member alike, or write the keys to each configuration and reload";

/// An order that stands above the policy, so that a change shows no effect.
fn of_other_orders(status: &PoolStatus) -> Option<String> {
    let name = &status.name;
    match (status.intake, status.pinned) {
        (IntakeStatus::Paused | IntakeStatus::Draining, _) => Some(format!(
            "the pool takes no messages: the policy has an effect after `tidegate resume {name}`"
        )),
        (IntakeStatus::Open, Some(workers)) => Some(format!(
            "the pool is pinned to {}: the policy has an effect after `tidegate scale {name} auto`",
            counted(workers, "worker")
        )),
        (IntakeStatus::Open, None) => None,
    }
}

/// The requested change.
enum RequestedChange {
    Replace(Map<String, Value>),
    Add(Map<String, Value>),
    Reset,
}

async fn change(
    api: &Api,
    caller: Caller,
    name: &PoolName,
    uri: &Uri,
    requested: RequestedChange,
) -> Response {
    let Ok(is_trial) = is_trial(uri) else {
        let what = "the query may be dry_run=true or dry_run=false";
        return error(StatusCode::BAD_REQUEST, what);
    };
    let (Some(status), Ok(settings)) = (api.supervisor.pool(name), api.supervisor.settings(name))
    else {
        return no_such_pool(name);
    };
    let old = by_hand(api, name);
    let set = old.as_ref().map(|order| &order.what);
    let (act, base, body) = match requested {
        RequestedChange::Replace(body) => (PolicyAct::Replace, None, Some(body)),
        RequestedChange::Add(body) => (PolicyAct::Set, set, Some(body)),
        RequestedChange::Reset => (PolicyAct::Reset, None, None),
    };
    let changed = body.map(|body| {
        let change = PolicyChange::Json(Value::Object(body));
        change_policy(&settings, base, &change)
    });
    let changed = match changed.transpose() {
        Ok(changed) => changed,
        Err(problems) => {
            count(SteeringAct::Policy, SteeringOutcome::Refused);
            return refused(&problems);
        }
    };
    let before = policy_keys(&settings, set);
    let (after, new, warnings) = match changed {
        Some(changed) => (changed.keys, Some(changed.set), changed.warnings),
        None => (policy_keys(&settings, None), None, Vec::new()),
    };
    let policy_of = |set: Option<&SetPolicy>| match set {
        Some(set) => set.policy.clone(),
        None => settings.policy.clone(),
    };
    let mut warnings: Vec<String> = warnings.iter().map(problem_text).collect();
    let changes = changes(&before, &after);
    if !changes.is_empty() {
        warnings.extend(of_other_orders(&status));
        if settings.share {
            warnings.push(OF_A_GROUP.to_owned());
        }
    }
    let decision = api.supervisor.explain(name);
    let inputs = decision.map_or_else(Inputs::default, |decision| decision.inputs);
    let mut answer = v1::PolicyChange {
        act,
        applied: !is_trial,
        changes,
        before: outlook(&policy_of(set), &inputs, status.expected),
        after: outlook(&policy_of(new.as_ref()), &inputs, status.expected),
        warnings,
        not_stored: None,
        policy: view_of(&settings, new.as_ref(), None, after.clone()),
    };
    if is_trial {
        return Json(answer).into_response();
    }
    let order = match new {
        Some(set) => Order::SetPolicy(Box::new(set)),
        None => Order::ResetPolicy,
    };
    let by = caller.name().await;
    let act = as_typed(&order);
    match api.supervisor.steer(name, order, By::new(by.clone())).await {
        Ok(steered) => {
            api.actions
                .add(Some(name), &act, &by, done(steered.changed));
            answer.not_stored = steered.not_stored;
            answer.policy = view(&settings, steered.orders.policy.as_ref(), after);
            Json(answer).into_response()
        }
        Err(error) => failed(name, &error),
    }
}

fn by_hand(api: &Api, name: &PoolName) -> Option<ByHand<SetPolicy>> {
    let mut orders = api.supervisor.orders();
    orders.remove(name).and_then(|orders| orders.policy)
}

fn view(
    settings: &PoolSettings,
    by_hand: Option<&ByHand<SetPolicy>>,
    keys: Vec<PolicyKey>,
) -> PolicyView {
    let set = by_hand.map(|order| &order.what);
    let whom = by_hand.map(|order| ByWhom {
        by: order.by.to_string(),
        since: order.since,
    });
    view_of(settings, set, whom, keys)
}

fn view_of(
    settings: &PoolSettings,
    set: Option<&SetPolicy>,
    by_hand: Option<ByWhom>,
    keys: Vec<PolicyKey>,
) -> PolicyView {
    let (policy, scaling) = match set {
        Some(set) => (set.policy.clone(), set.scaling),
        None => (settings.policy.clone(), settings.scaling),
    };
    PolicyView {
        name: settings.name.clone(),
        text: policy.to_string(),
        policy,
        scaling,
        toml: policy_toml(&keys),
        keys,
        by_hand,
    }
}

fn changes(before: &[PolicyKey], after: &[PolicyKey]) -> Vec<KeyChange> {
    let value = |keys: &[PolicyKey], key: &str| {
        let mut keys = keys.iter();
        keys.find(|found| found.key == key)
            .map(|found| found.value.clone())
    };
    let mut names: Vec<&String> = Vec::new();
    for key in before.iter().chain(after).map(|key| &key.key) {
        if !names.contains(&key) {
            names.push(key);
        }
    }
    let changes = names.into_iter().map(|key| KeyChange {
        key: key.clone(),
        before: value(before, key),
        after: value(after, key),
    });
    changes
        .filter(|change| change.before != change.after)
        .collect()
}

fn outlook(policy: &Policy, inputs: &Inputs, expected: u32) -> Outlook {
    let Recommendation { workers, why } = policy.recommendation(inputs, expected);
    Outlook {
        policy: policy.to_string(),
        demand: inputs.demand,
        workers: match inputs.demand {
            0 => 0,
            _ => workers.min(policy.max).max(policy.min_active),
        },
        why,
    }
}

/// Whether the change is only a trial.
fn is_trial(uri: &Uri) -> Result<bool, ()> {
    match uri.query() {
        None | Some("" | "dry_run=false") => Ok(false),
        Some("dry_run=true" | "dry_run") => Ok(true),
        Some(_) => Err(()),
    }
}

fn refused(problems: &Problems) -> Response {
    let lines: Vec<String> = problems.iter().map(problem_text).collect();
    let error = match &lines[..] {
        [one] => one.clone(),
        [first, ..] => format!("{first} (and {} more)", lines.len() - 1),
        [] => "the policy cannot be used".to_owned(),
    };
    let why = v1::Refusal {
        error,
        problems: lines,
    };
    refusal(StatusCode::UNPROCESSABLE_ENTITY, why)
}

/// A problem without its position, because there is no file.
fn problem_text(problem: &Problem) -> String {
    let Problem {
        key, found, fix, ..
    } = problem;
    match key.is_empty() {
        true => format!("found {found}, {fix}"),
        false => format!("{key}: found {found}, {fix}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_above_the_policy_is_told_of() {
        let mut status: PoolStatus = serde_json::from_value(serde_json::json!({
            "name": "a", "queue": "a", "state": "active",
            "depth": {"ready": 0, "age_ms": 1, "stale": false}, "delayed": 0, "demand": 0, "expected": 0,
            "workers": {"bare": 0, "live": 0, "draining": 0}, "runners": {"idle": 0, "busy": 0},
            "jobs": {"done": 0, "retried": 0, "dead": 0, "requeued": 0, "lost": 0}
        }))
        .unwrap();
        assert_eq!(of_other_orders(&status), None);
        status.pinned = Some(1);
        let pinned = of_other_orders(&status).unwrap();
        assert!(
            pinned.contains("pinned to 1 worker:") && pinned.contains("scale a auto"),
            "{pinned}"
        );
        status.intake = IntakeStatus::Paused;
        let paused = of_other_orders(&status).unwrap();
        assert!(paused.contains("tidegate resume a"), "{paused}");
    }

    #[test]
    fn a_trial_is_asked_for_in_the_query() {
        for (uri, trial) in [
            ("/p", Ok(false)),
            ("/p?dry_run=true", Ok(true)),
            ("/p?dry_run=false", Ok(false)),
            ("/p?dryrun=true", Err(())),
            ("/p?dry_run=maybe", Err(())),
        ] {
            assert_eq!(is_trial(&uri.parse().unwrap()), trial, "{uri}");
        }
    }
}
