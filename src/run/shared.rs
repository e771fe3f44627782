//! The data that the tasks of one pool share: the pool itself, its workers, the count of its own queues, and the
//! supervisor's handle. Each field names who writes it and who reads it. The fields that belong together have a type of
//! their own.

mod broker;
mod copies;
mod group;
mod programs;
mod roster;
mod stats;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    broker::{ANSWER, Broker},
    copies::CopyState,
    group::PoolGroup,
    programs::{Programs, ProgramsHeld},
    roster::{HeldCounts, Roster},
    stats::PoolStats,
};
use super::{
    budget::WorkerBudget, clock::Clock, declaring::Declaring, events::EventSink, fleet::Fleet,
    gate::Gate, keyed::KeyedIntake, own_queues::OwnQueues, pool_orders::PoolOrders, random::Random,
    redeliveries::RedeliveryTracker, reply_warnings::ReplyWarnings, running_jobs::RunningJobs,
    traces::TraceLink, worker_state::WorkerStopReason,
};
use crate::{
    config::PoolSettings,
    decide::{Census, Decision, Intake, JobId, Moment, Orders, Phase, PoolName, RunnerId},
    queue::{HoldingsView, QueueDriver},
    runner::RunnerManager,
};

/// The data that all pools of a supervisor share.
pub(crate) struct Common {
    pub(crate) driver: Arc<dyn QueueDriver>,
    pub(crate) events: Option<Arc<dyn EventSink>>,
    /// When the supervisor started: the zero of every [`Moment`].
    pub(crate) epoch: Instant,
    /// Written by the supervisor's handle before it starts or changes a pool, read by workers.
    pub(crate) own_queues: Arc<OwnQueues>,
    /// Written and read by workers.
    pub(crate) redeliveries: Arc<RedeliveryTracker>,
    pub(crate) clock: Clock,
    pub(crate) traces: Option<Arc<dyn TraceLink>>,
    /// Read by pools.
    pub(crate) holdings: Option<Arc<dyn HoldingsView>>,
    pub(crate) random: Arc<Random>,
    /// Counts changes of any pool's orders. Written by pools and by the supervisor's handle, read by the task that stores
    /// orders.
    pub(crate) order_changes: watch::Sender<u64>,
    /// Written by pools and by the supervisor's handle, read by pools.
    pub(crate) budget: Arc<WorkerBudget>,
    /// Why the host has no room for more workers. Written by the task that reads the host's pressure, read by pools.
    pub(crate) pressure: watch::Receiver<Option<String>>,
}

/// The data that the tasks of one pool share.
pub(crate) struct PoolShared {
    pub(crate) name: PoolName,
    /// The machine's name, for dead letters and consumer tags.
    pub(crate) host: String,
    /// When the supervisor started: the zero of every [`Moment`].
    epoch: Instant,
    /// Written by the pool on a change of configuration, read by workers at each job.
    settings: RwLock<Arc<PoolSettings>>,
    /// The operator's orders. Written by the pool, read for the status.
    pub(crate) orders: PoolOrders,
    /// Whether messages may be taken. Written by the pool and by workers.
    pub(crate) gate: Gate,
    pub(crate) broker: Broker,
    /// Written and read by workers and by the pool.
    pub(crate) keyed: Arc<KeyedIntake>,
    pub(crate) roster: Roster,
    pub(crate) fleet: Fleet,
    /// Those that consume the queue themselves. Written by the pool and by workers.
    pub(crate) programs: Programs,
    pub(crate) stats: PoolStats,
    /// Jobs that run now. Written by workers.
    pub(crate) running: RunningJobs,
    pub(crate) copies: CopyState,
    /// The queues of all pools of the supervisor. No reply goes to them.
    pub(crate) own_queues: Arc<OwnQueues>,
    pub(crate) reply_warnings: ReplyWarnings,
    /// Shared by all pools of the supervisor.
    pub(crate) traces: Option<Arc<dyn TraceLink>>,
    /// Of all pools of the supervisor.
    pub(crate) random: Arc<Random>,
    pub(crate) redeliveries: Arc<RedeliveryTracker>,
    pub(crate) declaring: Declaring,
    /// The daemons that share the queue. Written by the group's task, read by the pool.
    pub(crate) group: PoolGroup,
    /// Shared by all pools of the supervisor.
    pub(crate) budget: Arc<WorkerBudget>,
    pub(crate) pressure: watch::Receiver<Option<String>>,
    /// Written by the pool after each reconcile. Read by `status` and `explain`.
    last: Mutex<LastReconcile>,
    /// Ends every job at once. Cancelled by the supervisor, read by runners.
    pub(crate) kill: CancellationToken,
    /// Ends every job with grace. Cancelled by the pool at a drain's deadline; parent of each worker's own.
    pub(crate) stop: CancellationToken,
    /// Counts the ids that were made for jobs whose messages have none.
    next_job: AtomicU64,
}

/// The decision and the findings of the last reconcile.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastReconcile {
    pub(crate) decision: Option<Decision>,
    /// Why the pool cannot get its messages, if it cannot.
    pub(crate) stuck: Option<String>,
}

impl PoolShared {
    pub(crate) fn new(
        common: &Common,
        settings: PoolSettings,
        runners: Arc<dyn RunnerManager>,
        orders: Orders,
    ) -> Self {
        let name = settings.name.clone();
        let kill = CancellationToken::new();
        let gate = Gate::default();
        gate.set_breaker(settings.retry.breaker);
        Self {
            host: hostname(),
            epoch: common.epoch,
            settings: RwLock::new(Arc::new(settings)),
            orders: PoolOrders::new(
                name.clone(),
                orders,
                common.clock.clone(),
                common.order_changes.clone(),
            ),
            gate,
            broker: Broker::new(name.clone(), common.driver.clone(), kill.clone()),
            keyed: Arc::default(),
            roster: Roster::default(),
            fleet: Fleet::new(name.clone(), runners, common.events.clone()),
            programs: Programs::new(common.holdings.clone()),
            stats: PoolStats::new(&name),
            running: RunningJobs::default(),
            copies: CopyState::default(),
            own_queues: common.own_queues.clone(),
            reply_warnings: ReplyWarnings::default(),
            redeliveries: common.redeliveries.clone(),
            traces: common.traces.clone(),
            random: common.random.clone(),
            declaring: Declaring::default(),
            group: PoolGroup::default(),
            budget: common.budget.clone(),
            pressure: common.pressure.clone(),
            last: Mutex::default(),
            kill,
            stop: CancellationToken::new(),
            next_job: AtomicU64::new(0),
            name,
        }
    }

    pub(crate) fn now(&self) -> Moment {
        Moment::after_start(self.epoch.elapsed())
    }

    pub(crate) fn settings(&self) -> Arc<PoolSettings> {
        self.settings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_settings(&self, settings: PoolSettings) {
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    pub(crate) fn last(&self) -> MutexGuard<'_, LastReconcile> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Orders every worker to leave: a waiting one at once, a busy one after its job. What the pool has taken ahead of them
    /// is given back.
    pub(crate) fn order_all_to_leave(&self, why: WorkerStopReason) {
        self.roster.order_all_to_leave(why);
        self.keyed.stop_taking();
    }

    /// Whether messages may be taken now, and why not.
    pub(crate) fn intake(&self) -> Intake {
        let ordered = self.orders.lock().intake();
        self.gate.intake(self.now(), ordered)
    }

    /// An id for a job whose message has none. Practically unique across restarts and machines.
    pub(crate) fn make_job_id(&self) -> JobId {
        let n = self.next_job.fetch_add(1, Ordering::Relaxed);
        let now = self.orders.clock.now();
        let salt = self.random.number() >> 32;
        JobId::from(format!(
            "{}-{:x}-{n:x}-{salt:08x}",
            self.name,
            now.as_microsecond()
        ))
    }

    /// The census of workers and idle runners, with what the live workers hold. Consumers are counted if they were
    /// opened before `before`.
    pub(crate) fn census(&self, before: Moment) -> (Census, HeldCounts) {
        let (workers, mut held) = self.roster.census(before);
        if !self.fleet.consumes() {
            return (Census::new(workers, self.fleet.idle_ids()), held);
        }
        // Such a program is a worker and its runner in one: a worker that waits is an idle runner.
        let waiting = workers
            .iter()
            .filter(|worker| worker.phase == Phase::Waiting)
            .map(|worker| RunnerId(worker.id.0));
        let waiting: Vec<_> = waiting.collect();
        let known = self.programs.held();
        (held.held, held.holders) = (known.held, known.holders);
        self.fleet.set_busy_programs(held.busy_programs);
        (Census::new(workers, waiting), held)
    }
}

impl fmt::Debug for PoolShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolShared")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn hostname() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| String::from("unknown"))
}
