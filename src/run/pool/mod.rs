//! The pool: the task that reconciles one queue's workers.
//!
//! Every source (the clock, a probe that came back, a worker that ended, a closed gate, a command) becomes one
//! [`PoolEvent`]. [`Pool::handle`] is synchronous and says what comes next; only then is something done. A reconcile
//! is `cleanup`, `depth`, `expected`, `plan`, `apply`, in this order; all but the first two happen without an
//! await, so nothing moves in between.

mod keep;
mod look;
mod reconcile;
mod stuck;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{
    sync::{mpsc, oneshot},
    task::{self, JoinError, JoinSet},
    time::{self, Instant, MissedTickBehavior},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, debug, debug_span, error, info, warn};

pub(crate) use self::keep::keep;
use self::look::{PoolReading, look};
use super::{
    FlushMode, PoolSpec, Steered, cell::WorkerStopReason, contain::Panicked, metrics::Settlement,
    shared::PoolShared, steering::Steering,
};
use crate::decide::{Changed, OrderRefused, Probe, ReconcileResult, Reconciler, Rules, WorkerId};

/// Longest time until a queue that is missing is looked for again: each look costs the probe's channel, and a line in
/// the broker's log.
const ABSENT: Duration = Duration::from_secs(5);

/// Time beyond the jobs' own grace that a pool has for its end after a drain's deadline: for the broker to hear of what
/// was given back. Then it is stopped at once.
const FINAL_SETTLE_TIME: Duration = Duration::from_secs(2);

/// What a pool is asked to do. Sent by the supervisor's handle.
#[derive(Debug)]
pub(crate) enum Command {
    /// Reconcile now, and say what it came to.
    Reconcile(oneshot::Sender<ReconcileResult>),
    /// Take an order of the operator in, reconcile, and say what both came to.
    Steer(Box<Steering>),
    /// Delete runners now, and reconcile.
    Flush(FlushMode, oneshot::Sender<ReconcileResult>),
    /// Take over a changed configuration, and say when it holds.
    Update(Box<PoolSpec>, oneshot::Sender<()>),
    /// Take nothing more, finish what is held, and end; stop what still runs after this long.
    Drain(Duration),
    /// Fail as a bug of ours would make it.
    #[cfg(test)]
    Panic(&'static str),
}

/// What happened.
enum PoolEvent {
    /// Time to look at the queue.
    Tick,
    /// A reconcile's look at the outside world came back.
    Looked(Box<PoolReading>),
    /// A worker's task ended.
    WorkerEnded(Result<(task::Id, WorkerStopReason), JoinError>),
    /// A chore's task ended: nothing depends on it.
    ChoreEnded,
    /// The gate was closed or opened.
    GateChanged,
    /// The supervisor wants something.
    Command(Command),
    /// The drain's deadline has passed.
    DeadlinePassed,
    /// So has the time for the jobs' ends and their settlements.
    Overdue,
    /// The supervisor stops everything now.
    Killed,
}

/// What is to be done about it.
#[must_use = "a decision that is not carried out leaves the pool behind"]
enum PoolAction {
    Nothing,
    /// Look at the outside world, and reconcile with what comes back.
    PoolReading,
    /// Reconcile on the last reading.
    Reconcile(&'static str),
    /// Look, and reconcile with what comes back, for someone who wants to know what it came to.
    Answer(ResultRequest),
    /// The same without a look: on the last reading.
    AnswerNow(ResultRequest),
    /// The pool is done.
    End,
}

/// Someone who waits for the outcome of a reconcile.
struct ResultRequest {
    answer: Answer,
    reason: &'static str,
    /// What was done since they asked and before that reconcile.
    before: ReconcileResult,
    /// Whether a look that is under way already will do: what they want is done by whatever reconcile comes next.
    joins: bool,
}

/// How they hear of it.
enum Answer {
    Plain(oneshot::Sender<ReconcileResult>),
    Steered(Changed, oneshot::Sender<Result<Steered, OrderRefused>>),
}

/// A pool's task.
pub(crate) struct Pool {
    shared: Arc<PoolShared>,
    reconciler: Reconciler,
    commands: mpsc::Receiver<Command>,
    workers: JoinSet<WorkerStopReason>,
    ids: HashMap<task::Id, WorkerId>,
    next_worker: u64,
    /// Deletions of runners and the like, which nobody waits for but the pool's end.
    chores: JoinSet<()>,
    /// Runners that are brought up before a job asks for them.
    prestarts: JoinSet<()>,
    /// The look under way: at most one.
    look: Option<BoxFuture<'static, PoolReading>>,
    /// Who waits for the look under way.
    answers: Vec<ResultRequest>,
    /// Who asked since it began, and so wants another one.
    late: Vec<ResultRequest>,
    /// When a drain stops what still runs.
    deadline: Option<Instant>,
    /// When, after that, everything is stopped at once.
    overdue: Option<Instant>,
    killed: bool,
    /// What was said to be wrong with intake.
    fault: Option<reconcile::Fault>,
    troubles: stuck::StuckReport,
    /// The last thing that was logged of the probe, so that it is said once.
    trouble: Option<String>,
    /// While the queue is missing: the pause before the next look at the clock's bidding, and when it is over.
    absent: Option<(Duration, Instant)>,
    delayed: Option<AbortOnDropHandle<()>>,
    /// A command that came while the pool was waiting to be started again.
    early: Option<Command>,
    /// Whether it came to its end in order.
    ended: bool,
}

impl Pool {
    /// A pool that is ready to run. Needs a runtime.
    pub(crate) fn new(shared: Arc<PoolShared>, commands: mpsc::Receiver<Command>) -> Self {
        let delayed = tokio::spawn(super::delayed::watch(shared.clone()));
        Self {
            reconciler: reconciler(&shared),
            commands,
            workers: JoinSet::new(),
            ids: HashMap::new(),
            next_worker: 0,
            chores: JoinSet::new(),
            prestarts: JoinSet::new(),
            look: None,
            answers: Vec::new(),
            late: Vec::new(),
            deadline: None,
            overdue: None,
            killed: false,
            fault: None,
            troubles: stuck::StuckReport::default(),
            trouble: None,
            absent: None,
            delayed: Some(AbortOnDropHandle::new(delayed)),
            early: None,
            ended: false,
            shared,
        }
    }

    /// Runs until the pool was told to drain and everyone has gone, or until it is killed.
    async fn run(&mut self) {
        let mut interval = self.shared.settings().poll_interval;
        let mut ticks = ticks(interval);
        loop {
            let current = self.shared.settings().poll_interval;
            if current != interval {
                interval = current;
                ticks = ticks_in(interval);
            }
            let event = match self.early.take() {
                Some(command) => PoolEvent::Command(command),
                None => self.event(&mut ticks).await,
            };
            match self.handle(event) {
                PoolAction::Nothing => {}
                PoolAction::PoolReading => self.start_look(),
                PoolAction::Reconcile(reason) => {
                    let _ = self.reconcile_now(reason);
                }
                PoolAction::AnswerNow(asked) => {
                    let result = self.reconcile_now(asked.reason);
                    self.answer(asked, &result);
                }
                PoolAction::Answer(asked) if self.look.is_some() && !asked.joins => {
                    self.late.push(asked)
                }
                PoolAction::Answer(asked) => {
                    self.answers.push(asked);
                    self.start_look();
                }
                PoolAction::End => break,
            }
        }
        self.end().await;
    }

    /// Reconciles on the last reading, beside a look that may be under way.
    fn reconcile_now(&mut self, reason: &'static str) -> ReconcileResult {
        let result = self.reconcile(reason, None);
        for asked in self.answers.iter_mut().filter(|asked| asked.joins) {
            asked.before = std::mem::take(&mut asked.before).and(&result);
        }
        result
    }

    /// Says what a reconcile came to. Whoever asked may have stopped waiting.
    fn answer(&self, asked: ResultRequest, result: &ReconcileResult) {
        let result = asked.before.and(result);
        match asked.answer {
            Answer::Plain(answer) => {
                let _ = answer.send(result);
            }
            Answer::Steered(changed, answer) => {
                let _ = answer.send(Ok(Steered {
                    changed: changed == Changed::Yes,
                    orders: self.shared.orders().clone(),
                    expected: self.reconciler.expected(),
                    result,
                    not_stored: None,
                }));
            }
        }
    }

    /// The next event.
    async fn event(&mut self, ticks: &mut time::Interval) -> PoolEvent {
        let due = self.due();
        let Self {
            shared,
            workers,
            commands,
            chores,
            prestarts,
            look,
            killed,
            ..
        } = self;
        let pause = shared.gate.look_again(shared.now());
        let pause = pause.into_iter().chain(shared.orders_due()).min();
        let pause = async {
            match pause {
                Some(pause) => time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        let due = async {
            match due {
                Some((at, event)) => {
                    time::sleep_until(at).await;
                    event
                }
                None => std::future::pending().await,
            }
        };
        let look = async {
            match look {
                Some(look) => look.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shared.kill.cancelled(), if !*killed => PoolEvent::Killed,
            Some(ended) = workers.join_next_with_id() => PoolEvent::WorkerEnded(ended),
            command = commands.recv(), if !*killed => match command {
                Some(command) => PoolEvent::Command(command),
                // Every handle is gone, and with them anyone who could want the jobs done.
                None => PoolEvent::Killed,
            },
            () = shared.gate.changed() => PoolEvent::GateChanged,
            look = look => PoolEvent::Looked(Box::new(look)),
            Some(_) = chores.join_next() => PoolEvent::ChoreEnded,
            Some(_) = prestarts.join_next() => PoolEvent::ChoreEnded,
            event = due => event,
            () = pause => PoolEvent::GateChanged,
            _ = ticks.tick() => PoolEvent::Tick,
        }
    }

    /// What comes next on the way to the pool's end, and when.
    fn due(&self) -> Option<(Instant, PoolEvent)> {
        match (self.deadline, self.overdue) {
            (Some(at), _) => Some((at, PoolEvent::DeadlinePassed)),
            (None, Some(at)) => Some((at, PoolEvent::Overdue)),
            (None, None) => None,
        }
    }

    /// Takes an event in and says what comes next. Never waits.
    fn handle(&mut self, event: PoolEvent) -> PoolAction {
        match event {
            PoolEvent::Tick if self.absent.is_some_and(|(_, until)| Instant::now() < until) => {
                PoolAction::Nothing
            }
            PoolEvent::Tick => PoolAction::PoolReading,
            PoolEvent::Looked(look) => {
                self.look = None;
                self.note_absence(look.refused || look.probe == Probe::Missing);
                let reason = self.answers.first().map_or("poll", |asked| asked.reason);
                let result = self.reconcile(reason, Some(*look));
                // Once round without a fault: what made it fail is over.
                self.shared.gate.pool_works();
                for asked in std::mem::take(&mut self.answers) {
                    self.answer(asked, &result);
                }
                self.answers = std::mem::take(&mut self.late);
                if self.is_done() {
                    PoolAction::End
                } else if !self.answers.is_empty() {
                    PoolAction::PoolReading
                } else {
                    PoolAction::Nothing
                }
            }
            PoolEvent::WorkerEnded(ended) => {
                self.worker_ended(ended);
                if self.is_done() {
                    PoolAction::End
                } else {
                    PoolAction::Nothing
                }
            }
            PoolEvent::ChoreEnded => PoolAction::Nothing,
            PoolEvent::GateChanged => PoolAction::Reconcile("gate"),
            PoolEvent::Command(Command::Reconcile(answer)) => PoolAction::Answer(ResultRequest {
                answer: Answer::Plain(answer),
                reason: "asked",
                before: ReconcileResult::default(),
                joins: false,
            }),
            PoolEvent::Command(Command::Steer(steering)) => self.steer(*steering),
            PoolEvent::Command(Command::Flush(mode, answer)) => PoolAction::Answer(ResultRequest {
                answer: Answer::Plain(answer),
                reason: "flush",
                before: self.flush(mode),
                joins: true,
            }),
            PoolEvent::Command(Command::Update(spec, taken)) => {
                self.update(*spec);
                // The caller may have stopped waiting.
                let _ = taken.send(());
                PoolAction::PoolReading
            }
            PoolEvent::Command(Command::Drain(grace)) => {
                self.drain(grace);
                if self.is_done() {
                    PoolAction::End
                } else {
                    PoolAction::Reconcile("drain")
                }
            }
            #[cfg(test)]
            PoolEvent::Command(Command::Panic(why)) => panic!("{why}"),
            PoolEvent::DeadlinePassed => {
                warn!(pool = %self.shared.name, "drain deadline passed: running jobs are stopped and given back");
                self.deadline = None;
                let grace = self.shared.fleet.longest_stop_grace();
                self.overdue = Instant::now().checked_add(grace.saturating_add(FINAL_SETTLE_TIME));
                self.shared.stop.cancel();
                PoolAction::Nothing
            }
            PoolEvent::Overdue => {
                warn!(pool = %self.shared.name, "drain is overdue: the rest is stopped at once");
                self.overdue = None;
                self.shared.kill.cancel();
                PoolAction::Nothing
            }
            PoolEvent::Killed => {
                // The runners have heard of it already; what is left is to wait for their jobs to be given back.
                self.killed = true;
                self.deadline = None;
                self.overdue = None;
                self.shared.kill.cancel();
                self.shared.gate.set_draining();
                self.order_all();
                if self.is_done() {
                    PoolAction::End
                } else {
                    PoolAction::Nothing
                }
            }
        }
    }

    fn is_done(&self) -> bool {
        self.shared.gate.is_draining() && self.workers.is_empty()
    }

    /// Takes an order in. One that closes intake is carried out on the last reading: an emergency stop does not wait for a
    /// broker that may not answer. Any other is carried out with a fresh one.
    fn steer(&mut self, steering: Steering) -> PoolAction {
        let Steering { order, by, answer } = steering;
        let closes = order.closes_intake();
        let reason = order.act();
        let changed = match self.shared.steer(order, by) {
            Ok(changed) => changed,
            Err(refused) => {
                // The caller may have stopped waiting.
                let _ = answer.send(Err(refused));
                return PoolAction::Nothing;
            }
        };
        self.follow_orders();
        let asked = ResultRequest {
            answer: Answer::Steered(changed, answer),
            reason,
            before: ReconcileResult::default(),
            joins: true,
        };
        match closes {
            true => PoolAction::AnswerNow(asked),
            false => PoolAction::Answer(asked),
        }
    }

    /// Has the reconciler decide by the orders as they are now.
    fn follow_orders(&mut self) {
        let orders = self.shared.orders().clone();
        self.reconciler.set_orders(orders);
    }

    // Looking: the part of a reconcile that waits.

    fn start_look(&mut self) {
        if self.look.is_some() {
            return;
        }
        let is_over = |task: &AbortOnDropHandle<()>| task.is_finished();
        if self.delayed.as_ref().is_some_and(is_over) {
            // It ends by itself only by a panic.
            let delayed = tokio::spawn(super::delayed::watch(self.shared.clone()));
            self.delayed = Some(AbortOnDropHandle::new(delayed));
        }
        let shared = self.shared.clone();
        let span = debug_span!("look", pool = %shared.name);
        self.look = Some(async move { look(&shared).await }.instrument(span).boxed());
    }

    /// A queue that stays missing, or may not be looked at, is looked for less and less often.
    fn note_absence(&mut self, is_absent: bool) {
        let interval = self.shared.settings().poll_interval;
        self.absent = is_absent.then(|| {
            let longer = |(pause, _): (Duration, _)| pause.saturating_mul(2).min(ABSENT);
            let pause = self.absent.map_or(interval, longer).max(interval);
            (pause, Instant::now() + pause)
        });
    }

    fn worker_ended(&mut self, ended: Result<(task::Id, WorkerStopReason), JoinError>) {
        let (task, why, panicked) = match ended {
            Ok((task, why)) => (task, why, None),
            Err(failed) => {
                let task = failed.id();
                let panic = failed.try_into_panic();
                let panicked = panic.map_or_else(
                    |failed| failed.to_string(),
                    |panic| Panicked::new(&*panic).to_string(),
                );
                (task, WorkerStopReason::Panicked, Some(panicked))
            }
        };
        let Some(id) = self.ids.remove(&task) else {
            return;
        };
        // Before it is gone from the status: a reader who sees that finds it in the metrics.
        self.shared.metrics.worker_stopped(why.as_str());
        let cell = self.shared.workers().remove(&id);
        if let Some(panicked) = panicked {
            let held = cell.map_or(0, |cell| cell.seen().held);
            error!(pool = %self.shared.name, error = ?panicked, held, "worker panicked: what it held is given back");
            self.count_given_back(held);
            // Its successor may meet the same: with backoff, then.
            let cause = format!("a worker panicked: {panicked}");
            self.shared.gate.start_failed(self.shared.now(), cause);
        }
        debug!(pool = %self.shared.name, worker.id = %id, reason = why.as_str(), "worker ended");
    }

    /// Counts deliveries that went back to the queue with the task that held them.
    fn count_given_back(&self, deliveries: u32) {
        for _ in 0..deliveries {
            self.shared.metrics.settled(Settlement::Requeue);
            self.shared.totals.count(Settlement::Requeue);
        }
    }

    // Changing and ending.

    fn update(&mut self, spec: PoolSpec) {
        let old = self.shared.settings();
        let rules = Rules::from(&spec.settings);
        self.reconciler.set_rules(rules.clone());
        if old.queue != spec.settings.queue {
            // The reading of the old queue says nothing about the new one. The same holds for an answer under way.
            self.reconciler = Reconciler::new(rules);
            self.look = None;
            self.absent = None;
            self.late.append(&mut self.answers);
            self.answers = std::mem::take(&mut self.late);
        }
        self.shared.yield_orders(&spec.settings);
        self.follow_orders();
        let moved = old.queue != spec.settings.queue || old.prefetch != spec.settings.prefetch;
        self.shared.gate.set_breaker(spec.settings.retry.breaker);
        self.shared.set_settings(spec.settings);
        if !Arc::ptr_eq(&self.shared.fleet.manager(), &spec.runners) {
            let kind = self.shared.fleet.kind();
            let old = self
                .shared
                .fleet
                .set_manager(spec.runners, &self.shared.metrics);
            self.prestarts.abort_all();
            // Whatever could not start, or failed, may be what was changed.
            self.shared.gate.try_now(self.shared.now());
            // The next reconcile sets the gauges of the new kind.
            self.shared.metrics.forget_runners(kind);
            for idle in &old {
                self.shared
                    .fleet
                    .count_out(idle.kind(), &self.shared.metrics, "replaced");
            }
            self.end_runners(old);
        }
        if moved {
            // A consumer cannot change its queue or prefetch: its worker finishes and another takes its place.
            self.order_all();
        }
    }

    fn drain(&mut self, grace: Duration) {
        info!(pool = %self.shared.name, grace_ms = grace.as_millis() as u64, "pool drains");
        self.shared.gate.set_draining();
        self.order_all();
        // A grace too long for the clock is no deadline at all.
        let deadline = Instant::now().checked_add(grace);
        self.deadline = match (self.deadline, deadline) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        };
    }

    fn order_all(&self) {
        for cell in self.shared.workers().values() {
            cell.order(WorkerStopReason::Drained);
        }
    }

    async fn end(&mut self) {
        while let Some(ended) = self.workers.join_next_with_id().await {
            self.worker_ended(ended);
        }
        self.prestarts.shutdown().await;
        let _ = self.flush_idle("drained");
        while self.chores.join_next().await.is_some() {}
        self.shared.fleet.ended().await;
        self.delayed = None;
        self.shared.metrics.forget(self.shared.fleet.kind());
        // However often it failed, it came to its end in order.
        self.shared.gate.pool_works();
        self.ended = true;
        info!(pool = %self.shared.name, "pool ended");
    }
}

/// A reconciler that has seen nothing yet, with the pool's settings and orders.
fn reconciler(shared: &PoolShared) -> Reconciler {
    let mut reconciler = Reconciler::new(Rules::from(&*shared.settings()));
    reconciler.set_orders(shared.orders().clone());
    reconciler
}

fn ticks(interval: Duration) -> time::Interval {
    let mut ticks = time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Ticks of a changed interval: the first comes after one interval, not at once.
fn ticks_in(interval: Duration) -> time::Interval {
    let mut ticks = time::interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
