//! The state of a pool, from what the pool and its workers have written. Read for the status and for the metric.

use super::shared::{LastReconcile, PoolShared};
use crate::{
    decide::{Counts, Intake, Link, PoolState, StateScene, pool_state},
    queue::Connectivity,
};

/// The state of a pool at this instant, after this reconcile.
pub(crate) fn state_of(shared: &PoolShared, last: &LastReconcile) -> PoolState {
    let counts = shared.census(shared.now()).0.counts();
    state(shared, last, shared.intake(), &counts).0
}

/// The state of a pool with these workers, and the cause if it needs attention.
pub(crate) fn state(
    shared: &PoolShared,
    last: &LastReconcile,
    intake: Intake,
    counts: &Counts,
) -> (PoolState, Option<String>) {
    let refusal = shared
        .broker
        .openings()
        .refusal()
        .map(|known| known.why.clone());
    let inputs = last.decision.as_ref().map(|decision| &decision.inputs);
    let unread = || inputs.and_then(|inputs| inputs.stale.clone());
    let (idle, busy) = shared.fleet.counts();
    pool_state(StateScene {
        intake,
        link: match shared.broker.connectivity() {
            Connectivity::Connected => Link::Up,
            Connectivity::Connecting => Link::Coming,
            Connectivity::Disconnected { error } => Link::Down(error),
        },
        rule: last.decision.as_ref().map(|decision| decision.rule),
        busy: counts.busy + counts.retiring,
        is_bare: counts.towards_max() + idle + busy == 0,
        pool_failure: shared.gate.pool_failure(),
        fault: shared.gate.cause(),
        stuck: last.stuck.clone(),
        queue: shared.settings().queue.to_string(),
        copies: shared.copies.cause(),
        refusal: refusal.or_else(|| shared.programs.cause()).or_else(unread),
        lesser: shared.fleet.panics().cause(),
    })
}
