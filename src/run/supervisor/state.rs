//! The status of a pool, with its state and the cause. Reads what the pool and its workers have written, and changes
//! nothing.

use std::time::Duration;

use tracing::info;

use super::super::{
    DepthStatus, IntakeStatus, MemberStatus, PoolState, PoolStatus, RunnerStatus, WorkerStatus,
    shared::{LastReconcile, PoolShared},
};
use crate::{
    config::PoolSettings,
    decide::{Decision, Group, Intake, Member, Orders, TakenAhead, split},
    run::pool_state::state,
};

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
    let group = inputs.and_then(|inputs| inputs.group.as_ref());
    let elsewhere = group.map_or(0, Group::held_by_others);
    let intake = shared.intake();
    let rates = inputs.and_then(|inputs| inputs.rates);
    let rates = rates.unwrap_or_default().rounded();
    let (state, cause) = state(shared, &last, intake, &counts);
    let orders = shared.orders.lock().clone();
    let settings = shared.settings();
    let policy = policy(&settings, &orders);
    let ahead = shared.keyed.ahead(&settings);
    PoolStatus {
        name: shared.name.clone(),
        queue: settings.queue.clone(),
        consumes: shared.fleet.consumes(),
        state,
        cause: {
            let causes = [cause, shared.declaring.cause(), group_cause(shared, &last)];
            let causes: Vec<String> = causes.into_iter().flatten().collect();
            (!causes.is_empty()).then(|| causes.join("; "))
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
        demand: ready
            .saturating_add(held.held)
            .saturating_add(ahead.as_ref().map_or(0, TakenAhead::taken))
            .saturating_add(elsewhere),
        taken_ahead: ahead,
        expected: last
            .decision
            .as_ref()
            .map_or(0, |decision| decision.expected),
        intake: match intake {
            Intake::Draining | Intake::Emptying => IntakeStatus::Draining,
            Intake::Paused => IntakeStatus::Paused,
            // If the pool's own task failed, the pool takes nothing, but the order is still shown.
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
        rates,
        oldest_s: shared.stats.recent.oldest(now).map(milliseconds),
        wait_s: shared.stats.recent.waits(now),
        service_s: shared.stats.recent.runs(now),
        nodes: shared.broker.driver.nodes(),
        members: last.decision.as_ref().map_or_else(Vec::new, members),
        replies: shared.stats.replies(),
    }
}

/// The daemons that share the queue, with their shares.
fn members(decision: &Decision) -> Vec<MemberStatus> {
    let Some(group) = &decision.inputs.group else {
        return Vec::new();
    };
    let shares = decision.whole.map(|whole| split(whole, &group.members));
    let with_share = |(at, member): (usize, &Member)| MemberStatus {
        member: member.clone(),
        share: shares.as_ref().map(|shares| shares[at]),
    };
    group.members.iter().enumerate().map(with_share).collect()
}

/// The problem of the group of daemons.
fn group_cause(shared: &PoolShared, last: &LastReconcile) -> Option<String> {
    let decision = last.decision.as_ref();
    let group = decision.and_then(|decision| decision.inputs.group.as_ref());
    let differing = group.and_then(|group| {
        let other = group.differing.first()?;
        Some(format!(
            "{other} has another policy for this queue: no daemon grows until they are the same"
        ))
    });
    let deaf = || {
        // The connection's own fault says more.
        let is_deaf = shared.broker.is_connected() && group.is_some_and(|group| group.deaf);
        is_deaf.then(|| {
            String::from(
                "this daemon's beats do not come back through the broker: it keeps to its share \
                 of the daemons that it knew",
            )
        })
    };
    differing.or_else(|| shared.group.cause()).or_else(deaf)
}

/// A duration in seconds, to the millisecond.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
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

/// The policy that applies, in words.
fn policy(settings: &PoolSettings, orders: &Orders) -> String {
    match (&orders.policy, &settings.own_policy) {
        (Some(set), Some(_)) if set.what.names_a_kind() => set.what.policy.to_string(),
        (_, Some(own)) => own.describe(),
        (Some(set), None) => set.what.policy.to_string(),
        (None, None) => settings.policy.to_string(),
    }
}

/// Why a pool cannot work now, if it cannot. An operator's order is not a reason.
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
