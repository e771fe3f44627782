//! `container` in the registry.

use std::{path::Path, sync::Arc};

use super::{
    keys,
    settings::{ContainerSettings, EngineAddress},
};
use crate::{
    config::problem::Refuse,
    host::instance::Instance,
    runner::RunnerManager,
    runners::{
        facts::{CommandUse, Facts},
        kind::{KindSettings, RunnerKind, RunnerSettings},
    },
};

const FIX: &str = "start the engine, or write its address";

pub(crate) static KIND: RunnerKind = RunnerKind {
    facts: Facts {
        name: "container",
        doc: "a container for each job",
        takes: &[
            "command",
            "timeout",
            "working_dir",
            "env_pass",
            "env_file",
            "user",
            "group",
            "memory_max",
            "cpu_max",
            "pids_max",
            "env",
        ],
        command: CommandUse::Arguments,
        grace_key: Some("stop_timeout"),
        notes: &[
            (
                "command",
                "Of `container`: the arguments of the image's entry point. When absent, the image's own.",
            ),
            (
                "timeout",
                "Of `container`: the image's stop signal is sent, with `stop_timeout` instead of `kill_grace`.",
            ),
            (
                "working_dir",
                "Of `container`: a directory in the container. When absent, the image's own.",
            ),
            ("env_pass", "A container gets only these."),
            (
                "user",
                "Of `container`: a user of the image. When absent, the image's own.",
            ),
            ("group", "Of `container`: only together with `user`."),
            (
                "memory_max",
                "Of `container`: the engine applies these limits.",
            ),
        ],
    },
    keys: keys::keys,
};

impl KindSettings for ContainerSettings {
    fn kind(&self) -> &'static str {
        KIND.facts.name
    }

    /// Checks only the socket. The engine itself reports what it lacks, and the image may be pulled later.
    fn inspect(&self, refuse: &mut Refuse<'_>) {
        if let Some(socket) = self.missing_socket() {
            let found = format!("unix://{}, which is not a socket", socket.display());
            refuse("engine", found, FIX.to_owned());
        }
    }

    #[cfg(feature = "container")]
    fn dependency(&self) -> Option<crate::runners::Dependency> {
        // A missing socket is reported already.
        if self.missing_socket().is_some() {
            return None;
        }
        let engine = self.engine.clone();
        Some(crate::runners::Dependency {
            key: "engine",
            name: engine
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            ask: Box::pin(async move {
                let found = super::find_engine(engine.as_ref()).await;
                found.map_err(|error| (error.what, FIX))
            }),
        })
    }

    #[cfg(feature = "container")]
    fn manager(&self, owner: &Instance) -> Arc<dyn RunnerManager> {
        Arc::new(super::ContainerManager::new(self.clone()).owned_by(owner.clone()))
    }

    #[cfg(not(feature = "container"))]
    fn manager(&self, _: &Instance) -> Arc<dyn RunnerManager> {
        Arc::new(super::absent::NotBuiltIn)
    }
}

impl ContainerSettings {
    /// The engine's socket, if the pool names it and it is missing.
    fn missing_socket(&self) -> Option<&Path> {
        match &self.engine {
            Some(EngineAddress::Unix(socket)) if !socket.exists() => Some(socket),
            _ => None,
        }
    }
}

impl From<ContainerSettings> for RunnerSettings {
    fn from(settings: ContainerSettings) -> Self {
        Self::new(settings)
    }
}

#[cfg(feature = "container")]
impl crate::builder::Pool {
    /// Runs each job in its own container. If later supervisors must find orphaned containers of this one, give a
    /// [`ContainerManager`](super::ContainerManager) with an owner to [`runners`](Self::runners).
    pub fn container(self, settings: ContainerSettings) -> Self {
        self.runners(super::ContainerManager::new(settings))
    }
}
