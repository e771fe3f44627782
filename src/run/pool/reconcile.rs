//! Reconciling: the part that does not wait. From the census to the applied plan nothing is awaited, so nothing
//! moves in between.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{Instrument as _, debug, debug_span, info, warn};

use super::{Pool, look::PoolReading};
use crate::{
    decide::{
        Counts, EventKind, Intake, Observation, Plan, Probe, ReconcileResult, Reconciliation, Rule,
        WorkerId,
    },
    run::{
        FlushMode,
        cell::{WorkerCell, WorkerStopReason},
        events::Event,
        fleet::{CRASHED, Idle},
        metrics::ReconcileOutcome,
        pool_state::state_of,
        worker,
    },
};
use tidegate_core::text::chain;

impl Pool {
    pub(super) fn reconcile(
        &mut self,
        reason: &'static str,
        look: Option<PoolReading>,
    ) -> ReconcileResult {
        let shared = self.shared.clone();
        let span = debug_span!("reconcile", pool = %shared.name, reason);
        let _entered = span.enter();
        let started = Instant::now();

        if shared.expire_orders() {
            self.follow_orders();
        }
        let mut result = ReconcileResult::default();
        let crashed = self.cleanup(look.as_ref(), &mut result);

        let now = shared.now();
        let refused = look.as_ref().is_some_and(|look| look.refused);
        let (probe, before) = match look {
            Some(look) => (look.probe, look.begun),
            None => (Probe::Held, now),
        };
        let (census, held) = shared.census(before);
        let intake = shared.intake();
        let observation = Observation {
            at: now,
            wall: Some(shared.book.clock.now()),
            probe,
            consumers: held.consumers,
            held: held.held,
            holders: held.holders,
            last_taken: shared.last_taken(),
            gone: shared.totals.gone(),
            oldest: None,
            intake,
            group: None,
        };
        let Reconciliation { mut decision, plan } =
            self.reconciler.reconcile(&observation, &census);

        self.note_fault(intake);
        self.note_trouble(&observation.probe, decision.inputs.stale.as_deref());
        let counts = census.counts();
        let stale = decision.inputs.stale.as_deref();
        self.look_out(&observation, stale, refused, &counts, decision.expected);
        let plan = self.allowed(plan, intake);
        decision.plan = plan.summary();
        result.workers_diff = plan.workers_diff();
        self.apply(&plan, intake, &mut result);

        self.prestart(&counts, &plan, intake);
        let (idle, busy) = shared.fleet.counts();
        let took = started.elapsed();
        shared.fleet.emit(|pool| Event::Reconciliation {
            pool,
            crashed_runners: crashed,
            idle_runners: idle,
            active_runners: busy,
            expected_workers: decision.expected,
            duration: took,
        });
        let outcome = match decision.rule {
            Rule::Frozen => ReconcileOutcome::Stale,
            Rule::Missing => ReconcileOutcome::Missing,
            _ if plan.is_empty() => ReconcileOutcome::Unchanged,
            _ => ReconcileOutcome::Changed,
        };
        shared
            .metrics
            .depth(decision.inputs.ready, decision.inputs.age);
        shared
            .metrics
            .sizes(decision.inputs.demand, decision.expected, &counts);
        shared.metrics.runners(shared.fleet.kind(), idle, busy);
        shared.metrics.breaker(shared.gate.is_broken());
        shared.metrics.reconciled(outcome, took);
        // Tries that fail one after the other are told as such.
        if !plan.is_empty() && !shared.openings().is_failing() {
            info!(
                pool = %shared.name,
                reason,
                ready = decision.inputs.ready,
                demand = decision.inputs.demand,
                live = counts.live(),
                expected = decision.expected,
                by = decision.won.as_str(),
                plan = %decision.plan,
                "pool changes shape"
            );
        }
        if decision.inputs.stale.is_none() {
            shared.recent.saw(shared.now(), decision.inputs.ready);
        }
        shared.view().decision = Some(decision);
        shared.metrics.state(state_of(&shared));
        result
    }

    /// Collects runners that died idle, and counts what the manager collected. Returns how many runners crashed since
    /// the last reconcile, with a job or without.
    fn cleanup(&mut self, look: Option<&PoolReading>, result: &mut ReconcileResult) -> u32 {
        let shared = self.shared.clone();
        let dead = shared.fleet.remove_dead();
        let orphans = look.map_or(0, |look| look.cleaned.orphans);
        let died_idle = u32::try_from(dead.len()).unwrap_or(u32::MAX);
        for idle in &dead {
            warn!(pool = %shared.name, kind = idle.kind(), "idle runner died");
            shared
                .fleet
                .count_out(idle.kind(), &shared.metrics, CRASHED);
        }
        for _ in 0..orphans {
            shared
                .fleet
                .count_out(shared.fleet.kind(), &shared.metrics, "orphaned");
        }
        count_stops(result, died_idle + orphans);
        // Ended all the same, so that what they leave behind is reaped.
        self.end_runners(dead);

        let retired = shared.fleet.remove_retiring(shared.fleet.wanted_ready());
        let broken = retired.iter().filter(|(_, why)| *why == CRASHED).count();
        for (idle, why) in &retired {
            shared.fleet.count_out(idle.kind(), &shared.metrics, why);
        }
        count_stops(result, u32::try_from(retired.len()).unwrap_or(u32::MAX));
        self.end_runners(retired.into_iter().map(|(idle, _)| idle).collect());
        // Those that were lost with their jobs have had their events.
        died_idle + u32::try_from(broken).unwrap_or(u32::MAX) + shared.fleet.take_crashed()
    }

    /// The plan, less what cannot be done now.
    fn allowed(&self, mut plan: Plan, intake: Intake) -> Plan {
        if !self.shared.is_connected() || intake == Intake::Draining {
            plan.spawn = 0;
        } else {
            plan.spawn = self.openings(plan.spawn);
        }
        plan
    }

    /// Applies a plan. Orders only: nobody is waited for.
    fn apply(&mut self, plan: &Plan, intake: Intake, result: &mut ReconcileResult) {
        let shared = self.shared.clone();
        {
            let workers = shared.workers();
            let each = |ids: &[WorkerId], order: &dyn Fn(&WorkerCell)| {
                for cell in ids.iter().filter_map(|id| workers.get(id)) {
                    order(cell);
                }
            };
            let why = match intake {
                Intake::Draining => WorkerStopReason::Drained,
                Intake::Faulted | Intake::BreakerOpen => WorkerStopReason::Faulted,
                _ => WorkerStopReason::ScaledDown,
            };
            each(&plan.lift, &WorkerCell::lift);
            each(&plan.stop, &|cell| cell.order(why));
            each(&plan.retire, &WorkerCell::retire);
            each(&plan.preempt, &WorkerCell::preempt);
            if matches!(intake, Intake::Faulted | Intake::BreakerOpen) {
                // Busy workers too: a mark would be lifted for the trial, and then an old job stand for it, or keep it
                // waiting for as long as it runs.
                for cell in workers.values() {
                    cell.order(WorkerStopReason::Faulted);
                }
            }
        }
        for _ in 0..plan.spawn {
            self.spawn_worker();
        }
        let deleted = shared.fleet.remove(&plan.delete);
        for idle in &deleted {
            shared
                .fleet
                .count_out(idle.kind(), &shared.metrics, "scaled_down");
        }
        count_stops(result, u32::try_from(deleted.len()).unwrap_or(u32::MAX));
        self.end_runners(deleted);
    }

    /// Brings runners up for workers that wait, up to as many as the manager wants ready. Beyond the workers that
    /// will wait there is no place for them.
    fn prestart(&mut self, counts: &Counts, plan: &Plan, intake: Intake) {
        let ready = self.shared.fleet.wanted_ready();
        if ready == 0 || !(intake == Intake::Open || intake.is_trial()) {
            return;
        }
        let summary = plan.summary();
        let waiting = counts.waiting.saturating_sub(summary.stop) + summary.spawn;
        let idle = counts.idle.saturating_sub(summary.delete);
        let missing = ready
            .min(waiting)
            .saturating_sub(idle + self.shared.fleet.starting());
        for _ in 0..missing {
            let shared = self.shared.clone();
            self.prestarts.spawn(async move {
                match shared.fleet.prestart().await {
                    Some(Ok(())) => shared.gate.started(),
                    Some(Err(error)) => {
                        let cause = chain(&error);
                        shared.gate.start_failed(shared.now(), cause);
                    }
                    // Whoever waited for it has heard, and says so.
                    None => {}
                }
            });
        }
    }

    fn spawn_worker(&mut self) {
        let shared = self.shared.clone();
        let id = WorkerId(self.next_worker);
        self.next_worker += 1;
        let cell = Arc::new(WorkerCell::new(id, shared.stop.child_token()));
        shared.workers().insert(id, cell.clone());
        shared.metrics.worker_started();
        // A root of its own: a worker outlives the reconcile that started it.
        let span = debug_span!(parent: None, "worker", pool = %shared.name, worker.id = %id);
        let handle = self
            .workers
            .spawn(worker::work(shared, cell).instrument(span));
        self.ids.insert(handle.id(), id);
    }

    /// Deletes runners, as far as `mode` says. Those with a job are told to stop, and are not waited for.
    pub(super) fn flush(&mut self, mode: FlushMode) -> ReconcileResult {
        let mut result = ReconcileResult::default();
        count_stops(&mut result, self.flush_idle("flushed"));
        if mode == FlushMode::All {
            for cell in self.shared.workers().values() {
                if cell.seen().held > 0 {
                    cell.preempt();
                }
            }
        }
        result
    }

    /// Deletes every idle runner, and says how many they were.
    pub(super) fn flush_idle(&mut self, reason: &'static str) -> u32 {
        let idle = self.shared.fleet.remove_all();
        for runner in &idle {
            self.shared
                .fleet
                .count_out(runner.kind(), &self.shared.metrics, reason);
        }
        let flushed = u32::try_from(idle.len()).unwrap_or(u32::MAX);
        self.end_runners(idle);
        flushed
    }

    pub(super) fn end_runners(&mut self, runners: Vec<Idle>) {
        if !runners.is_empty() {
            self.chores.spawn(Idle::flush(runners));
        }
    }

    /// Says once that runners cannot start or that jobs fail, and once that it is over.
    fn note_fault(&mut self, intake: Intake) {
        let name = &self.shared.name;
        let fault = match intake {
            Intake::Faulted => Fault::Runners,
            Intake::BreakerOpen => Fault::Breaker,
            Intake::Open => {
                match self.fault.take() {
                    Some(Fault::Runners) => info!(pool = %name, "runners start again"),
                    Some(Fault::Breaker) => {
                        info!(pool = %name, "breaker closed: jobs are run again")
                    }
                    None => {}
                }
                return;
            }
            _ => return,
        };
        if self.fault == Some(fault) {
            return;
        }
        self.fault = Some(fault);
        let error = self.shared.gate.cause();
        match fault {
            Fault::Runners => warn!(
                pool = %name,
                error,
                "runners cannot start: messages stay in the queue, one is tried from time to time"
            ),
            Fault::Breaker => {
                self.shared.metrics.breaker_opened();
                warn!(
                    pool = %name,
                    error,
                    "too many jobs fail: messages stay in the queue, one is tried from time to time"
                );
            }
        }
    }

    /// Says once what is wrong with the probe, and once that it is right again.
    fn note_trouble(&mut self, probe: &Probe, stale: Option<&str>) {
        if *probe == Probe::Held {
            return;
        }
        let trouble = match probe {
            Probe::Missing => Some("the queue does not exist"),
            _ => stale,
        };
        if trouble == self.trouble.as_deref() {
            return;
        }
        match trouble {
            // The supervisor says it once for all pools.
            Some(_) if !self.shared.is_connected() => {}
            Some(why) => warn!(
                pool = %self.shared.name,
                messaging.destination.name = %self.shared.settings().queue,
                error = why,
                "queue depth is not known"
            ),
            None => debug!(pool = %self.shared.name, "queue depth is known again"),
        }
        self.trouble = trouble.map(str::to_owned);
    }
}

/// Why intake is closed, as it was said in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Runners,
    Breaker,
}

fn count_stops(result: &mut ReconcileResult, runners: u32) {
    if runners > 0 {
        *result
            .metric_stats
            .entry(EventKind::RunnerStop)
            .or_default() += u64::from(runners);
    }
}
