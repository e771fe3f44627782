//! The common code of the scenarios: a queue in memory, a pool on it, and ways to wait for an expected state.

use super::*;

pub(crate) const QUEUE: &str = "jobs";

pub(crate) fn settings(policy: Policy) -> PoolSettings {
    PoolSettings {
        policy,
        ..PoolSettings::new(QUEUE)
    }
}

pub(crate) fn broker() -> MemoryBroker {
    let broker = MemoryBroker::new();
    broker.declare_queue(QUEUE, QueueKind::Quorum);
    broker
}

pub(crate) fn start(
    broker: &MemoryBroker,
    settings: PoolSettings,
    runners: impl RunnerManager,
) -> Supervisor {
    let pool = PoolSpec {
        settings,
        runners: Arc::new(runners),
    };
    Supervisor::start(Arc::new(broker.clone()), vec![pool], None).unwrap()
}

/// Delivers messages of the queue to a consumer that then loses its connection.
pub(crate) async fn lose(broker: &MemoryBroker, messages: u64) {
    let request = ConsumeRequest {
        queue: QUEUE.into(),
        prefetch: u16::MAX,
        tag: String::from("another"),
    };
    let consumer = broker.consume(request).await.unwrap();
    assert_eq!(broker.ready(QUEUE), Some(0));
    drop(consumer);
    assert_eq!(broker.ready(QUEUE), Some(messages));
}

pub(crate) fn name() -> PoolName {
    PoolName::from(QUEUE)
}

pub(crate) fn status(supervisor: &Supervisor) -> PoolStatus {
    supervisor.pool(&name()).unwrap()
}

/// Lets paused time pass until the pool matches. Panics after an hour, with the pool's state.
pub(crate) async fn until(
    supervisor: &Supervisor,
    what: &str,
    looks: impl Fn(&PoolStatus) -> bool,
) -> PoolStatus {
    let time_limit = Instant::now() + Duration::from_secs(3600);
    loop {
        let status = status(supervisor);
        if looks(&status) {
            return status;
        }
        assert!(Instant::now() < time_limit, "never {what}: {status:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Lets paused time pass, and checks all the time that the pool matches.
pub(crate) async fn throughout(
    supervisor: &Supervisor,
    duration: Duration,
    what: &str,
    looks: impl Fn(&PoolStatus) -> bool,
) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        let status = status(supervisor);
        assert!(looks(&status), "not {what}: {status:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Jobs that report their start, and end when the test allows it.
pub(crate) struct Held {
    pub(crate) started: mpsc::UnboundedReceiver<Job>,
    pub(crate) leave: Arc<Semaphore>,
}

impl Held {
    pub(crate) fn new() -> (Self, impl Fn(Job) -> JobFuture + Send + Sync + 'static) {
        let (say, started) = mpsc::unbounded_channel();
        let leave = Arc::new(Semaphore::new(0));
        let held = Self {
            started,
            leave: leave.clone(),
        };
        let handler = move |job: Job| -> JobFuture {
            say.send(job.clone()).ok();
            let leave = leave.clone();
            Box::pin(async move {
                tokio::select! {
                    permit = leave.acquire() => permit?.forget(),
                    () = job.cancelled().cancelled() => std::future::pending().await,
                }
                Ok(Outcome::Done)
            })
        };
        (held, handler)
    }

    pub(crate) async fn started(&mut self) -> Job {
        timeout(Duration::from_secs(3600), self.started.recv())
            .await
            .expect("a job starts")
            .unwrap()
    }

    pub(crate) fn let_go(&self, jobs: usize) {
        self.leave.add_permits(jobs);
    }
}

/// A pool with that many jobs under way, each of which ends when it is let.
pub(crate) async fn busy(jobs: usize, settings: PoolSettings) -> (MemoryBroker, Supervisor, Held) {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let supervisor = start(&broker, settings, HandlerManager::new(handler));
    for n in 0..jobs {
        broker.send(QUEUE, format!("job {n}"));
    }
    for _ in 0..jobs {
        held.started().await;
    }
    (broker, supervisor, held)
}

pub(crate) type JobFuture =
    std::pin::Pin<Box<dyn Future<Output = Result<Outcome, BoxError>> + Send>>;

pub(crate) async fn done(_: Job) -> Result<Outcome, BoxError> {
    Ok(Outcome::Done)
}

pub(crate) async fn slow(_: Job) -> Result<Outcome, BoxError> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(Outcome::Done)
}

pub(crate) fn text(headers: &Headers, name: &str) -> String {
    match headers.get(name) {
        Some(value) => value
            .as_text()
            .map_or_else(|| format!("{value:?}"), str::to_owned),
        None => String::from("-"),
    }
}
