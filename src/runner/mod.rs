//! The traits of runners, which execute jobs.
//!
//! A [`RunnerManager`] starts runners of one kind, and removes what they leave behind. A [`Runner`] runs one job at a time.
//! The pool owns the runners and counts them. A manager owns only what is outside the process. The kinds of tidegate are in
//! [`runners`](crate::runners). A program adds its own kind by implementing the two traits.

mod job;
mod program;

use std::{
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

pub use tidegate_core::runner::{
    Failure, FailureKind, JobEnd, Outcome, OutputUse, Reply, RunReport, StartError,
};

pub use self::{
    job::{Job, JsonError},
    program::{ProgramControl, ProgramEnd},
};
use crate::decide::{PoolName, RunnerId};

/// Any error of a user's own code.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Starts runners of one kind, and removes what they leave behind.
///
/// # Guarantees
/// The pool calls [`create`](Self::create) only when no idle runner waits. It gives each runner one job at a time. It ends
/// every runner with [`delete`](Self::delete) or [`flush`](Self::flush), unless the runner has said that it cannot be
/// reused.
///
/// A panic in a method of a manager or of a [`Runner`] ends only that call. After a panic in [`create`](Self::create) no
/// runner has started. After one in [`Runner::run`] the job's runner is lost. After one in [`Runner::is_alive`] or
/// [`Runner::retires`] the runner has crashed. Each panic is counted by its place, and logged.
#[async_trait]
pub trait RunnerManager: Send + Sync + fmt::Debug + 'static {
    /// The kind's name. It is a label of metrics, so it must be one of a few constants.
    fn kind(&self) -> &'static str;

    /// How many runners to start before a job needs them. The pool starts at most one for each worker that waits.
    fn prestart(&self) -> u32 {
        0
    }

    /// Whether its runners give replies themselves ([`JobEnd::Done`]). If they do, a final failure is answered too. If they
    /// do not, the pool answers only if its settings say so.
    fn answers(&self) -> bool {
        false
    }

    /// Whether its runners are programs that consume the pool's queue themselves. The pool then opens no consumer. Each of
    /// its workers is such a program, from its start to its end: [`Runner::consume`] is called once, and [`Runner::run`]
    /// never.
    fn consumes(&self) -> bool {
        false
    }

    /// How long its jobs may take. A job is told to end this long before the deadline of its delivery.
    fn times(&self) -> JobTimes {
        JobTimes::default()
    }

    /// Starts one runner, ready for a job.
    ///
    /// # Errors
    /// No runner could be started. The job that needed it is given back, and the pool waits before it tries again.
    ///
    /// # Cancel-safety
    /// The pool may drop the future. Then no runner may be left behind.
    async fn create(&self, request: CreateRunner) -> Result<Box<dyn Runner>, StartError>;

    /// Runners outside the process that belong to the pool and that it does not hold: a supervisor that died has left them.
    /// Empty for a kind whose runners end with the process.
    ///
    /// # Cancel-safety
    /// The future may be dropped. The method changes nothing.
    async fn list(&self) -> Vec<StrayRunner> {
        Vec::new()
    }

    /// Removes the runners that [`list`](Self::list) would name. This is the first step of every reconcile, so it should
    /// cost little if there are none.
    ///
    /// # Cancel-safety
    /// The pool drops the future after 10 s. A later call must remove what is left.
    async fn cleanup(&self) -> CleanupReport {
        CleanupReport::default()
    }

    /// Ends one idle runner.
    ///
    /// # Cancel-safety
    /// The pool waits for the end. A runner whose future is dropped ends as a dropped [`Runner`] does.
    async fn delete(&self, runner: Box<dyn Runner>) {
        runner.stop().await;
    }

    /// Ends all of these idle runners, at the same time if the kind allows it.
    ///
    /// # Cancel-safety
    /// As for [`delete`](Self::delete).
    async fn flush(&self, runners: Vec<Box<dyn Runner>>) {
        // One that panics must not take the others' ends with it.
        let delete = |runner| AssertUnwindSafe(self.delete(runner)).catch_unwind();
        let ended = futures_util::future::join_all(runners.into_iter().map(delete)).await;
        if let Some(panic) = ended.into_iter().find_map(Result::err) {
            resume_unwind(panic);
        }
    }

    /// Waits until the manager has ended all that it still ends in the background. It must not wait for ever. The pool calls
    /// it once, after all its runners of this manager have ended.
    ///
    /// # Cancel-safety
    /// The future may be dropped. What it waits for goes on.
    async fn quiesce(&self) {}
}

/// How long the jobs of a kind of runner may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobTimes {
    /// The longest time that a job may run. `None` means no limit.
    pub timeout: Option<Duration>,
    /// The time between the signal to end and the end by force.
    pub stop_grace: Duration,
}

/// The purpose of a new runner.
#[derive(Debug, Clone)]
pub struct CreateRunner {
    /// Its id in the pool.
    pub id: RunnerId,
    /// The pool.
    pub pool: PoolName,
}

/// A runner that no pool of this process holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StrayRunner {
    /// Its id outside tidegate (a container's id, a process id).
    pub name: String,
}

/// The result of a cleanup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CleanupReport {
    /// Runners left by a supervisor that died, now removed.
    pub orphans: u32,
}

/// Executes jobs, one at a time.
///
/// A runner that is dropped leaves nothing running.
#[async_trait]
pub trait Runner: Send {
    /// Runs one job to its end. Nothing that the job does may make it panic.
    ///
    /// # Cancel-safety
    /// If the future is dropped, the job ends at once (a process group is killed). The runner is not used again.
    async fn run(&mut self, job: &Job, control: JobControl) -> RunReport;

    /// Waits for the end of a program that consumes the queue itself. Called once, and only if the manager
    /// [`consumes`](RunnerManager::consumes).
    ///
    /// # Cancel-safety
    /// If the future is dropped, the program ends at once.
    async fn consume(&mut self, control: ProgramControl) -> ProgramEnd {
        let _ = control;
        ProgramEnd::new("it does not consume the queue itself")
    }

    /// The process id of a program that consumes the queue itself. It leads a process group.
    fn program_id(&self) -> Option<i32> {
        None
    }

    /// Whether an idle runner can still run a job. Called in each reconcile and before each job. It must not block.
    fn is_alive(&mut self) -> bool {
        true
    }

    /// Why a runner that is alive must be replaced. `None` if it stays. Called in each reconcile and after each job. It must
    /// not block. A replacement does not count as a crash.
    fn retires(&mut self) -> Option<Retirement> {
        None
    }

    /// Ends the runner: first with a signal and some time to end, then by force.
    ///
    /// # Cancel-safety
    /// If the future is dropped, the runner ends as a dropped runner does: at once.
    async fn stop(self: Box<Self>);
}

/// Why a healthy runner is replaced by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retirement {
    /// It has run as many jobs as it may.
    MaxJobs,
    /// It is as old as it may become.
    MaxAge,
    /// It holds more memory than it may.
    MaxMemory,
    /// It has waited for a job for as long as it may. Runners that a manager keeps ready stay.
    IdleTimeout,
    /// It has asked to be replaced.
    Asked,
}

impl Retirement {
    /// The word for labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MaxJobs => "max_jobs",
            Self::MaxAge => "max_age",
            Self::MaxMemory => "max_memory",
            Self::IdleTimeout => "idle_timeout",
            Self::Asked => "asked",
        }
    }
}

/// How the supervisor ends a running job, and how it learns that the job has started.
#[derive(Debug, Clone, Default)]
pub struct JobControl {
    /// Asks the job to end. A process group gets TERM and, after `kill_grace`, KILL. A handler gets its cancellation token
    /// cancelled. The job is reported as [`JobEnd::Stopped`], or as done if it still succeeds.
    pub stop: CancellationToken,
    /// Ends the job now, with KILL.
    pub kill: CancellationToken,
    /// The runner calls this once the job's process (or what stands for it) runs. A pool whose runners could not start then
    /// knows that they start again, before a long job ends.
    pub started: OnStart,
    /// What the standard output of the job is used for, if jobs of the kind have one.
    pub output: OutputUse,
}

/// An action for the start of a job.
#[derive(Clone, Default)]
pub struct OnStart(Option<Arc<dyn Fn() + Send + Sync>>);

impl OnStart {
    /// Calls `action` at the start. It must not block.
    pub fn new(action: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self(Some(action))
    }

    /// Reports that the job has started. A second call does no harm.
    pub fn notify(&self) {
        if let Some(action) = &self.0 {
            action();
        }
    }
}

impl fmt::Debug for OnStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnStart").field(&self.0.is_some()).finish()
    }
}
