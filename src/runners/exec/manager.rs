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

/// Runs each job as a child process of its own. What a job sees is in the documentation of
/// [`exec`](crate::runners::exec).
pub struct ExecManager {
    shared: Arc<Shared>,
}

struct Shared {
    settings: ExecSettings,
    environment: Environment,
}

impl ExecManager {
    /// A manager for this command. Reads the supervisor's own environment here, once, for what jobs are given
    /// of it; the command itself is looked for at each job, so that one which is installed later is found.
    pub fn new(settings: ExecSettings) -> Self {
        Self {
            shared: Arc::new(Shared {
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

    /// Always succeeds: a process is started with its job, and what keeps it from starting is reported as
    /// [`JobEnd::NotStarted`](crate::runner::JobEnd::NotStarted).
    async fn create(&self, _: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        Ok(Box::new(ExecRunner {
            shared: Arc::clone(&self.shared),
        }))
    }
}

/// Nothing runs before its job does.
struct ExecRunner {
    shared: Arc<Shared>,
}

#[async_trait]
impl Runner for ExecRunner {
    async fn run(&mut self, job: &Job, control: JobControl) -> RunReport {
        let Shared {
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
