//! How processes are started, for all kinds of runner that are processes.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use crate::host::limits::Limits;

/// How a process for jobs is started. `exec` has no other settings. Other kinds that are processes contain these
/// settings.
#[derive(Clone, PartialEq, Eq)]
pub struct ExecSettings {
    /// Program and arguments. Never a line for a shell, and never with a part of a message in it.
    pub command: Vec<String>,
    /// How long a job may run.
    pub timeout: Duration,
    /// Time between TERM and KILL.
    pub kill_grace: Duration,
    /// Variables for the job, besides the job's own.
    pub env: BTreeMap<String, String>,
    /// Variables of the supervisor's environment that the job also receives.
    pub env_pass: Vec<String>,
    /// Directory that the job starts in. `None` means the supervisor's own.
    pub working_dir: Option<PathBuf>,
    /// The user and group of its processes, and the resources that they may use.
    pub limits: Limits,
}

impl ExecSettings {
    /// The command with the defaults of the configuration file.
    pub fn new(command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            timeout: Duration::from_secs(300),
            kill_grace: Duration::from_secs(10),
            env: BTreeMap::new(),
            env_pass: Vec::new(),
            working_dir: None,
            limits: Limits::default(),
        }
    }
}

impl fmt::Debug for ExecSettings {
    // Variables may hold passwords, so only their names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecSettings")
            .field("command", &self.command)
            .field("timeout", &self.timeout)
            .field("kill_grace", &self.kill_grace)
            .field("env", &self.env.keys())
            .field("env_pass", &self.env_pass)
            .field("working_dir", &self.working_dir)
            .field("limits", &self.limits)
            .finish()
    }
}
