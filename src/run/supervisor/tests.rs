//! Tests of the supervisor when a pool fails.

use std::time::Duration;

use crate::{
    adapters::{handler::HandlerManager, memory::MemoryBroker},
    config::PoolSettings,
    decide::Policy,
    queue::QueueKind,
    run::PoolState,
    runner::{Job, Outcome},
};
use tokio::{
    sync::{Semaphore, mpsc as channel},
    time::{sleep, timeout},
};

use super::*;

/// A pool whose jobs report that they have started, and end when the test allows it.
struct Bench {
    broker: MemoryBroker,
    supervisor: Supervisor,
    started: channel::UnboundedReceiver<()>,
    leave: Arc<Semaphore>,
}

impl Bench {
    fn new() -> Self {
        let broker = MemoryBroker::new();
        broker.declare_queue("jobs", QueueKind::Classic);
        let (say, started) = channel::unbounded_channel();
        let leave = Arc::new(Semaphore::new(0));
        let gate = leave.clone();
        let handler = move |_: Job| {
            say.send(()).ok();
            let gate = gate.clone();
            async move {
                gate.acquire().await?.forget();
                Ok(Outcome::Done)
            }
        };
        let pool = PoolSpec {
            settings: PoolSettings {
                policy: Policy::fixed(1),
                ..PoolSettings::new("jobs")
            },
            runners: Arc::new(HandlerManager::new(handler)),
        };
        let supervisor = Supervisor::start(Arc::new(broker.clone()), vec![pool], None).unwrap();
        Self {
            broker,
            supervisor,
            started,
            leave,
        }
    }

    async fn job_starts(&mut self, body: &'static str) {
        self.broker.send("jobs", body);
        timeout(Duration::from_secs(3600), self.started.recv())
            .await
            .expect("a job starts")
            .unwrap();
    }

    async fn send(&self, command: PoolCommand) {
        let handle = self.supervisor.inner.find(&name()).unwrap();
        handle.commands.send(command).await.unwrap();
    }

    async fn until(&self, what: &str, looks: impl Fn(&PoolStatus) -> bool) -> PoolStatus {
        let wait = async {
            loop {
                let status = self.supervisor.pool(&name()).unwrap();
                if looks(&status) {
                    return status;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = timeout(Duration::from_secs(3600), wait).await;
        waited.unwrap_or_else(|_| panic!("never {what}: {:#?}", self.supervisor.pool(&name())))
    }
}

fn name() -> PoolName {
    PoolName::from("jobs")
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_fails_reports_it_stops_no_job_and_is_started_again() {
    let mut bench = Bench::new();
    bench.job_starts("one").await;
    bench.supervisor.scale(&name(), Some(1)).await.unwrap();
    bench.send(PoolCommand::Panic("a bug")).await;
    let failed = bench
        .until("faulted", |pool| pool.state == PoolState::Faulted)
        .await;
    assert_eq!(
        failed.cause.as_deref(),
        Some("the pool's own task panicked: a bug")
    );
    let readiness = bench.supervisor.readiness();
    assert!(readiness.reasons[0].contains("a bug"), "{readiness:?}");
    assert_eq!(failed.runners.busy, 1, "its job continues");

    bench.leave.add_permits(1);
    bench.until("done", |pool| pool.jobs.done == 1).await;
    bench.job_starts("two").await;
    let again = bench
        .until("well", |pool| pool.state == PoolState::Active)
        .await;
    assert!(bench.supervisor.readiness().is_ready());
    assert_eq!((again.jobs.requeued, again.pinned), (0, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_fails_again_and_again_is_started_less_and_less_often() {
    let bench = Bench::new();
    bench
        .until("idle", |pool| pool.state == PoolState::Idle)
        .await;
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        bench.send(PoolCommand::Panic("a bug")).await;
        bench
            .until("faulted", |pool| pool.state == PoolState::Faulted)
            .await;
        let failed = Instant::now();
        bench
            .until("well", |pool| pool.state == PoolState::Idle)
            .await;
        let paused = failed.elapsed().as_secs_f64().round();
        assert_eq!(paused, f64::from(pause));
    }
    sleep(Duration::from_secs(60)).await;
    bench.send(PoolCommand::Panic("a bug")).await;
    sleep(Duration::from_secs(2)).await;
    bench
        .until("well", |pool| pool.state == PoolState::Idle)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_waits_for_a_pool_that_fails_is_told_that_there_is_no_answer() {
    let bench = Bench::new();
    bench
        .until("idle", |pool| pool.state == PoolState::Idle)
        .await;
    let ask = {
        let supervisor = bench.supervisor.clone();
        async move { supervisor.reconcile(&name()).await }
    };
    let (asked, ()) = tokio::join!(ask, bench.send(PoolCommand::Panic("a bug")));
    assert!(
        matches!(asked, Err(SupervisorError::Failed(_))),
        "{asked:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_failed_drains_in_order_all_the_same() {
    let mut bench = Bench::new();
    bench.job_starts("one").await;
    bench.send(PoolCommand::Panic("a bug")).await;
    bench
        .until("faulted", |pool| pool.state == PoolState::Faulted)
        .await;
    let drain = tokio::spawn({
        let supervisor = bench.supervisor.clone();
        async move { supervisor.drain(Duration::from_secs(600)).await }
    });
    bench
        .until("draining", |pool| pool.state == PoolState::Draining)
        .await;
    bench.send(PoolCommand::Panic("a bug on the way out")).await;
    sleep(Duration::from_secs(5)).await;
    assert!(!drain.is_finished());
    bench.leave.add_permits(1);
    assert_eq!(drain.await.unwrap().unwrap().finished, 1);
    assert_eq!(bench.supervisor.pool(&name()).unwrap().jobs.done, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_cannot_even_end_gives_its_jobs_back_and_the_drain_says_so() {
    let mut bench = Bench::new();
    bench.job_starts("one").await;
    let drain = tokio::spawn({
        let supervisor = bench.supervisor.clone();
        async move { supervisor.drain(Duration::from_secs(600)).await }
    });
    bench
        .until("draining", |pool| pool.state == PoolState::Draining)
        .await;
    for _ in 0..4 {
        bench.send(PoolCommand::Panic("a bug on the way out")).await;
    }
    let error = drain.await.unwrap().unwrap_err();
    let DrainError::PoolFailed {
        cause, given_back, ..
    } = error
    else {
        panic!("{error:?}")
    };
    assert!(cause.contains("a bug on the way out"), "{cause}");
    assert_eq!(given_back, 1);
    assert_eq!(bench.broker.ready("jobs"), Some(1));
    let status = bench.supervisor.pool(&name()).unwrap();
    assert_eq!((status.jobs.requeued, status.workers.draining), (1, 0));
}
