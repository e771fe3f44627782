//! Handlers that block. Each call has a thread of the runtime's blocking pool.
//!
//! A thread cannot be stopped. So this module counts the calls that continue after their job was abandoned. Above a
//! limit no new call starts.

use std::{
    fmt,
    panic::resume_unwind,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Span, warn};

use super::call::{CallLimits, call};
use crate::{
    escape::Escaped,
    runner::{
        BoxError, CreateRunner, Job, JobControl, JobTimes, Outcome, RunReport, Runner,
        RunnerManager, StartError,
    },
};

/// Limit on calls that continue after their jobs were abandoned. tokio has 512 blocking threads by default, and other
/// code of the program needs some of them.
const MAX_LEFT: usize = 64;

/// Runs each job by calling a function that blocks its thread.
///
/// A call gets a thread of tokio's blocking pool ([`spawn_blocking`]), so a pool's `max` must fit into that pool: 512
/// threads by default, for the whole program.
///
/// # Caveats
/// A blocking call cannot be stopped. At its timeout, or when the supervisor stops the job, [`Job::is_stopped`] becomes
/// true. A long handler must check it regularly, and return. A call that does not return is abandoned after
/// `kill_grace`: its job has failed by its timeout, or its message is given back, **and the call continues in parallel
/// with the next attempt**. While 64 such calls continue, no new call starts, and the pool is `faulted`.
///
/// The end of a tokio runtime also waits for such calls. To avoid that, end the program with [`std::process::exit`], or
/// the runtime with `shutdown_timeout`.
///
/// ```
/// use tidegate::{adapters::handler::BlockingManager, runner::{Job, Outcome}};
///
/// let manager = BlockingManager::new(|job: Job| {
///     for line in job.body().split(|byte| *byte == b'\n') {
///         if job.is_stopped() {
///             return Err("stopped before the last line".into());
///         }
///         let _ = line.len(); // a placeholder for slow work
///     }
///     Ok(Outcome::Done)
/// });
/// ```
pub struct BlockingManager<H> {
    handler: Arc<H>,
    limits: CallLimits,
    left: Arc<Left>,
}

impl<H> BlockingManager<H>
where
    H: Fn(Job) -> Result<Outcome, BoxError> + Send + Sync + 'static,
{
    /// Runs jobs by calling `handler`. A panic or an error of the handler is a failure of that job.
    pub fn new(handler: H) -> Self {
        Self {
            handler: Arc::new(handler),
            limits: CallLimits::default(),
            left: Arc::default(),
        }
    }
}

impl<H> BlockingManager<H> {
    pub(crate) fn limits(mut self, limits: CallLimits) -> Self {
        self.limits = limits;
        self
    }

    /// How long a job may run before it is [stopped](Job::is_stopped). Without this there is no limit.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limits.timeout = Some(timeout);
        self
    }

    /// How long a job may continue after it was [stopped](Job::is_stopped) before it is abandoned; 10 s by default.
    #[must_use]
    pub fn kill_grace(mut self, grace: Duration) -> Self {
        self.limits.kill_grace = grace;
        self
    }
}

impl<H> Clone for BlockingManager<H> {
    fn clone(&self) -> Self {
        Self {
            handler: Arc::clone(&self.handler),
            limits: self.limits,
            left: Arc::clone(&self.left),
        }
    }
}

impl<H> fmt::Debug for BlockingManager<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingManager")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<H> RunnerManager for BlockingManager<H>
where
    H: Fn(Job) -> Result<Outcome, BoxError> + Send + Sync + 'static,
{
    fn kind(&self) -> &'static str {
        "handler"
    }

    fn answers(&self) -> bool {
        true
    }

    fn times(&self) -> JobTimes {
        self.limits.times()
    }

    async fn create(&self, _: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        let left = self.left.count();
        if left >= MAX_LEFT {
            return Err(StartError {
                what: format!("{left} blocking calls still run after their jobs were abandoned"),
                source: None,
            });
        }
        Ok(Box::new(BlockingRunner(self.clone())))
    }
}

struct BlockingRunner<H>(BlockingManager<H>);

#[async_trait]
impl<H> Runner for BlockingRunner<H>
where
    H: Fn(Job) -> Result<Outcome, BoxError> + Send + Sync + 'static,
{
    async fn run(&mut self, job: &Job, control: JobControl) -> RunReport {
        let manager = &self.0;
        // The thread holds this for as long as the handler runs in it.
        let thread = Arc::new(());
        let running = Running {
            thread: Arc::downgrade(&thread),
            left: &manager.left,
        };
        let begin = |job| on_a_thread(Arc::clone(&manager.handler), job, thread.clone());
        let end = call(&begin, manager.limits, job, &control).await;
        drop(thread);
        let goes_on = running.goes_on();
        if goes_on {
            warn!(
                pool = %job.pool(),
                job.id = %Escaped(job.id().as_str()),
                "a blocking handler was abandoned: its call still runs, because a thread cannot be stopped"
            );
        }
        RunReport {
            end,
            // A runner that is replaced is checked against the limit on abandoned calls.
            reusable: !goes_on,
        }
    }

    async fn stop(self: Box<Self>) {}
}

/// Runs a handler on its own thread, and waits for the result. If this future is dropped before the call begins, the
/// call never begins.
async fn on_a_thread<H>(handler: Arc<H>, job: Job, thread: Arc<()>) -> Result<Outcome, BoxError>
where
    H: Fn(Job) -> Result<Outcome, BoxError> + Send + Sync + 'static,
{
    let span = Span::current();
    let call = spawn_blocking(move || {
        let _running = thread;
        span.in_scope(|| handler(job))
    });
    match AbortOnDropHandle::new(call).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // A call is cancelled only when the runtime ends, which also drops this task.
            Err(_) => std::future::pending().await,
        },
    }
}

/// A call that may be running. **On drop**, a call that continues is counted.
struct Running<'a> {
    thread: Weak<()>,
    left: &'a Left,
}

impl Running<'_> {
    fn goes_on(&self) -> bool {
        self.thread.strong_count() > 0
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.goes_on() {
            self.left.add(self.thread.clone());
        }
    }
}

/// Calls that continue after their jobs were abandoned. Written by runners, read when a runner is created.
#[derive(Default)]
struct Left(Mutex<Vec<Weak<()>>>);

impl Left {
    fn add(&self, thread: Weak<()>) {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|thread| thread.strong_count() > 0);
        left.push(thread);
    }

    fn count(&self) -> usize {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|thread| thread.strong_count() > 0);
        left.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::{
        decide::{JobId, RunnerId},
        queue::Message,
        runner::{FailureKind, JobEnd},
    };

    fn job() -> Job {
        Job::new(
            "p".into(),
            "q".into(),
            Arc::new(Message::default()),
            1,
            || JobId::from("j"),
        )
    }

    async fn runner<H>(manager: &BlockingManager<H>) -> Result<Box<dyn Runner>, StartError>
    where
        H: Fn(Job) -> Result<Outcome, BoxError> + Send + Sync + 'static,
    {
        let request = CreateRunner {
            id: RunnerId(1),
            pool: "p".into(),
        };
        manager.create(request).await
    }

    async fn run<H>(manager: &BlockingManager<H>, control: JobControl) -> RunReport
    where
        H: Fn(Job) -> Result<Outcome, BoxError> + Send + Sync + 'static,
    {
        let mut runner = runner(manager).await.expect("a runner");
        runner.run(&job(), control).await
    }

    #[tokio::test]
    async fn the_outcome_error_and_panic_of_a_handler_are_those_of_its_job() {
        let done = run(
            &BlockingManager::new(|_| Ok(Outcome::reply("17"))),
            JobControl::default(),
        )
        .await;
        assert!(done.reusable);
        assert!(matches!(done.end, JobEnd::Done { reply: Some(_) }));

        let failed = run(
            &BlockingManager::new(|_| Err("no such picture".into())),
            JobControl::default(),
        )
        .await;
        let JobEnd::Failed(failure) = failed.end else {
            panic!("{failed:?}");
        };
        assert_eq!(
            (failure.kind, &*failure.message),
            (FailureKind::Error, "no such picture")
        );

        let panicked = run(
            &BlockingManager::new(|_| panic!("at once")),
            JobControl::default(),
        )
        .await;
        assert!(panicked.reusable);
        let JobEnd::Failed(failure) = panicked.end else {
            panic!("{panicked:?}");
        };
        assert_eq!(failure.message, "panicked: at once");
    }

    #[tokio::test]
    async fn a_handler_that_checks_for_a_stop_ends_within_its_grace() {
        let control = JobControl::default();
        let manager = BlockingManager::new({
            let control = control.clone();
            move |job: Job| {
                assert!(!job.is_stopped());
                control.stop.cancel();
                while !job.is_stopped() {
                    std::thread::yield_now();
                }
                Err("half of it is done".into())
            }
        });
        let report = run(&manager, control).await;
        assert!(matches!(report.end, JobEnd::Stopped), "{report:?}");
        assert!(report.reusable);
        assert_eq!(manager.left.count(), 0);
    }

    #[tokio::test]
    async fn a_handler_that_ignores_the_stop_keeps_running_and_its_runner_is_dropped() {
        let (let_go, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let manager = BlockingManager::new(move |_| {
            let _ = gate.lock().unwrap().recv();
            Ok(Outcome::Done)
        })
        .timeout(Duration::from_millis(1))
        .kill_grace(Duration::ZERO);
        let report = run(&manager, JobControl::default()).await;
        assert!(!report.reusable);
        let JobEnd::Failed(failure) = report.end else {
            panic!("{report:?}");
        };
        assert_eq!(failure.kind, FailureKind::Timeout);
        assert_eq!(manager.left.count(), 1);
        drop(let_go);
        while manager.left.count() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn no_call_starts_while_too_many_abandoned_calls_still_run() {
        let manager = BlockingManager::new(|_| Ok(Outcome::Done));
        let thread = Arc::new(());
        for _ in 0..MAX_LEFT {
            assert!(runner(&manager).await.is_ok());
            manager.left.add(Arc::downgrade(&thread));
        }
        let refused = runner(&manager).await.err().expect("too many");
        assert_eq!(
            refused.what,
            "64 blocking calls still run after their jobs were abandoned"
        );
        drop(thread);
        assert!(runner(&manager).await.is_ok());
    }
}
