//! What a pool looks like from outside: its status, its state and the cause.
//!
//! Reads what the pool and its workers have written, and changes nothing.

use std::time::Duration;

use super::super::{
    DepthStatus, IntakeStatus, PoolState, PoolStatus, RunnerStatus, WorkerStatus,
    shared::{Shared, View},
};
use crate::{
    decide::{Intake, Rule},
    queue::Connectivity,
};

/// A pool at this instant.
pub(super) fn status(shared: &Shared) -> PoolStatus {
    let now = shared.now();
    let view = shared.view().clone();
    let (census, holdings) = shared.census(now);
    let counts = census.counts();
    let (idle, busy) = shared.fleet.counts();
    let inputs = view.decision.as_ref().map(|decision| &decision.inputs);
    let since = view
        .decision
        .as_ref()
        .map_or(Duration::ZERO, |decision| now.since(decision.at));
    let ready = inputs.map_or(0, |inputs| inputs.ready);
    let intake = shared.intake();
    let (state, cause) = state(shared, &view, intake, counts.busy + counts.retiring);
    let orders = shared.orders().clone();
    let settings = shared.settings();
    let by_hand = orders.policy.as_ref().map(|set| &set.what.policy);
    PoolStatus {
        name: shared.name.clone(),
        queue: settings.queue.clone(),
        state,
        cause: match (cause, shared.declaring.cause()) {
            (Some(cause), Some(other)) => Some(format!("{cause}; {other}")),
            (cause, other) => cause.or(other),
        },
        depth: DepthStatus {
            ready,
            age_ms: inputs
                .and_then(|inputs| inputs.age)
                .map(|age| u64::try_from((age + since).as_millis()).unwrap_or(u64::MAX)),
            stale: inputs.is_none_or(|inputs| inputs.stale.is_some()),
        },
        delayed: view.delayed,
        dead_waiting: view.dead,
        demand: ready.saturating_add(holdings.held),
        expected: view
            .decision
            .as_ref()
            .map_or(0, |decision| decision.expected),
        intake: match intake {
            Intake::Draining | Intake::Emptying => IntakeStatus::Draining,
            Intake::Paused => IntakeStatus::Paused,
            // A pool whose own task failed takes nothing, but the order holds.
            _ => match orders.intake() {
                Some(Intake::Paused) => IntakeStatus::Paused,
                Some(_) => IntakeStatus::Draining,
                None => IntakeStatus::Open,
            },
        },
        pinned: orders.pinned(),
        policy: by_hand.unwrap_or(&settings.policy).to_string(),
        orders,
        workers: WorkerStatus {
            bare: counts.bare,
            live: counts.live(),
            draining: counts.draining,
        },
        runners: RunnerStatus { idle, busy },
        jobs: shared.totals.snapshot(),
        rates: shared.recent.rates(now),
        wait_s: shared.recent.waits(now),
        service_s: shared.recent.runs(now),
        replies: shared.totals.replies(),
    }
}

/// What is wrong with a pool that works all the same.
fn lesser_cause(shared: &Shared) -> Option<String> {
    shared
        .copies_cause()
        .or_else(|| shared.fleet.panics().cause())
}

/// What a pool is about, and why where that needs saying. The first that applies.
fn state(shared: &Shared, view: &View, intake: Intake, busy: u32) -> (PoolState, Option<String>) {
    let rule = view.decision.as_ref().map(|decision| decision.rule);
    match (intake, shared.connectivity()) {
        (Intake::Draining, _) => (PoolState::Draining, shared.gate.pool_failure()),
        (Intake::Paused, _) => (PoolState::Paused, None),
        (Intake::Emptying, _) => (PoolState::Draining, None),
        (_, Connectivity::Disconnected { error }) => (PoolState::Disconnected, Some(error)),
        (_, Connectivity::Connecting) => (PoolState::Disconnected, None),
        (Intake::Blocked, _) => (PoolState::Blocked, shared.gate.cause()),
        // Nothing is left to try with, so there is nothing to be faulted at.
        (trial, _) if trial.is_trial() && busy == 0 && rule == Some(Rule::Empty) => {
            (PoolState::Idle, None)
        }
        (Intake::Faulted | Intake::Trial | Intake::BreakerOpen | Intake::BreakerTrial, _) => {
            (PoolState::Faulted, shared.gate.cause())
        }
        _ if rule == Some(Rule::Missing) => (
            PoolState::Waiting,
            Some(match shared.copies_cause() {
                None => format!("the broker has no queue {}", shared.settings().queue),
                Some(more) => {
                    format!(
                        "the broker has no queue {}; {more}",
                        shared.settings().queue
                    )
                }
            }),
        ),
        _ if view.stuck.is_some() => (PoolState::Stuck, view.stuck.clone()),
        _ if busy == 0 && matches!(rule, Some(Rule::Empty) | None) => {
            (PoolState::Idle, lesser_cause(shared))
        }
        _ => {
            let refusal = shared.openings().refusal().map(|known| known.why.clone());
            let inputs = view.decision.as_ref().map(|decision| &decision.inputs);
            let unread = || inputs.and_then(|inputs| inputs.stale.clone());
            let cause = refusal.or_else(unread);
            (PoolState::Active, cause.or_else(|| lesser_cause(shared)))
        }
    }
}
