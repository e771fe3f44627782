//! Pools on the in-memory queue with a paused clock: whole scenarios, in no time.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "scenarios/breaker.rs"]
mod breaker;
#[path = "scenarios/copies.rs"]
mod copies;
#[path = "scenarios/deadline.rs"]
mod deadline;
#[path = "scenarios/delayed.rs"]
mod delayed;
#[path = "scenarios/giving_back.rs"]
mod giving_back;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tidegate::{
    adapters::{handler::HandlerManager, memory::MemoryBroker},
    config::{DeadLetter, Declare, DrainAfter, PoolSettings, RetrySettings},
    decide::{EventKind, Policy, PoolName, Rule},
    queue::{
        ConsumeRequest, HeaderValue, Headers, Message, Outgoing, Properties, QueueDriver,
        QueueKind, QueueSpec,
    },
    run::{
        DrainError, Event, EventSink, FlushMode, PoolSpec, PoolState, PoolStatus, Supervisor,
        SupervisorError,
    },
    runner::{
        BoxError, CreateRunner, Job, JobControl, JobEnd, Outcome, RunReport, Runner, RunnerManager,
        StartError,
    },
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, timeout},
};

#[path = "scenarios/frozen.rs"]
mod frozen;
#[path = "scenarios/panics.rs"]
mod panics;
#[path = "scenarios/results.rs"]
mod results;

#[path = "scenarios/replies.rs"]
mod replies;
#[path = "scenarios/stuck.rs"]
mod stuck;

const QUEUE: &str = "jobs";

fn settings(policy: Policy) -> PoolSettings {
    PoolSettings {
        policy,
        ..PoolSettings::new(QUEUE)
    }
}

fn broker() -> MemoryBroker {
    let broker = MemoryBroker::new();
    broker.declare_queue(QUEUE, QueueKind::Quorum);
    broker
}

fn start(broker: &MemoryBroker, settings: PoolSettings, runners: impl RunnerManager) -> Supervisor {
    let pool = PoolSpec {
        settings,
        runners: Arc::new(runners),
    };
    Supervisor::start(Arc::new(broker.clone()), vec![pool], None).unwrap()
}

/// Has the messages of the queue held by someone who is lost with them.
async fn lose(broker: &MemoryBroker, messages: u64) {
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

fn name() -> PoolName {
    PoolName::from(QUEUE)
}

fn status(supervisor: &Supervisor) -> PoolStatus {
    supervisor.pool(&name()).unwrap()
}

/// Lets (paused) time pass until the pool looks like this. Fails, with how it looks instead, after an hour of it.
async fn until(
    supervisor: &Supervisor,
    what: &str,
    looks: impl Fn(&PoolStatus) -> bool,
) -> PoolStatus {
    let patience = Instant::now() + Duration::from_secs(3600);
    loop {
        let status = status(supervisor);
        if looks(&status) {
            return status;
        }
        assert!(Instant::now() < patience, "never {what}: {status:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Lets time pass, and checks all the while that the pool looks like this.
async fn throughout(
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

/// Jobs that say when they start, and end when they are let.
struct Held {
    started: mpsc::UnboundedReceiver<Job>,
    leave: Arc<Semaphore>,
}

impl Held {
    fn new() -> (Self, impl Fn(Job) -> JobFuture + Send + Sync + 'static) {
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

    async fn started(&mut self) -> Job {
        timeout(Duration::from_secs(3600), self.started.recv())
            .await
            .expect("a job starts")
            .unwrap()
    }

    fn let_go(&self, jobs: usize) {
        self.leave.add_permits(jobs);
    }
}

type JobFuture = std::pin::Pin<Box<dyn Future<Output = Result<Outcome, BoxError>> + Send>>;

async fn done(_: Job) -> Result<Outcome, BoxError> {
    Ok(Outcome::Done)
}

async fn slow(_: Job) -> Result<Outcome, BoxError> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(Outcome::Done)
}

fn text(headers: &Headers, name: &str) -> String {
    match headers.get(name) {
        Some(value) => value
            .as_text()
            .map_or_else(|| format!("{value:?}"), str::to_owned),
        None => String::from("-"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_makes_the_pool_rise_work_and_drain_to_zero() {
    let broker = broker();
    let supervisor = start(
        &broker,
        settings(Policy::backlog(10).max(50)),
        HandlerManager::new(slow),
    );
    until(&supervisor, "idle", |pool| {
        pool.state == PoolState::Idle && pool.depth.age_ms.is_some()
    })
    .await;
    for n in 0..120 {
        broker.send(QUEUE, format!("job {n}"));
    }
    let risen = until(&supervisor, "risen", |pool| pool.runners.busy == 12).await;
    assert_eq!(
        (risen.expected, risen.workers.live, risen.state),
        (12, 12, PoolState::Active)
    );
    let worked = until(&supervisor, "done", |pool| pool.jobs.done == 120).await;
    assert_eq!(worked.runners.busy, 0);
    let drained = until(&supervisor, "drained", |pool| pool.state == PoolState::Idle).await;
    assert_eq!((drained.workers.live, drained.workers.draining), (0, 0));
    assert_eq!((drained.runners.idle, drained.expected), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn idle_runners_and_bare_workers_always_make_up_the_live_workers() {
    let broker = broker();
    let supervisor = start(
        &broker,
        settings(Policy::backlog(2).max(20)),
        HandlerManager::new(slow),
    );
    for n in 0..40 {
        broker.send(QUEUE, format!("job {n}"));
    }
    until(&supervisor, "working", |pool| pool.runners.busy > 0).await;
    throughout(&supervisor, Duration::from_secs(12), "balanced", |pool| {
        pool.runners.idle + pool.runners.busy + pool.workers.bare == pool.workers.live
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_running_job_is_never_stopped_by_scaling_down() {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(3)),
        HandlerManager::new(handler),
    );
    for n in 0..3 {
        broker.send(QUEUE, format!("job {n}"));
    }
    for _ in 0..3 {
        held.started().await;
    }
    supervisor.scale(&name(), Some(0)).await.unwrap();
    until(&supervisor, "scaled", |pool| pool.expected == 0).await;
    throughout(&supervisor, Duration::from_secs(60), "still busy", |pool| {
        pool.runners.busy == 3
    })
    .await;
    held.let_go(3);
    let after = until(&supervisor, "gone", |pool| pool.workers.live == 0).await;
    assert_eq!((after.jobs.done, after.jobs.requeued), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_mark_to_retire_is_lifted_when_work_comes_back() {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(2)),
        HandlerManager::new(handler),
    );
    broker.send(QUEUE, "one");
    broker.send(QUEUE, "two");
    held.started().await;
    held.started().await;
    supervisor.scale(&name(), Some(0)).await.unwrap();
    supervisor.reconcile(&name()).await.unwrap();
    supervisor.scale(&name(), Some(2)).await.unwrap();
    let result = supervisor.reconcile(&name()).await.unwrap();
    assert_eq!(result.workers_diff, 0);
    held.let_go(2);
    let after = until(&supervisor, "done", |pool| pool.jobs.done == 2).await;
    assert_eq!(after.workers.live, 2);
}

#[tokio::test(start_paused = true)]
async fn preemption_gives_running_jobs_back_where_a_pool_asks_for_it() {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let settings = PoolSettings {
        preempt: true,
        ..settings(Policy::fixed(1))
    };
    let supervisor = start(&broker, settings, HandlerManager::new(handler));
    broker.send(QUEUE, "one");
    held.started().await;
    supervisor.scale(&name(), Some(0)).await.unwrap();
    let after = until(&supervisor, "stopped", |pool| {
        pool.workers.live + pool.workers.draining == 0
    })
    .await;
    assert_eq!((after.jobs.requeued, after.jobs.done), (1, 0));
    assert_eq!(broker.ready(QUEUE), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_missing_queue_is_waited_for() {
    let broker = MemoryBroker::new();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(2)),
        HandlerManager::new(done),
    );
    until(&supervisor, "waiting", |pool| {
        pool.state == PoolState::Waiting
    })
    .await;
    assert!(!supervisor.readiness().is_ready());
    broker.declare_queue(QUEUE, QueueKind::Classic);
    broker.send(QUEUE, "one");
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    assert!(supervisor.readiness().is_ready());
}

/// Counts reconciles, of which each look makes one.
#[derive(Debug, Default)]
struct Reconciles(AtomicU32);

impl EventSink for Reconciles {
    fn emit(&self, event: Event) {
        if matches!(event, Event::Reconciliation { .. }) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_stays_missing_is_looked_for_less_often_and_found_within_five_seconds() {
    let broker = MemoryBroker::new();
    let reconciles = Arc::new(Reconciles::default());
    let pool = PoolSpec {
        settings: settings(Policy::fixed(2)),
        runners: Arc::new(HandlerManager::new(done)),
    };
    let driver = Arc::new(broker.clone());
    let supervisor = Supervisor::start(driver, vec![pool], Some(reconciles.clone())).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    // Twice a second would be 120.
    let looks = reconciles.0.load(Ordering::Relaxed);
    assert!((12..=20).contains(&looks), "{looks}");

    broker.declare_queue(QUEUE, QueueKind::Classic);
    broker.send(QUEUE, "one");
    let declared = Instant::now();
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    assert!(
        declared.elapsed() <= Duration::from_millis(5500),
        "{:?}",
        declared.elapsed()
    );

    // One that vanishes is looked for at the usual pace at first.
    let before = reconciles.0.load(Ordering::Relaxed);
    broker.delete_queue(QUEUE);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(reconciles.0.load(Ordering::Relaxed) - before >= 3);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_deleted_under_the_workers_is_waited_for_again() {
    let broker = broker();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(4)),
        HandlerManager::new(slow),
    );
    for n in 0..8 {
        broker.send(QUEUE, format!("job {n}"));
    }
    until(&supervisor, "busy", |pool| pool.runners.busy == 4).await;
    broker.delete_queue(QUEUE);
    let waiting = until(&supervisor, "waiting", |pool| {
        pool.state == PoolState::Waiting && pool.workers.live == 0
    })
    .await;
    // As RabbitMQ has it: a channel outlives the queue, so what was delivered is still settled.
    assert_eq!((waiting.jobs.done, waiting.jobs.lost), (4, 0));
    broker.declare_queue(QUEUE, QueueKind::Classic);
    broker.send(QUEUE, "again");
    until(&supervisor, "done", |pool| pool.jobs.done == 5).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_may_declare_its_queue_itself_and_again_when_it_is_deleted() {
    let broker = MemoryBroker::new();
    let settings = PoolSettings {
        declare: tidegate::config::Declare::Quorum,
        ..settings(Policy::fixed(1))
    };
    let supervisor = start(&broker, settings, HandlerManager::new(done));
    until(&supervisor, "idle", |pool| pool.depth.age_ms.is_some()).await;
    assert_eq!(broker.ready(QUEUE), Some(0));
    // Nobody asked for more.
    assert_eq!(broker.ready("jobs.dead"), None);
    broker.delete_queue(QUEUE);
    until(&supervisor, "declared again", |_| {
        broker.ready(QUEUE).is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_there_in_another_way_is_worked_on_and_told_of() {
    let broker = broker();
    let settings = PoolSettings {
        declare: Declare::Classic,
        ..settings(Policy::fixed(1))
    };
    let supervisor = start(&broker, settings.clone(), HandlerManager::new(done));
    broker.send(QUEUE, "a job");
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    for state in [PoolState::Active, PoolState::Idle] {
        until(&supervisor, "told of", |pool| {
            let cause = pool.cause.as_deref().unwrap_or_default();
            pool.state == state && cause.contains("declare the queue jobs: it is there in another")
        })
        .await;
    }
    // Once it is gone, it is declared as it should be.
    broker.delete_queue(QUEUE);
    until(&supervisor, "declared", |pool| pool.cause.is_none()).await;
    let again = QueueSpec::new(QUEUE, QueueKind::Classic);
    broker.declare(&again).await.expect("it is as configured");
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_loses_settlements_but_no_job_and_the_pool_comes_back_by_itself() {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(2)),
        HandlerManager::new(handler),
    );
    broker.send(QUEUE, "one");
    broker.send(QUEUE, "two");
    held.started().await;
    held.started().await;
    broker.disconnect();
    until(&supervisor, "disconnected", |pool| {
        pool.state == PoolState::Disconnected
    })
    .await;
    assert!(!supervisor.readiness().is_ready());
    held.let_go(2);
    let lost = until(&supervisor, "unsettled", |pool| pool.jobs.lost == 2).await;
    assert_eq!(lost.jobs.done, 0);
    broker.reconnect();
    held.let_go(2);
    let after = until(&supervisor, "done again", |pool| pool.jobs.done == 2).await;
    assert_eq!(after.state, PoolState::Active);
    assert!(held.started().await.message().redelivered);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_is_stale_and_freezes_the_pool() {
    let broker = broker();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(2)),
        HandlerManager::new(done),
    );
    broker.send(QUEUE, "one");
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    broker.set_probes_fail(true);
    until(&supervisor, "stale", |pool| pool.depth.stale).await;
    let expected = status(&supervisor).expected;
    assert!(expected > 0);
    throughout(&supervisor, Duration::from_secs(60), "frozen", |pool| {
        pool.expected == expected && pool.workers.live == expected
    })
    .await;
    assert!(status(&supervisor).depth.age_ms.unwrap() >= 59_000);
    assert_eq!(supervisor.explain(&name()).unwrap().rule, Rule::Frozen);
    broker.set_probes_fail(false);
    until(&supervisor, "drained", |pool| pool.workers.live == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_is_retried_with_backoff_and_then_dead_lettered_with_the_reason() {
    let broker = broker();
    let attempts = Arc::new(AtomicU32::new(0));
    let handler = {
        let attempts = attempts.clone();
        move |job: Job| {
            let n = attempts.fetch_add(1, Ordering::Relaxed) + 1;
            async move {
                assert_eq!(job.attempt(), n);
                Err::<Outcome, BoxError>("the disk is full".into())
            }
        }
    };
    let supervisor = start(
        &broker,
        settings(Policy::fixed(1)),
        HandlerManager::new(handler),
    );
    let begun = Instant::now();
    broker.send_message(Outgoing {
        routing_key: QUEUE.to_owned(),
        properties: Properties {
            message_id: Some(String::from("m-1")),
            ..Properties::default()
        },
        ..Outgoing::default()
    });
    let after = until(&supervisor, "dead", |pool| pool.jobs.dead == 1).await;
    assert_eq!(
        (after.jobs.retried, attempts.load(Ordering::Relaxed)),
        (4, 5)
    );
    // 1 + 2 + 4 + 8 seconds, each shortened by a quarter at the most.
    assert!(
        begun.elapsed() >= Duration::from_millis(11_250),
        "{:?}",
        begun.elapsed()
    );
    let letters: Vec<Message> = broker.take("jobs.dead");
    let [letter] = letters.as_slice() else {
        panic!("{letters:?}")
    };
    assert_eq!(letter.properties.message_id.as_deref(), Some("m-1"));
    assert_eq!(letter.properties.expiration, None);
    assert_eq!(text(&letter.headers, "x-tidegate-reason"), "attempts");
    assert_eq!(
        text(&letter.headers, "x-tidegate-error"),
        "the disk is full"
    );
    assert_eq!(letter.headers["x-tidegate-attempts"], HeaderValue::I64(5));
    assert_eq!(
        text(&letter.headers, "x-tidegate-original-routing-key"),
        QUEUE
    );
}

#[tokio::test(start_paused = true)]
async fn a_queue_of_our_own_keeps_what_is_rejected_where_its_arguments_say_so() {
    for declare in [Declare::Classic, Declare::Quorum] {
        let broker = MemoryBroker::new();
        let handler = |_: Job| async { Err::<Outcome, _>(BoxError::from("no such picture")) };
        let arguments = [
            ("x-dead-letter-exchange", ""),
            ("x-dead-letter-routing-key", "jobs.dead"),
        ];
        let arguments = arguments.map(|(name, value)| (name.to_owned(), value.into()));
        let settings = PoolSettings {
            declare,
            arguments: arguments.into(),
            retry: RetrySettings {
                max_attempts: 1,
                dead_letter: DeadLetter::Broker,
                ..RetrySettings::default()
            },
            ..settings(Policy::fixed(1))
        };
        let supervisor = start(&broker, settings, HandlerManager::new(handler));
        until(&supervisor, "declared", |_| broker.ready(QUEUE).is_some()).await;
        broker.send(QUEUE, "bad");
        until(&supervisor, "dead", |pool| pool.jobs.dead == 1).await;
        assert_eq!(broker.ready("jobs.dead"), Some(1), "{declare:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_the_jobs_failure_and_the_worker_lives_on() {
    let broker = broker();
    let handler = |job: Job| async move {
        assert!(job.body() != "bad", "no such picture");
        Ok(Outcome::Done)
    };
    let settings = PoolSettings {
        retry: RetrySettings {
            max_attempts: 1,
            ..RetrySettings::default()
        },
        ..settings(Policy::fixed(1))
    };
    let supervisor = start(&broker, settings, HandlerManager::new(handler));
    broker.send(QUEUE, "bad");
    broker.send(QUEUE, "good");
    let after = until(&supervisor, "done", |pool| {
        pool.jobs.done == 1 && pool.jobs.dead == 1
    })
    .await;
    assert_eq!(after.workers.live, 1);
    assert!(
        text(&broker.take("jobs.dead")[0].headers, "x-tidegate-error").contains("no such picture")
    );
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_cannot_be_published_closes_intake_and_keeps_the_delivery() {
    let broker = broker();
    let handler = |job: Job| async move {
        if job.body() == "bad" {
            Ok(Outcome::reject("never"))
        } else {
            Ok(Outcome::Done)
        }
    };
    let supervisor = start(
        &broker,
        settings(Policy::fixed(3)),
        HandlerManager::new(handler),
    );
    broker.send(QUEUE, "good");
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    broker.set_blocked(true);
    broker.send(QUEUE, "bad");
    let blocked = until(&supervisor, "blocked", |pool| {
        pool.state == PoolState::Blocked && pool.workers.live == 1
    })
    .await;
    assert!(blocked.cause.unwrap().contains("blocks publishers"));
    assert!(!supervisor.readiness().is_ready());
    broker.send(QUEUE, "good");
    throughout(&supervisor, Duration::from_secs(60), "blocked", |pool| {
        pool.jobs.done == 1 && pool.jobs.dead == 0 && pool.state == PoolState::Blocked
    })
    .await;
    assert_eq!(broker.ready(QUEUE), Some(1));
    broker.set_blocked(false);
    let after = until(&supervisor, "done", |pool| {
        pool.jobs.done == 2 && pool.jobs.dead == 1
    })
    .await;
    assert_eq!(after.jobs.requeued, 0);
}

#[tokio::test(start_paused = true)]
async fn a_held_delivery_is_given_back_at_the_ack_deadline() {
    let broker = broker();
    let handler = |_: Job| async { Ok(Outcome::reject("never")) };
    let settings = PoolSettings {
        ack_deadline: Duration::from_secs(30),
        ..settings(Policy::fixed(1))
    };
    let supervisor = start(&broker, settings, HandlerManager::new(handler));
    broker.set_blocked(true);
    broker.send(QUEUE, "bad");
    let begun = Instant::now();
    until(&supervisor, "given back", |pool| pool.jobs.requeued == 1).await;
    assert!(begun.elapsed() >= Duration::from_secs(30));
}

/// Runners that cannot start until they are mended.
#[derive(Debug)]
struct Broken {
    tries: Arc<AtomicU32>,
    mended: Arc<std::sync::atomic::AtomicBool>,
}

struct Instantly;

#[async_trait::async_trait]
impl RunnerManager for Broken {
    fn kind(&self) -> &'static str {
        "broken"
    }

    async fn create(&self, _: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        self.tries.fetch_add(1, Ordering::Relaxed);
        if self.mended.load(Ordering::Relaxed) {
            return Ok(Box::new(Instantly));
        }
        Err(StartError {
            what: String::from("thumb.py: no such file"),
            source: None,
        })
    }
}

#[async_trait::async_trait]
impl Runner for Instantly {
    async fn run(&mut self, _: &Job, control: JobControl) -> RunReport {
        control.started.notify();
        RunReport {
            end: JobEnd::Done { reply: None },
            reusable: true,
        }
    }

    async fn stop(self: Box<Self>) {}
}

#[tokio::test(start_paused = true)]
async fn runners_that_cannot_start_back_the_pool_off_and_spend_no_attempt() {
    let broker = broker();
    let tries = Arc::new(AtomicU32::new(0));
    let mended = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let runners = Broken {
        tries: tries.clone(),
        mended: mended.clone(),
    };
    for n in 0..20 {
        broker.send(QUEUE, format!("job {n}"));
    }
    let supervisor = start(&broker, settings(Policy::fixed(10)), runners);
    let faulted = until(&supervisor, "faulted", |pool| {
        pool.state == PoolState::Faulted
    })
    .await;
    assert!(faulted.cause.unwrap().contains("thumb.py: no such file"));
    let first_burst = tries.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(120)).await;
    // One trial at a time after 1, 2, 4, 8, 16, 32 and 60 s.
    let trials = tries.load(Ordering::Relaxed) - first_burst;
    assert!((5..=7).contains(&trials), "{trials} trials");
    assert_eq!(broker.ready(QUEUE), Some(20), "messages stay ready");
    assert_eq!(status(&supervisor).jobs.retried, 0);
    mended.store(true, Ordering::Relaxed);
    let after = until(&supervisor, "done", |pool| pool.jobs.done == 20).await;
    assert_eq!(after.jobs.retried + after.jobs.dead, 0);
}

/// Runners of which one, the second, cannot start.
#[derive(Debug)]
struct Once {
    tries: AtomicU32,
    runners: Box<dyn RunnerManager>,
}

#[async_trait::async_trait]
impl RunnerManager for Once {
    fn kind(&self) -> &'static str {
        "once"
    }

    async fn create(&self, request: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        if self.tries.fetch_add(1, Ordering::Relaxed) == 1 {
            return Err(StartError {
                what: String::from("fork: try again"),
                source: None,
            });
        }
        self.runners.create(request).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_job_does_not_keep_a_pool_faulted_that_could_not_start_another() {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let runners = Once {
        tries: AtomicU32::new(0),
        runners: Box::new(HandlerManager::new(handler)),
    };
    let supervisor = start(&broker, settings(Policy::fixed(2).max(2)), runners);
    broker.send(QUEUE, "long");
    held.started().await;
    broker.send(QUEUE, "another");
    until(&supervisor, "faulted", |pool| {
        pool.state == PoolState::Faulted
    })
    .await;
    let begun = Instant::now();
    assert_eq!(held.started().await.body(), "another");
    assert!(begun.elapsed() < Duration::from_secs(5));
    until(&supervisor, "well", |pool| pool.state == PoolState::Active).await;
    held.let_go(2);
    let after = until(&supervisor, "done", |pool| pool.jobs.done == 2).await;
    assert_eq!(after.jobs.retried + after.jobs.dead, 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_no_runner_starts_for_does_not_go_round_among_the_workers() {
    let broker = broker();
    let tries = Arc::new(AtomicU32::new(0));
    let runners = Broken {
        tries: tries.clone(),
        mended: Arc::default(),
    };
    let settings = PoolSettings {
        keep_warm: 50,
        ..settings(Policy::fixed(50))
    };
    let supervisor = start(&broker, settings, runners);
    until(&supervisor, "warm", |pool| pool.workers.bare == 50).await;
    broker.send(QUEUE, "one");
    until(&supervisor, "faulted", |pool| {
        pool.state == PoolState::Faulted && pool.workers.live + pool.workers.draining == 0
    })
    .await;
    assert_eq!(tries.load(Ordering::Relaxed), 1);
    assert_eq!(broker.ready(QUEUE), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_running_jobs_and_takes_no_more() {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(2)),
        HandlerManager::new(handler),
    );
    for n in 0..5 {
        broker.send(QUEUE, format!("job {n}"));
    }
    held.started().await;
    held.started().await;
    let drain = tokio::spawn({
        let supervisor = supervisor.clone();
        async move { supervisor.drain(Duration::from_secs(600)).await }
    });
    until(&supervisor, "draining", |pool| {
        pool.state == PoolState::Draining && pool.workers.draining == 2
    })
    .await;
    held.let_go(2);
    assert_eq!(drain.await.unwrap().unwrap().given_back, 0);
    assert_eq!(status(&supervisor).jobs.done, 2);
    assert_eq!(broker.ready(QUEUE), Some(3));
}

#[tokio::test(start_paused = true)]
async fn jobs_that_outlast_the_drains_deadline_are_stopped_and_given_back() {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(2)),
        HandlerManager::new(handler),
    );
    broker.send(QUEUE, "one");
    broker.send(QUEUE, "two");
    held.started().await;
    held.started().await;
    let begun = Instant::now();
    let error = supervisor.drain(Duration::from_secs(30)).await.unwrap_err();
    assert!(matches!(
        error,
        DrainError::DeadlinePassed { given_back: 2 }
    ));
    // The deadline, and then the handlers' own grace of ten seconds.
    assert!(
        begun.elapsed() >= Duration::from_secs(30) && begun.elapsed() < Duration::from_secs(45)
    );
    assert_eq!(broker.ready(QUEUE), Some(2));
}

#[tokio::test(start_paused = true)]
async fn stopping_now_gives_everything_back_at_once() {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(2)),
        HandlerManager::new(handler),
    );
    broker.send(QUEUE, "one");
    held.started().await;
    let drain = tokio::spawn({
        let supervisor = supervisor.clone();
        async move { supervisor.drain(Duration::from_secs(600)).await }
    });
    until(&supervisor, "draining", |pool| {
        pool.state == PoolState::Draining
    })
    .await;
    let begun = Instant::now();
    let report = supervisor.stop_now().await;
    assert_eq!(report.given_back, 1);
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(drain.await.unwrap().is_err());
    assert_eq!(broker.ready(QUEUE), Some(1));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_gives_everything_back() {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(1)),
        HandlerManager::new(handler),
    );
    broker.send(QUEUE, "one");
    held.started().await;
    drop(supervisor);
    let back = async {
        while broker.ready(QUEUE) != Some(1) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), back)
        .await
        .expect("the job is given back");
}

#[tokio::test(start_paused = true)]
async fn a_paused_pool_leaves_messages_in_the_queue_and_finishes_what_runs() {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(2)),
        HandlerManager::new(handler),
    );
    broker.send(QUEUE, "one");
    held.started().await;
    supervisor.pause(&name()).unwrap();
    broker.send(QUEUE, "two");
    until(&supervisor, "paused", |pool| {
        pool.state == PoolState::Paused && pool.workers.live == 1
    })
    .await;
    held.let_go(2);
    until(&supervisor, "empty", |pool| {
        pool.workers.live == 0 && pool.jobs.done == 1
    })
    .await;
    assert_eq!(broker.ready(QUEUE), Some(1));
    supervisor.resume(&name()).unwrap();
    until(&supervisor, "done", |pool| pool.jobs.done == 2).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_ahead_of_need_is_given_back_when_a_worker_goes() {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let settings = PoolSettings {
        prefetch: 10,
        ..settings(Policy::fixed(1))
    };
    let supervisor = start(&broker, settings, HandlerManager::new(handler));
    for n in 0..10 {
        broker.send(QUEUE, format!("job {n}"));
    }
    held.started().await;
    let inflated = until(&supervisor, "holding ten", |pool| pool.demand == 10).await;
    assert_eq!(inflated.workers.live, 1);
    supervisor.pause(&name()).unwrap();
    held.let_go(1);
    let after = until(&supervisor, "gone", |pool| {
        pool.workers.live + pool.workers.draining == 0
    })
    .await;
    assert_eq!((after.jobs.done, after.jobs.requeued), (1, 9));
    let order: Vec<_> = broker.take(QUEUE).into_iter().map(|m| m.body).collect();
    assert_eq!(order.len(), 9);
}

#[tokio::test(start_paused = true)]
async fn keep_warm_keeps_workers_with_their_runners_on_an_empty_queue() {
    let broker = broker();
    let settings = PoolSettings {
        keep_warm: 2,
        ..settings(Policy::backlog(1).max(8))
    };
    let supervisor = start(&broker, settings, HandlerManager::new(slow));
    for n in 0..8 {
        broker.send(QUEUE, format!("job {n}"));
    }
    until(&supervisor, "done", |pool| pool.jobs.done == 8).await;
    let warm = until(&supervisor, "idle", |pool| pool.state == PoolState::Idle).await;
    let warm = if warm.workers.live == 2 {
        warm
    } else {
        until(&supervisor, "warm", |pool| {
            pool.workers.live == 2 && pool.workers.draining == 0
        })
        .await
    };
    assert_eq!((warm.runners.idle, warm.workers.bare), (2, 0));
    let result = supervisor.flush(&name(), FlushMode::Idle).await.unwrap();
    assert_eq!(result.metric_stats, [(EventKind::RunnerStop, 2)].into());
    assert_eq!(result.workers_diff, 0);
    let flushed = status(&supervisor);
    assert_eq!((flushed.runners.idle, flushed.workers.bare), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_drain_after_of_never_keeps_the_pool_up() {
    let broker = broker();
    let settings = PoolSettings {
        drain_after: DrainAfter::Never,
        ..settings(Policy::fixed(3))
    };
    let supervisor = start(&broker, settings, HandlerManager::new(done));
    until(&supervisor, "up", |pool| pool.workers.live == 3).await;
    throughout(&supervisor, Duration::from_secs(600), "up", |pool| {
        pool.workers.live == 3
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_new_configuration_changes_a_pool_in_place_and_interrupts_no_job() {
    let broker = broker();
    broker.declare_queue("other", QueueKind::Classic);
    let (mut held, handler) = Held::new();
    let handler: Arc<dyn RunnerManager> = Arc::new(HandlerManager::new(handler));
    let pool = |settings: PoolSettings| PoolSpec {
        settings,
        runners: handler.clone(),
    };
    let supervisor = Supervisor::start(
        Arc::new(broker.clone()),
        vec![pool(settings(Policy::fixed(1)))],
        None,
    )
    .unwrap();
    broker.send(QUEUE, "one");
    held.started().await;
    let moved = PoolSettings {
        queue: "other".into(),
        ..settings(Policy::fixed(2))
    };
    let added = PoolSettings::new("second");
    supervisor
        .reconfigure(vec![pool(moved), pool(added)])
        .await
        .unwrap();
    broker.send("other", "two");
    assert_eq!(held.started().await.body(), "two");
    assert_eq!(supervisor.pools().len(), 2);
    held.let_go(2);
    let after = until(&supervisor, "done", |pool| pool.jobs.done == 2).await;
    assert_eq!(after.jobs.requeued, 0);
    supervisor
        .reconfigure(vec![pool(PoolSettings::new("second"))])
        .await
        .unwrap();
    assert!(supervisor.pool(&name()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_removed_finishes_its_jobs_and_a_drain_waits_for_it() {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(1)),
        HandlerManager::new(handler),
    );
    broker.send(QUEUE, "one");
    held.started().await;
    supervisor.reconfigure(Vec::new()).await.unwrap();
    assert!(supervisor.pool(&name()).is_none());
    let drain = tokio::spawn({
        let supervisor = supervisor.clone();
        async move { supervisor.drain(Duration::from_secs(600)).await }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!drain.is_finished());
    assert_eq!(broker.ready(QUEUE), Some(0), "its job was not given back");
    held.let_go(1);
    assert_eq!(drain.await.unwrap().unwrap().given_back, 0);
    assert_eq!(broker.ready(QUEUE), Some(0), "its job was done");
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_ending_takes_no_new_pools() {
    let broker = broker();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(1)),
        HandlerManager::new(done),
    );
    supervisor.drain(Duration::from_secs(1)).await.unwrap();
    let refused = supervisor.reconfigure(Vec::new()).await.unwrap_err();
    assert!(matches!(refused, SupervisorError::Ending));
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_was_held_for_its_copy_counts_as_given_back_when_a_drain_ends_it() {
    let broker = broker();
    let handler = |_: Job| async { Ok(Outcome::reject("never")) };
    let supervisor = start(
        &broker,
        settings(Policy::fixed(1)),
        HandlerManager::new(handler),
    );
    broker.set_blocked(true);
    broker.send(QUEUE, "bad");
    until(&supervisor, "blocked", |pool| {
        pool.state == PoolState::Blocked
    })
    .await;
    let error = supervisor.drain(Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(
        error,
        DrainError::DeadlinePassed { given_back: 1 }
    ));
    assert_eq!(broker.ready(QUEUE), Some(1));
}

#[tokio::test(start_paused = true)]
async fn all_attempts_of_a_message_without_an_id_have_one_job_id() {
    let broker = broker();
    let (say, mut ids) = mpsc::unbounded_channel();
    let handler = move |job: Job| {
        say.send(job.id().clone()).ok();
        async { Err("no".into()) }
    };
    let supervisor = start(
        &broker,
        settings(Policy::fixed(1)),
        HandlerManager::new(handler),
    );
    broker.send(QUEUE, "one");
    until(&supervisor, "dead", |pool| pool.jobs.dead == 1).await;
    let first = ids.recv().await.unwrap();
    for _ in 1..5 {
        assert_eq!(ids.recv().await.unwrap(), first);
    }
}

#[tokio::test(start_paused = true)]
async fn two_pools_on_one_queue_are_refused() {
    let broker = broker();
    let pool = |name: &str| PoolSpec {
        settings: PoolSettings {
            queue: QUEUE.into(),
            ..PoolSettings::new(name)
        },
        runners: Arc::new(HandlerManager::new(done)),
    };
    let error = Supervisor::start(Arc::new(broker), vec![pool("a"), pool("b")], None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "run the pools a and b on one queue, jobs"
    );
}

#[tokio::test(start_paused = true)]
async fn a_reconcile_that_changes_nothing_says_so() {
    let broker = broker();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(2)),
        HandlerManager::new(slow),
    );
    for n in 0..9 {
        broker.send(QUEUE, format!("job {n}"));
    }
    until(&supervisor, "up", |pool| pool.runners.busy == 2).await;
    let result = supervisor.reconcile(&name()).await.unwrap();
    assert_eq!(result.workers_diff, 0);
}
