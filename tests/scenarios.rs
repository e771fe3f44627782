//! Scenarios of pools on the in-memory queue with a paused clock. They take hardly any real time.

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

#[path = "scenarios/ends.rs"]
mod ends;
#[path = "scenarios/faults.rs"]
mod faults;
#[path = "scenarios/frozen.rs"]
mod frozen;
#[path = "scenarios/gauges.rs"]
mod gauges;
#[path = "scenarios/hooked.rs"]
mod hooked;
#[path = "scenarios/orders.rs"]
mod orders;
#[path = "scenarios/panics.rs"]
mod panics;
#[path = "scenarios/policies.rs"]
mod policies;
#[path = "scenarios/preparing.rs"]
mod preparing;
#[path = "scenarios/pressure.rs"]
mod pressure;
#[path = "scenarios/queues.rs"]
mod queues;
#[path = "scenarios/replies.rs"]
mod replies;
#[path = "scenarios/results.rs"]
mod results;
#[path = "scenarios/retries.rs"]
mod retries;
#[path = "scenarios/sharing.rs"]
mod sharing;
#[path = "scenarios/stopped_by_hand.rs"]
mod stopped_by_hand;
#[path = "scenarios/stuck.rs"]
mod stuck;

#[path = "scenarios/traces.rs"]
mod traces;

use self::faults::Broken;

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

/// Delivers messages of the queue to a consumer that then loses its connection.
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

/// Lets paused time pass until the pool matches. Panics after an hour, with the pool's state.
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

/// Lets paused time pass, and checks all the time that the pool matches.
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

/// Jobs that report their start, and end when the test allows it.
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

/// A pool with that many jobs under way, each of which ends when it is let.
async fn busy(jobs: usize, settings: PoolSettings) -> (MemoryBroker, Supervisor, Held) {
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
    let (_broker, supervisor, held) = busy(3, settings(Policy::fixed(3))).await;
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
    let (_broker, supervisor, held) = busy(2, settings(Policy::fixed(2))).await;
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
async fn a_lost_connection_loses_settlements_but_no_job_and_the_pool_comes_back_by_itself() {
    let (broker, supervisor, mut held) = busy(2, settings(Policy::fixed(2))).await;
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
    supervisor.pause(&name()).await.unwrap();
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
    supervisor.resume(&name()).await.unwrap();
    until(&supervisor, "done", |pool| pool.jobs.done == 2).await;
}

#[tokio::test(start_paused = true)]
async fn prefetched_messages_are_given_back_when_a_worker_stops() {
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
    supervisor.pause(&name()).await.unwrap();
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
    let taken = supervisor.pool(&name()).unwrap();
    assert_eq!(taken.queue, "other".into(), "the call waits for the pool");
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
    let (broker, supervisor, held) = busy(1, settings(Policy::fixed(1))).await;
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
    assert_eq!(drain.await.unwrap().unwrap().finished, 1);
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
        "the pools a and b cannot work on one queue, jobs"
    );
}

#[tokio::test(start_paused = true)]
async fn settings_that_no_pool_can_work_with_are_refused_at_the_start_and_later() {
    let broker = broker();
    let pool = |poll_interval| PoolSpec {
        settings: PoolSettings {
            poll_interval,
            ..settings(Policy::fixed(1))
        },
        runners: Arc::new(HandlerManager::new(done)),
    };
    let never = || vec![pool(Duration::ZERO)];
    let why = format!(
        "the pool \"{}\" cannot be used as it is set: poll_interval must be above zero",
        pool(Duration::ZERO).settings.name
    );
    let driver = Arc::new(broker.clone());
    let error = Supervisor::start(driver.clone(), never(), None).unwrap_err();
    assert_eq!(error.to_string(), why);

    let good = vec![pool(Duration::from_millis(100))];
    let supervisor = Supervisor::start(driver, good, None).unwrap();
    let error = supervisor.reconfigure(never()).await.unwrap_err();
    assert_eq!(error.to_string(), why);
    broker.send(QUEUE, "one");
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
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
