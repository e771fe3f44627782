//! The `handler` runner: jobs as calls of a function in this process.
//!
//! There are two kinds of handler. An async function ([`HandlerManager`]) runs on the worker's own task, so it must not
//! block the thread. A blocking function ([`BlockingManager`]) runs on its own thread. This module owns the calls:
//! their panics, their timeouts, and their stop by the supervisor. It can only drop a handler's future: tasks that a
//! handler spawned are not ended.

mod blocking;
mod call;
#[cfg(feature = "tower")]
mod service;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

pub use self::blocking::BlockingManager;
pub(crate) use self::call::CallLimits;
use self::call::call;
#[cfg(feature = "tower")]
pub(crate) use self::service::call_service;
use crate::runner::{
    BoxError, CreateRunner, Job, JobControl, JobTimes, Outcome, RunReport, Runner, RunnerManager,
    StartError,
};

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
    limits: CallLimits,
}

impl<H, F> HandlerManager<H>
where
    H: Fn(Job) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Outcome, BoxError>> + Send + 'static,
{
    /// Runs jobs by calling `handler`. A panic or an error of the handler is a failure of that job.
    pub fn new(handler: H) -> Self {
        Self {
            handler: Arc::new(handler),
            limits: CallLimits::default(),
        }
    }
}

impl<H> HandlerManager<H> {
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

    /// How long a job may continue after it was [stopped](Job::is_stopped) before it is dropped; 10 s by default.
    #[must_use]
    pub fn kill_grace(mut self, grace: Duration) -> Self {
        self.limits.kill_grace = grace;
        self
    }
}

impl<H> Clone for HandlerManager<H> {
    fn clone(&self) -> Self {
        Self {
            handler: Arc::clone(&self.handler),
            limits: self.limits,
        }
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
        self.limits.times()
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
    limits: CallLimits,
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

#[cfg(test)]
mod tests;
