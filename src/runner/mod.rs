//! The runner seam: what executes jobs.
//!
//! A [`RunnerManager`] brings runners of one kind up and cleans up after them; a [`Runner`] runs one job at a
//! time. The pool owns the runners and counts them; a manager owns only what is outside the process. Kinds live
//! in [`runners`](crate::runners); users bring their own by implementing the two traits.

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
/// The pool calls [`create`](Self::create) only when no idle runner waits, hands each runner one job at a time,
/// and ends every runner through [`delete`](Self::delete) or [`flush`](Self::flush), unless the runner has
/// already said that it cannot be reused.
///
/// A panic in any of these, or in a [`Runner`], is contained: one in [`create`](Self::create) is a runner that did not
/// start, one in [`Runner::run`] a job whose runner was lost, and a runner that panics when it is looked at has
/// crashed. The rest of the manager's work is not done. Each panic is counted by place, and logged.
#[async_trait]
pub trait RunnerManager: Send + Sync + fmt::Debug + 'static {
    /// The kind's name: a metric label, so one of a few constants.
    fn kind(&self) -> &'static str;

    /// How many runners to bring up before a job asks for them. The pool brings up no more than workers wait.
    fn prestart(&self) -> u32 {
        0
    }

    /// Whether its runners give replies themselves ([`JobEnd::Done`]). Where they do, a final failure is answered too;
    /// where they do not, a pool answers only if its settings say so.
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

    /// Brings one runner up, ready for a job.
    ///
    /// # Errors
    /// Nothing could be started. The pool backs off; the job that wanted the runner is given back.
    ///
    /// # Cancel-safety
    /// Must be cancel-safe: a dropped future leaves no runner behind.
    async fn create(&self, request: CreateRunner) -> Result<Box<dyn Runner>, StartError>;

    /// What this manager can see outside the process that belongs to the pool, other than the runners that the
    /// pool holds: runners left by a supervisor that died. Kinds that leave nothing behind have nothing to list.
    async fn list(&self) -> Vec<StrayRunner> {
        Vec::new()
    }

    /// Collects what [`list`](Self::list) would name. The first step of every reconcile, so cheap when there is
    /// nothing to do.
    async fn cleanup(&self) -> CleanupReport {
        CleanupReport::default()
    }

    /// Ends one idle runner.
    async fn delete(&self, runner: Box<dyn Runner>) {
        runner.stop().await;
    }

    /// Ends all of these idle runners, at the same time if the kind allows it.
    async fn flush(&self, runners: Vec<Box<dyn Runner>>) {
        // One that panics must not take the others' ends with it.
        let delete = |runner| AssertUnwindSafe(self.delete(runner)).catch_unwind();
        let ended = futures_util::future::join_all(runners.into_iter().map(delete)).await;
        if let Some(panic) = ended.into_iter().find_map(Result::err) {
            resume_unwind(panic);
        }
    }

    /// Waits, within a bound of its own, for what this manager still ends in the background. The pool calls it when
    /// it has come to its end, and all runners of this manager with it.
    async fn quiesce(&self) {}
}

/// How long the jobs of a kind of runner may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobTimes {
    /// After which a job is ended; `None` is never.
    pub timeout: Option<Duration>,
    /// How long a job that is told to end may take for it, before it is ended by force.
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
/// **On drop** a runner leaves nothing running.
#[async_trait]
pub trait Runner: Send {
    /// Runs one job to its end. Never panics for what a job does.
    ///
    /// # Cancel-safety
    /// A dropped future ends the job at once (a process group is killed), and the runner must not be used again.
    async fn run(&mut self, job: &Job, control: JobControl) -> RunReport;

    /// Waits for the end of a program that consumes the queue itself. Called once, and only if the manager
    /// [`consumes`](RunnerManager::consumes).
    ///
    /// # Cancel-safety
    /// A dropped future ends the program at once.
    async fn consume(&mut self, control: ProgramControl) -> ProgramEnd {
        let _ = control;
        ProgramEnd::new("it does not consume the queue itself")
    }

    /// The process id of a program that consumes the queue itself. It leads a process group.
    fn program_id(&self) -> Option<i32> {
        None
    }

    /// Whether an idle runner is still good for a job. Looked at in each reconcile and before each job; must not
    /// block.
    fn is_alive(&mut self) -> bool {
        true
    }

    /// Why a runner that is alive should be replaced, or `None`. Called in each reconcile and after each job; must not
    /// block. Never counted as a crash.
    fn retires(&mut self) -> Option<Retirement> {
        None
    }

    /// Ends the runner politely, within a bound of its own, and then by force.
    async fn stop(self: Box<Self>);
}

/// Why a runner that is well is replaced by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retirement {
    /// It has run as many jobs as it may.
    MaxJobs,
    /// It is as old as it may become.
    MaxAge,
    /// It holds more memory than it may.
    MaxMemory,
    /// It has waited for a job for as long as it may. The runners that a manager keeps ready continue to wait.
    IdleTimeout,
    /// It asks for it.
    Asked,
}

impl Retirement {
    /// A word of a bounded set, for labels.
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

/// The supervisor's side of a running job: how it ends one, and how it learns that one has started.
#[derive(Debug, Clone, Default)]
pub struct JobControl {
    /// Ends it with grace: TERM to the process group and, after `kill_grace`, KILL; the cancellation token of a
    /// handler. The job is reported as [`JobEnd::Stopped`] unless it ends well by itself.
    pub stop: CancellationToken,
    /// Ends it now: KILL.
    pub kill: CancellationToken,
    /// The runner calls this when the job's process, or its equivalent, runs: so that a pool which was backing off
    /// knows that runners start again, without waiting for a long job's end.
    pub started: OnStart,
    /// What the standard output of a job is, for kinds whose jobs have one of their own.
    pub output: OutputUse,
}

/// What is to be done once a job has started.
#[derive(Clone, Default)]
pub struct OnStart(Option<Arc<dyn Fn() + Send + Sync>>);

impl OnStart {
    /// Calls `action`, which must not block.
    pub fn new(action: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self(Some(action))
    }

    /// Reports that the job has started. Cheap, and harmless if called twice.
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
