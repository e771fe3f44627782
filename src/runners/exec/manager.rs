//! The manager of `exec` runners, which are single-use: one process for each job.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::run::run;
use crate::{
    host::cgroup,
    runner::{
        CleanupReport, CreateRunner, Job, JobControl, JobTimes, RunReport, Runner, RunnerManager,
        StartError,
    },
    runners::process::{Environment, ExecSettings},
};

/// Runs each job as its own child process. The documentation of [`exec`](crate::runners::exec) describes what a job
/// receives.
pub struct ExecManager {
    shared: Arc<ExecShared>,
}

struct ExecShared {
    settings: ExecSettings,
    environment: Environment,
}

impl ExecManager {
    /// A manager for this command. Reads the supervisor's own environment once, here. The program is searched at each
    /// job, so a program that is installed later is found.
    pub fn new(settings: ExecSettings) -> Self {
        Self {
            shared: Arc::new(ExecShared {
                environment: Environment::new(&settings),
                settings,
            }),
        }
    }
}

impl fmt::Debug for ExecManager {
    // The environment may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecManager")
            .field("command", &self.shared.settings.command)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl RunnerManager for ExecManager {
    fn kind(&self) -> &'static str {
        "exec"
    }

    async fn cleanup(&self) -> CleanupReport {
        cgroup::sweep();
        CleanupReport::default()
    }

    fn times(&self) -> JobTimes {
        let settings = &self.shared.settings;
        JobTimes {
            timeout: Some(settings.timeout),
            stop_grace: settings.kill_grace,
        }
    }

    /// Always succeeds: a process is started with its job. A failed start is reported as
    /// [`JobEnd::NotStarted`](crate::runner::JobEnd::NotStarted).
    async fn create(&self, _: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        Ok(Box::new(ExecRunner {
            shared: Arc::clone(&self.shared),
        }))
    }
}

/// A runner for one job. Nothing runs before the job starts.
struct ExecRunner {
    shared: Arc<ExecShared>,
}

#[async_trait]
impl Runner for ExecRunner {
    async fn run(&mut self, job: &Job, control: JobControl) -> RunReport {
        let ExecShared {
            settings,
            environment,
        } = &*self.shared;
        RunReport {
            end: run(settings, environment, job, &control).await,
            reusable: false,
        }
    }

    async fn stop(self: Box<Self>) {}
}
