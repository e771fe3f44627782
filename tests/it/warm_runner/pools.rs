//! Warm runners in a pool, on the in-memory queue.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tidegate::{
    Policy, PoolStatus, Supervisor,
    adapters::memory::MemoryBroker,
    config::{DrainAfter, PoolSettings},
    queue::QueueKind,
    run::{Event, EventSink, PoolSpec, PoolState},
    runner::RunnerManager,
    runners::{WarmSettings, warm::WarmManager},
};
use tokio::time::{Instant, sleep};

use super::script;
use crate::support::witness::{Witness, soon};

const QUEUE: &str = "jobs";

#[derive(Debug, Clone, Default)]
struct Stops(Arc<Mutex<Vec<&'static str>>>);

impl EventSink for Stops {
    fn emit(&self, event: Event) {
        if let Event::RunnerStop { status, .. } = event {
            self.0.lock().unwrap().push(status);
        }
    }
}

struct Tank {
    broker: MemoryBroker,
    supervisor: Supervisor,
    stops: Stops,
}

impl Tank {
    fn new(settings: impl FnOnce(&mut PoolSettings), runners: impl RunnerManager) -> Self {
        let broker = MemoryBroker::new();
        broker.declare_queue(QUEUE, QueueKind::Quorum);
        let mut pool = PoolSettings {
            policy: Policy::fixed(1),
            poll_interval: Duration::from_millis(20),
            drain_after: DrainAfter::Never,
            ..PoolSettings::new(QUEUE)
        };
        pool.retry.max_attempts = 1;
        settings(&mut pool);
        let pool = PoolSpec {
            settings: pool,
            runners: Arc::new(runners),
        };
        let stops = Stops::default();
        let sink: Arc<dyn EventSink> = Arc::new(stops.clone());
        let supervisor =
            Supervisor::start(Arc::new(broker.clone()), vec![pool], Some(sink)).unwrap();
        Self {
            broker,
            supervisor,
            stops,
        }
    }

    async fn until(&self, what: &str, looks: impl Fn(&PoolStatus) -> bool) -> PoolStatus {
        let time_limit = Instant::now() + Duration::from_secs(60);
        loop {
            let status = self.supervisor.pool(&QUEUE.into()).unwrap();
            if looks(&status) {
                return status;
            }
            assert!(Instant::now() < time_limit, "never {what}: {status:#?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn stops(&self) -> Vec<&'static str> {
        self.stops.0.lock().unwrap().clone()
    }
}

/// A process that reports its start, and does what its job's body says.
fn worker(witness: &Witness) -> WarmSettings {
    script(
        witness,
        "echo started >&9; echo \"$ready\"\n\
         while IFS= read -r line; do\n\
         id=$(printf '%s\\n' \"$line\" | sed 's/^{\"id\":\\(\"[^\"]*\"\\).*/\\1/')\n\
         case $line in *'\"body\":\"crash\"'*) exit 3;; esac\n\
         echo \"{\\\"id\\\":$id,\\\"outcome\\\":\\\"done\\\"}\"\n\
         done",
    )
}

/// Ends all processes, and returns how many there have been.
async fn starts(tank: Tank, mut witness: Witness) -> u32 {
    soon(tank.supervisor.drain(Duration::from_secs(60)))
        .await
        .unwrap();
    let mut starts = 0;
    while witness.next().await.is_some() {
        starts += 1;
    }
    starts
}

#[tokio::test]
async fn a_job_goes_to_an_idle_runner() {
    let witness = Witness::new();
    let tank = Tank::new(|_| {}, WarmManager::new(worker(&witness)));
    for _ in 0..5 {
        // One after another, so that the pool could lose its runner between any two.
        let done = tank.until("there", |_| true).await.jobs.done;
        tank.broker.send(QUEUE, "work");
        tank.until("done", |pool| {
            pool.jobs.done == done + 1 && pool.runners.idle == 1
        })
        .await;
    }
    assert_eq!(starts(tank, witness).await, 1);
}

#[tokio::test]
async fn a_crash_fails_only_the_job_of_its_own_runner() {
    let witness = Witness::new();
    let tank = Tank::new(
        |pool| pool.policy = Policy::fixed(2),
        WarmManager::new(worker(&witness)),
    );
    for body in ["work", "crash", "work", "work", "crash", "work", "work"] {
        tank.broker.send(QUEUE, body);
    }
    let end = tank
        .until("settled", |pool| pool.jobs.done + pool.jobs.dead == 7)
        .await;
    assert_eq!((end.jobs.done, end.jobs.dead, end.jobs.retried), (5, 2, 0));
    let dead = tank.broker.take("jobs.dead");
    assert!(dead.iter().all(|message| message.body == "crash"));
}

#[tokio::test]
async fn recycling_a_runner_is_not_a_crash_and_loses_no_job() {
    let witness = Witness::new();
    let mut settings = worker(&witness);
    settings.max_jobs = Some(2);
    let tank = Tank::new(|_| {}, WarmManager::new(settings));
    for _ in 0..10 {
        tank.broker.send(QUEUE, "work");
    }
    let end = tank.until("done", |pool| pool.jobs.done == 10).await;
    assert_eq!(
        (end.jobs.dead, end.jobs.retried, end.jobs.requeued),
        (0, 0, 0)
    );
    let stops = tank.stops();
    assert!(stops.iter().all(|why| *why == "max_jobs"), "{stops:?}");
    assert_eq!(starts(tank, witness).await, 5);
}

#[tokio::test]
async fn a_runner_that_waits_for_too_long_is_ended_and_counted_as_such() {
    let mut witness = Witness::new();
    let mut settings = worker(&witness);
    settings.idle_timeout = Some(Duration::from_millis(50));
    let tank = Tank::new(|_| {}, WarmManager::new(settings));
    tank.broker.send(QUEUE, "work");
    let end = tank
        .until("alone", |pool| {
            pool.jobs.done == 1 && pool.runners.idle == 0
        })
        .await;
    assert_eq!(end.workers.bare, 1);
    assert_eq!(tank.stops(), ["idle_timeout"]);
    witness.gone().await;
}

#[tokio::test]
async fn runners_are_ready_before_the_first_job_and_wait_for_as_long_as_it_takes() {
    let mut witness = Witness::new();
    let mut settings = worker(&witness);
    settings.prestart = 2;
    settings.idle_timeout = Some(Duration::from_nanos(1));
    let tank = Tank::new(keeps_warm(3), WarmManager::new(settings));
    let ready = tank.until("ready", |pool| pool.runners.idle == 2).await;
    assert_eq!((ready.workers.live, ready.workers.bare), (3, 1));
    assert_eq!(witness.line().await, "started");
    assert_eq!(witness.line().await, "started");
    for _ in 0..3 {
        soon(tank.supervisor.reconcile(&QUEUE.into()))
            .await
            .unwrap();
    }
    assert_eq!(tank.stops(), [""; 0]);
    assert_eq!(starts(tank, witness).await, 0, "beyond the two");
}

#[tokio::test]
async fn no_more_runners_are_made_ready_than_workers_wait() {
    let witness = Witness::new();
    let mut settings = worker(&witness);
    settings.prestart = 5;
    let tank = Tank::new(keeps_warm(2), WarmManager::new(settings));
    tank.until("ready", |pool| pool.runners.idle == 2).await;
    tank.broker.send(QUEUE, "work");
    tank.until("done", |pool| pool.jobs.done == 1 && pool.runners.idle == 2)
        .await;
    assert_eq!(starts(tank, witness).await, 2);
}

fn keeps_warm(workers: u32) -> impl FnOnce(&mut PoolSettings) {
    move |pool| {
        pool.policy = Policy::fixed(workers);
        pool.keep_warm = workers;
    }
}

#[tokio::test]
async fn a_pool_whose_runners_cannot_be_made_ready_says_so_before_a_job_needs_them() {
    let witness = Witness::new();
    let mut settings = script(&witness, "echo 'no module named jobs' >&2; exit 1");
    settings.prestart = 1;
    let tank = Tank::new(|pool| pool.keep_warm = 1, WarmManager::new(settings));
    let faulted = tank
        .until("faulted", |pool| pool.state == PoolState::Faulted)
        .await;
    let cause = format!("{faulted:?}");
    assert!(cause.contains("no module named jobs"), "{cause}");
}

#[tokio::test]
async fn a_job_whose_runner_is_slow_to_start_is_given_back_at_the_drains_deadline() {
    let mut witness = Witness::new();
    let settings = script(&witness, "echo started >&9; sleep 1000");
    let tank = Tank::new(|_| {}, WarmManager::new(settings));
    tank.broker.send(QUEUE, "work");
    assert_eq!(witness.line().await, "started");
    let drained = soon(tank.supervisor.drain(Duration::from_millis(50))).await;
    assert!(drained.is_err(), "{drained:?}");
    witness.gone().await;
    assert_eq!(tank.broker.ready(QUEUE), Some(1));
}
