//! Runners, managers and event sinks of users that panic in any of their methods.

use std::sync::Mutex;

use super::*;
use tidegate::runner::{CleanupReport, JobTimes, Retirement};

/// The method that panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Kind,
    Times,
    Answers,
    Prestart,
    Create,
    Cleanup,
    CleanupMade,
    Delete,
    Flush,
    Quiesce,
    IsAlive,
    Retires,
    Run,
    RunDropped,
    Stop,
    Dropped,
}

/// A manager and runners that panic in one method.
#[derive(Debug, Clone)]
struct Panicky {
    at: At,
    created: Arc<AtomicU32>,
    panics: Arc<AtomicU32>,
    /// How often it will still panic.
    left: Arc<AtomicU32>,
}

impl Panicky {
    fn new(at: At) -> Self {
        Self::times(at, u32::MAX)
    }

    fn times(at: At, left: u32) -> Self {
        Self {
            at,
            created: Arc::default(),
            panics: Arc::default(),
            left: Arc::new(AtomicU32::new(left)),
        }
    }

    fn pass(&self, at: At) {
        if self.at == at && self.left.load(Ordering::Relaxed) > 0 && !std::thread::panicking() {
            self.left.fetch_sub(1, Ordering::Relaxed);
            self.panics.fetch_add(1, Ordering::Relaxed);
            panic!("no more room");
        }
    }
}

#[async_trait::async_trait]
impl RunnerManager for Panicky {
    fn kind(&self) -> &'static str {
        self.pass(At::Kind);
        "panicky"
    }

    fn times(&self) -> JobTimes {
        self.pass(At::Times);
        JobTimes::default()
    }

    fn answers(&self) -> bool {
        self.pass(At::Answers);
        false
    }

    fn prestart(&self) -> u32 {
        self.pass(At::Prestart);
        1
    }

    async fn create(&self, _: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        self.created.fetch_add(1, Ordering::Relaxed);
        self.pass(At::Create);
        Ok(Box::new(PanickyRunner(self.clone())))
    }

    fn cleanup<'s, 'f>(
        &'s self,
    ) -> std::pin::Pin<Box<dyn Future<Output = CleanupReport> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        self.pass(At::CleanupMade);
        Box::pin(async {
            self.pass(At::Cleanup);
            CleanupReport::default()
        })
    }

    async fn delete(&self, runner: Box<dyn Runner>) {
        self.pass(At::Delete);
        runner.stop().await;
    }

    async fn flush(&self, runners: Vec<Box<dyn Runner>>) {
        self.pass(At::Flush);
        for runner in runners {
            runner.stop().await;
        }
    }

    async fn quiesce(&self) {
        self.pass(At::Quiesce);
    }
}

struct PanickyRunner(Panicky);

struct PanicsWhenDropped<'a>(&'a Panicky);

impl Drop for PanicsWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.pass(At::RunDropped);
    }
}

#[async_trait::async_trait]
impl Runner for PanickyRunner {
    async fn run(&mut self, _: &Job, control: JobControl) -> RunReport {
        let _guard = PanicsWhenDropped(&self.0);
        control.started.notify();
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.0.pass(At::Run);
        RunReport {
            end: JobEnd::Done { reply: None },
            reusable: true,
        }
    }

    fn is_alive(&mut self) -> bool {
        self.0.pass(At::IsAlive);
        true
    }

    fn retires(&mut self) -> Option<Retirement> {
        self.0.pass(At::Retires);
        (self.0.at == At::Delete).then_some(Retirement::Asked)
    }

    async fn stop(self: Box<Self>) {
        self.0.pass(At::Stop);
    }
}

impl Drop for PanickyRunner {
    fn drop(&mut self) {
        self.0.pass(At::Dropped);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_user_code_affects_only_its_own_job_wherever_it_happens() {
    for at in [
        At::Kind,
        At::Times,
        At::Answers,
        At::Prestart,
        At::Cleanup,
        At::CleanupMade,
        At::Delete,
        At::Flush,
        At::Quiesce,
        At::IsAlive,
        At::Retires,
        At::Stop,
        At::Dropped,
    ] {
        let broker = broker();
        let runners = Panicky::new(at);
        let settings = PoolSettings {
            keep_warm: 1,
            ..settings(Policy::fixed(2))
        };
        let supervisor = start(&broker, settings, runners.clone());
        for n in 0..6 {
            broker.send(QUEUE, format!("job {n}"));
        }
        let after = until(&supervisor, "done", |pool| pool.jobs.done == 6).await;
        let jobs = after.jobs;
        assert_eq!((jobs.retried, jobs.dead, jobs.lost), (0, 0, 0), "{at:?}");
        until(&supervisor, "idle", |pool| pool.state == PoolState::Idle).await;
        assert!(supervisor.readiness().is_ready(), "{at:?}");
        let drained = supervisor.drain(Duration::from_secs(30)).await;
        assert_eq!(drained.unwrap().finished, 0, "{at:?}");
        let ended = status(&supervisor);
        let live = ended.workers.live + ended.workers.draining;
        assert_eq!((live, ended.runners.busy), (0, 0), "{at:?}");
        let panics = runners.panics.load(Ordering::Relaxed);
        assert!(panics > 0, "{at:?} was never reached");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_run_is_that_jobs_failure_and_its_runner_has_crashed() {
    for at in [At::Run, At::RunDropped] {
        let broker = broker();
        let crashed = Arc::new(Crashed::default());
        let runners = Panicky::times(at, 1);
        let pool = PoolSpec {
            settings: settings(Policy::fixed(1)),
            runners: Arc::new(runners),
        };
        let driver = Arc::new(broker.clone());
        let supervisor = Supervisor::start(driver, vec![pool], Some(crashed.clone())).unwrap();
        broker.send(QUEUE, "one");
        let after = until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
        assert_eq!((after.jobs.retried, after.jobs.requeued), (1, 0), "{at:?}");
        until(&supervisor, "idle", |pool| pool.state == PoolState::Idle).await;
        assert_eq!(*crashed.0.lock().unwrap(), 1, "{at:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_create_backs_the_pool_off_as_a_runner_that_cannot_start() {
    let broker = broker();
    let runners = Panicky::new(At::Create);
    for n in 0..20 {
        broker.send(QUEUE, format!("job {n}"));
    }
    let supervisor = start(&broker, settings(Policy::fixed(10)), runners.clone());
    let faulted = until(&supervisor, "faulted", |pool| {
        pool.state == PoolState::Faulted
    })
    .await;
    let cause = faulted.cause.unwrap();
    assert!(
        cause.contains("the runner manager panicked: no more room"),
        "{cause}"
    );
    assert!(!supervisor.readiness().is_ready());
    tokio::time::sleep(Duration::from_secs(600)).await;
    let created = runners.created.load(Ordering::Relaxed);
    // A first burst of ten, then one or two at a time, less and less often.
    assert!(created <= 60, "{created} creations");
    assert_eq!(broker.ready(QUEUE), Some(20), "messages stay ready");
    runners.left.store(0, Ordering::Relaxed);
    until(&supervisor, "done", |pool| pool.jobs.done == 20).await;
}

#[tokio::test(start_paused = true)]
async fn a_panicking_cleanup_is_the_pools_cause_until_a_cleanup_succeeds() {
    let broker = broker();
    let runners = Panicky::new(At::Cleanup);
    let supervisor = start(&broker, settings(Policy::fixed(1)), runners.clone());
    let shown = until(&supervisor, "panicking", |pool| pool.cause.is_some()).await;
    let cause = shown.cause.unwrap();
    assert_eq!(
        cause,
        "the runner manager panicked while it cleaned up: no more room"
    );
    runners.left.store(0, Ordering::Relaxed);
    until(&supervisor, "well", |pool| pool.cause.is_none()).await;
}

/// Adds up crashed runners, and panics at every event.
#[derive(Debug, Default)]
struct Crashed(Mutex<u32>);

impl EventSink for Crashed {
    fn emit(&self, event: Event) {
        if let Event::Reconciliation {
            crashed_runners, ..
        } = event
        {
            *self.0.lock().unwrap() += crashed_runners;
        }
        panic!("the disk is full");
    }
}
