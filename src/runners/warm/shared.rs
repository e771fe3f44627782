//! The data that the runners of a pool share: the settings, the environment of processes, and the processes with slots.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{
    WarmSettings,
    link::WarmLink,
    slots::{Processes, Taken},
};
use crate::{
    runner::{CreateRunner, StartError},
    runners::process::Environment,
};

/// Shared by a manager and its runners.
pub(super) struct WarmShared {
    pub(super) settings: WarmSettings,
    environment: Environment,
    /// Used if a process may have several jobs at a time.
    processes: Processes,
    /// Whether the log has the warning that processes take only one job at a time.
    warned: AtomicBool,
}

impl WarmShared {
    /// Reads the supervisor's own environment once, here.
    pub(super) fn new(settings: WarmSettings) -> Self {
        Self {
            environment: Environment::new(&settings.process),
            settings,
            processes: Processes::default(),
            warned: AtomicBool::new(false),
        }
    }

    /// Starts a process.
    pub(super) async fn start(&self, request: &CreateRunner) -> Result<Box<WarmLink>, StartError> {
        let link = WarmLink::start(&self.settings, &self.environment, request).await?;
        Ok(Box::new(link))
    }

    /// Takes a slot of a process. Starts a process if no slot is free.
    pub(super) async fn take(&self, request: &CreateRunner) -> Result<Taken, StartError> {
        self.processes
            .take(&self.settings, self.start(request))
            .await
    }

    /// The error of a job that two processes in a row did not take.
    pub(super) fn taken_by_none(&self, problem: &str) -> StartError {
        let command = &self.settings.process.command;
        let program = command.first().map_or("", String::as_str);
        StartError {
            what: format!("{program}: {problem}, and so did the next process"),
            source: None,
        }
    }

    /// Says once that `concurrency` has no effect.
    pub(super) fn warn_of_single(&self, request: &CreateRunner) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                pool = %request.pool,
                concurrency = self.settings.concurrency,
                "warm processes use version 1 of the protocol, so each has one job at a time"
            );
        }
    }
}

/// A process was lost while it had no job.
pub(super) fn warn_of_loss(request: &CreateRunner, problem: &str) {
    tracing::warn!(
        pool = %request.pool,
        runner.id = %request.id,
        error = problem,
        "warm runner lost between two jobs"
    );
}
