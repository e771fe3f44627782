//! What a pool of warm processes is told.

use std::time::Duration;

use crate::runners::process::ExecSettings;

/// Processes that stay, and are handed job after job. Limits that are `None` are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmSettings {
    /// How a process is started. Its `timeout` is for each job, and begins anew with each word of progress;
    /// `kill_grace` is also how long a process may take to end when its input has ended.
    pub process: ExecSettings,
    /// How long a process may take to say that it is ready.
    pub start_timeout: Duration,
    /// Jobs after which a process is replaced: somewhere in the last quarter before this, so that processes which
    /// started together do not go together.
    pub max_jobs: Option<u32>,
    /// Age at which a process is replaced, with the same spread.
    pub max_age: Option<Duration>,
    /// How long a process may wait for a job before it is ended.
    pub idle_timeout: Option<Duration>,
    /// Resident bytes of a process beyond which it is replaced. Looked at between jobs.
    pub max_memory: Option<u64>,
    /// Processes brought up before a job asks for them: at most one for each worker that waits.
    pub prestart: u32,
}

impl WarmSettings {
    /// The command with the defaults of the configuration file.
    pub fn new(command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            process: ExecSettings::new(command),
            start_timeout: Duration::from_secs(30),
            max_jobs: None,
            max_age: None,
            idle_timeout: None,
            max_memory: None,
            prestart: 0,
        }
    }
}
