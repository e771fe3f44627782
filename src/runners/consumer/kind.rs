//! `consumer` in the registry: it takes the shared keys that start and limit a process, and says how one is ended.

use std::{sync::Arc, time::Duration};

use super::{ConsumerManager, ConsumerSettings, StopSignal};
use crate::{
    builder::Pool,
    config::schema::{Choice, Span},
    host::instance::Instance,
    runner::RunnerManager,
    runners::{
        facts::{CommandUse, Facts},
        keys::OwnKeys,
        kind::{FinishedRunner, KindSettings, RunnerKind, RunnerSettings},
        process::ExecSettings,
    },
};

pub(crate) static KIND: RunnerKind = RunnerKind {
    facts: Facts {
        name: "consumer",
        doc: "programs that consume the queue themselves, such as `celery worker` (docs/consumers.md)",
        takes: &[
            "command",
            "working_dir",
            "env_pass",
            "env_file",
            "user",
            "group",
            "nice",
            "memory_max",
            "cpu_max",
            "pids_max",
            "cgroup",
            "rlimits",
            "env",
        ],
        command: CommandUse::Program,
        grace_key: Some("stop_timeout"),
        notes: &[(
            "command",
            "Of `consumer`: `{process}` in an argument is the number of the process, from 1 on. `{start}` is a short id that \
            a new daemon and a changed `runner` have anew.",
        )],
    },
    keys: |own| {
        let keys = ConsumerKeys::read(own);
        Box::new(|shared, _| FinishedRunner {
            job: None,
            runner: keys.settings(shared.process()).into(),
        })
    },
};

impl KindSettings for ConsumerSettings {
    fn kind(&self) -> &'static str {
        KIND.facts.name
    }

    fn process(&self) -> Option<&ExecSettings> {
        Some(&self.process)
    }

    fn stays(&self) -> bool {
        true
    }

    fn consumes(&self) -> bool {
        true
    }

    fn manager(&self, _: &Instance) -> Arc<dyn RunnerManager> {
        Arc::new(ConsumerManager::new(self.clone()))
    }
}

impl From<ConsumerSettings> for RunnerSettings {
    fn from(settings: ConsumerSettings) -> Self {
        Self::new(settings)
    }
}

impl Pool {
    /// Runs programs that consume the queue themselves.
    pub fn consumer(self, settings: ConsumerSettings) -> Self {
        self.runners(ConsumerManager::new(settings))
    }
}

/// The keys of `consumer` alone.
struct ConsumerKeys {
    stop_signal: Option<StopSignal>,
    stop_timeout: Option<Duration>,
}

impl ConsumerKeys {
    fn read(own: &mut OwnKeys<'_, '_, '_>) -> Self {
        let stop_signal = own.optional(
            "stop_signal",
            "Of `consumer`: the signal that makes a process finish what it holds, and end. It goes to the process itself, \
            not to its group. When absent, `TERM`.",
            Choice(&StopSignal::WORDS),
            "\"TERM\"",
        );
        let stop_timeout = own.optional(
            "stop_timeout",
            "Of `consumer`: how long a process may take to end after `stop_signal`. Then it is killed, and the broker \
            delivers again what it held. When absent, as long as it takes.",
            // Zero would kill what runs at each scale-down: the signal could do nothing.
            Span::from(Duration::from_millis(1)),
            "\"10m\"",
        );
        Self {
            stop_signal: stop_signal.value,
            stop_timeout: stop_timeout.value,
        }
    }

    fn settings(self, process: ExecSettings) -> ConsumerSettings {
        ConsumerSettings {
            process,
            stop_signal: self.stop_signal.unwrap_or_default(),
            stop_timeout: self.stop_timeout,
        }
    }
}
