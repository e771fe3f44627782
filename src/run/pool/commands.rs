//! Carrying out commands: an order of the operator, a flush, a changed configuration, a drain.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::info;

use super::{
    PoolTask,
    events::PoolAction,
    reconcile::count_stops,
    request::{Answer, ResultRequest},
};
use crate::{
    decide::{Order, OrderRefused, Phase, PolicyKind, ReconcileResult, Reconciler, Rules},
    run::{
        FlushMode, PoolSpec, fleet::IdleRunner, shared::ProgramsHeld, steering::Steering,
        worker_state::WorkerStopReason,
    },
};

impl PoolTask {
    /// Applies an order. An order that closes intake is carried out on the last reading: an emergency stop does not wait
    /// for a broker that may not answer. Any other order is carried out with a fresh reading.
    pub(super) fn steer(&mut self, steering: Steering) -> PoolAction {
        let Steering { order, by, answer } = steering;
        let closes = order.closes_intake();
        let reason = order.act().as_str();
        let settings = self.shared.settings();
        if self.shared.fleet.consumes() && sets_target_wait(&order) {
            let why = "how long messages wait and run is not seen where programs consume the queue themselves: use backlog, \
                       steps or fixed";
            let _ = answer.send(Err(OrderRefused::Policy(why)));
            return PoolAction::Nothing;
        }
        let changed = match self.shared.orders.apply(order, by, &settings) {
            Ok(changed) => changed,
            Err(refused) => {
                // The caller may have stopped waiting.
                let _ = answer.send(Err(refused));
                return PoolAction::Nothing;
            }
        };
        self.follow_orders();
        let request = ResultRequest {
            answer: Answer::Steered(changed, answer),
            reason,
            before: ReconcileResult::default(),
            joins: true,
        };
        match closes {
            true => PoolAction::AnswerNow(request),
            false => PoolAction::Answer(request),
        }
    }

    /// Gives the reconciler the current orders.
    pub(super) fn follow_orders(&mut self) {
        let orders = self.shared.orders.lock().clone();
        self.reconciler.set_orders(orders);
    }

    /// Deletes runners, as far as `mode` says. Busy runners are told to stop, and the pool does not wait for them.
    pub(super) fn flush(&mut self, mode: FlushMode) -> ReconcileResult {
        let mut result = ReconcileResult::default();
        count_stops(&mut result, self.flush_idle("flushed"));
        if self.shared.fleet.consumes() {
            count_stops(&mut result, self.flush_programs(mode));
            return result;
        }
        if mode == FlushMode::All {
            for worker in self.shared.roster.workers().values() {
                if worker.snapshot().held > 0 && worker.preempt() {
                    result.jobs_told += 1;
                }
            }
        }
        result
    }

    /// Tells programs that consume the queue themselves to end: all of them, or those that hold nothing. Others replace
    /// them.
    fn flush_programs(&mut self, mode: FlushMode) -> u32 {
        let mut flushed = 0;
        for worker in self.shared.roster.workers().values() {
            let phase = worker.snapshot().phase;
            if phase == Phase::Waiting || (mode == FlushMode::All && phase == Phase::Busy) {
                worker.order_to_leave(WorkerStopReason::ScaledDown);
                flushed += 1;
            }
        }
        flushed
    }

    /// Deletes every idle runner, and returns how many there were.
    pub(super) fn flush_idle(&mut self, reason: &'static str) -> u32 {
        let idle = self.shared.fleet.remove_all(reason);
        let flushed = u32::try_from(idle.len()).unwrap_or(u32::MAX);
        self.end_runners(idle);
        flushed
    }

    /// Ends runners in the background.
    pub(super) fn end_runners(&mut self, runners: Vec<IdleRunner>) {
        if !runners.is_empty() {
            self.chores.spawn(IdleRunner::delete_all(runners));
        }
    }

    pub(super) fn update(&mut self, spec: PoolSpec) {
        let old = self.shared.settings();
        let rules = Rules::from(&spec.settings);
        self.reconciler.set_rules(rules.clone());
        if old.queue != spec.settings.queue {
            // A reading of the old queue says nothing about the new one, also one that has begun already.
            self.reconciler = Reconciler::new(rules);
            self.seen = None;
            self.reading.restart();
            self.shared.programs.set_held(ProgramsHeld::default());
        }
        self.shared.orders.yield_to(&spec.settings);
        self.follow_orders();
        let mut moved = old.queue != spec.settings.queue
            || old.prefetch != spec.settings.prefetch
            || old.key != spec.settings.key;
        self.shared.gate.set_breaker(spec.settings.retry.breaker);
        self.shared.set_settings(spec.settings);
        self.shared.group.tell();
        if !Arc::ptr_eq(&self.shared.fleet.manager(), &spec.runners) {
            let consumed = self.shared.fleet.consumes();
            let old = self.shared.fleet.set_manager(spec.runners);
            // A program that consumes the queue itself is as old as its worker, so both are replaced.
            moved |= consumed || self.shared.fleet.consumes();
            self.shared.programs.try_now(self.shared.now());
            self.prestarts.abort_all();
            // The change may have repaired what could not start or failed.
            self.shared.gate.try_now(self.shared.now());
            self.end_runners(old);
        }
        if moved {
            // A consumer cannot change its queue, prefetch or keys: its worker finishes, and another replaces it.
            self.shared.order_all_to_leave(WorkerStopReason::Drained);
        }
    }

    pub(super) fn drain(&mut self, grace: Duration) {
        // A handover sets no deadline.
        let grace_ms = u64::try_from(grace.as_millis()).ok();
        info!(pool = %self.shared.name, grace_ms, "pool drains");
        self.shared.gate.set_draining();
        // A grace that is too long for the clock means no deadline.
        let deadline = Instant::now().checked_add(grace);
        if deadline.is_none() {
            self.shared.keyed.hand_over();
        }
        self.shared.order_all_to_leave(WorkerStopReason::Drained);
        self.ending.deadline = match (self.ending.deadline, deadline) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        };
    }
}

fn sets_target_wait(order: &Order) -> bool {
    match order {
        Order::SetPolicy(set) => matches!(set.policy.kind, PolicyKind::TargetWait(_)),
        _ => false,
    }
}
