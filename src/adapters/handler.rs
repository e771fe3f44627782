//! The `handler` runner: jobs as calls of a function in this process.
//!
//! Owns the calls: their panics, their timeouts, and their end when the supervisor wants one. A handler runs on
//! the worker's own task, so it must not block the thread; what blocks belongs on `tokio::task::spawn_blocking`.
//! A future that was dropped is all that can be ended: what a handler has spawned is its own to end.

use std::{
    any::Any,
    fmt, future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use crate::runner::{
    BoxError, CreateRunner, Failure, FailureKind, Job, JobControl, JobEnd, JobTimes, Outcome,
    RunReport, Runner, RunnerManager, StartError,
};

/// The clock's own limit is some way beyond this, and nobody waits so long.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Runs each job by calling a function with it.
///
/// ```
/// use tidegate::{adapters::handler::HandlerManager, runner::{Job, Outcome}};
///
/// let manager = HandlerManager::new(|job: Job| async move {
///     let text = std::str::from_utf8(job.body())?;
///     println!("{text}");
///     Ok(Outcome::Done)
/// });
/// ```
pub struct HandlerManager<H> {
    handler: Arc<H>,
    limits: Limits,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    timeout: Option<Duration>,
    kill_grace: Duration,
}

impl<H, F> HandlerManager<H>
where
    H: Fn(Job) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Outcome, BoxError>> + Send + 'static,
{
    /// Runs jobs by `handler`. A panic within it is that job's failure; so is an error.
    pub fn new(handler: H) -> Self {
        Self {
            handler: Arc::new(handler),
            limits: Limits {
                timeout: None,
                kill_grace: Duration::from_secs(10),
            },
        }
    }
}

impl<H> HandlerManager<H> {
    /// How long a job may run before [`Job::cancelled`] fires. Without this, as long as it likes.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limits.timeout = Some(timeout);
        self
    }

    /// How long a job may go on after [`Job::cancelled`] has fired before it is dropped; 10 s by default.
    #[must_use]
    pub fn kill_grace(mut self, grace: Duration) -> Self {
        self.limits.kill_grace = grace;
        self
    }
}

impl<H> fmt::Debug for HandlerManager<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerManager")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<H, F> RunnerManager for HandlerManager<H>
where
    H: Fn(Job) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Outcome, BoxError>> + Send + 'static,
{
    fn kind(&self) -> &'static str {
        "handler"
    }

    fn answers(&self) -> bool {
        true
    }

    fn times(&self) -> JobTimes {
        JobTimes {
            timeout: self.limits.timeout,
            stop_grace: self.limits.kill_grace,
        }
    }

    async fn create(&self, _: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        Ok(Box::new(HandlerRunner {
            handler: Arc::clone(&self.handler),
            limits: self.limits,
        }))
    }
}

struct HandlerRunner<H> {
    handler: Arc<H>,
    limits: Limits,
}

#[async_trait]
impl<H, F> Runner for HandlerRunner<H>
where
    H: Fn(Job) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Outcome, BoxError>> + Send + 'static,
{
    async fn run(&mut self, job: &Job, control: JobControl) -> RunReport {
        RunReport {
            end: call(&*self.handler, self.limits, job, &control).await,
            reusable: true,
        }
    }

    async fn stop(self: Box<Self>) {}
}

/// Why we asked a handler to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Timeout,
    Stop,
}

/// What a handler came to, if it came to anything.
enum Returned {
    Outcome(Result<Outcome, BoxError>),
    Panicked(String),
}

async fn call<H, F>(handler: &H, limits: Limits, job: &Job, control: &JobControl) -> JobEnd
where
    H: Fn(Job) -> F,
    F: Future<Output = Result<Outcome, BoxError>>,
{
    if control.kill.is_cancelled() || control.stop.is_cancelled() {
        return JobEnd::Stopped;
    }
    control.started.notify();
    // A token of its own: a handler that cancels it ends nothing but itself.
    let token = job.cancelled().child_token();
    let job = job.clone().cancelled_by(token.clone());
    let mut call = match catch(|| handler(job)) {
        Ok(future) => pin!(Some(future)),
        Err(panic) => return job_end(Returned::Panicked(panic), None, limits),
    };
    let mut cause = None;
    let returned = {
        let mut stopped = pin!(control.stop.cancelled());
        let mut killed = pin!(control.kill.cancelled());
        // Far away, the timer costs nothing: it is registered when it is first polled, and a handler that does
        // not wait is never asked twice.
        let mut timer = pin!(sleep(limits.timeout.unwrap_or(FOREVER).min(FOREVER)));
        loop {
            tokio::select! {
                biased;
                returned = poll_caught(call.as_mut()) => break Some(returned),
                () = &mut killed => break None,
                () = &mut stopped, if cause.is_none() => cause = Some(Cause::Stop),
                () = &mut timer => {
                    if cause.is_some() {
                        break None;
                    }
                    cause = Some(Cause::Timeout);
                }
            }
            // Asked to end, by whichever came first.
            token.cancel();
            timer
                .as_mut()
                .reset(Instant::now() + limits.kill_grace.min(FOREVER));
        }
    };
    // Its destructors are the handler's own code too.
    let dropped = catch(|| call.set(None));
    match (returned, dropped) {
        (Some(returned), Ok(())) => job_end(returned, cause, limits),
        (_, Err(panic)) => job_end(Returned::Panicked(panic), cause, limits),
        (None, Ok(())) if cause == Some(Cause::Timeout) => JobEnd::Failed(timed_out(limits, None)),
        (None, Ok(())) => JobEnd::Stopped,
    }
}

fn job_end(returned: Returned, cause: Option<Cause>, limits: Limits) -> JobEnd {
    match (returned, cause) {
        // Also after it was asked to end: its word on its own work is the best there is.
        (Returned::Outcome(Ok(outcome)), _) => match outcome {
            Outcome::Done => JobEnd::Done { reply: None },
            Outcome::Reply(reply) => JobEnd::Done { reply: Some(reply) },
            Outcome::Retry { after } => JobEnd::Retry {
                after,
                failure: None,
            },
            Outcome::Reject { reason } => JobEnd::Rejected {
                reason,
                failure: None,
            },
        },
        (_, Some(Cause::Stop)) => JobEnd::Stopped,
        (Returned::Outcome(Err(error)), Some(Cause::Timeout)) => {
            JobEnd::Failed(timed_out(limits, Some(&chain(&error))))
        }
        (Returned::Outcome(Err(error)), None) => JobEnd::Failed(Failure {
            kind: FailureKind::Error,
            message: chain(&error),
            stderr_tail: None,
        }),
        (Returned::Panicked(panic), _) => JobEnd::Failed(Failure {
            kind: FailureKind::Panic,
            message: format!("panicked: {panic}"),
            stderr_tail: None,
        }),
    }
}

fn timed_out(limits: Limits, then: Option<&str>) -> Failure {
    let timeout = humantime::format_duration(limits.timeout.unwrap_or_default());
    Failure {
        kind: FailureKind::Timeout,
        message: match then {
            Some(then) => format!("ran longer than its timeout of {timeout}: {then}"),
            None => format!("ran longer than its timeout of {timeout}"),
        },
        stderr_tail: None,
    }
}

/// An error with its causes, as one line.
fn chain(error: &BoxError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Polls the handler's future to its end, or to its panic.
async fn poll_caught<F>(mut call: Pin<&mut Option<F>>) -> Returned
where
    F: Future<Output = Result<Outcome, BoxError>>,
{
    future::poll_fn(|cx| {
        let call = call.as_mut().as_pin_mut();
        let call = call.expect("the call is only dropped once it is no longer polled");
        match catch(|| call.poll(cx)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(outcome)) => Poll::Ready(Returned::Outcome(outcome)),
            Err(panic) => Poll::Ready(Returned::Panicked(panic)),
        }
    })
    .await
}

/// Runs the handler's code; a panic becomes its message. Unwind safety is the handler's own affair: it is `Fn`,
/// and the future that panicked is never polled again.
fn catch<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| panic_text(payload.as_ref()))
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "without a message".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::{decide::JobId, queue::Message};

    fn job() -> Job {
        Job::new(
            "p".into(),
            "q".into(),
            Arc::new(Message::default()),
            1,
            || JobId::from("j"),
        )
    }

    async fn end_of<H, F>(manager: HandlerManager<H>, control: &JobControl) -> String
    where
        H: Fn(Job) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Outcome, BoxError>> + Send + 'static,
    {
        let request = CreateRunner {
            id: crate::decide::RunnerId(1),
            pool: "p".into(),
        };
        let mut runner = manager.create(request).await.expect("a runner");
        let report = runner.run(&job(), control.clone()).await;
        assert!(report.reusable);
        match report.end {
            JobEnd::Failed(failure) => format!("{:?}: {}", failure.kind, failure.message),
            end => format!("{end:?}"),
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::fmt::Error);

    /// Panics when it is dropped.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }

    #[tokio::test]
    async fn a_panic_is_the_failure_of_its_job() {
        let control = JobControl::default();
        let at_once = HandlerManager::new(|_| -> future::Ready<_> { panic!("at {}", "once") });
        assert_eq!(end_of(at_once, &control).await, "Panic: panicked: at once");
        let later = HandlerManager::new(|_| async {
            tokio::task::yield_now().await;
            panic!("later")
        });
        assert_eq!(end_of(later, &control).await, "Panic: panicked: later");
        let wordless = HandlerManager::new(|_| async { std::panic::panic_any(7) });
        assert_eq!(
            end_of(wordless, &control).await,
            "Panic: panicked: without a message"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_while_it_is_dropped_is_caught_too() {
        let manager = HandlerManager::new(|_| async {
            let _bomb = Bomb;
            future::pending().await
        });
        let end = end_of(
            manager.timeout(Duration::from_secs(1)),
            &JobControl::default(),
        )
        .await;
        assert_eq!(end, "Panic: panicked: in a destructor");
    }

    #[tokio::test]
    async fn an_error_is_told_with_its_causes() {
        let manager = HandlerManager::new(|_| async { Err(Outer(std::fmt::Error).into()) });
        let end = end_of(manager, &JobControl::default()).await;
        assert_eq!(end, format!("Error: outer: {}", std::fmt::Error));
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_the_word_of_a_handler_that_ends_within_its_grace() {
        let limit = Duration::from_secs(3);
        let well = HandlerManager::new(|job: Job| async move {
            job.cancelled().cancelled().await;
            Ok(Outcome::retry())
        });
        let end = end_of(well.timeout(limit), &JobControl::default()).await;
        assert_eq!(end, "Retry { after: None, failure: None }");
        let badly = HandlerManager::new(|job: Job| async move {
            job.cancelled().cancelled().await;
            Err("cut off".into())
        });
        let end = end_of(badly.timeout(limit), &JobControl::default()).await;
        assert_eq!(end, "Timeout: ran longer than its timeout of 3s: cut off");
    }

    #[tokio::test(start_paused = true)]
    async fn gives_a_handler_its_timeout_and_its_grace_and_no_more() {
        let start = Instant::now();
        let manager = HandlerManager::new(|_| future::pending())
            .timeout(Duration::from_secs(3))
            .kill_grace(Duration::from_secs(4));
        let end = end_of(manager, &JobControl::default()).await;
        assert_eq!(end, "Timeout: ran longer than its timeout of 3s");
        assert_eq!(start.elapsed(), Duration::from_secs(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_has_the_default_grace_and_a_kill_none() {
        for (kill, grace) in [(false, 10), (true, 0)] {
            let start = Instant::now();
            let control = JobControl::default();
            let manager = HandlerManager::new({
                let control = control.clone();
                move |_| {
                    if kill { &control.kill } else { &control.stop }.cancel();
                    future::pending()
                }
            });
            assert_eq!(end_of(manager, &control).await, "Stopped");
            assert_eq!(start.elapsed(), Duration::from_secs(grace));
        }
    }

    #[tokio::test]
    async fn a_handler_that_cancels_its_own_token_ends_nothing_else() {
        let control = JobControl::default();
        let manager = HandlerManager::new(|job: Job| async move {
            job.cancelled().cancel();
            Ok(Outcome::Done)
        });
        assert_eq!(end_of(manager, &control).await, "Done { reply: None }");
        assert!(!control.stop.is_cancelled());
    }

    #[tokio::test]
    async fn drops_a_handler_with_its_future() {
        struct Flag(Arc<AtomicBool>);
        impl Drop for Flag {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let dropped = Arc::new(AtomicBool::new(false));
        let manager = HandlerManager::new({
            let dropped = Arc::clone(&dropped);
            move |_| {
                let flag = Flag(Arc::clone(&dropped));
                async move {
                    let _flag = flag;
                    future::pending().await
                }
            }
        });
        let control = JobControl::default();
        let run = end_of(manager, &control);
        assert!(futures_util::FutureExt::now_or_never(run).is_none());
        assert!(dropped.load(Ordering::Relaxed));
    }
}
