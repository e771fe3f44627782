//! The fleet: a pool's runners, idle and busy, with their statistics.
//!
//! Workers borrow runners from here and return them; the pool deletes idle ones. What is counted here is what exists:
//! each runner is idle or borrowed, or has ended.

mod borrowed;
mod idle;
mod source;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub(crate) use self::{borrowed::BorrowedRunner, idle::IdleRunner};
use self::{
    idle::{IdleRunners, PrestartOutcome, RunnerOffer},
    source::RunnerSource,
};
use super::{
    events::{Event, EventSink, JobFailure},
    metrics::RunnerMetrics,
    panics::{self, ContainedRunner, PanicSite, Panics},
};
use crate::{
    decide::{PoolName, RunnerId},
    runner::{CleanupReport, CreateRunner, JobTimes, Retirement, RunnerManager, StartError},
};

/// The stop reason of runners that ended by themselves.
pub(crate) const CRASHED: &str = "crashed";
const IDLE_TIMEOUT: &str = Retirement::IdleTimeout.as_str();

/// A pool's runners.
pub(crate) struct Fleet {
    pool: PoolName,
    /// Written by the pool on a change of configuration, read by workers.
    source: RwLock<Arc<RunnerSource>>,
    idle: IdleRunners,
    /// Runners that workers have. Written by workers.
    borrowed: AtomicU32,
    /// Borrowed runners that are programs with a message. Written with each census, read for statistics.
    busy_programs: AtomicU32,
    /// Runners that were lost with their jobs, or found dead when they were needed, since the pool last took the number.
    /// Written by workers, read by the pool.
    crashed: AtomicU32,
    next_id: AtomicU64,
    metrics: RunnerMetrics,
    /// Shared with the sources, whose runners may end after everything else.
    panics: Arc<Panics>,
    events: Option<Arc<dyn EventSink>>,
    /// Runners that end in the background. The pool waits for them before it ends.
    endings: TaskTracker,
    /// Managers that were replaced: one for each change of the configuration.
    former: Mutex<Vec<Arc<RunnerSource>>>,
}

impl Fleet {
    pub(crate) fn new(
        pool: PoolName,
        manager: Arc<dyn RunnerManager>,
        events: Option<Arc<dyn EventSink>>,
    ) -> Self {
        let panics = Arc::new(Panics::new(pool.clone()));
        let metrics = RunnerMetrics::new(&pool);
        let source = RunnerSource::new(manager, &metrics, panics.clone());
        Self {
            pool,
            source: RwLock::new(Arc::new(source)),
            idle: IdleRunners::default(),
            borrowed: AtomicU32::new(0),
            busy_programs: AtomicU32::new(0),
            crashed: AtomicU32::new(0),
            next_id: AtomicU64::new(0),
            metrics,
            panics,
            events,
            endings: TaskTracker::new(),
            former: Mutex::default(),
        }
    }

    // Answers of the present manager.

    /// The present kind of runner.
    pub(crate) fn kind(&self) -> &'static str {
        self.source().kind
    }

    /// How long jobs of the present kind may take.
    pub(crate) fn times(&self) -> JobTimes {
        self.source().times
    }

    /// The longest time that any running job may take to end after it was told to stop. Jobs of former kinds
    /// count too.
    pub(crate) fn longest_stop_grace(&self) -> Duration {
        let former = self.former();
        let graces = former.iter().map(|source| source.times.stop_grace);
        graces
            .max()
            .unwrap_or_default()
            .max(self.times().stop_grace)
    }

    /// Whether runners of the present kind reply without being told to.
    pub(crate) fn replies(&self) -> bool {
        self.source().replies
    }

    /// Whether runners of the present kind are programs that consume the queue themselves.
    pub(crate) fn consumes(&self) -> bool {
        self.source().consumes
    }

    /// How many runners the present manager keeps ready.
    pub(crate) fn wanted_ready(&self) -> u32 {
        let manager = self.manager();
        let wanted = panics::catch(|| manager.prestart());
        self.panics.value_or(PanicSite::Describe, wanted, 0)
    }

    /// Lets the present manager clean up. If it panics, the next cleanup does the rest.
    pub(crate) async fn cleanup(&self) -> CleanupReport {
        let manager = self.manager();
        let cleaned = panics::catch_future(|| manager.cleanup()).await;
        if cleaned.is_ok() {
            self.panics.clear(PanicSite::Cleanup);
        }
        self.panics
            .value_or(PanicSite::Cleanup, cleaned, CleanupReport::default())
    }

    /// The panics of its runners and managers.
    pub(crate) fn panics(&self) -> &Panics {
        &self.panics
    }

    /// The present manager.
    pub(crate) fn manager(&self) -> Arc<dyn RunnerManager> {
        self.source().manager.clone()
    }

    /// Replaces the manager. The idle runners of the old kind are returned, counted as replaced, for the caller to end.
    /// Borrowed ones end when they are returned.
    pub(crate) fn set_manager(&self, manager: Arc<dyn RunnerManager>) -> Vec<IdleRunner> {
        // The next reconcile sets the gauges of the new kind.
        self.source().metrics.forget();
        let source = RunnerSource::new(manager, &self.metrics, self.panics.clone());
        let former = std::mem::replace(
            &mut *self.source.write().unwrap_or_else(PoisonError::into_inner),
            Arc::new(source),
        );
        self.former().push(former);
        self.remove_all("replaced")
    }

    // Borrowing and starting.

    /// Lends a runner: an idle one if there is one, otherwise one that is starting, otherwise a new one.
    ///
    /// # Cancel-safety
    /// Cancel-safe, as [`RunnerManager::create`] is.
    pub(crate) async fn borrow_runner(&self) -> Result<BorrowedRunner<'_>, StartError> {
        loop {
            match self.idle.offer() {
                RunnerOffer::Idle(mut runner) => {
                    if self.is_alive(&mut runner) {
                        let was_idle = runner.since.elapsed();
                        return Ok(BorrowedRunner::new(self, runner, was_idle));
                    }
                    self.crashed.fetch_add(1, Ordering::Relaxed);
                    self.count_stopped(&runner, CRASHED);
                    self.end(runner);
                }
                RunnerOffer::Promised(promised) => {
                    // The runner never comes if the task that starts it is ended, for example by a change of the kind.
                    if let Ok(result) = promised.await {
                        return Ok(BorrowedRunner::new(self, result?, Duration::ZERO));
                    }
                }
                RunnerOffer::Nothing => break,
            }
        }
        let runner = self.create(self.make_id()).await?;
        Ok(BorrowedRunner::new(self, runner, Duration::ZERO))
    }

    /// Starts a runner before a job needs it. It goes to a worker that waits for it, or to the idle runners. `None`: it
    /// failed, and the worker that waits for it has the reason.
    ///
    /// # Cancel-safety
    /// Cancel-safe: the worker that waits for it then starts its own.
    pub(crate) async fn prestart(&self) -> Option<Result<(), StartError>> {
        let starting = self.idle.begin_start(self.make_id());
        let result = self.create(starting.id).await;
        let is_up = result.is_ok();
        let is_wanted = result.as_ref().is_ok_and(|runner| self.is_current(runner));
        let unclaimed = match starting.arrive(result, is_wanted) {
            PrestartOutcome::Claimed => return is_up.then_some(Ok(())),
            PrestartOutcome::Idle => return Some(Ok(())),
            PrestartOutcome::Unclaimed(result) => result,
        };
        Some(unclaimed.map(|runner| self.end(runner)))
    }

    /// Runners that are being started before a job needs them.
    pub(crate) fn starting(&self) -> u32 {
        self.idle.starting()
    }

    async fn create(&self, id: RunnerId) -> Result<IdleRunner, StartError> {
        let source = self.source();
        let begun = Instant::now();
        let pool = self.pool.clone();
        let request = CreateRunner { id, pool };
        let created = panics::catch_future(|| source.manager.create(request)).await;
        let runner = created.unwrap_or_else(|panicked| {
            self.panics.record(PanicSite::Create, &panicked);
            Err(StartError {
                what: format!("the runner manager panicked: {panicked}"),
                source: None,
            })
        })?;
        source.metrics.started.increment(1);
        self.emit(|pool| Event::RunnerInstalled {
            pool,
            duration: begun.elapsed(),
        });
        let since = Instant::now();
        Ok(IdleRunner {
            id,
            runner: ContainedRunner::new(runner),
            since,
            source,
        })
    }

    fn make_id(&self) -> RunnerId {
        RunnerId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    // The idle ones.

    /// Makes a runner idle. Returns it if its kind is no longer wanted.
    fn put_back(&self, mut runner: IdleRunner) -> Option<IdleRunner> {
        runner.since = Instant::now();
        // Checked under the lock: a change of kind first replaces the source and then removes the idle runners.
        let mut stock = self.idle.lock();
        if !self.is_current(&runner) {
            return Some(runner);
        }
        stock.idle.push(runner);
        None
    }

    /// Whether a runner is of the present kind.
    fn is_current(&self, runner: &IdleRunner) -> bool {
        Arc::ptr_eq(&self.source(), &runner.source)
    }

    /// The idle runners, oldest first.
    pub(crate) fn idle_ids(&self) -> Vec<RunnerId> {
        self.idle
            .lock()
            .idle
            .iter()
            .map(|runner| runner.id)
            .collect()
    }

    /// Idle and busy runners.
    pub(crate) fn counts(&self) -> (u32, u32) {
        let idle = u32::try_from(self.idle.lock().idle.len()).unwrap_or(u32::MAX);
        let borrowed = self.borrowed.load(Ordering::Relaxed);
        if !self.consumes() {
            return (idle, borrowed);
        }
        let busy = self.busy_programs.load(Ordering::Relaxed).min(borrowed);
        (idle + borrowed - busy, busy)
    }

    /// Of the programs that consume the queue themselves, this many hold a message.
    pub(crate) fn set_busy_programs(&self, busy: u32) {
        self.busy_programs.store(busy, Ordering::Relaxed);
    }

    /// Takes these idle runners out, except those that were borrowed meanwhile. They are counted with this reason.
    pub(crate) fn remove(&self, ids: &[RunnerId], reason: &'static str) -> Vec<IdleRunner> {
        if ids.is_empty() {
            return Vec::new();
        }
        let removed = self.idle.take_out(|runner| ids.contains(&runner.id));
        self.count_all_stopped(&removed, reason);
        removed
    }

    /// Takes out the idle runners that are no longer alive. They are counted as crashed.
    pub(crate) fn remove_dead(&self) -> Vec<IdleRunner> {
        let dead = self.idle.take_out(|runner| !self.is_alive(runner));
        self.count_all_stopped(&dead, CRASHED);
        dead
    }

    /// Takes out the idle runners that should be replaced. Returns how many of them crashed when they were asked.
    /// `keep` runners stay, however long they have been idle.
    pub(crate) fn remove_retiring(&self, keep: u32) -> (Vec<IdleRunner>, u32) {
        let mut retiring = Vec::new();
        {
            let mut stock = self.idle.lock();
            let mut spare = stock.idle.len().saturating_sub(keep as usize);
            let mut staying = Vec::with_capacity(stock.idle.len());
            for mut runner in stock.idle.drain(..) {
                let why = match self.retires(&mut runner) {
                    None => None,
                    Some(IDLE_TIMEOUT) if spare == 0 => None,
                    why => why,
                };
                match why {
                    None => staying.push(runner),
                    Some(why) => {
                        spare = spare.saturating_sub(1);
                        retiring.push((runner, why));
                    }
                }
            }
            stock.idle = staying;
        }
        let mut crashed = 0;
        for (runner, why) in &retiring {
            crashed += u32::from(*why == CRASHED);
            self.count_stopped(runner, why);
        }
        let runners = retiring.into_iter().map(|(runner, _)| runner).collect();
        (runners, crashed)
    }

    /// Takes out all idle runners. They are counted with this reason.
    pub(crate) fn remove_all(&self, reason: &'static str) -> Vec<IdleRunner> {
        let removed = self.idle.take_all();
        self.count_all_stopped(&removed, reason);
        removed
    }

    /// Whether a runner is still good for a job. A runner that panics when it is asked is not.
    fn is_alive(&self, runner: &mut IdleRunner) -> bool {
        let alive = runner.runner.is_alive();
        self.panics.value_or(PanicSite::Check, alive, false)
    }

    /// Why a runner should be replaced. A runner that panics when it is asked has crashed.
    fn retires(&self, runner: &mut IdleRunner) -> Option<&'static str> {
        let why = runner.runner.retires();
        let why = why.map(|why| why.map(Retirement::as_str));
        self.panics.value_or(PanicSite::Check, why, Some(CRASHED))
    }

    // The end of runners.

    /// Ends a runner in the background. [`ended`](Self::ended) waits for it.
    pub(crate) fn end(&self, runner: IdleRunner) {
        self.endings.spawn(runner.delete());
    }

    /// Waits until every runner that was told to end has ended.
    pub(crate) async fn ended(&self) {
        self.endings.close();
        self.endings.wait().await;
        let mut managers = std::mem::take(&mut *self.former());
        managers.push(self.source());
        let quiesce = |source: Arc<RunnerSource>| async move {
            let quiet = panics::catch_future(|| source.manager.quiesce()).await;
            source.panics.value_or(PanicSite::Quiesce, quiet, ());
        };
        futures_util::future::join_all(managers.into_iter().map(quiesce)).await;
    }

    // Statistics and events.

    /// Runners that were lost with their jobs, or found dead when they were needed, since the last call.
    pub(crate) fn take_crashed(&self) -> u32 {
        self.crashed.swap(0, Ordering::Relaxed)
    }

    /// Counts orphans of the present kind that the manager removed.
    pub(crate) fn count_orphans(&self, orphans: u32) {
        let kind = self.kind();
        for _ in 0..orphans {
            self.count_stopped_kind(kind, "orphaned");
        }
    }

    /// Sets the gauges, and returns the idle and busy runners that they show.
    pub(crate) fn update_gauges(&self) -> (u32, u32) {
        let (idle, busy) = self.counts();
        self.source().metrics.sizes(idle, busy);
        (idle, busy)
    }

    /// The pool has ended: its gauges are removed.
    pub(crate) fn forget_gauges(&self) {
        self.source().metrics.forget();
    }

    fn count_all_stopped(&self, runners: &[IdleRunner], reason: &'static str) {
        for runner in runners {
            self.count_stopped(runner, reason);
        }
    }

    /// Counts the end of a runner that has no job, and emits its event.
    fn count_stopped(&self, runner: &IdleRunner, reason: &'static str) {
        self.count_stopped_kind(runner.kind(), reason);
    }

    fn count_stopped_kind(&self, kind: &'static str, reason: &'static str) {
        self.metrics.stopped(kind, reason);
        self.emit(|pool| Event::RunnerStop {
            pool,
            job_id: None,
            status: reason,
            status_info: None,
            job_duration: None,
        });
    }

    pub(crate) fn emit(&self, event: impl FnOnce(PoolName) -> Event) {
        if let Some(events) = &self.events {
            let event = event(self.pool.clone());
            let emitted = panics::catch(|| events.emit(event));
            self.panics.value_or(PanicSite::Event, emitted, ());
        }
    }

    pub(crate) fn emit_failure(&self, failure: impl FnOnce(PoolName) -> JobFailure) {
        if let Some(events) = &self.events {
            let failure = failure(self.pool.clone());
            let taken = panics::catch(|| events.job_failed(failure));
            self.panics.value_or(PanicSite::Event, taken, ());
        }
    }

    fn source(&self) -> Arc<RunnerSource> {
        self.source
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn former(&self) -> MutexGuard<'_, Vec<Arc<RunnerSource>>> {
        self.former.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
