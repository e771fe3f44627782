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

use tokio::time::Instant;

use super::{
    events::{Event, EventSink},
    metrics::{PoolMetrics, RunnerCounters},
};
use crate::{
    decide::{PoolName, RunnerId},
    runner::{CreateRunner, Runner, RunnerManager, StartError},
};

/// A pool's runners.
pub(crate) struct Fleet {
    pool: PoolName,
    /// Written by the pool on a change of configuration, read by workers.
    source: RwLock<Arc<Source>>,
    /// The newest last, and lent first: the rest may stay cold, and are the ones that have been idle longest.
    idle: Mutex<Vec<Idle>>,
    lent: AtomicU32,
    next_id: AtomicU64,
    events: Option<Arc<dyn EventSink>>,
}

/// Where runners come from, and how they are counted.
struct Source {
    manager: Arc<dyn RunnerManager>,
    kind: &'static str,
    counters: RunnerCounters,
}

/// A runner without a job.
pub(crate) struct Idle {
    id: RunnerId,
    runner: Box<dyn Runner>,
    since: Instant,
    source: Arc<Source>,
}

/// A runner that a worker has. **On drop** it ends with whoever had it.
pub(crate) struct Lent<'a> {
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
        Self {
            pool,
            source: RwLock::new(Arc::new(Source::new(manager, metrics))),
            idle: Mutex::new(Vec::new()),
            lent: AtomicU32::new(0),
            next_id: AtomicU64::new(0),
            events,
        }
    }

    /// The present kind of runner.
    pub(crate) fn kind(&self) -> &'static str {
        self.source().kind
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
        *self.source.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(Source::new(manager, metrics));
        std::mem::take(&mut *self.idle())
    }

    /// Lends a runner: an idle one wherever there is one, else a new one.
    ///
    /// # Cancel-safety
    /// Cancel-safe, as [`RunnerManager::create`] is.
    pub(crate) async fn lend(&self) -> Result<Lent<'_>, StartError> {
        let waiting = self.idle().pop();
        let lent = match waiting {
            Some(idle) => {
                let was_idle = idle.since.elapsed();
                Lent::new(self, idle, was_idle)
            }
            None => {
                let source = self.source();
                let id = RunnerId(self.next_id.fetch_add(1, Ordering::Relaxed));
                let begun = Instant::now();
                let runner = source
                    .manager
                    .create(CreateRunner {
                        id,
                        pool: self.pool.clone(),
                    })
                    .await?;
                source.counters.started.increment(1);
                self.emit(|pool| Event::RunnerInstalled {
                    pool,
                    duration: begun.elapsed(),
                });
                let since = Instant::now();
                Lent::new(
                    self,
                    Idle {
                        id,
                        runner,
                        since,
                        source,
                    },
                    Duration::ZERO,
                )
            }
        };
        Ok(lent)
    }

    /// The idle runners, oldest first.
    pub(crate) fn idle_ids(&self) -> Vec<RunnerId> {
        self.idle().iter().map(|idle| idle.id).collect()
    }

    /// Idle and busy runners.
    pub(crate) fn counts(&self) -> (u32, u32) {
        let idle = u32::try_from(self.idle().len()).unwrap_or(u32::MAX);
        (idle, self.lent.load(Ordering::Relaxed))
    }

    /// Takes these out of the idle ones, as far as nobody has lent them since.
    pub(crate) fn remove(&self, ids: &[RunnerId]) -> Vec<Idle> {
        if ids.is_empty() {
            return Vec::new();
        }
        self.idle()
            .extract_if(.., |idle| ids.contains(&idle.id))
            .collect()
    }

    /// Takes out all idle runners that are no longer alive.
    pub(crate) fn remove_dead(&self) -> Vec<Idle> {
        self.idle()
            .extract_if(.., |idle| !idle.runner.is_alive())
            .collect()
    }

    /// Takes out all idle runners.
    pub(crate) fn remove_all(&self) -> Vec<Idle> {
        std::mem::take(&mut *self.idle())
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
            events.emit(event(self.pool.clone()));
        }
    }

    fn source(&self) -> Arc<Source> {
        self.source
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        // A runner's `is_alive` is the only foreign code under this lock; the stack is whole if it panics.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    fn new(manager: Arc<dyn RunnerManager>, metrics: &PoolMetrics) -> Self {
        let kind = manager.kind();
        Self {
            counters: metrics.runner_counters(kind),
            manager,
            kind,
        }
    }
}

impl Idle {
    pub(crate) fn kind(&self) -> &'static str {
        self.source.kind
    }

    /// Ends it.
    pub(crate) async fn delete(self) {
        self.source.manager.delete(self.runner).await;
    }

    /// Ends all of these. They are of one kind: a change of kind empties the stack.
    pub(crate) async fn flush(runners: Vec<Self>) {
        let Some(first) = runners.first() else { return };
        let manager = first.source.manager.clone();
        manager
            .flush(runners.into_iter().map(|idle| idle.runner).collect())
            .await;
    }
}

impl<'a> Lent<'a> {
    fn new(fleet: &'a Fleet, idle: Idle, was_idle: Duration) -> Self {
        fleet.lent.fetch_add(1, Ordering::Relaxed);
        Self {
            fleet,
            idle: Some(idle),
            was_idle,
        }
    }

    /// The runner.
    pub(crate) fn runner(&mut self) -> &mut dyn Runner {
        let idle = self
            .idle
            .as_mut()
            .expect("a lent runner is there until it is brought back");
        &mut *idle.runner
    }

    /// The runner came to its own end with the job that it had: nothing is left to stop.
    pub(crate) fn finished(mut self) {
        if let Some(idle) = self.idle.take() {
            idle.source.counters.finished.increment(1);
        }
    }

    /// Brings it back to wait for the next job. Returns it instead where its kind is no longer wanted.
    pub(crate) fn bring_back(mut self) -> Option<Idle> {
        let mut idle = self.idle.take()?;
        idle.since = Instant::now();
        // Asked under the lock of the stack: a change of kind first changes the source, then empties the stack.
        let mut stack = self.fleet.idle();
        if !Arc::ptr_eq(&self.fleet.source(), &idle.source) {
            return Some(idle);
        }
        stack.push(idle);
        None
    }

    /// Takes the runner out of the fleet, to be ended.
    pub(crate) fn take_out(mut self) -> Option<Idle> {
        self.idle.take()
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.fleet.lent.fetch_sub(1, Ordering::Relaxed);
    }
}
