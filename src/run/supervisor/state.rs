//! What a pool looks like from outside: its status, its state and the cause.
//!
//! Reads what the pool and its workers have written, and changes nothing.

use std::time::Duration;

use tracing::info;

use super::super::{
    DepthStatus, IntakeStatus, PoolState, PoolStatus, RunnerStatus, WorkerStatus,
    shared::{LastReconcile, PoolShared},
};
use crate::{
    config::PoolSettings,
    decide::{Intake, Link, Orders, Rates, StateScene, pool_state},
    queue::Connectivity,
};

fn rounded(rates: Rates) -> Rates {
    let round = |rate: f64| (rate * 1000.0).round() / 1000.0;
    Rates {
        arrivals: round(rates.arrivals),
        done: round(rates.done),
    }
}

/// A pool at this instant.
pub(super) fn status(shared: &PoolShared) -> PoolStatus {
    let now = shared.now();
    let last = shared.last().clone();
    let own = *shared.copies.counts();
    let (census, held) = shared.census(now);
    let counts = census.counts();
    let (idle, busy) = shared.fleet.counts();
    let inputs = last.decision.as_ref().map(|decision| &decision.inputs);
    let since = last
        .decision
        .as_ref()
        .map_or(Duration::ZERO, |decision| now.since(decision.at));
    let ready = inputs.map_or(0, |inputs| inputs.ready);
    let intake = shared.intake();
    let (state, cause) = state(shared, &last, intake, counts.busy + counts.retiring);
    let orders = shared.orders.lock().clone();
    let settings = shared.settings();
    let policy = policy(&settings, &orders);
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
        delayed: own.delayed,
        dead_waiting: own.dead,
        demand: ready.saturating_add(held.held),
        expected: last
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
        policy,
        orders,
        workers: WorkerStatus {
            bare: counts.bare,
            live: counts.live(),
            draining: counts.draining,
        },
        runners: RunnerStatus { idle, busy },
        jobs: shared.stats.jobs(),
        rates: rounded(inputs.and_then(|inputs| inputs.rates).unwrap_or_default()),
        wait_s: shared.stats.recent.waits(now),
        service_s: shared.stats.recent.runs(now),
        replies: shared.stats.replies(),
    }
}

/// What a pool is about, and why where that needs saying.
fn state(
    shared: &PoolShared,
    last: &LastReconcile,
    intake: Intake,
    busy: u32,
) -> (PoolState, Option<String>) {
    let refusal = shared
        .broker
        .openings()
        .refusal()
        .map(|known| known.why.clone());
    let inputs = last.decision.as_ref().map(|decision| &decision.inputs);
    let unread = || inputs.and_then(|inputs| inputs.stale.clone());
    pool_state(StateScene {
        intake,
        link: match shared.broker.connectivity() {
            Connectivity::Connected => Link::Up,
            Connectivity::Connecting => Link::Coming,
            Connectivity::Disconnected { error } => Link::Down(error),
        },
        rule: last.decision.as_ref().map(|decision| decision.rule),
        busy,
        pool_failure: shared.gate.pool_failure(),
        fault: shared.gate.cause(),
        stuck: last.stuck.clone(),
        queue: shared.settings().queue.to_string(),
        copies: shared.copies.cause(),
        refusal: refusal.or_else(unread),
        lesser: shared.fleet.panics().cause(),
    })
}

/// Logs the state of a pool and its workers.
pub(super) fn log_state(shared: &PoolShared) {
    let status = status(shared);
    info!(
        pool = %status.name,
        state = status.state.as_str(),
        cause = status.cause,
        ready = status.depth.ready,
        stale = status.depth.stale,
        demand = status.demand,
        expected = status.expected,
        live = status.workers.live,
        draining = status.workers.draining,
        idle_runners = status.runners.idle,
        busy_runners = status.runners.busy,
        "state of a pool"
    );
    let workers: Vec<_> = shared.roster.workers().values().cloned().collect();
    for worker in workers {
        let snapshot = worker.snapshot();
        info!(
            pool = %status.name,
            worker.id = %worker.id,
            phase = ?snapshot.phase,
            held = snapshot.held,
            consuming = snapshot.consuming.is_some(),
            "state of a worker"
        );
    }
}

/// The policy in force, in words.
fn policy(settings: &PoolSettings, orders: &Orders) -> String {
    match (&orders.policy, &settings.own_policy) {
        (Some(set), Some(_)) if set.what.names_a_kind() => set.what.policy.to_string(),
        (_, Some(own)) => own.describe(),
        (Some(set), None) => set.what.policy.to_string(),
        (None, None) => settings.policy.to_string(),
    }
}

/// Why a pool is of no use now, where it is not. What an operator ordered is as it should be.
pub(super) fn unready(pool: &PoolStatus, ending: bool) -> Option<String> {
    let name = &pool.name;
    let drained_by_hand = pool.orders.intake() == Some(Intake::Emptying) && !ending;
    match pool.state {
        PoolState::Waiting => Some(format!("pool {name} waits: no queue {}", pool.queue)),
        PoolState::Faulted | PoolState::Blocked | PoolState::Stuck | PoolState::Disconnected => {
            let cause = pool.cause.as_deref().unwrap_or_default();
            Some(format!("pool {name} is {}: {cause}", pool.state.as_str()))
        }
        PoolState::Draining if drained_by_hand => None,
        PoolState::Draining => Some(format!("pool {name} drains")),
        PoolState::Active | PoolState::Idle | PoolState::Paused => pool
            .depth
            .age_ms
            .is_none()
            .then(|| format!("pool {name}: the queue's depth was not read yet")),
    }
}
