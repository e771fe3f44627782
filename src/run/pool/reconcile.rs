//! Reconciling: the part that does not wait. Nothing is awaited from the census to the applied plan, so the pool's state
//! does not change in between.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug_span, info, warn};

use super::{
    PoolTask, programs,
    reading::PoolReading,
    stuck::{allowed_openings, depth_of},
};
use crate::{
    decide::{
        Census, Counts, Decision, EventKind, Intake, Moment, Observation, Plan, PlanSummary,
        PoolNeed, Probe, ReconcileResult, Reconciliation, Rule, StuckInputs, WorkerId,
    },
    run::{
        events::Event,
        group::numbers_with,
        metrics::ReconcileOutcome,
        policy_hash::policy_hash,
        pool_state::state_of,
        shared::{HeldCounts, LastReconcile},
        worker_state::{WorkerState, WorkerStopReason},
    },
};
use tidegate_core::text::chain;

impl PoolTask {
    /// Reconciles on a reading, or without one on the last depth.
    pub(super) fn reconcile(
        &mut self,
        reason: &'static str,
        reading: Option<PoolReading>,
    ) -> ReconcileResult {
        let shared = self.shared.clone();
        let span = debug_span!("reconcile", pool = %shared.name, reason);
        let _entered = span.enter();
        let started = Instant::now();

        if shared.orders.expire() {
            self.follow_orders();
        }
        let mut result = ReconcileResult::default();
        let crashed = self.cleanup(reading.as_ref(), &mut result);

        let refused = reading.as_ref().is_some_and(|reading| reading.refused);
        let (probe, before, viewed) = match reading {
            Some(reading) => (reading.probe, reading.begun, reading.viewed),
            None => (Probe::Skipped, shared.now(), None),
        };
        if shared.fleet.consumes() {
            programs::take_in(&shared, &probe, viewed);
        }
        let (observation, census, held) = self.observe(probe, before);
        let (counts, intake, now) = (census.counts(), observation.intake, observation.at);
        let Reconciliation {
            mut decision,
            wanted,
            plan,
        } = self.reconciler.reconcile(&observation, &census);

        self.report_need(&decision, wanted, &counts);
        let stale = decision.inputs.stale.as_deref();
        let refusal = shared.broker.openings().refusal().cloned();
        self.reported.fault(&shared, intake);
        let group = decision.inputs.group.as_ref();
        self.reported.members(&shared, now, group);
        self.reported.differing(&shared, group);
        self.reported.depth(&shared, &observation.probe, stale);
        let stuck = self.reported.stuck.check(
            &shared,
            &StuckInputs {
                at: now,
                open: intake == Intake::Open && shared.broker.is_connected(),
                expected: decision.expected,
                depth: depth_of(&observation.probe, stale, refused),
                refusal: refusal.as_ref(),
                consumers: observation.consumers,
                programs: held.steady,
                busy: counts.busy + counts.retiring + counts.draining,
                last_taken: observation.last_taken,
            },
        );
        let plan = self.allowed(plan, intake);
        decision.plan = plan.summary();
        result.workers_diff = plan.workers_diff();
        self.apply(&plan, intake, &mut result);
        self.prestart(&counts, &plan, intake);
        self.report_reconcile(reason, &decision, &counts, crashed, started.elapsed());
        let last = LastReconcile {
            decision: Some(decision),
            stuck,
        };
        shared.stats.metrics.state(state_of(&shared, &last));
        *shared.last() = last;
        self.seen = Some(observation);
        result
    }

    /// What there is now, with the result of a probe. Consumers that the broker confirmed after `before` do not count.
    pub(super) fn observe(
        &self,
        probe: Probe,
        before: Moment,
    ) -> (Observation, Census, HeldCounts) {
        let shared = &self.shared;
        let now = shared.now();
        let (census, held) = shared.census(before);
        let counts = census.counts();
        let observation = Observation {
            at: now,
            wall: Some(shared.orders.clock.now()),
            probe,
            consumers: held.consumers,
            held: held.held,
            holders: held.holders,
            held_by: shared.programs.held().by,
            ahead: shared.keyed.ahead(&shared.settings()),
            last_taken: shared.stats.last_taken(),
            gone: shared.stats.gone() + shared.programs.held().gone,
            oldest: shared.stats.recent.oldest(now),
            timings: shared.stats.recent.timings(now, held.held),
            intake: shared.intake(),
            group: shared.group.group(
                now,
                || policy_hash(&shared.settings(), &shared.orders.lock()),
                || numbers_with(shared, &counts, &held),
            ),
            allowance: shared.budget.allowance(&shared.name),
            pressure: shared.pressure.borrow().clone(),
        };
        (observation, census, held)
    }

    /// Tells the supervisor's budget what this pool needs, and the group's task that the numbers may have changed.
    fn report_need(&self, decision: &Decision, wanted: u32, counts: &Counts) {
        let shared = &self.shared;
        if decision.inputs.group.is_some() {
            shared.group.tell();
        }
        let floor = self.reconciler.policy().min_active;
        let need = self.need(decision, wanted, floor, counts);
        shared.budget.report(&shared.name, need);
    }

    /// What the pool needs of the supervisor's workers, after a decision with this floor.
    pub(super) fn need(
        &self,
        decision: &Decision,
        wanted: u32,
        floor: u32,
        counts: &Counts,
    ) -> PoolNeed {
        let has_work = decision.inputs.demand > 0;
        PoolNeed {
            weight: self.shared.settings().weight,
            wanted,
            floor: if has_work { floor } else { 0 },
            taken: counts.towards_max().max(decision.expected),
        }
    }

    /// Reports an applied plan: the event, the metrics, and the log if the pool changes.
    fn report_reconcile(
        &self,
        reason: &'static str,
        decision: &Decision,
        counts: &Counts,
        crashed: u32,
        took: Duration,
    ) {
        let shared = &self.shared;
        let inputs = &decision.inputs;
        let (idle, busy) = shared.fleet.update_gauges();
        shared.fleet.emit(|pool| Event::Reconciliation {
            pool,
            crashed_runners: crashed,
            idle_runners: idle,
            active_runners: busy,
            expected_workers: decision.expected,
            duration: took,
        });
        let is_unchanged = decision.plan == PlanSummary::default();
        let outcome = match decision.rule {
            Rule::Frozen => ReconcileOutcome::Stale,
            Rule::Missing => ReconcileOutcome::Missing,
            _ if is_unchanged => ReconcileOutcome::Unchanged,
            _ => ReconcileOutcome::Changed,
        };
        let metrics = &shared.stats.metrics;
        metrics.depth(inputs.ready, inputs.age);
        metrics.ahead(inputs.ahead);
        metrics.sizes(inputs.demand, decision.expected, counts);
        metrics.breaker(shared.gate.is_broken());
        metrics.reconciled(outcome, took);
        // Consumers that cannot be opened have a log line of their own, and not one for each try.
        if !is_unchanged && !shared.broker.openings().is_failing() {
            info!(
                pool = %shared.name,
                reason,
                ready = inputs.ready,
                demand = inputs.demand,
                live = counts.live(),
                expected = decision.expected,
                by = decision.won.as_str(),
                plan = %decision.plan,
                "pool changes shape"
            );
        }
        if inputs.stale.is_none() {
            shared.stats.recent.ready_read(shared.now(), inputs.ready);
        }
    }

    /// Removes runners that died idle, and counts what the manager removed. Returns how many runners crashed since the
    /// last reconcile, with a job or without.
    fn cleanup(&mut self, reading: Option<&PoolReading>, result: &mut ReconcileResult) -> u32 {
        let shared = self.shared.clone();
        let dead = shared.fleet.remove_dead();
        for runner in &dead {
            warn!(pool = %shared.name, kind = runner.kind(), "idle runner died");
        }
        let died_idle = u32::try_from(dead.len()).unwrap_or(u32::MAX);
        let orphans = reading.map_or(0, |reading| reading.cleaned.orphans);
        shared.fleet.count_orphans(orphans);
        count_stops(result, died_idle + orphans);
        // They are ended too, so that what they leave behind is removed.
        self.end_runners(dead);

        let (retired, broken) = shared.fleet.remove_retiring(shared.fleet.wanted_ready());
        count_stops(result, u32::try_from(retired.len()).unwrap_or(u32::MAX));
        self.end_runners(retired);
        // Runners that were lost with their jobs have had their events already.
        died_idle + broken + shared.fleet.take_crashed()
    }

    /// The plan, without what cannot be done now.
    fn allowed(&self, mut plan: Plan, intake: Intake) -> Plan {
        if !self.shared.broker.is_connected() || intake == Intake::Draining {
            plan.spawn = 0;
        } else if self.shared.fleet.consumes() {
            plan.spawn = programs::allowed_starts(&self.shared, plan.spawn, intake);
        } else {
            plan.spawn = allowed_openings(&self.shared, plan.spawn);
        }
        plan
    }

    /// Applies a plan. Workers get orders, and the pool does not wait for them.
    fn apply(&mut self, plan: &Plan, intake: Intake, result: &mut ReconcileResult) {
        let shared = self.shared.clone();
        {
            let workers = shared.roster.workers();
            let each = |ids: &[WorkerId], order: &dyn Fn(&WorkerState)| {
                for worker in ids.iter().filter_map(|id| workers.get(id)) {
                    order(worker);
                }
            };
            let why = match intake {
                Intake::Draining => WorkerStopReason::Drained,
                Intake::Faulted | Intake::BreakerOpen => WorkerStopReason::Faulted,
                _ => WorkerStopReason::ScaledDown,
            };
            each(&plan.lift, &WorkerState::unmark_retiring);
            each(&plan.stop, &|worker| worker.order_to_leave(why));
            match shared.fleet.consumes() {
                // It holds something for as long as there is work. Its stop signal makes it finish that, and end.
                true => each(&plan.retire, &|worker| {
                    worker.order_to_leave(match intake {
                        Intake::Open => WorkerStopReason::Retired,
                        _ => why,
                    });
                }),
                false => each(&plan.retire, &WorkerState::mark_retiring),
            }
            each(&plan.preempt, &|worker| {
                // It may have been told before.
                let _ = worker.preempt();
            });
            if matches!(intake, Intake::Faulted | Intake::BreakerOpen) {
                // Busy workers get the order too, not only a mark. The trial would remove the mark, and then an old job
                // could count as the trial, or delay it for as long as the job runs.
                for worker in workers.values() {
                    worker.order_to_leave(WorkerStopReason::Faulted);
                }
            }
        }
        // At a fault, what is taken goes back when the last worker leaves: one of them may have its message back only then.
        let gives_back = matches!(
            intake,
            Intake::Paused | Intake::Emptying | Intake::Draining | Intake::Blocked
        );
        if gives_back {
            shared.keyed.stop_taking();
        }
        for _ in 0..plan.spawn {
            self.workers.spawn(&self.shared);
        }
        let deleted = shared.fleet.remove(&plan.delete, "scaled_down");
        count_stops(result, u32::try_from(deleted.len()).unwrap_or(u32::MAX));
        self.end_runners(deleted);
    }

    /// Starts runners for workers that wait, at most as many as the manager keeps ready. There are never more runners
    /// than workers that will wait.
    fn prestart(&mut self, counts: &Counts, plan: &Plan, intake: Intake) {
        let ready = self.shared.fleet.wanted_ready();
        if ready == 0 || !(intake == Intake::Open || intake.is_trial()) {
            return;
        }
        let starting = self.shared.fleet.starting();
        let missing = plan.summary().runners_to_start(counts, ready, starting);
        for _ in 0..missing {
            let shared = self.shared.clone();
            self.prestarts.spawn(async move {
                match shared.fleet.prestart().await {
                    Some(Ok(())) => shared.gate.started(),
                    Some(Err(error)) => {
                        let cause = chain(&error);
                        shared.gate.start_failed(shared.now(), cause);
                    }
                    // The worker that waited for it has the error, and reports it.
                    None => {}
                }
            });
        }
    }
}

pub(super) fn count_stops(result: &mut ReconcileResult, runners: u32) {
    if runners > 0 {
        *result
            .metric_stats
            .entry(EventKind::RunnerStop)
            .or_default() += u64::from(runners);
    }
}
