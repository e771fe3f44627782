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

use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    book::OrderBook,
    cell::WorkerCell,
    copy_queues::CopyQueues,
    declaring::Declaring,
    events::EventSink,
    fleet::Fleet,
    gate::Gate,
    metrics::{PoolMetrics, ReplyOutcome, Settlement},
    own_queues::{OutstandingRetries, OwnQueues, ReceivedQueues},
    recent::Recent,
    redeliveries::RedeliveryTracker,
    reply_warnings::ReplyWarnings,
    running::Running,
    status::{JobTotals, ReplyTotals},
    traces::TraceLink,
    wall::Clock,
};
use crate::{
    config::PoolSettings,
    decide::{
        Census, CensusWorker, ConsumerRefusal, Decision, Intake, JobId, Moment, Openings, Orders,
        Phase, PoolName, RefusalKind, WorkerId,
    },
    queue::{Connectivity, QueueDriver, QueueError, QueueErrorKind},
    runner::RunnerManager,
};
use tidegate_core::text::chain;

/// Time that the broker has for an answer once everything is stopped at once.
pub(crate) const ANSWER: Duration = Duration::from_secs(1);

/// Whether the broker answers, once everything is stopped at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BrokerSilence {
    /// It last answered then, if at all.
    Since(Option<Instant>),
    /// It does not.
    Is,
}

impl Default for BrokerSilence {
    fn default() -> Self {
        Self::Since(None)
    }
}

/// What all pools of a supervisor share.
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
    /// Counts changes of any pool's orders. Written by pools and by the supervisor's handle, read by the task that stores
    /// orders.
    pub(crate) order_changes: watch::Sender<u64>,
}

/// What a pool's tasks share.
pub(crate) struct PoolShared {
    pub(crate) name: PoolName,
    pub(crate) driver: Arc<dyn QueueDriver>,
    pub(crate) fleet: Fleet,
    pub(crate) gate: Gate,
    pub(crate) metrics: PoolMetrics,
    pub(crate) totals: Totals,
    pub(crate) reply_warnings: ReplyWarnings,
    pub(crate) own_queues: Arc<OwnQueues>,
    pub(crate) fed: ReceivedQueues,
    pub(crate) outstanding: OutstandingRetries,
    pub(crate) copy_queues: CopyQueues,
    /// Of all pools of the supervisor.
    pub(crate) redeliveries: Arc<RedeliveryTracker>,
    pub(crate) traces: Option<Arc<dyn TraceLink>>,
    pub(crate) declaring: Declaring,
    /// Jobs that run now.
    pub(crate) running: Running,
    pub(crate) recent: Recent,
    /// Where the supervisor runs, for dead letters.
    pub(crate) host: String,
    /// When the supervisor started: the zero of every [`Moment`].
    epoch: Instant,
    /// Written by the pool on a change of configuration, read by workers at each job.
    settings: RwLock<Arc<PoolSettings>>,
    /// Written by the pool, which alone adds and removes. Read by each request for a status.
    workers: Mutex<BTreeMap<WorkerId, Arc<WorkerCell>>>,
    /// Written by the pool after each reconcile. Read by `status` and `explain`.
    view: Mutex<LastDecision>,
    /// What the operator wants. Written by the pool. Read by each request for a status.
    pub(super) book: OrderBook,
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
    /// After `kill`: whether the broker was found not to answer, and when a worker last heard from it. Written and read
    /// by workers.
    silence: Mutex<BrokerSilence>,
    /// Written by the supervisor's driver.
    connectivity: watch::Receiver<Connectivity>,
    /// What became of opening consumers. Written by workers and by the pool, read by the pool and for the status.
    openings: Mutex<Openings>,
    /// For ids of jobs whose messages have none.
    next_job: AtomicU64,
}

/// What the pool last decided.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastDecision {
    pub(crate) decision: Option<Decision>,
    pub(crate) delayed: u64,
    /// Those of them whose time is over.
    pub(crate) overdue: u64,
    /// Messages that wait in the pool's own dead-letter queue.
    pub(crate) dead: u64,
    /// Why the pool cannot get at its work, where it cannot.
    pub(crate) stuck: Option<String>,
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

    /// Jobs that left the queue: done, put off, or dead-lettered.
    pub(crate) fn gone(&self) -> u64 {
        let JobTotals {
            done,
            retried,
            dead,
            ..
        } = self.snapshot();
        done + retried + dead
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

impl PoolShared {
    pub(crate) fn new(
        common: &Common,
        settings: PoolSettings,
        runners: Arc<dyn RunnerManager>,
        orders: Orders,
    ) -> Self {
        let name = settings.name.clone();
        let metrics = PoolMetrics::new(&name);
        let kill = CancellationToken::new();
        let gate = Gate::default();
        gate.set_breaker(settings.retry.breaker);
        Self {
            fleet: Fleet::new(name.clone(), runners, &metrics, common.events.clone()),
            gate,
            totals: Totals::default(),
            reply_warnings: ReplyWarnings::default(),
            own_queues: common.own_queues.clone(),
            fed: ReceivedQueues::default(),
            outstanding: OutstandingRetries::default(),
            copy_queues: CopyQueues::default(),
            redeliveries: common.redeliveries.clone(),
            traces: common.traces.clone(),
            declaring: Declaring::default(),
            running: Running::default(),
            recent: Recent::default(),
            host: hostname(),
            epoch: common.epoch,
            settings: RwLock::new(Arc::new(settings)),
            workers: Mutex::default(),
            view: Mutex::default(),
            book: OrderBook::new(orders, common.clock.clone(), common.order_changes.clone()),
            last_taken: AtomicU64::new(0),
            waiting: watch::Sender::new(0),
            kill,
            stop: CancellationToken::new(),
            silence: Mutex::default(),
            connectivity: common.driver.connectivity(),
            openings: Mutex::default(),
            next_job: AtomicU64::new(0),
            name,
            driver: common.driver.clone(),
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

    pub(crate) fn view(&self) -> MutexGuard<'_, LastDecision> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn orders(&self) -> MutexGuard<'_, Orders> {
        self.book.orders()
    }

    /// Whether messages may be taken now, and why not.
    pub(crate) fn intake(&self) -> Intake {
        let ordered = self.orders().intake();
        self.gate.intake(self.now(), ordered)
    }

    pub(crate) fn is_connected(&self) -> bool {
        *self.connectivity.borrow() == Connectivity::Connected
    }

    pub(crate) fn connectivity(&self) -> Connectivity {
        self.connectivity.borrow().clone()
    }

    /// What is wrong with copies, though the pool works.
    pub(crate) fn copies_cause(&self) -> Option<String> {
        let overdue = match self.view().overdue {
            0 => None,
            n => Some(format!(
                "{n} {} due, but not back: the queue is full or was gone, and the broker tries again only every 3 \
                 minutes; or their retry queue was deleted, and they with it",
                if n == 1 { "retry is" } else { "retries are" }
            )),
        };
        let causes = [self.copy_queues.cause(Instant::now()), overdue];
        let causes: Vec<_> = causes.into_iter().flatten().collect();
        (!causes.is_empty()).then(|| causes.join("; "))
    }

    /// A worker could not open its consumer.
    pub(crate) fn open_failed(&self, error: &QueueError) {
        let ground = match error.kind {
            QueueErrorKind::ChannelLimit => RefusalKind::Full,
            // Nobody needs to do more than declare it.
            QueueErrorKind::NotFound => RefusalKind::Passing,
            _ if error.is_transient() => RefusalKind::Passing,
            _ => RefusalKind::Lasting,
        };
        let why = chain(error);
        self.openings()
            .failed(self.now(), ConsumerRefusal { ground, why });
    }

    /// A worker has opened its consumer.
    pub(crate) fn opened(&self) {
        self.openings().opened();
    }

    pub(crate) fn openings(&self) -> MutexGuard<'_, Openings> {
        self.openings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the broker's answer. Once everything is stopped at once, no longer than until it has not answered any
    /// worker for a moment: `None` then, and at once from then on. A request is sent all the same, as far as one poll
    /// does it.
    pub(crate) async fn answered<T>(&self, request: impl Future<Output = T>) -> Option<T> {
        let mut request = std::pin::pin!(request);
        tokio::select! {
            biased;
            answer = &mut request => return Some(answer),
            () = self.kill.cancelled() => {}
        }
        let since = Instant::now();
        loop {
            let heard = match *self.silence() {
                BrokerSilence::Is => return None,
                BrokerSilence::Since(heard) => heard.map_or(since, |heard| heard.max(since)),
            };
            tokio::select! {
                biased;
                answer = &mut request => {
                    let mut silence = self.silence();
                    if *silence != BrokerSilence::Is {
                        *silence = BrokerSilence::Since(Some(Instant::now()));
                    }
                    return Some(answer);
                }
                () = time::sleep_until(heard + ANSWER) => {}
            }
            let mut silence = self.silence();
            if let BrokerSilence::Since(last) = *silence
                && last.is_none_or(|last| last <= heard)
            {
                *silence = BrokerSilence::Is;
                warn!(pool = %self.name, "the broker does not answer: what is held goes back when it finds us gone");
            }
        }
    }

    fn silence(&self) -> MutexGuard<'_, BrokerSilence> {
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn delivery_taken(&self) {
        let micros = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        self.last_taken.fetch_max(micros + 1, Ordering::Relaxed);
        self.recent.taken(self.now());
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
    pub(crate) fn census(&self, before: Moment) -> (Census, HeldDeliveries) {
        let mut held = HeldDeliveries::default();
        let workers = self.workers();
        let census: Vec<CensusWorker> = workers
            .iter()
            .map(|(id, cell)| {
                let seen = cell.seen();
                if seen.phase != Phase::Draining && seen.held > 0 {
                    held.held += u64::from(seen.held);
                    held.holders += 1;
                }
                if seen.consuming.is_some_and(|since| since <= before) {
                    held.consumers += 1;
                }
                CensusWorker {
                    id: *id,
                    phase: seen.phase,
                }
            })
            .collect();
        drop(workers);
        (Census::new(census, self.fleet.idle_ids()), held)
    }
}

/// What our live workers hold.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HeldDeliveries {
    pub(crate) held: u64,
    pub(crate) holders: u32,
    pub(crate) consumers: u32,
}

impl fmt::Debug for PoolShared {
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
