//! Runners that cannot start.

use super::*;

/// Runners that cannot start until they are fixed.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) tries: Arc<AtomicU32>,
    pub(super) repaired: Arc<std::sync::atomic::AtomicBool>,
}

struct Instantly;

#[async_trait::async_trait]
impl RunnerManager for Broken {
    fn kind(&self) -> &'static str {
        "broken"
    }

    async fn create(&self, _: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        self.tries.fetch_add(1, Ordering::Relaxed);
        if self.repaired.load(Ordering::Relaxed) {
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
async fn if_runners_cannot_start_the_pool_backs_off_and_spends_no_attempt() {
    let broker = broker();
    let tries = Arc::new(AtomicU32::new(0));
    let repaired = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let runners = Broken {
        tries: tries.clone(),
        repaired: repaired.clone(),
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
    // One trial at a time, after 1, 2, 4, 8, 16, 32 and 60 s.
    let trials = tries.load(Ordering::Relaxed) - first_burst;
    assert!((5..=7).contains(&trials), "{trials} trials");
    assert_eq!(broker.ready(QUEUE), Some(20), "messages stay ready");
    assert_eq!(status(&supervisor).jobs.retried, 0);
    repaired.store(true, Ordering::Relaxed);
    let after = until(&supervisor, "done", |pool| pool.jobs.done == 20).await;
    assert_eq!(after.jobs.retried + after.jobs.dead, 0);
}

/// Runners of which only the second cannot start.
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
async fn a_pool_does_not_stay_faulted_during_a_long_job() {
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
async fn a_message_whose_runner_cannot_start_does_not_go_from_worker_to_worker() {
    let broker = broker();
    let tries = Arc::new(AtomicU32::new(0));
    let runners = Broken {
        tries: tries.clone(),
        repaired: Arc::default(),
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
