//! The fleet: a pool's runners, idle and busy.
//!
//! Workers borrow runners from here and bring them back; the pool deletes idle ones. What is counted here is
//! what exists: a runner is in the idle stack, or lent, or gone.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};
use tokio_util::task::TaskTracker;

use super::{
    contain::{self, Contained, ContainedRunner, PanicSite, Panics},
    events::{Event, EventSink, JobFailure},
    metrics::{PoolMetrics, RunnerCounters},
};
use crate::{
    decide::{PoolName, RunnerId},
    runner::{
        CleanupReport, CreateRunner, Job, JobControl, JobTimes, Retirement, RunReport,
        RunnerManager, StartError,
    },
};

/// Why runners go that did not end by our doing.
pub(crate) const CRASHED: &str = "crashed";
const IDLE_TIMEOUT: &str = Retirement::IdleTimeout.as_str();

/// A pool's runners.
pub(crate) struct Fleet {
    pool: PoolName,
    /// Written by the pool on a change of configuration, read by workers.
    source: RwLock<Arc<RunnerSource>>,
    stock: Mutex<RunnerStock>,
    lent: AtomicU32,
    /// Runners that were lost with their jobs, or found dead when they were needed, since it was last asked. Written
    /// by workers, read by the pool.
    crashed: AtomicU32,
    next_id: AtomicU64,
    /// Shared with the sources, whose runners may end after everything else.
    panics: Arc<Panics>,
    events: Option<Arc<dyn EventSink>>,
    /// Runners that end while nobody waits for it but the pool's own end.
    endings: TaskTracker,
    /// Managers that others have taken the place of: one for each change of the configuration.
    former: Mutex<Vec<Arc<RunnerSource>>>,
}

/// What the stock offers to a worker that needs a runner.
#[derive(Default)]
struct RunnerStock {
    /// The newest last, and lent first: the rest may stay cold, and are the ones that have been idle longest.
    idle: Vec<Idle>,
    /// Runners that are being brought up before a job asks for them.
    starting: Vec<StartingRunner>,
}

/// What a worker that needs a runner gets from the stock.
enum RunnerOffer {
    Idle(Idle),
    /// One that is being brought up.
    Promised(oneshot::Receiver<Result<Idle, StartError>>),
    Nothing,
}

impl RunnerStock {
    /// An idle runner wherever there is one, else a place at one that is being brought up. Under one lock, so that
    /// none becomes idle in between.
    fn offer(&mut self) -> RunnerOffer {
        if let Some(idle) = self.idle.pop() {
            return RunnerOffer::Idle(idle);
        }
        // One whose claimant has gone away is free again.
        let free = self.starting.iter_mut().find(|starting| {
            let claim = starting.claim.as_ref();
            claim.is_none_or(oneshot::Sender::is_closed)
        });
        match free {
            Some(starting) => {
                let (claim, promised) = oneshot::channel();
                starting.claim = Some(claim);
                RunnerOffer::Promised(promised)
            }
            None => RunnerOffer::Nothing,
        }
    }

    /// Forgets a runner that was being brought up. Returns the channel to the worker that waits for it.
    fn forget(&mut self, id: RunnerId) -> Option<oneshot::Sender<Result<Idle, StartError>>> {
        let at = self
            .starting
            .iter()
            .position(|starting| starting.id == id)?;
        self.starting.swap_remove(at).claim
    }
}

/// A runner that is being brought up, and who waits for it.
struct StartingRunner {
    id: RunnerId,
    claim: Option<oneshot::Sender<Result<Idle, StartError>>>,
}

/// Where runners come from, and how they are counted.
struct RunnerSource {
    manager: Arc<dyn RunnerManager>,
    kind: &'static str,
    times: JobTimes,
    answers: bool,
    counters: RunnerCounters,
    panics: Arc<Panics>,
}

/// A runner without a job.
pub(crate) struct Idle {
    id: RunnerId,
    runner: ContainedRunner,
    since: Instant,
    source: Arc<RunnerSource>,
}

/// A runner that a worker has. **On drop** without one of its other ends, it is gone and counted as such.
pub(crate) struct BorrowedRunner<'a> {
    fleet: &'a Fleet,
    idle: Option<Idle>,
    /// How long it had been idle before.
    pub(crate) was_idle: Duration,
}

impl Fleet {
    pub(crate) fn new(
        pool: PoolName,
        manager: Arc<dyn RunnerManager>,
        metrics: &PoolMetrics,
        events: Option<Arc<dyn EventSink>>,
    ) -> Self {
        let panics = Arc::new(Panics::new(pool.clone()));
        let source = RunnerSource::new(manager, metrics, panics.clone());
        Self {
            pool,
            source: RwLock::new(Arc::new(source)),
            panics,
            stock: Mutex::default(),
            endings: TaskTracker::new(),
            former: Mutex::default(),
            lent: AtomicU32::new(0),
            crashed: AtomicU32::new(0),
            next_id: AtomicU64::new(0),
            events,
        }
    }

    /// The present kind of runner.
    pub(crate) fn kind(&self) -> &'static str {
        self.source().kind
    }

    /// How long jobs of the present kind may take.
    pub(crate) fn times(&self) -> JobTimes {
        self.source().times
    }

    /// The longest that jobs of any kind which may still run take to end when they are told to.
    pub(crate) fn longest_stop_grace(&self) -> Duration {
        let former = self.former();
        let graces = former.iter().map(|source| source.times.stop_grace);
        graces
            .max()
            .unwrap_or_default()
            .max(self.times().stop_grace)
    }

    /// Whether runners of the present kind give answers of their own accord.
    pub(crate) fn answers(&self) -> bool {
        self.source().answers
    }

    /// How many runners the present manager wants ready.
    pub(crate) fn wanted_ready(&self) -> u32 {
        let manager = self.manager();
        let wanted = contain::call(|| manager.prestart());
        self.panics.noted(PanicSite::Describe, wanted, 0)
    }

    /// Has the present manager clean up. What it did not do because it panicked is there the next time.
    pub(crate) async fn cleanup(&self) -> CleanupReport {
        let manager = self.manager();
        let cleaned = contain::future(|| manager.cleanup()).await;
        if cleaned.is_ok() {
            self.panics.clear(PanicSite::Cleanup);
        }
        self.panics
            .noted(PanicSite::Cleanup, cleaned, CleanupReport::default())
    }

    /// The panics of its runners and managers.
    pub(crate) fn panics(&self) -> &Panics {
        &self.panics
    }

    /// Runners that were lost with their jobs, or found dead when they were needed, since this was last asked.
    pub(crate) fn take_crashed(&self) -> u32 {
        self.crashed.swap(0, Ordering::Relaxed)
    }

    /// The present manager.
    pub(crate) fn manager(&self) -> Arc<dyn RunnerManager> {
        self.source().manager.clone()
    }

    /// Changes where runners come from. Idle runners of the old kind are returned to be flushed, lent ones go
    /// when they come back.
    pub(crate) fn set_manager(
        &self,
        manager: Arc<dyn RunnerManager>,
        metrics: &PoolMetrics,
    ) -> Vec<Idle> {
        let source = Arc::new(RunnerSource::new(manager, metrics, self.panics.clone()));
        let former = std::mem::replace(
            &mut *self.source.write().unwrap_or_else(PoisonError::into_inner),
            source,
        );
        self.former().push(former);
        std::mem::take(&mut self.stock().idle)
    }

    /// Lends a runner: an idle one wherever there is one, else one that is being brought up already, else a new
    /// one.
    ///
    /// # Cancel-safety
    /// Cancel-safe, as [`RunnerManager::create`] is.
    pub(crate) async fn lend(
        &self,
        metrics: &PoolMetrics,
    ) -> Result<BorrowedRunner<'_>, StartError> {
        loop {
            let offer = self.stock().offer();
            match offer {
                RunnerOffer::Idle(mut idle) => {
                    if self.is_alive(&mut idle) {
                        let was_idle = idle.since.elapsed();
                        return Ok(BorrowedRunner::new(self, idle, was_idle));
                    }
                    self.crashed.fetch_add(1, Ordering::Relaxed);
                    self.count_out(idle.kind(), metrics, CRASHED);
                    self.end(idle);
                }
                RunnerOffer::Promised(promised) => {
                    // The runner never comes if the task that brings it up is ended, for example by a change of the kind.
                    if let Ok(result) = promised.await {
                        return Ok(BorrowedRunner::new(self, result?, Duration::ZERO));
                    }
                }
                RunnerOffer::Nothing => break,
            }
        }
        let idle = self.create(self.make_id()).await?;
        Ok(BorrowedRunner::new(self, idle, Duration::ZERO))
    }

    /// Brings a runner up before a job asks for it. It goes to a worker that waits for it, or to the idle runners.
    /// `None`: it failed, and the worker that waits for it has the reason.
    ///
    /// # Cancel-safety
    /// Cancel-safe: the worker that waits for it is told to bring up its own.
    pub(crate) async fn prestart(&self) -> Option<Result<(), StartError>> {
        let starting = StartingGuard::new(self, self.make_id());
        let result = self.create(starting.id).await;
        let is_up = result.is_ok();
        let unclaimed = match starting.arrive(result) {
            PrestartOutcome::Claimed => return is_up.then_some(Ok(())),
            PrestartOutcome::Idle => return Some(Ok(())),
            PrestartOutcome::Unclaimed(result) => result,
        };
        Some(unclaimed.map(|idle| self.end(idle)))
    }

    /// Runners that are being brought up before a job asks for them.
    pub(crate) fn starting(&self) -> u32 {
        u32::try_from(self.stock().starting.len()).unwrap_or(u32::MAX)
    }

    /// Ends a runner while nobody waits for it but [`ended`](Self::ended).
    pub(crate) fn end(&self, idle: Idle) {
        self.endings.spawn(idle.delete());
    }

    /// Waits until all runners that were told to have ended.
    pub(crate) async fn ended(&self) {
        self.endings.close();
        self.endings.wait().await;
        let mut managers = std::mem::take(&mut *self.former());
        managers.push(self.source());
        let quiesce = |source: Arc<RunnerSource>| async move {
            let quiet = contain::future(|| source.manager.quiesce()).await;
            source.panics.noted(PanicSite::Quiesce, quiet, ());
        };
        futures_util::future::join_all(managers.into_iter().map(quiesce)).await;
    }

    async fn create(&self, id: RunnerId) -> Result<Idle, StartError> {
        let source = self.source();
        let begun = Instant::now();
        let pool = self.pool.clone();
        let request = CreateRunner { id, pool };
        let created = contain::future(|| source.manager.create(request)).await;
        let runner = created.unwrap_or_else(|panicked| {
            self.panics.note(PanicSite::Create, &panicked);
            Err(StartError {
                what: format!("the runner manager panicked: {panicked}"),
                source: None,
            })
        })?;
        source.counters.started.increment(1);
        self.emit(|pool| Event::RunnerInstalled {
            pool,
            duration: begun.elapsed(),
        });
        let since = Instant::now();
        Ok(Idle {
            id,
            runner: ContainedRunner::new(runner),
            since,
            source,
        })
    }

    fn make_id(&self) -> RunnerId {
        RunnerId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Puts a runner to the idle ones. Returns it instead where its kind is no longer wanted.
    fn put_back(&self, mut idle: Idle) -> Option<Idle> {
        idle.since = Instant::now();
        // Asked under the lock of the stock: a change of kind first changes the source, then empties the stock.
        let mut stock = self.stock();
        if !Arc::ptr_eq(&self.source(), &idle.source) {
            return Some(idle);
        }
        stock.idle.push(idle);
        None
    }

    /// The idle runners, oldest first.
    pub(crate) fn idle_ids(&self) -> Vec<RunnerId> {
        self.stock().idle.iter().map(|idle| idle.id).collect()
    }

    /// Idle and busy runners.
    pub(crate) fn counts(&self) -> (u32, u32) {
        let idle = u32::try_from(self.stock().idle.len()).unwrap_or(u32::MAX);
        (idle, self.lent.load(Ordering::Relaxed))
    }

    /// Takes these out of the idle ones, as far as nobody has lent them since.
    pub(crate) fn remove(&self, ids: &[RunnerId]) -> Vec<Idle> {
        if ids.is_empty() {
            return Vec::new();
        }
        self.stock()
            .idle
            .extract_if(.., |idle| ids.contains(&idle.id))
            .collect()
    }

    /// Takes out all idle runners that are no longer alive.
    pub(crate) fn remove_dead(&self) -> Vec<Idle> {
        self.stock()
            .idle
            .extract_if(.., |idle| !self.is_alive(idle))
            .collect()
    }

    /// Whether a runner is still good for a job. One that panics when it is asked is not.
    fn is_alive(&self, idle: &mut Idle) -> bool {
        let alive = idle.runner.is_alive();
        self.panics.noted(PanicSite::Check, alive, false)
    }

    /// Takes out the idle runners that should be replaced, each with the reason; one that panics when it is asked has
    /// crashed. `keep` of them are wanted, however long they wait.
    pub(crate) fn remove_retiring(&self, keep: u32) -> Vec<(Idle, &'static str)> {
        let mut stock = self.stock();
        let mut spare = stock.idle.len().saturating_sub(keep as usize);
        let mut retiring = Vec::new();
        let mut staying = Vec::with_capacity(stock.idle.len());
        for mut idle in stock.idle.drain(..) {
            let why = match self.retires(&mut idle) {
                None => None,
                Some(IDLE_TIMEOUT) if spare == 0 => None,
                why => why,
            };
            match why {
                None => staying.push(idle),
                Some(why) => {
                    spare = spare.saturating_sub(1);
                    retiring.push((idle, why));
                }
            }
        }
        stock.idle = staying;
        retiring
    }

    /// Why a runner should be replaced.
    fn retires(&self, idle: &mut Idle) -> Option<&'static str> {
        let why = idle.runner.retires().map(|why| why.map(Retirement::as_str));
        self.panics.noted(PanicSite::Check, why, Some(CRASHED))
    }

    /// Takes out all idle runners.
    pub(crate) fn remove_all(&self) -> Vec<Idle> {
        std::mem::take(&mut self.stock().idle)
    }

    /// Counts a runner out, with the event of its end.
    pub(crate) fn count_out(
        &self,
        kind: &'static str,
        metrics: &PoolMetrics,
        reason: &'static str,
    ) {
        metrics.runner_stopped(kind, reason);
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
            let emitted = contain::call(|| events.emit(event));
            self.panics.noted(PanicSite::Event, emitted, ());
        }
    }

    pub(crate) fn job_failed(&self, failure: impl FnOnce(PoolName) -> JobFailure) {
        if let Some(events) = &self.events {
            let failure = failure(self.pool.clone());
            let taken = contain::call(|| events.job_failed(failure));
            self.panics.noted(PanicSite::Event, taken, ());
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

    fn stock(&self) -> MutexGuard<'_, RunnerStock> {
        // `is_alive` and `retires` of runners are the only foreign code under this lock, and their panics are
        // contained.
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A runner that is being brought up. **On drop** without [`arrive`](Self::arrive), it never came.
struct StartingGuard<'a> {
    fleet: &'a Fleet,
    id: RunnerId,
}

impl<'a> StartingGuard<'a> {
    fn new(fleet: &'a Fleet, id: RunnerId) -> Self {
        fleet
            .stock()
            .starting
            .push(StartingRunner { id, claim: None });
        Self { fleet, id }
    }

    /// It is up, or never will be. Hands it to the worker that waits for it, or to the idle runners.
    fn arrive(self, result: Result<Idle, StartError>) -> PrestartOutcome {
        let (fleet, id) = (self.fleet, self.id);
        let is_wanted = |idle: &Idle| Arc::ptr_eq(&fleet.source(), &idle.source);
        let is_wanted = result.as_ref().is_ok_and(is_wanted);
        let mut stock = fleet.stock();
        let claim = stock.forget(id);
        let result = match claim {
            // Under the lock, although it wakes a task: at each moment there is the promise or the runner.
            Some(claim) => match claim.send(result) {
                Ok(()) => return PrestartOutcome::Claimed,
                Err(result) => result,
            },
            None => result,
        };
        match result {
            Ok(idle) if is_wanted => {
                stock.idle.push(idle);
                PrestartOutcome::Idle
            }
            result => PrestartOutcome::Unclaimed(result),
        }
    }
}

/// What became of a runner that was brought up before a job asked for it.
enum PrestartOutcome {
    /// Whoever waited for it has it, or knows why not.
    Claimed,
    Idle,
    /// Nobody wants it, or it failed and nobody knows.
    Unclaimed(Result<Idle, StartError>),
}

impl Drop for StartingGuard<'_> {
    fn drop(&mut self) {
        let claim = self.fleet.stock().forget(self.id);
        // Only now, outside the lock.
        drop(claim);
    }
}

impl RunnerSource {
    fn new(manager: Arc<dyn RunnerManager>, metrics: &PoolMetrics, panics: Arc<Panics>) -> Self {
        let kind = contain::call(|| manager.kind());
        let kind = panics.noted(PanicSite::Describe, kind, "unknown");
        let times = contain::call(|| manager.times());
        let answers = contain::call(|| manager.answers());
        Self {
            counters: metrics.runner_counters(kind),
            times: panics.noted(PanicSite::Describe, times, JobTimes::default()),
            answers: panics.noted(PanicSite::Describe, answers, false),
            manager,
            kind,
            panics,
        }
    }
}

impl Idle {
    pub(crate) fn kind(&self) -> &'static str {
        self.source.kind
    }

    /// Ends it.
    pub(crate) async fn delete(self) {
        let source = self.source;
        let ended = contain::future(|| source.manager.delete(self.runner.into_inner())).await;
        source.panics.noted(PanicSite::End, ended, ());
    }

    /// Ends all of these. They are of one kind: a change of kind empties the stack.
    pub(crate) async fn flush(runners: Vec<Self>) {
        let Some(first) = runners.first() else { return };
        let source = first.source.clone();
        let runners = runners.into_iter().map(|idle| idle.runner.into_inner());
        let ended = contain::future(|| source.manager.flush(runners.collect())).await;
        source.panics.noted(PanicSite::End, ended, ());
    }
}

impl<'a> BorrowedRunner<'a> {
    fn new(fleet: &'a Fleet, idle: Idle, was_idle: Duration) -> Self {
        fleet.lent.fetch_add(1, Ordering::Relaxed);
        Self {
            fleet,
            idle: Some(idle),
            was_idle,
        }
    }

    /// The runner's id.
    pub(crate) fn id(&self) -> RunnerId {
        let idle = self.idle.as_ref();
        idle.expect("a lent runner is there until it is brought back")
            .id
    }

    /// Runs a job on it.
    pub(crate) fn run<'r>(
        &'r mut self,
        job: &'r Job,
        control: JobControl,
    ) -> Contained<'r, RunReport> {
        let idle = self
            .idle
            .as_mut()
            .expect("a lent runner is there until it is brought back");
        contain::future(|| idle.runner.get().run(job, control))
    }

    /// The runner came to its own end with the job that it had: nothing is left to stop.
    pub(crate) fn finished(mut self) {
        if let Some(idle) = self.idle.take() {
            idle.source.counters.finished.increment(1);
        }
    }

    /// The runner was lost with the job that it had.
    pub(crate) fn crashed(mut self, metrics: &PoolMetrics) {
        if let Some(idle) = self.idle.take() {
            self.fleet.crashed.fetch_add(1, Ordering::Relaxed);
            metrics.runner_stopped(idle.kind(), CRASHED);
        }
    }

    /// Brings it back to wait for the next job. Returns it instead, with the reason, where it should not.
    pub(crate) fn bring_back(mut self) -> Option<(Idle, &'static str)> {
        let mut idle = self.idle.take()?;
        // One that has just worked has not waited.
        let why = self.fleet.retires(&mut idle);
        if let Some(why) = why.filter(|why| *why != IDLE_TIMEOUT) {
            return Some((idle, why));
        }
        self.fleet.put_back(idle).map(|idle| (idle, "replaced"))
    }

    /// Takes the runner out of the fleet, to be ended.
    pub(crate) fn take_out(mut self) -> Option<Idle> {
        self.idle.take()
    }
}

impl Drop for BorrowedRunner<'_> {
    fn drop(&mut self) {
        self.fleet.lent.fetch_sub(1, Ordering::Relaxed);
    }
}
