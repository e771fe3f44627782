//! The settings of a pool of warm processes.

use std::time::Duration;

use crate::runners::process::ExecSettings;

/// Settings for processes that serve one job after another. `None` means no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmSettings {
    /// How a process is started. Its `timeout` is for each job, and starts again with each report of progress.
    /// `kill_grace` is also the time that a process may take to end after its input has ended.
    pub process: ExecSettings,
    /// Jobs that one process may hold at a time: 1 or more. A process says in its ready line how many it takes. Each is a
    /// runner of its own for the pool.
    pub concurrency: u32,
    /// How long a process may take to report that it is ready.
    pub start_timeout: Duration,
    /// Jobs after which a process is replaced. Each process is replaced at a random point in the last quarter before
    /// this, so that processes that started together do not end together.
    pub max_jobs: Option<u32>,
    /// Age at which a process is replaced, with the same random variation.
    pub max_age: Option<Duration>,
    /// How long a process may wait for a job before it is ended.
    pub idle_timeout: Option<Duration>,
    /// Resident bytes above which a process is replaced. Checked between jobs.
    pub max_memory: Option<u64>,
    /// Processes that are started before a job needs them: at most one for each waiting worker.
    pub prestart: u32,
}

impl WarmSettings {
    /// The command with the defaults of the configuration file.
    pub fn new(command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            process: ExecSettings::new(command),
            concurrency: 1,
            start_timeout: Duration::from_secs(30),
            max_jobs: None,
            max_age: None,
            idle_timeout: None,
            max_memory: None,
            prestart: 0,
        }
    }
}
