//! The supervisor: all pools of a process on one broker, and the handle to them.

mod check;
mod connection;
mod ending;
mod jobs;
mod outcome;
mod pressure;
mod state;
mod steer;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

pub use self::outcome::{
    DrainError, DrainReport, FlushMode, RunError, StopReport, SupervisorError,
};
use self::{
    check::{check, check_limits},
    connection::watch_connection,
    pressure::watch_pressure,
    state::{log_state, status, unready},
};
use super::{
    AllOrders, EventSink, PoolSpec, PoolStatus, Readiness, StartOptions,
    budget::WorkerBudget,
    pool::{PoolCommand, PoolTask, run_with_restarts},
    pool_orders::restored,
    random::Random,
    shared::{Common, PoolShared},
    steering::{Stored, Storing},
};
use crate::{
    config::SupervisorSettings,
    decide::{Decision, Orders, PoolName, QueueName, ReconcileResult},
    queue::{Connectivity, QueueDriver},
};

/// Commands that may wait for a pool. A pool takes each within a few microseconds, so a full channel means that the pool
/// has ended.
const COMMANDS: usize = 64;

/// Handle to a running supervisor. Cheap to clone; all clones are the same supervisor.
///
/// **On drop** of the last clone every pool stops at once. Messages of running jobs are given back while the runtime still
/// runs. Call [`drain`](Self::drain) for an orderly end.
#[derive(Debug, Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

struct Inner {
    common: Common,
    /// How far the orders are stored, if there is a store. Written by the task that stores them.
    stored: Option<watch::Receiver<Stored>>,
    /// Written by this handle, read by the task that reads the host's pressure.
    limits: watch::Sender<SupervisorSettings>,
    /// Written by this handle on start, reconfiguration and end.
    pools: Mutex<Pools>,
    /// Every pool's task, and the tasks that watch the connection and store orders.
    tasks: TaskTracker,
    /// Stops the tasks that watch the connection and store orders.
    watching: CancellationToken,
    /// Whether it was told to stop at once.
    at_once: CancellationToken,
}

/// The pools, and whether others may be added.
#[derive(Default)]
struct Pools {
    /// In the order of the configuration.
    current: Vec<Handle>,
    /// Removed by a reconfiguration, and still draining. Their handles are kept: a pool whose last handle was dropped
    /// stops at once.
    leaving: Vec<Handle>,
    /// The supervisor ends: no pool may be added any more, because nothing would drain it.
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
    shared: Arc<PoolShared>,
    commands: mpsc::Sender<PoolCommand>,
}

impl Supervisor {
    /// Starts the pools on a driver. Returns at once. If the broker is not reachable yet, the pools wait for it.
    ///
    /// # Errors
    /// The settings of a pool are not valid, or two pools have one name or one queue. Nothing runs then.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        driver: Arc<dyn QueueDriver>,
        pools: Vec<PoolSpec>,
        events: Option<Arc<dyn EventSink>>,
    ) -> Result<Self, SupervisorError> {
        let options = StartOptions {
            events,
            ..StartOptions::default()
        };
        Self::start_with(driver, pools, options)
    }

    /// The same as [`start`](Self::start), with orders of an earlier run, a store for them, and a clock.
    pub fn start_with(
        driver: Arc<dyn QueueDriver>,
        pools: Vec<PoolSpec>,
        options: StartOptions,
    ) -> Result<Self, SupervisorError> {
        check(&pools)?;
        check_limits(&options.limits)?;
        let StartOptions {
            events,
            mut orders,
            store,
            clock,
            limits,
            pressure: source,
            traces,
            holdings,
            seed,
        } = options;
        let order_changes = watch::Sender::new(0);
        let pressure = watch::Sender::new(None);
        let storing = store.map(|store| Storing::new(store, order_changes.subscribe()));
        let supervisor = Self {
            inner: Arc::new(Inner {
                common: Common {
                    driver,
                    events,
                    epoch: Instant::now(),
                    own_queues: Arc::default(),
                    redeliveries: Arc::default(),
                    clock,
                    traces,
                    holdings,
                    random: Arc::new(Random::new(seed)),
                    order_changes,
                    budget: Arc::new(WorkerBudget::new(limits.max_workers)),
                    pressure: pressure.subscribe(),
                },
                stored: storing.as_ref().map(Storing::stored),
                limits: watch::Sender::new(limits),
                pools: Mutex::default(),
                tasks: TaskTracker::new(),
                watching: CancellationToken::new(),
                at_once: CancellationToken::new(),
            }),
        };
        let inner = &supervisor.inner;
        let driver = inner.common.driver.clone();
        let watching = inner.watching.clone();
        inner.tasks.spawn(async move {
            let _ = watching.run_until_cancelled(watch_connection(driver)).await;
        });
        let watching = inner.watching.clone();
        let limits = inner.limits.subscribe();
        inner.tasks.spawn(async move {
            let _ = watching
                .run_until_cancelled(watch_pressure(limits, source, pressure))
                .await;
        });
        inner.common.own_queues.set(queues_of(&pools));
        if let Some(storing) = storing {
            let weak = Arc::downgrade(inner);
            let all = move || Some(weak.upgrade()?.orders());
            inner.tasks.spawn(storing.run(all, inner.watching.clone()));
        }
        let launched: Vec<Handle> = pools
            .into_iter()
            .map(|pool| {
                let orders = orders.remove(&pool.settings.name).unwrap_or_default();
                inner.launch(pool, orders)
            })
            .collect();
        inner.pools().current = launched;
        // A changed configuration, or another one on the same state directory.
        for (pool, orders) in &orders {
            let orders = orders.to_string().replace('\n', "; ");
            warn!(pool = %pool, orders, "dropped the orders of a pool that this configuration does not have");
        }
        // Orders that an earlier run stored may no longer be valid.
        inner
            .common
            .order_changes
            .send_modify(|changes| *changes += 1);
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

    /// The pools that [`reconfigure`](Self::reconfigure) has removed and that still drain.
    pub fn leaving(&self) -> Vec<PoolStatus> {
        let handles = {
            let mut pools = self.inner.pools();
            pools.leaving.retain(|handle| !handle.commands.is_closed());
            pools.leaving.clone()
        };
        let shared = handles.iter().map(|handle| &handle.shared);
        shared.map(|shared| status(shared)).collect()
    }

    /// One pool.
    pub fn pool(&self, name: &PoolName) -> Option<PoolStatus> {
        let handle = self.inner.find(name).ok()?;
        Some(status(&handle.shared))
    }

    /// The pool's last decision; `None` if there is no such pool, or before its first decision.
    pub fn explain(&self, name: &PoolName) -> Option<Decision> {
        let handle = self.inner.find(name).ok()?;
        handle.shared.last().decision.clone()
    }

    /// Whether it is connected and every pool can work.
    pub fn readiness(&self) -> Readiness {
        let mut reasons = Vec::new();
        match &*self.inner.common.driver.connectivity().borrow() {
            Connectivity::Connected => {}
            Connectivity::Connecting => {
                reasons.push(String::from("not connected to the broker yet"))
            }
            Connectivity::Disconnected { error } => {
                reasons.push(format!("not connected to the broker: {error}"));
            }
        }
        if reasons.is_empty() {
            let ending = self.inner.pools().ending;
            reasons.extend(self.pools().iter().filter_map(|pool| unready(pool, ending)));
        }
        Readiness { reasons }
    }

    /// Whether it is connected and every pool can work. [`readiness`](Self::readiness) has the reasons if not.
    pub fn is_ready(&self) -> bool {
        self.readiness().is_ready()
    }

    /// Reconciles a pool now, and returns the result. Level-triggered: if nothing has changed, it does nothing.
    ///
    /// # Errors
    /// No such pool, or it has ended.
    ///
    /// # Cancel-safety
    /// Cancel-safe: the reconcile takes place also if this future is dropped.
    pub async fn reconcile(&self, name: &PoolName) -> Result<ReconcileResult, SupervisorError> {
        self.inner.ask(name, PoolCommand::Reconcile).await
    }

    /// Replaces the set of pools: added pools start, removed pools drain within their `shutdown_grace`, changed pools change
    /// in place. No running job is stopped by a change. Each job that starts after the call returned runs
    /// on the new settings.
    ///
    /// # Errors
    /// The settings of a pool are not valid, two pools have one name or one queue, or the supervisor is ending; nothing
    /// has changed then.
    ///
    /// # Caveats
    /// A pool that is removed drains within its `shutdown_grace`. Until then, another pool on the same queue works at
    /// the same time.
    ///
    /// # Cancel-safety
    /// Not cancel-safe: pools that have not been told yet keep their old settings. Call it again.
    pub async fn reconfigure(&self, pools: Vec<PoolSpec>) -> Result<(), SupervisorError> {
        check(&pools)?;
        let mut commands = Vec::new();
        let mut answers = Vec::new();
        {
            // Without an await, so that other callers see either the old pools or the new ones.
            let mut state = self.inner.pools();
            if state.ending {
                return Err(SupervisorError::Ending);
            }
            // The queues of pools that are ending too, because their workers still work.
            let theirs = state.all();
            let theirs = theirs
                .iter()
                .map(|handle| handle.shared.settings().queue.clone());
            self.inner
                .common
                .own_queues
                .set(queues_of(&pools).chain(theirs));
            let mut old = std::mem::take(&mut state.current);
            for pool in pools {
                let name = &pool.settings.name;
                match old.iter().position(|handle| handle.shared.name == *name) {
                    Some(place) => {
                        let handle = old.swap_remove(place);
                        let (taken, answer) = oneshot::channel();
                        commands.push((handle.clone(), PoolCommand::Update(Box::new(pool), taken)));
                        answers.push(answer);
                        state.current.push(handle);
                    }
                    None => state
                        .current
                        .push(self.inner.launch(pool, Orders::default())),
                }
            }
            // The orders of removed pools are deleted.
            (self.inner.common.order_changes).send_modify(|changes| *changes += 1);
            for handle in old {
                let grace = handle.shared.settings().shutdown_grace;
                commands.push((handle.clone(), PoolCommand::Drain(grace)));
                state.leaving.push(handle);
            }
        }
        for (handle, command) in commands {
            // A pool that has ended needs no command.
            let _ = handle.commands.send(command).await;
        }
        for answer in answers {
            // A pool that has ended gives no answer.
            let _ = answer.await;
        }
        Ok(())
    }

    /// Changes the limits over all pools. They apply from the next reconcile on. No running job is stopped.
    ///
    /// # Errors
    /// [`SupervisorError::Limits`]. Then the old ones stay.
    pub fn set_limits(&self, limits: SupervisorSettings) -> Result<(), SupervisorError> {
        check_limits(&limits)?;
        self.inner.common.budget.set_max(limits.max_workers);
        self.inner.limits.send_replace(limits);
        Ok(())
    }

    /// The limits over all pools.
    pub fn limits(&self) -> SupervisorSettings {
        *self.inner.limits.borrow()
    }

    /// Logs the state of every pool and worker, at `info`.
    pub fn dump(&self) {
        let handles = self.inner.pools().all();
        for handle in &handles {
            log_state(&handle.shared);
        }
    }
}

impl Inner {
    /// Starts a pool's task.
    fn launch(&self, spec: PoolSpec, orders: Orders) -> Handle {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let orders = restored(orders, &spec.settings, self.common.clock.now());
        let shared = Arc::new(PoolShared::new(
            &self.common,
            spec.settings,
            spec.runners,
            orders,
        ));
        self.tasks
            .spawn(run_with_restarts(PoolTask::new(shared.clone(), inbox)));
        Handle { shared, commands }
    }

    /// The orders of every pool that has any.
    fn orders(&self) -> AllOrders {
        let pools = self.pools();
        let all = pools.current.iter().map(|handle| {
            let shared = &handle.shared;
            (shared.name.clone(), shared.orders.lock().clone())
        });
        all.filter(|(_, orders)| !orders.is_empty()).collect()
    }

    /// Forbids further pools, and returns those that there are.
    fn end(&self) -> Vec<Handle> {
        let mut pools = self.pools();
        pools.ending = true;
        pools.all()
    }

    /// The pool with this name, and those that a reload has removed and that still drain.
    fn find_all(&self, name: &PoolName) -> Vec<Handle> {
        let mut all = self.pools().all();
        all.retain(|handle| handle.shared.name == *name);
        all
    }

    fn find(&self, name: &PoolName) -> Result<Handle, SupervisorError> {
        self.pools()
            .current
            .iter()
            .find(|handle| handle.shared.name == *name)
            .cloned()
            .ok_or_else(|| SupervisorError::NoSuchPool(name.clone()))
    }

    async fn send(&self, name: &PoolName, command: PoolCommand) -> Result<(), SupervisorError> {
        let handle = self.find(name)?;
        handle
            .commands
            .send(command)
            .await
            .map_err(|_| SupervisorError::Ended(name.clone()))
    }

    /// Sends a command that is answered, and waits for the answer.
    async fn ask<T>(
        &self,
        name: &PoolName,
        command: impl FnOnce(oneshot::Sender<T>) -> PoolCommand,
    ) -> Result<T, SupervisorError> {
        let (answer, result) = oneshot::channel();
        self.send(name, command(answer)).await?;
        result.await.map_err(|_| {
            let ended = self
                .find(name)
                .is_ok_and(|handle| handle.commands.is_closed());
            match ended {
                true => SupervisorError::Ended(name.clone()),
                false => SupervisorError::Failed(name.clone()),
            }
        })
    }

    fn pools(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Pools also notice their closed command channels. This ends the jobs of pools that were removed before, too.
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

fn queues_of(pools: &[PoolSpec]) -> impl Iterator<Item = QueueName> {
    pools.iter().map(|pool| pool.settings.queue.clone())
}

#[cfg(test)]
mod tests;
