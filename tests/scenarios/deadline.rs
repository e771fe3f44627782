//! Deadlines: no delivery is held for longer than the broker allows.

use std::time::Duration;

use super::*;

const ACK_DEADLINE: Duration = Duration::from_secs(100);
/// The deadline minus 10 s of grace and 5 s for settlement.
const STOP: Duration = Duration::from_secs(85);

fn patient(policy: Policy) -> PoolSettings {
    PoolSettings {
        ack_deadline: ACK_DEADLINE,
        ..settings(policy)
    }
}

/// A job that ends when it is told to, and counts its starts.
fn endless(began: &Arc<AtomicU32>) -> impl Fn(Job) -> JobFuture + Send + Sync + 'static {
    let began = began.clone();
    move |job: Job| -> JobFuture {
        began.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            job.cancelled().cancelled().await;
            Err(BoxError::from("interrupted"))
        })
    }
}

fn give_backs(message: &Message) -> Option<i64> {
    let sum = message.headers.get("x-tidegate-give-backs");
    sum.and_then(HeaderValue::as_integer)
}

#[tokio::test(start_paused = true)]
async fn a_job_is_stopped_before_its_delivery_is_held_too_long_and_given_back_as_a_copy() {
    let broker = broker();
    let began = Arc::new(AtomicU32::new(0));
    broker.send(QUEUE, "endless");
    let settings = patient(Policy::fixed(1));
    let supervisor = start(&broker, settings, HandlerManager::new(endless(&began)));
    until(&supervisor, "busy", |pool| pool.runners.busy == 1).await;
    let begun = Instant::now();
    throughout(&supervisor, STOP - Duration::from_secs(1), "busy", |pool| {
        pool.jobs.requeued == 0 && pool.runners.busy == 1
    })
    .await;
    let after = until(&supervisor, "given back", |pool| pool.jobs.requeued == 1).await;
    assert!(begun.elapsed() < ACK_DEADLINE);
    assert_eq!(
        (after.jobs.retried, after.jobs.dead, after.jobs.lost),
        (0, 0, 0)
    );
    until(&supervisor, "again", |_| began.load(Ordering::Relaxed) == 2).await;
    // The pool is paused, not drained.
    supervisor.pause(&name()).await.unwrap();
    until(&supervisor, "given back again", |pool| {
        pool.jobs.requeued == 2
    })
    .await;
    let report = supervisor.drain(Duration::from_secs(5)).await.unwrap();
    assert_eq!(report.finished, 0);
    let left = broker.take(QUEUE);
    assert_eq!(left.len(), 1);
    assert_eq!(give_backs(&left[0]), Some(2));
    // No attempt was spent.
    assert_eq!(text(&left[0].headers, "x-tidegate-attempt"), "-");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_always_exceeds_the_deadline_is_dead_lettered() {
    let broker = MemoryBroker::new();
    broker.declare_queue(QUEUE, QueueKind::Classic);
    let began = Arc::new(AtomicU32::new(0));
    broker.send(QUEUE, "endless");
    let settings = PoolSettings {
        ack_deadline: Duration::from_secs(20),
        ..settings(Policy::fixed(1))
    };
    let supervisor = start(&broker, settings, HandlerManager::new(endless(&began)));
    until(&supervisor, "dead", |pool| pool.jobs.dead == 1).await;
    assert_eq!(began.load(Ordering::Relaxed), 21);
    let dead = broker.take("jobs.dead");
    assert_eq!(text(&dead[0].headers, "x-tidegate-reason"), "crash-loop");
    assert_eq!(broker.ready(QUEUE), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_ends_well_when_it_is_told_to_end_is_done_and_its_worker_stays() {
    let broker = broker();
    let handler = |job: Job| async move {
        if job.body() == "slow" {
            job.cancelled().cancelled().await;
        }
        Ok(Outcome::Done)
    };
    broker.send(QUEUE, "slow");
    let settings = PoolSettings {
        drain_after: DrainAfter::Never,
        ..patient(Policy::fixed(1))
    };
    let supervisor = start(&broker, settings, HandlerManager::new(handler));
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    // The order to end was only for that job.
    broker.send(QUEUE, "quick");
    let after = until(&supervisor, "done", |pool| pool.jobs.done == 2).await;
    assert_eq!(after.jobs.requeued, 0);
}

/// Runners that do not end their job when they are told to.
#[derive(Debug)]
struct Deaf;

#[async_trait::async_trait]
impl RunnerManager for Deaf {
    fn kind(&self) -> &'static str {
        "deaf"
    }

    async fn create(&self, _: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        Ok(Box::new(Deaf))
    }
}

#[async_trait::async_trait]
impl Runner for Deaf {
    async fn run(&mut self, _: &Job, _: JobControl) -> RunReport {
        std::future::pending().await
    }

    async fn stop(self: Box<Self>) {}
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_does_not_end_its_job_is_dropped_in_time() {
    let broker = broker();
    broker.send(QUEUE, "one");
    let supervisor = start(&broker, patient(Policy::fixed(1)), Deaf);
    until(&supervisor, "busy", |pool| pool.runners.busy == 1).await;
    let begun = Instant::now();
    until(&supervisor, "given back", |pool| pool.jobs.requeued == 1).await;
    assert!(begun.elapsed() > Duration::from_secs(95), "{begun:?}");
    assert!(begun.elapsed() < ACK_DEADLINE, "{begun:?}");
}

/// Runners that never start.
#[derive(Debug)]
struct Never;

#[async_trait::async_trait]
impl RunnerManager for Never {
    fn kind(&self) -> &'static str {
        "never"
    }

    async fn create(&self, _: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_does_not_start_holds_no_delivery_for_too_long() {
    let broker = broker();
    broker.send(QUEUE, "one");
    let supervisor = start(&broker, patient(Policy::fixed(1)), Never);
    until(&supervisor, "held", |pool| {
        pool.demand == 1 && pool.depth.ready == 0
    })
    .await;
    let begun = Instant::now();
    until(&supervisor, "given back", |pool| pool.jobs.requeued == 1).await;
    assert!(begun.elapsed() < ACK_DEADLINE, "{begun:?}");
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_waited_too_long_behind_others_is_given_back_and_not_started() {
    let broker = broker();
    let starts = Arc::new(std::sync::Mutex::new(Vec::new()));
    let handler = {
        let starts = starts.clone();
        move |job: Job| {
            let body = String::from_utf8_lossy(job.body()).into_owned();
            starts.lock().unwrap().push((body, Instant::now()));
            async {
                tokio::time::sleep(Duration::from_secs(20)).await;
                Ok(Outcome::Done)
            }
        }
    };
    for n in 0..6 {
        broker.send(QUEUE, format!("{n}"));
    }
    let settings = PoolSettings {
        prefetch: 6,
        ..patient(Policy::fixed(1))
    };
    let begun = Instant::now();
    // A job that starts 60 s after its delivery has 25 s left; one that starts after 80 s has 5.
    let runners = HandlerManager::new(handler).timeout(Duration::from_secs(25));
    let supervisor = start(&broker, settings, runners);
    let after = until(&supervisor, "done", |pool| pool.jobs.done == 6).await;
    // Two were given back together and delivered again.
    assert_eq!((after.jobs.requeued, after.jobs.retried), (2, 0));
    let mut starts = starts.lock().unwrap().clone();
    starts.sort();
    let seconds: Vec<u64> = starts
        .iter()
        .map(|(_, at)| at.duration_since(begun).as_secs())
        .collect();
    assert_eq!(seconds, [0, 20, 40, 60, 80, 100]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_deadline_that_comes_first_is_the_reason_of_the_stop() {
    let broker = broker();
    let began = Arc::new(AtomicU32::new(0));
    broker.send(QUEUE, "endless");
    let settings = patient(Policy::fixed(1));
    let supervisor = start(&broker, settings, HandlerManager::new(endless(&began)));
    until(&supervisor, "busy", |pool| pool.runners.busy == 1).await;
    let error = supervisor.drain(Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(
        error,
        DrainError::DeadlinePassed { given_back: 1 }
    ));
    // A stop by a drain is not counted.
    assert_eq!(give_backs(&broker.take(QUEUE)[0]), Some(0));
}
