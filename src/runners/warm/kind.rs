//! `warm` in the registry: it takes every shared key, and keys of its own for how a process starts, how many jobs it
//! holds and when it is replaced.

use std::{sync::Arc, time::Duration};

use super::{WarmManager, WarmSettings};
use crate::{
    builder::Pool,
    config::{
        schema::{Key, Size, Span, WholeNumber},
        settings::MAX_WORKERS,
    },
    host::instance::Instance,
    runner::RunnerManager,
    runners::{
        facts::{CommandUse, Facts, SHARED_KEYS},
        keys::OwnKeys,
        kind::{FinishedRunner, KindSettings, RunnerKind, RunnerSettings},
        process::ExecSettings,
    },
};

pub(crate) static KIND: RunnerKind = RunnerKind {
    facts: Facts {
        name: "warm",
        doc: "processes that serve many jobs, one after another, as lines of JSON (docs/warm-protocol.md)",
        takes: &SHARED_KEYS,
        command: CommandUse::Program,
        grace_key: Some("kill_grace"),
        notes: &[(
            "memory_max",
            "Of `warm`: these limits count for a process over all of its jobs.",
        )],
    },
    keys: |own| {
        let keys = WarmKeys::read(own);
        own.within_max(&keys.prestart);
        Box::new(|shared, _| FinishedRunner {
            job: Some(shared.job()),
            runner: keys.settings(shared.process()).into(),
        })
    },
};

impl KindSettings for WarmSettings {
    fn kind(&self) -> &'static str {
        KIND.facts.name
    }

    fn process(&self) -> Option<&ExecSettings> {
        Some(&self.process)
    }

    fn stays(&self) -> bool {
        true
    }

    fn answers(&self) -> bool {
        true
    }

    fn manager(&self, _: &Instance) -> Arc<dyn RunnerManager> {
        Arc::new(WarmManager::new(self.clone()))
    }
}

impl From<WarmSettings> for RunnerSettings {
    fn from(settings: WarmSettings) -> Self {
        Self::new(settings)
    }
}

impl Pool {
    /// Runs jobs in processes that serve one job after another.
    pub fn warm(self, settings: WarmSettings) -> Self {
        self.runners(WarmManager::new(settings))
    }
}

/// The keys of `warm` alone.
struct WarmKeys {
    concurrency: Option<u32>,
    start_timeout: Option<Duration>,
    max_jobs: Option<u32>,
    max_age: Option<Duration>,
    idle_timeout: Option<Duration>,
    max_memory: Option<u64>,
    prestart: Key<Option<u32>>,
}

impl WarmKeys {
    fn read(own: &mut OwnKeys<'_, '_, '_>) -> Self {
        let time = || Span::from(Duration::from_millis(1));
        let concurrency = own.optional(
            "concurrency",
            "Of `warm`: jobs that one process may hold at a time, such as tasks of an event loop or threads. Each counts as \
            a runner and needs a worker. The process uses version 2 of the protocol, and says how many it takes. When \
            absent, 1.",
            WholeNumber(1..=10_000),
            "10",
        );
        let start_timeout = own.optional(
            "start_timeout",
            "Of `warm`: how long a process may take to report that it is ready. When absent, 30s.",
            time(),
            "\"30s\"",
        );
        let max_jobs = own.optional(
            "max_jobs",
            "Of `warm`: jobs after which a process is replaced, or up to a quarter earlier, so that processes that \
            started together do not end together. When absent, no limit. The next three keys are also without limit \
            when absent.",
            WholeNumber(1..=1_000_000_000),
            "1000",
        );
        let max_age = own.optional(
            "max_age",
            "Of `warm`: age at which a process is replaced, or up to a quarter earlier. Never in the middle of a job.",
            time(),
            "\"1h\"",
        );
        let idle_timeout = own.optional(
            "idle_timeout",
            "Of `warm`: how long a process may wait for a job before it is ended. The processes of `prestart` are not \
            ended.",
            time(),
            "\"10m\"",
        );
        let max_memory = own.optional(
            "max_memory",
            "Of `warm`: resident memory above which a process is replaced. Checked between jobs.",
            Size,
            "\"256MiB\"",
        );
        let prestart = own.optional(
            "prestart",
            "Of `warm`: processes to start before a job needs them, at most one for each waiting worker. \
             When absent, none.",
            WholeNumber(0..=MAX_WORKERS),
            "2",
        );
        Self {
            concurrency: concurrency.value,
            start_timeout: start_timeout.value,
            max_jobs: max_jobs.value,
            max_age: max_age.value,
            idle_timeout: idle_timeout.value,
            max_memory: max_memory.value,
            prestart,
        }
    }

    fn settings(self, process: ExecSettings) -> WarmSettings {
        let default = WarmSettings::new([""]);
        WarmSettings {
            process,
            concurrency: self.concurrency.unwrap_or(default.concurrency),
            start_timeout: self.start_timeout.unwrap_or(default.start_timeout),
            max_jobs: self.max_jobs,
            max_age: self.max_age,
            idle_timeout: self.idle_timeout,
            max_memory: self.max_memory,
            prestart: self.prestart.value.unwrap_or(default.prestart),
        }
    }
}
