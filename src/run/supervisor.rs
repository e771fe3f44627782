//! The supervisor: all pools of a process on one broker, and the handle to them.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use super::{
    DepthStatus, EventSink, PoolSpec, PoolState, PoolStatus, Readiness, RunnerStatus, WorkerStatus,
    metrics::BrokerMetrics,
    pool::{Command, Pool},
    replies::OwnQueues,
    shared::Shared,
};
use crate::{
    config::PoolSettings,
    decide::{Decision, Intake, PoolName, QueueName, ReconcileResult, Rule},
    queue::{Connectivity, QueueDriver},
};

/// Commands that may wait for a pool. Each is taken within a few microseconds, so a full channel is a pool that
/// has ended.
const COMMANDS: usize = 64;

/// Handle to a running supervisor. Cheap to clone; all clones are the same supervisor.
///
/// **On drop** of the last clone every pool stops at once, and what ran is given back, as far as the runtime still
/// runs. Call [`drain`](Self::drain) to end in order.
#[derive(Debug, Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

struct Inner {
    driver: Arc<dyn QueueDriver>,
    events: Option<Arc<dyn EventSink>>,
    epoch: Instant,
    /// Written by this handle before it starts or changes a pool, read by workers.
    own_queues: Arc<OwnQueues>,
    /// Written by this handle on start, reconfiguration and end.
    pools: Mutex<Pools>,
    /// Every pool's task, and the one that watches the connection.
    tasks: TaskTracker,
    /// Stops the task that watches the connection.
    watching: CancellationToken,
}

/// The pools, and whether there may be others.
#[derive(Default)]
struct Pools {
    /// In the order of the configuration.
    current: Vec<Handle>,
    /// Removed by a reconfiguration, and still draining. Their handles are kept: a pool whose last handle is gone
    /// stops at once.
    leaving: Vec<Handle>,
    /// The supervisor ends: no pool may be added any more, for nobody would drain it.
    ending: bool,
}

impl Pools {
    /// Every pool that may still run.
    fn all(&mut self) -> Vec<Handle> {
        self.leaving.retain(|handle| !handle.commands.is_closed());
        self.current.iter().chain(&self.leaving).cloned().collect()
    }
}

#[derive(Clone)]
struct Handle {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

/// What a drain came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainReport {
    /// Jobs that were stopped and given back to their queues.
    pub given_back: u64,
}

/// A drain did not come to a clean end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DrainError {
    /// The deadline passed; jobs that still ran were stopped and given back.
    #[error("drain before the deadline: {given_back} running jobs were stopped and given back")]
    DeadlinePassed {
        /// How many.
        given_back: u64,
    },
}

/// A supervisor could not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// Two pools on one queue would each plan for the whole of it.
    #[error("run the pools {first} and {second} on one queue, {queue}")]
    SharedQueue {
        /// A pool.
        first: PoolName,
        /// Another.
        second: PoolName,
        /// Their queue.
        queue: QueueName,
    },
    /// Two pools of one name.
    #[error("run two pools named {0}")]
    SharedName(PoolName),
    /// No such pool.
    #[error("find a pool named {0}")]
    NoSuchPool(PoolName),
    /// It is ending, so its pools stay as they are.
    #[error("change the pools of a supervisor that is ending")]
    Ending,
    /// The pool has ended, or is ending.
    #[error("reach the pool {0}: it has ended")]
    Ended(PoolName),
}

impl Supervisor {
    /// Starts the pools on a driver. Returns at once: a broker that is not there yet is waited for.
    ///
    /// # Errors
    /// Two pools have one name or one queue.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        driver: Arc<dyn QueueDriver>,
        pools: Vec<PoolSpec>,
        events: Option<Arc<dyn EventSink>>,
    ) -> Result<Self, SupervisorError> {
        check(&pools)?;
        let supervisor = Self {
            inner: Arc::new(Inner {
                driver,
                events,
                epoch: Instant::now(),
                own_queues: Arc::default(),
                pools: Mutex::default(),
                tasks: TaskTracker::new(),
                watching: CancellationToken::new(),
            }),
        };
        let inner = &supervisor.inner;
        let connectivity = inner.driver.connectivity();
        let watching = inner.watching.clone();
        inner.tasks.spawn(async move {
            let _ = watching
                .run_until_cancelled(watch_connection(connectivity))
                .await;
        });
        inner.own_queues.set(queues_of(&pools));
        let handles: Vec<Handle> = pools.into_iter().map(|pool| inner.launch(pool)).collect();
        inner.pools().current = handles;
        Ok(supervisor)
    }

    /// Every pool, in the order of the configuration.
    pub fn pools(&self) -> Vec<PoolStatus> {
        let handles = self.inner.pools().current.clone();
        handles
            .iter()
            .map(|handle| status(&handle.shared))
            .collect()
    }

    /// One pool.
    pub fn pool(&self, name: &PoolName) -> Option<PoolStatus> {
        let handle = self.inner.find(name).ok()?;
        Some(status(&handle.shared))
    }

    /// The record of the pool's last decision; `None` for no such pool, or before the first.
    pub fn explain(&self, name: &PoolName) -> Option<Decision> {
        let handle = self.inner.find(name).ok()?;
        handle.shared.view().decision.clone()
    }

    /// Whether it is connected and every pool can work.
    pub fn readiness(&self) -> Readiness {
        let mut reasons = Vec::new();
        match &*self.inner.driver.connectivity().borrow() {
            Connectivity::Connected => {}
            Connectivity::Connecting => {
                reasons.push(String::from("not connected to the broker yet"))
            }
            Connectivity::Disconnected { error } => {
                reasons.push(format!("not connected to the broker: {error}"));
            }
        }
        if reasons.is_empty() {
            for pool in self.pools() {
                let cause = pool.cause.as_deref().unwrap_or_default();
                match pool.state {
                    PoolState::Waiting => {
                        reasons.push(format!("pool {} waits: no queue {}", pool.name, pool.queue))
                    }
                    PoolState::Faulted | PoolState::Blocked | PoolState::Disconnected => {
                        reasons.push(format!(
                            "pool {} is {}: {cause}",
                            pool.name,
                            pool.state.as_str()
                        ));
                    }
                    PoolState::Draining => reasons.push(format!("pool {} drains", pool.name)),
                    PoolState::Active | PoolState::Idle | PoolState::Paused => {
                        if pool.depth.age_ms.is_none() {
                            reasons.push(format!(
                                "pool {}: the queue's depth was not read yet",
                                pool.name
                            ));
                        }
                    }
                }
            }
        }
        Readiness { reasons }
    }

    /// Reconciles a pool now, and says what it came to. Level-triggered: when nothing has changed, it does nothing.
    ///
    /// # Errors
    /// No such pool, or it has ended.
    ///
    /// # Cancel-safety
    /// Cancel-safe: the reconcile takes place all the same.
    pub async fn reconcile(&self, name: &PoolName) -> Result<ReconcileResult, SupervisorError> {
        let (answer, result) = oneshot::channel();
        self.inner.send(name, Command::Reconcile(answer)).await?;
        result
            .await
            .map_err(|_| SupervisorError::Ended(name.clone()))
    }

    /// Stops intake: messages stay in the queue, running jobs go on to their ends.
    ///
    /// # Errors
    /// No such pool.
    pub fn pause(&self, name: &PoolName) -> Result<(), SupervisorError> {
        self.inner.find(name)?.shared.gate.set_paused(true);
        Ok(())
    }

    /// Opens intake again. Errors as for [`pause`](Self::pause).
    pub fn resume(&self, name: &PoolName) -> Result<(), SupervisorError> {
        self.inner.find(name)?.shared.gate.set_paused(false);
        Ok(())
    }

    /// Pins a pool to a number of workers, clamped to its `max`, or lets go of it.
    ///
    /// # Errors
    /// No such pool, or it has ended.
    pub async fn scale(
        &self,
        name: &PoolName,
        workers: Option<u32>,
    ) -> Result<(), SupervisorError> {
        self.inner.send(name, Command::Pin(workers)).await
    }

    /// Deletes the idle runners of a pool now, and says how many they were.
    ///
    /// # Errors
    /// No such pool, or it has ended.
    pub async fn flush(&self, name: &PoolName) -> Result<u32, SupervisorError> {
        let (answer, result) = oneshot::channel();
        self.inner.send(name, Command::Flush(answer)).await?;
        result
            .await
            .map_err(|_| SupervisorError::Ended(name.clone()))
    }

    /// Takes a new set of pools over: added ones start, removed ones drain within their `shutdown_grace`, changed
    /// ones change in place. No running job is stopped by a change.
    ///
    /// # Errors
    /// Two pools have one name or one queue, or the supervisor is ending; nothing has changed then.
    ///
    /// # Caveats
    /// A pool that is removed drains within its `shutdown_grace`. Until then another on the same queue works beside
    /// it.
    pub async fn reconfigure(&self, pools: Vec<PoolSpec>) -> Result<(), SupervisorError> {
        check(&pools)?;
        let mut commands = Vec::new();
        {
            // Without an await: whoever asks meanwhile sees either the old pools or the new ones.
            let mut state = self.inner.pools();
            if state.ending {
                return Err(SupervisorError::Ending);
            }
            // Those that are on their way out, too: their workers are still at work.
            let theirs = state.all();
            let theirs = theirs
                .iter()
                .map(|handle| handle.shared.settings().queue.clone());
            self.inner.own_queues.set(queues_of(&pools).chain(theirs));
            let mut old = std::mem::take(&mut state.current);
            for pool in pools {
                let name = &pool.settings.name;
                match old.iter().position(|handle| handle.shared.name == *name) {
                    Some(place) => {
                        let handle = old.swap_remove(place);
                        commands.push((handle.clone(), Command::Update(Box::new(pool))));
                        state.current.push(handle);
                    }
                    None => state.current.push(self.inner.launch(pool)),
                }
            }
            for handle in old {
                let grace = handle.shared.settings().shutdown_grace;
                commands.push((handle.clone(), Command::Drain(grace)));
                state.leaving.push(handle);
            }
        }
        for (handle, command) in commands {
            // A pool that has ended does not mind.
            let _ = handle.commands.send(command).await;
        }
        Ok(())
    }

    /// Drains every pool and ends the supervisor: no worker takes anything more, running jobs are finished and
    /// settled. What still runs after `grace` is stopped (see the runner's own grace) and given back.
    ///
    /// # Errors
    /// The deadline passed and jobs were given back. The supervisor has ended all the same.
    ///
    /// # Cancel-safety
    /// A dropped future leaves the drain going on; calling again waits for it.
    pub async fn drain(&self, grace: Duration) -> Result<DrainReport, DrainError> {
        self.drain_each(|_| grace).await
    }

    /// Drains every pool, each within its own `shutdown_grace`, and ends the supervisor. Otherwise as
    /// [`drain`](Self::drain).
    pub async fn shutdown(&self) -> Result<DrainReport, DrainError> {
        self.drain_each(|settings| settings.shutdown_grace).await
    }

    async fn drain_each(
        &self,
        grace: impl Fn(&PoolSettings) -> Duration,
    ) -> Result<DrainReport, DrainError> {
        let handles = self.inner.end();
        let stopped_before = stopped(&handles);
        for handle in &handles {
            let grace = grace(&handle.shared.settings());
            // A pool that has ended is as drained as can be.
            let _ = handle.commands.send(Command::Drain(grace)).await;
        }
        let given_back = self
            .until_ended(&handles)
            .await
            .saturating_sub(stopped_before);
        match given_back {
            0 => Ok(DrainReport { given_back }),
            given_back => Err(DrainError::DeadlinePassed { given_back }),
        }
    }

    /// Stops every job at once, gives it back, and ends the supervisor. A drain that waits meanwhile ends too.
    ///
    /// # Cancel-safety
    /// A dropped future leaves the stop going on; calling again waits for it.
    pub async fn stop_now(&self) -> DrainReport {
        let handles = self.inner.end();
        let stopped_before = stopped(&handles);
        for handle in &handles {
            handle.shared.kill.cancel();
        }
        let given_back = self
            .until_ended(&handles)
            .await
            .saturating_sub(stopped_before);
        DrainReport { given_back }
    }

    /// Waits until every pool has ended, closes the broker's connections, and counts the jobs that were stopped.
    async fn until_ended(&self, handles: &[Handle]) -> u64 {
        let inner = &self.inner;
        inner.watching.cancel();
        inner.tasks.close();
        inner.tasks.wait().await;
        inner.driver.close().await;
        stopped(handles)
    }

    /// Logs the state of every pool and worker, at `info`.
    pub fn dump(&self) {
        let handles = self.inner.pools().all();
        for handle in &handles {
            let status = status(&handle.shared);
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
            let workers: Vec<_> = handle.shared.workers().values().cloned().collect();
            for cell in workers {
                let seen = cell.seen();
                info!(
                    pool = %status.name,
                    worker.id = %cell.id,
                    phase = ?seen.phase,
                    held = seen.held,
                    consuming = seen.consuming.is_some(),
                    "state of a worker"
                );
            }
        }
    }
}

impl Inner {
    /// Starts a pool's task.
    fn launch(&self, spec: PoolSpec) -> Handle {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let shared = Arc::new(Shared::new(
            self.driver.clone(),
            spec.settings,
            spec.runners,
            self.events.clone(),
            self.own_queues.clone(),
            self.epoch,
        ));
        self.tasks.spawn(Pool::new(shared.clone(), inbox).run());
        Handle { shared, commands }
    }

    /// Lets no pool in any more, and gives those that there are.
    fn end(&self) -> Vec<Handle> {
        let mut pools = self.pools();
        pools.ending = true;
        pools.all()
    }

    fn find(&self, name: &PoolName) -> Result<Handle, SupervisorError> {
        self.pools()
            .current
            .iter()
            .find(|handle| handle.shared.name == *name)
            .cloned()
            .ok_or_else(|| SupervisorError::NoSuchPool(name.clone()))
    }

    async fn send(&self, name: &PoolName, command: Command) -> Result<(), SupervisorError> {
        let handle = self.find(name)?;
        handle
            .commands
            .send(command)
            .await
            .map_err(|_| SupervisorError::Ended(name.clone()))
    }

    fn pools(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Pools hear of it by their command channels, too; this also ends jobs of one that was removed before.
        self.watching.cancel();
        for handle in self.pools().all() {
            handle.shared.kill.cancel();
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<PoolName> = self
            .pools()
            .current
            .iter()
            .map(|h| h.shared.name.clone())
            .collect();
        f.debug_struct("Supervisor")
            .field("pools", &names)
            .finish_non_exhaustive()
    }
}

fn check(pools: &[PoolSpec]) -> Result<(), SupervisorError> {
    for (n, pool) in pools.iter().enumerate() {
        for other in &pools[..n] {
            let (pool, other) = (&pool.settings, &other.settings);
            if pool.name == other.name {
                return Err(SupervisorError::SharedName(pool.name.clone()));
            }
            if pool.queue == other.queue {
                return Err(SupervisorError::SharedQueue {
                    first: other.name.clone(),
                    second: pool.name.clone(),
                    queue: pool.queue.clone(),
                });
            }
        }
    }
    Ok(())
}

fn queues_of(pools: &[PoolSpec]) -> impl Iterator<Item = QueueName> {
    pools.iter().map(|pool| pool.settings.queue.clone())
}

fn stopped(handles: &[Handle]) -> u64 {
    handles
        .iter()
        .map(|handle| handle.shared.totals.stopped())
        .sum()
}

/// Follows the connection for metrics and the log.
async fn watch_connection(mut connectivity: watch::Receiver<Connectivity>) {
    let metrics = BrokerMetrics::new();
    let mut was_connected = false;
    let mut shown = None;
    loop {
        let state = connectivity.borrow_and_update().clone();
        metrics.connected.set(if state == Connectivity::Connected {
            1.0
        } else {
            0.0
        });
        if shown.as_ref() != Some(&state) {
            match &state {
                Connectivity::Connecting => {}
                Connectivity::Connected => {
                    if was_connected {
                        metrics.reconnects.increment(1);
                    }
                    was_connected = true;
                    info!("connected to the broker");
                }
                Connectivity::Disconnected { error } => {
                    warn!(
                        error,
                        "not connected to the broker: trying again with backoff"
                    );
                }
            }
            shown = Some(state);
        }
        if connectivity.changed().await.is_err() {
            return;
        }
    }
}

/// A pool at this instant.
fn status(shared: &Shared) -> PoolStatus {
    let now = shared.now();
    let view = shared.view().clone();
    let (census, holdings) = shared.census(now);
    let counts = census.counts();
    let (idle, busy) = shared.fleet.counts();
    let inputs = view.decision.as_ref().map(|decision| &decision.inputs);
    let since = view
        .decision
        .as_ref()
        .map_or(Duration::ZERO, |decision| now.since(decision.at));
    let ready = inputs.map_or(0, |inputs| inputs.ready);
    let (state, cause) = state(shared, &view, counts.busy + counts.retiring);
    PoolStatus {
        name: shared.name.clone(),
        queue: shared.settings().queue.clone(),
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
        delayed: view.delayed,
        demand: ready.saturating_add(holdings.held),
        expected: view
            .decision
            .as_ref()
            .map_or(0, |decision| decision.expected),
        pinned: view.pinned,
        workers: WorkerStatus {
            bare: counts.bare,
            live: counts.live(),
            draining: counts.draining,
        },
        runners: RunnerStatus { idle, busy },
        jobs: shared.totals.snapshot(),
        replies: shared.totals.replies(),
    }
}

/// What a pool is about, and why where that needs saying. The first that applies.
fn state(shared: &Shared, view: &super::shared::View, busy: u32) -> (PoolState, Option<String>) {
    let intake = shared.gate.intake(shared.now());
    let won = view.decision.as_ref().map(|decision| decision.won);
    match (intake, shared.connectivity()) {
        (Intake::Draining, _) => (PoolState::Draining, None),
        (Intake::Paused, _) => (PoolState::Paused, None),
        (_, Connectivity::Disconnected { error }) => (PoolState::Disconnected, Some(error)),
        (_, Connectivity::Connecting) => (PoolState::Disconnected, None),
        (Intake::Blocked, _) => (PoolState::Blocked, shared.gate.cause()),
        // Nothing is left to try with, so there is nothing to be faulted at.
        (trial, _) if trial.is_trial() && busy == 0 && won == Some(Rule::Empty) => {
            (PoolState::Idle, None)
        }
        (Intake::Faulted | Intake::Trial | Intake::BreakerOpen | Intake::BreakerTrial, _) => {
            (PoolState::Faulted, shared.gate.cause())
        }
        _ if won == Some(Rule::Missing) => (
            PoolState::Waiting,
            Some(format!(
                "the broker has no queue {}",
                shared.settings().queue
            )),
        ),
        _ if busy == 0 && matches!(won, Some(Rule::Empty) | None) => (PoolState::Idle, None),
        _ => (PoolState::Active, view.open_error.clone()),
    }
}
