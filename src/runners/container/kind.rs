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

const FIX: &str = "start the engine, or write where it is";

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
                "Of `container`: what follows the image's entry point; the image's own when absent.",
            ),
            (
                "timeout",
                "Of `container`: the image's stop signal to it, and `stop_timeout` in place of `kill_grace`.",
            ),
            (
                "working_dir",
                "Of `container`: one in it, or the image's own.",
            ),
            ("env_pass", "A container is given these alone."),
            (
                "user",
                "Of `container`: one of the image's, or the image's own.",
            ),
            ("group", "Of `container`, with `user` beside it."),
            ("memory_max", "Of `container`, the engine keeps them."),
        ],
    },
    keys: keys::keys,
};

impl KindSettings for ContainerSettings {
    fn kind(&self) -> &'static str {
        KIND.facts.name
    }

    /// The socket alone: what an engine has it says itself, and an image may come later.
    fn inspect(&self, refuse: &mut Refuse<'_>) {
        if let Some(socket) = self.lost_socket() {
            let found = format!("unix://{}, where no socket is", socket.display());
            refuse("engine", found, FIX.to_owned());
        }
    }

    #[cfg(feature = "container")]
    fn dependency(&self) -> Option<crate::runners::Dependency> {
        // One whose socket is not there is told of already.
        if self.lost_socket().is_some() {
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
    /// The engine's socket, where it is named and not there.
    fn lost_socket(&self) -> Option<&Path> {
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
    /// Runs each job in a container of its own. For one that later supervisors can tell to be yours, hand a
    /// [`ContainerManager`](super::ContainerManager) to [`runners`](Self::runners).
    pub fn container(self, settings: ContainerSettings) -> Self {
        self.runners(super::ContainerManager::new(settings))
    }
}
