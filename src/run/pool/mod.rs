//! The pool: the task that reconciles one queue's workers.
//!
//! Every source (the clock, a reading that came back, a worker that ended, a closed gate, a command) becomes one
//! [`PoolEvent`]. [`PoolTask::handle`] is synchronous and returns what to do; only then is something done. A reconcile is
//! `cleanup`, `depth`, `expected`, `plan`, `apply`, in this order. All but the first two happen without an await, so the
//! pool's state does not change in between.

mod commands;
mod events;
mod foresee;
mod programs;
mod reading;
mod reconcile;
mod reports;
mod request;
mod restart;
mod stuck;
mod workers;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

pub(crate) use self::{events::PoolCommand, restart::run_with_restarts};
use self::{
    events::{PoolAction, PoolEvent},
    reading::ReadingState,
    reports::Reported,
    request::{Answer, ResultRequest},
    workers::WorkerTasks,
};
use super::{
    Steered, panics, shared::PoolShared, shared_ticks::last_whole, worker_state::WorkerStopReason,
};
use crate::decide::{Changed, Observation, Probe, ReconcileResult, Reconciler, Rules};

/// After a drain's deadline, the pool has the jobs' own grace and this time: so that the broker gets the settlements of
/// the messages that are given back. Then everything else is stopped at once.
const FINAL_SETTLE_TIME: Duration = Duration::from_secs(2);

/// A pool's task.
pub(crate) struct PoolTask {
    shared: Arc<PoolShared>,
    reconciler: Reconciler,
    /// What the last reconcile saw.
    seen: Option<Observation>,
    commands: mpsc::Receiver<PoolCommand>,
    /// A command that came while the pool waited to be started again.
    early: Option<PoolCommand>,
    workers: WorkerTasks,
    /// Deletions of runners. Only the pool's end waits for them.
    chores: JoinSet<()>,
    /// Runners that are started before a job needs them.
    prestarts: JoinSet<()>,
    reading: ReadingState,
    reported: Reported,
    ending: PoolShutdown,
    /// Counts the messages in the pool's own queues.
    counting: Option<AbortOnDropHandle<()>>,
    /// Keeps the pool in the group of daemons that share its queue.
    group: AbortOnDropHandle<()>,
    /// Reports changes of the pool's part of the supervisor's workers.
    budget: watch::Receiver<u64>,
}

/// The progress of the pool's shutdown.
#[derive(Default)]
struct PoolShutdown {
    /// When a drain stops the jobs that still run.
    deadline: Option<Instant>,
    /// When, after that, everything is stopped at once.
    overdue: Option<Instant>,
    killed: bool,
    /// Whether the pool ended in an orderly way.
    is_over: bool,
}

impl PoolShutdown {
    /// What comes next, and when.
    fn next(&self) -> Option<(Instant, PoolEvent)> {
        match (self.deadline, self.overdue) {
            (Some(at), _) => Some((at, PoolEvent::DeadlinePassed)),
            (None, Some(at)) => Some((at, PoolEvent::Overdue)),
            (None, None) => None,
        }
    }
}

impl PoolTask {
    /// A pool that is ready to run. Needs a runtime.
    pub(crate) fn new(shared: Arc<PoolShared>, commands: mpsc::Receiver<PoolCommand>) -> Self {
        let counting = tokio::spawn(super::delayed::watch(shared.clone()));
        let group = tokio::spawn(super::group::attend(shared.clone()));
        Self {
            group: AbortOnDropHandle::new(group),
            budget: shared.budget.subscribe(),
            reconciler: reconciler(&shared),
            seen: None,
            commands,
            early: None,
            workers: WorkerTasks::default(),
            chores: JoinSet::new(),
            prestarts: JoinSet::new(),
            reading: ReadingState::default(),
            reported: Reported::default(),
            ending: PoolShutdown::default(),
            counting: Some(AbortOnDropHandle::new(counting)),
            shared,
        }
    }

    /// Runs until the pool was told to drain and all workers have left, or until it is killed.
    async fn run(&mut self) {
        let mut interval = self.shared.settings().poll_interval;
        let mut ticks = ticks(last_whole(interval, self.shared.now()), interval);
        loop {
            let current = self.shared.settings().poll_interval;
            if current != interval {
                interval = current;
                ticks = self::ticks(Instant::now() + interval, interval);
            }
            let event = match self.early.take() {
                Some(command) => PoolEvent::Command(command),
                None => self.event(&mut ticks).await,
            };
            match self.handle(event) {
                PoolAction::Nothing => {}
                PoolAction::Read => self.start_reading(),
                PoolAction::Reconcile(reason) => {
                    let _ = self.reconcile_now(reason);
                }
                PoolAction::AnswerNow(request) => {
                    let result = self.reconcile_now(request.reason);
                    self.answer(request, &result);
                }
                PoolAction::Answer(request) => {
                    if self.reading.add(request) {
                        self.start_reading();
                    }
                }
                PoolAction::End => break,
            }
        }
        self.end().await;
    }

    /// Reconciles on the last reading. A new reading may be running meanwhile.
    fn reconcile_now(&mut self, reason: &'static str) -> ReconcileResult {
        let result = self.reconcile(reason, None);
        self.reading.add_result(&result);
        result
    }

    /// Answers with the result of a reconcile. The caller may have stopped waiting.
    fn answer(&self, request: ResultRequest, result: &ReconcileResult) {
        let result = request.before.and(result);
        match request.answer {
            Answer::Plain(answer) => {
                let _ = answer.send(result);
            }
            Answer::Steered(changed, answer) => {
                let _ = answer.send(Ok(Steered {
                    changed: changed == Changed::Yes,
                    orders: self.shared.orders.lock().clone(),
                    expected: self.reconciler.expected(),
                    result,
                    not_stored: None,
                }));
            }
        }
    }

    /// The next event.
    async fn event(&mut self, ticks: &mut time::Interval) -> PoolEvent {
        let Self {
            shared,
            workers,
            commands,
            chores,
            prestarts,
            reading,
            ending,
            budget,
            ..
        } = self;
        let pause = shared.gate.next_look(shared.now());
        let pause = pause.into_iter().chain(shared.orders.next_check()).min();
        let pause = async {
            match pause {
                Some(pause) => time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        let due = ending.next();
        let due = async {
            match due {
                Some((at, event)) => {
                    time::sleep_until(at).await;
                    event
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shared.kill.cancelled(), if !ending.killed => PoolEvent::Killed,
            Some(ended) = workers.join_next() => PoolEvent::WorkerEnded(ended),
            command = commands.recv(), if !ending.killed => match command {
                Some(command) => PoolEvent::Command(command),
                // Every handle was dropped, so the jobs are no longer needed.
                None => PoolEvent::Killed,
            },
            () = shared.gate.changed() => PoolEvent::GateChanged,
            () = shared.group.changed() => PoolEvent::GroupChanged,
            // The sender is in `shared`, so this cannot fail.
            Ok(()) = budget.changed() => PoolEvent::BudgetChanged,
            reading = reading.next() => PoolEvent::ReadingDone(Box::new(reading)),
            Some(_) = chores.join_next() => PoolEvent::ChoreEnded,
            Some(_) = prestarts.join_next() => PoolEvent::ChoreEnded,
            event = due => event,
            () = pause => PoolEvent::GateChanged,
            _ = ticks.tick() => PoolEvent::Tick,
        }
    }

    /// Processes an event and returns what to do. Never waits.
    fn handle(&mut self, event: PoolEvent) -> PoolAction {
        match event {
            PoolEvent::Tick if self.reading.is_paused() => PoolAction::Nothing,
            PoolEvent::Tick => PoolAction::Read,
            PoolEvent::ReadingDone(reading) => {
                let is_absent = reading.refused || reading.probe == Probe::Missing;
                let interval = self.shared.settings().poll_interval;
                self.reading.done(is_absent, interval);
                let result = self.reconcile(self.reading.reason(), Some(*reading));
                // One complete reconcile succeeded, so the cause of the task's failure has passed.
                self.shared.gate.pool_works();
                for request in self.reading.take_waiting() {
                    self.answer(request, &result);
                }
                let otherwise = match self.reading.is_wanted() {
                    true => PoolAction::Read,
                    false => PoolAction::Nothing,
                };
                self.end_or(otherwise)
            }
            PoolEvent::WorkerEnded(ended) => {
                self.workers.ended(&self.shared, ended);
                self.end_or(PoolAction::Nothing)
            }
            PoolEvent::ChoreEnded => PoolAction::Nothing,
            PoolEvent::GateChanged => PoolAction::Reconcile("gate"),
            PoolEvent::GroupChanged => PoolAction::Reconcile("group"),
            PoolEvent::BudgetChanged => PoolAction::Reconcile("budget"),
            PoolEvent::Command(command) => self.command(command),
            PoolEvent::DeadlinePassed => {
                warn!(pool = %self.shared.name, "drain deadline passed: running jobs are stopped and given back");
                self.ending.deadline = None;
                let grace = self.shared.fleet.longest_stop_grace();
                let grace = grace.saturating_add(FINAL_SETTLE_TIME);
                self.ending.overdue = Instant::now().checked_add(grace);
                self.shared.stop.cancel();
                PoolAction::Nothing
            }
            PoolEvent::Overdue => {
                warn!(pool = %self.shared.name, "drain is overdue: the rest is stopped at once");
                self.ending.overdue = None;
                self.shared.kill.cancel();
                PoolAction::Nothing
            }
            PoolEvent::Killed => {
                // The runners were already told. The pool now waits until their jobs are given back.
                self.ending = PoolShutdown {
                    killed: true,
                    ..PoolShutdown::default()
                };
                self.shared.kill.cancel();
                self.shared.gate.set_draining();
                self.shared.order_all_to_leave(WorkerStopReason::Drained);
                self.end_or(PoolAction::Nothing)
            }
        }
    }

    fn command(&mut self, command: PoolCommand) -> PoolAction {
        match command {
            PoolCommand::Reconcile(answer) => PoolAction::Answer(ResultRequest {
                answer: Answer::Plain(answer),
                reason: "asked",
                before: ReconcileResult::default(),
                joins: false,
            }),
            PoolCommand::Steer(steering) => self.steer(*steering),
            PoolCommand::Flush(mode, answer) => PoolAction::Answer(ResultRequest {
                answer: Answer::Plain(answer),
                reason: "flush",
                before: self.flush(mode),
                joins: true,
            }),
            PoolCommand::Foresee(set, answer) => {
                // A question must not take the pool down, so its panic is only the caller's. Copies alone were changed.
                if let Ok(foresight) = panics::catch(|| self.foresee(set.map(|set| *set))) {
                    // The caller may have stopped waiting.
                    let _ = answer.send(foresight);
                }
                PoolAction::Nothing
            }
            PoolCommand::Update(spec, taken) => {
                self.update(*spec);
                // The caller may have stopped waiting.
                let _ = taken.send(());
                PoolAction::Read
            }
            PoolCommand::Drain(grace) => {
                self.drain(grace);
                self.end_or(PoolAction::Reconcile("drain"))
            }
            #[cfg(test)]
            PoolCommand::Panic(why) => panic!("{why}"),
        }
    }

    /// The end if the pool is done, otherwise the other action.
    fn end_or(&self, otherwise: PoolAction) -> PoolAction {
        match self.shared.gate.is_draining() && self.workers.is_empty() {
            true => PoolAction::End,
            false => otherwise,
        }
    }

    fn start_reading(&mut self) {
        let is_over = |task: &AbortOnDropHandle<()>| task.is_finished();
        if self.counting.as_ref().is_some_and(is_over) {
            // This task ends by itself only if it panics.
            let counting = tokio::spawn(super::delayed::watch(self.shared.clone()));
            self.counting = Some(AbortOnDropHandle::new(counting));
        }
        self.reading.start(&self.shared);
    }

    async fn end(&mut self) {
        while let Some(ended) = self.workers.join_next().await {
            self.workers.ended(&self.shared, ended);
        }
        self.prestarts.shutdown().await;
        let _ = self.flush_idle("drained");
        while self.chores.join_next().await.is_some() {}
        self.shared.fleet.ended().await;
        self.counting = None;
        self.shared.group.end();
        // It ends within a second, and fails only if it panics.
        let _ = (&mut self.group).await;
        self.shared.budget.remove(&self.shared.name);
        self.shared.stats.metrics.forget();
        self.shared.fleet.forget_gauges();
        // The pool ended in order, so earlier failures of its task do not count.
        self.shared.gate.pool_works();
        self.ending.is_over = true;
        info!(pool = %self.shared.name, "pool ended");
    }
}

/// A reconciler without any reading yet, with the pool's settings and orders.
fn reconciler(shared: &PoolShared) -> Reconciler {
    let mut reconciler = Reconciler::new(Rules::from(&*shared.settings()));
    reconciler.set_orders(shared.orders.lock().clone());
    reconciler
}

/// The clock that readings follow. A late tick moves no later one.
fn ticks(first: Instant, interval: Duration) -> time::Interval {
    let mut ticks = time::interval_at(first, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}
