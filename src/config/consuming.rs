//! The keys of a pool that mean nothing if its programs consume the queue themselves.

use super::{
    problem::Problem,
    schema::{Key, Table, quoted},
};
use crate::{
    decide::{Policy, PolicyKind},
    runners::RunnerSettings,
};

/// Keys of the pool's table, each with the reason why it has no effect.
const MEANINGLESS: [(&str, &str); 19] = [
    ("prefetch", PREFETCH),
    ("key", ORDER),
    ("per_key", ORDER),
    ("key_window", ORDER),
    (
        "preempt",
        "scaling never stops a message that a program holds",
    ),
    ("ack_deadline", SETTLE),
    ("reply", ANSWERS),
    ("reply_allow", ANSWERS),
    ("reply_max", ANSWERS),
    ("share", SHARE),
    ("local_max", SHARE),
    ("retry.max_attempts", SETTLE),
    ("retry.backoff", SETTLE),
    ("retry.backoff_max", SETTLE),
    ("retry.dead_letter", SETTLE),
    ("retry.breaker.failures", BREAKER),
    ("retry.breaker.window", BREAKER),
    ("retry.breaker.min_jobs", BREAKER),
    ("retry.breaker.pause", BREAKER),
];

const PREFETCH: &str = "they open their own consumers, with a prefetch of their own";
const ORDER: &str = "they take messages themselves";
const SETTLE: &str = "they settle their messages themselves";
const ANSWERS: &str = "they answer messages themselves";
const BREAKER: &str = "whether their jobs fail is not seen";
const SHARE: &str = "daemons cannot tell each other what programs hold";

/// Refuses what has no effect for such a pool. The user would expect what does not happen.
pub(super) fn refuse_meaningless(
    pool: &mut Table<'_, '_>,
    runner: &RunnerSettings,
    policy: &Key<Policy>,
) {
    if !runner.consumes() {
        return;
    }
    let kind = quoted(runner.kind());
    for (name, why) in MEANINGLESS {
        let Some(place) = pool.given_at(name).cloned() else {
            continue;
        };
        pool.problem(Problem::new(
            place,
            format!("{}.{name}", pool.path()),
            "this key",
            format!("remove it: it has no effect on programs of kind = {kind}, because {why}"),
        ));
    }
    let place = pool.given_at("policy.kind").cloned();
    if let (PolicyKind::TargetWait(_), Some(place)) = (&policy.value.kind, place) {
        pool.problem(Problem::new(
            place,
            format!("{}.policy.kind", pool.path()),
            "\"target_wait\"",
            format!(
                "write backlog, steps or fixed: how long messages wait and run is not seen where programs of kind = {kind} \
                 take them"
            ),
        ));
    }
}
