//! What a pool's tasks share. Each field names who writes it and who reads it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    cell::WorkerCell,
    declaring::Declaring,
    delayed::Fed,
    events::EventSink,
    fleet::Fleet,
    gate::Gate,
    metrics::{PoolMetrics, ReplyOutcome, Settlement},
    replies::{Complaints, OwnQueues},
    status::{JobTotals, ReplyTotals},
};
use crate::{
    config::PoolSettings,
    decide::{Census, CensusWorker, Decision, JobId, Moment, Phase, PoolName, WorkerId},
    queue::{Connectivity, QueueDriver},
    runner::RunnerManager,
};

/// What a pool's tasks share.
pub(crate) struct Shared {
    pub(crate) name: PoolName,
    pub(crate) driver: Arc<dyn QueueDriver>,
    pub(crate) fleet: Fleet,
    pub(crate) gate: Gate,
    pub(crate) metrics: PoolMetrics,
    pub(crate) totals: Totals,
    pub(crate) complaints: Complaints,
    pub(crate) own_queues: Arc<OwnQueues>,
    pub(crate) fed: Fed,
    pub(crate) declaring: Declaring,
    /// Where the supervisor runs, for dead letters.
    pub(crate) host: String,
    /// When the supervisor started: the zero of every [`Moment`].
    epoch: Instant,
    /// Written by the pool on a change of configuration, read by workers at each job.
    settings: RwLock<Arc<PoolSettings>>,
    /// Written by the pool, which alone adds and removes; read by whoever asks for a status.
    workers: Mutex<BTreeMap<WorkerId, Arc<WorkerCell>>>,
    /// Written by the pool after each reconcile, read by whoever asks.
    view: Mutex<View>,
    /// When the last delivery was taken, in microseconds since the epoch, plus one; 0 for never. Written by
    /// workers, read by the pool.
    last_taken: AtomicU64,
    /// Workers that wait for a delivery with an open consumer. Written by workers; read by one that must give a
    /// message back without another worker of the pool getting it at once.
    waiting: watch::Sender<u32>,
    /// Ends every job at once. Cancelled by the supervisor, read by runners.
    pub(crate) kill: CancellationToken,
    /// Ends every job with grace. Cancelled by the pool at a drain's deadline; parent of each worker's own.
    pub(crate) stop: CancellationToken,
    /// Written by the supervisor's driver.
    connectivity: watch::Receiver<Connectivity>,
    /// Workers in a row that could not open their consumer. Written by workers, read by the pool.
    open_failures: AtomicU64,
    /// For ids of jobs whose messages have none.
    next_job: AtomicU64,
}

/// What the pool last decided.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) decision: Option<Decision>,
    pub(crate) pinned: Option<u32>,
    pub(crate) delayed: u64,
    /// Why a worker last could not open its consumer, until one could.
    pub(crate) open_error: Option<String>,
}

/// What became of jobs, as the status shows it. Written by workers.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    settlements: [AtomicU64; Settlement::ALL.len()],
    replies: [AtomicU64; ReplyOutcome::ALL.len()],
    stopped: AtomicU64,
}

impl Totals {
    pub(crate) fn count(&self, settlement: Settlement) {
        self.settlements[settlement as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_reply(&self, outcome: ReplyOutcome) {
        self.replies[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A job was stopped by us.
    pub(crate) fn count_stopped(&self) {
        self.stopped.fetch_add(1, Ordering::Relaxed);
    }

    /// Jobs that were stopped by us.
    pub(crate) fn stopped(&self) -> u64 {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(crate) fn snapshot(&self) -> JobTotals {
        let of =
            |settlement: Settlement| self.settlements[settlement as usize].load(Ordering::Relaxed);
        JobTotals {
            done: of(Settlement::Ack),
            retried: of(Settlement::Retry),
            dead: of(Settlement::DeadLetter) + of(Settlement::Reject),
            requeued: of(Settlement::Requeue) + of(Settlement::RequeueCopy),
            lost: of(Settlement::Lost) + of(Settlement::LostCopy),
        }
    }

    pub(crate) fn replies(&self) -> ReplyTotals {
        let of = |outcome: ReplyOutcome| self.replies[outcome as usize].load(Ordering::Relaxed);
        ReplyTotals {
            done: of(ReplyOutcome::Done),
            failed: of(ReplyOutcome::Failed) + of(ReplyOutcome::TooLarge),
            refused: of(ReplyOutcome::Refused),
            undeliverable: of(ReplyOutcome::Undeliverable),
        }
    }
}

impl Shared {
    pub(crate) fn new(
        driver: Arc<dyn QueueDriver>,
        settings: PoolSettings,
        runners: Arc<dyn RunnerManager>,
        events: Option<Arc<dyn EventSink>>,
        own_queues: Arc<OwnQueues>,
        epoch: Instant,
    ) -> Self {
        let name = settings.name.clone();
        let metrics = PoolMetrics::new(&name);
        let kill = CancellationToken::new();
        let gate = Gate::default();
        gate.set_breaker(settings.retry.breaker);
        Self {
            fleet: Fleet::new(name.clone(), runners, &metrics, events),
            gate,
            totals: Totals::default(),
            complaints: Complaints::default(),
            own_queues,
            fed: Fed::default(),
            declaring: Declaring::default(),
            host: hostname(),
            epoch,
            settings: RwLock::new(Arc::new(settings)),
            workers: Mutex::default(),
            view: Mutex::default(),
            last_taken: AtomicU64::new(0),
            waiting: watch::Sender::new(0),
            kill,
            stop: CancellationToken::new(),
            connectivity: driver.connectivity(),
            open_failures: AtomicU64::new(0),
            next_job: AtomicU64::new(0),
            name,
            driver,
            metrics,
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

    pub(crate) fn workers(&self) -> MutexGuard<'_, BTreeMap<WorkerId, Arc<WorkerCell>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_connected(&self) -> bool {
        *self.connectivity.borrow() == Connectivity::Connected
    }

    pub(crate) fn connectivity(&self) -> Connectivity {
        self.connectivity.borrow().clone()
    }

    /// A worker could not open its consumer.
    pub(crate) fn open_failed(&self, error: String) {
        self.view().open_error = Some(error);
        self.open_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// A worker has opened its consumer.
    pub(crate) fn opened(&self) {
        if self.open_failures.swap(0, Ordering::Relaxed) > 0 {
            self.view().open_error = None;
        }
    }

    /// Workers in a row that could not open their consumer.
    pub(crate) fn open_failures(&self) -> u64 {
        self.open_failures.load(Ordering::Relaxed)
    }

    pub(crate) fn delivery_taken(&self) {
        let micros = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        self.last_taken.fetch_max(micros + 1, Ordering::Relaxed);
    }

    pub(crate) fn last_taken(&self) -> Option<Moment> {
        let micros = self.last_taken.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Moment::after_start(Duration::from_micros(micros)))
    }

    pub(crate) fn waiting_more(&self) {
        self.waiting.send_modify(|n| *n += 1);
    }

    pub(crate) fn waiting_less(&self) {
        self.waiting.send_modify(|n| *n -= 1);
    }

    /// Waits until no worker of the pool waits for a delivery.
    pub(crate) async fn until_nobody_waits(&self) {
        let mut waiting = self.waiting.subscribe();
        // The sender lives as long as this borrow of it.
        let _ = waiting.wait_for(|n| *n == 0).await;
    }

    /// An id for a job whose message has none: unique across restarts and machines for all practical purposes.
    pub(crate) fn make_job_id(&self) -> JobId {
        let n = self.next_job.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let salt: u32 = rand::random();
        JobId::from(format!(
            "{}-{:x}-{n:x}-{salt:08x}",
            self.name,
            now.as_micros()
        ))
    }

    /// The census, with what our live workers hold and how many consumers they have had since `before`.
    pub(crate) fn census(&self, before: Moment) -> (Census, Holdings) {
        let mut holdings = Holdings::default();
        let workers = self.workers();
        let census: Vec<CensusWorker> = workers
            .iter()
            .map(|(id, cell)| {
                let seen = cell.seen();
                if seen.phase != Phase::Draining && seen.held > 0 {
                    holdings.held += u64::from(seen.held);
                    holdings.holders += 1;
                }
                if seen.consuming.is_some_and(|since| since <= before) {
                    holdings.consumers += 1;
                }
                CensusWorker {
                    id: *id,
                    phase: seen.phase,
                }
            })
            .collect();
        drop(workers);
        (Census::new(census, self.fleet.idle_ids()), holdings)
    }
}

/// What our live workers hold.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Holdings {
    pub(crate) held: u64,
    pub(crate) holders: u32,
    pub(crate) consumers: u32,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
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
