//! `exec` in the registry: it takes every shared key, and has none of its own.

use std::sync::Arc;

use super::ExecManager;
use crate::{
    builder::Pool,
    host::instance::Instance,
    runner::RunnerManager,
    runners::{
        facts::{CommandUse, Facts, SHARED_KEYS},
        kind::{FinishedRunner, KindSettings, RunnerKind, RunnerSettings},
        process::ExecSettings,
    },
};

pub(crate) static KIND: RunnerKind = RunnerKind {
    facts: Facts {
        name: "exec",
        doc: "a process for each job, with the body on its standard input",
        takes: &SHARED_KEYS,
        command: CommandUse::Program,
        grace_key: Some("kill_grace"),
        notes: &[],
    },
    keys: |_| {
        Box::new(|shared, _| FinishedRunner {
            job: Some(shared.job()),
            runner: shared.process().into(),
        })
    },
};

impl KindSettings for ExecSettings {
    fn kind(&self) -> &'static str {
        KIND.facts.name
    }

    fn process(&self) -> Option<&ExecSettings> {
        Some(self)
    }

    fn manager(&self, _: &Instance) -> Arc<dyn RunnerManager> {
        Arc::new(ExecManager::new(self.clone()))
    }
}

impl From<ExecSettings> for RunnerSettings {
    fn from(settings: ExecSettings) -> Self {
        Self::new(settings)
    }
}

impl Pool {
    /// Runs each job as a child process.
    pub fn exec(self, settings: ExecSettings) -> Self {
        self.runners(ExecManager::new(settings))
    }
}
