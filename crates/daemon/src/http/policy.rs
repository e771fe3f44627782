//! A pool's policy: shows the origin of each key, and sets keys by hand with the same rules as `check`.

use std::collections::BTreeSet;

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};

use super::{
    answers::{count, error, failed, no_such_pool, refusal},
    api::Api,
    body::Body,
    caller::Caller,
};
use crate::{
    actions::{as_typed, done},
    lab::trial::{JobAssumptions, Trial},
};
use tidegate::{
    api::v1::{
        self, ByWhom, KeyChange, Outlook, PolicyAct, PolicyKeys, PolicyView, TrialDecision,
        TrialNow,
    },
    config::{
        PolicyEdit, PolicyKey, PoolSettings, Problem, Problems, change_policy, policy_keys,
        policy_toml,
    },
    decide::{
        By, ByHand, Decision, DrainAfter, Inputs, Order, Policy, PoolName, Recommendation,
        SetPolicy, SteeringAct, SteeringOutcome,
    },
    run::{IntakeStatus, PoolStatus},
    text::{counted, parse_duration},
};
use tidegate_sim::ServiceTimes;

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
    body: Body<PolicyKeys>,
) -> Response {
    change(&api, caller, &name, &uri, RequestedChange::Replace(body.0)).await
}

/// Sets these keys by hand in addition to the others.
pub(super) async fn patch(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<PoolName>,
    uri: Uri,
    body: Body<PolicyKeys>,
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
    Replace(PolicyKeys),
    Add(PolicyKeys),
    Reset,
}

async fn change(
    api: &Api,
    caller: Caller,
    name: &PoolName,
    uri: &Uri,
    requested: RequestedChange,
) -> Response {
    let query = match query(uri) {
        Ok(query) => query,
        Err((status, what)) => return error(status, &what),
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
    let changed = body.map(|body| change_policy(&settings, base, &PolicyEdit::from(body)));
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
        applied: query.trial.is_none(),
        changes,
        before: outlook(&settings, &policy_of(set), &inputs, status.expected),
        after: outlook(
            &settings,
            &policy_of(new.as_ref()),
            &inputs,
            status.expected,
        ),
        now: None,
        recording: None,
        no_recording: None,
        warnings,
        not_stored: None,
        policy: view_of(&settings, new.as_ref(), None, after.clone()),
    };
    if let Some(asked) = query.trial {
        answer.now = now(api, name, new.clone()).await;
        if asked.on_recording {
            let trial = Trial {
                settings,
                before: old.map(|order| order.what),
                after: new,
                timings: inputs.measured.timings,
                timings_before: None,
                max_workers: api.supervisor.limits().max_workers,
                given: asked.given,
            };
            match api.trials.run(trial).await {
                Ok(tried) => answer.recording = Some(Box::new(tried)),
                Err(why) => answer.no_recording = Some(why),
            }
        }
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

fn outlook(settings: &PoolSettings, policy: &Policy, inputs: &Inputs, expected: u32) -> Outlook {
    let Recommendation { workers, why } = policy.recommendation(inputs, expected);
    Outlook {
        policy: policy.to_string(),
        demand: inputs.demand,
        workers: match (inputs.demand, settings.drain_after) {
            // After a while the pool drains. One that never drains keeps what its policy says.
            (0, DrainAfter::After(_)) => settings.keep_warm.min(policy.max),
            _ => workers.min(policy.max).max(policy.min_active),
        },
        why,
    }
}

/// What the pool would decide now. `None` for a pool that ends.
async fn now(api: &Api, name: &PoolName, set: Option<SetPolicy>) -> Option<TrialNow> {
    let foresight = api.supervisor.foresee(name, set).await.ok()?;
    let workers = foresight.before.inputs.census.live();
    let decision = |decision: Decision| TrialDecision {
        expected: decision.expected,
        plan: decision.plan.to_string(),
        terms: decision.terms,
    };
    Some(TrialNow {
        workers,
        before: decision(foresight.before),
        after: decision(foresight.after),
    })
}

/// What the query of a change says.
#[derive(Debug, Default, PartialEq)]
struct Query {
    /// `None` if the change is to be made.
    trial: Option<DryRunRequest>,
}

/// What a dry run is asked for.
#[derive(Debug, PartialEq)]
struct DryRunRequest {
    on_recording: bool,
    given: JobAssumptions,
}

/// Reads the query. The error is the answer's status, and says what is wrong.
fn query(uri: &Uri) -> Result<Query, (StatusCode, String)> {
    let mut is_trial = false;
    let mut on_recording = None;
    let mut given = JobAssumptions::default();
    let mut keys = BTreeSet::new();
    let text = uri.query().unwrap_or_default();
    for (key, value) in url::form_urlencoded::parse(text.as_bytes()) {
        let text = |what: &str| format!("the query may not have {key}={value}: {what}");
        let wrong = |what| (StatusCode::BAD_REQUEST, text(what));
        // Any text has the form that the API's description states.
        let unusable = |what| (StatusCode::UNPROCESSABLE_ENTITY, text(what));
        let yes_or_no = || match &*value {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(wrong("write true or false")),
        };
        if !keys.insert(key.clone()) {
            return Err(wrong("write each key once"));
        }
        match &*key {
            "dry_run" if value.is_empty() => is_trial = true,
            "dry_run" => is_trial = yes_or_no()?,
            "recording" => on_recording = Some(yes_or_no()?),
            "service" => {
                let named = ServiceTimes::named(&value).and_then(Result::ok);
                let times =
                    named.ok_or_else(|| unusable("write exp:2s, fixed:2s or lognormal:2s,4s"))?;
                given.service = Some((value.into_owned(), times));
            }
            "target" => {
                let target =
                    parse_duration(&value).ok_or_else(|| unusable("write a time such as 30s"))?;
                given.target = Some(target);
            }
            _ => return Err(wrong("it may have dry_run, recording, service and target")),
        }
    }
    if !is_trial && (on_recording.is_some() || given != JobAssumptions::default()) {
        let what = "the query has keys of a dry run: add dry_run=true";
        return Err((StatusCode::UNPROCESSABLE_ENTITY, what.to_owned()));
    }
    Ok(Query {
        trial: is_trial.then_some(DryRunRequest {
            on_recording: on_recording.unwrap_or(true),
            given,
        }),
    })
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
    fn on_an_empty_queue_the_outlook_is_what_the_pool_keeps() {
        let mut settings = PoolSettings::new("a");
        let workers = |settings: &PoolSettings, inputs: &Inputs| {
            outlook(settings, &Policy::fixed(8).max(10), inputs, 0).workers
        };
        let empty = Inputs::default();
        let mut full = Inputs::default();
        (full.ready, full.demand) = (20, 20);
        assert_eq!(
            (workers(&settings, &empty), workers(&settings, &full)),
            (0, 8)
        );
        settings.keep_warm = 2;
        assert_eq!(workers(&settings, &empty), 2);
        settings.drain_after = DrainAfter::Never;
        assert_eq!(
            (workers(&settings, &empty), workers(&settings, &full)),
            (8, 8)
        );
    }

    #[test]
    fn a_dry_run_is_asked_for_in_the_query() {
        let asked = |uri: &str| query(&uri.parse().unwrap()).map(|query| query.trial);
        for uri in ["/p", "/p?dry_run=false", "/p?"] {
            assert_eq!(asked(uri), Ok(None), "{uri}");
        }
        for (uri, on_recording) in [
            ("/p?dry_run=true", true),
            ("/p?dry_run", true),
            ("/p?dry_run=true&recording=false", false),
        ] {
            let asked = asked(uri).unwrap().unwrap();
            assert_eq!(asked.on_recording, on_recording, "{uri}");
            assert_eq!(asked.given, JobAssumptions::default(), "{uri}");
        }
        let given = asked("/p?dry_run=true&service=lognormal%3A2s%2C4s&target=1m30s");
        let given = given.unwrap().unwrap().given;
        assert_eq!(given.target.map(|target| target.as_secs()), Some(90));
        assert_eq!(given.service.unwrap().0, "lognormal:2s,4s");
        for (uri, status) in [
            ("/p?dryrun=true", StatusCode::BAD_REQUEST),
            ("/p?dry_run=maybe", StatusCode::BAD_REQUEST),
            ("/p?dry_run=true&dry_run=false", StatusCode::BAD_REQUEST),
            ("/p?recording=false", StatusCode::UNPROCESSABLE_ENTITY),
            (
                "/p?dry_run=true&service=gamma:2s",
                StatusCode::UNPROCESSABLE_ENTITY,
            ),
            (
                "/p?dry_run=true&target=soon",
                StatusCode::UNPROCESSABLE_ENTITY,
            ),
        ] {
            assert_eq!(asked(uri).unwrap_err().0, status, "{uri}");
        }
    }
}
