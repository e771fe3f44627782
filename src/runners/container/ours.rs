//! The containers that this process has created and not yet removed.
//!
//! A container is recorded before it is created, until it is removed. So a container with our label that is not
//! recorded is one that we have lost. The record is global, because the containers of an engine are global.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bollard::{
    Docker,
    models::ContainerCreateBody,
    query_parameters::{CreateContainerOptions, RemoveContainerOptions},
};
use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::engine::{EngineError, EngineErrorKind};

/// How often a removal is tried. After that the next cleanup removes the container.
const TRIES: u32 = 3;

/// Time between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// How long the end of a manager waits for removals: twice the time that a killed process may take to end.
const END: Duration = Duration::from_secs(10);

/// Written by code that makes and removes containers, read by the search for lost ones.
static NAMES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn change(change: impl FnOnce(&mut BTreeSet<String>)) {
    change(&mut NAMES.lock().unwrap_or_else(PoisonError::into_inner));
}

/// The containers that are ours at this moment.
pub(super) fn names() -> BTreeSet<String> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Creates and removes containers, and waits for removals.
///
/// Removals need no limit of their own. There is at most one for each job that has just ended, and a worker creates no
/// container before it has the next job.
#[derive(Debug, Clone, Default)]
pub(super) struct ContainerTracker {
    removals: TaskTracker,
}

impl ContainerTracker {
    /// Starts to create a container. Needs a tokio runtime.
    pub(super) fn make(
        &self,
        docker: &Docker,
        name: String,
        body: ContainerCreateBody,
    ) -> Container {
        change(|names| {
            names.insert(name.clone());
        });
        let options = CreateContainerOptions {
            name: Some(name.clone()),
            ..CreateContainerOptions::default()
        };
        let making = {
            let docker = docker.clone();
            // A task, so that it finishes even if its caller stops waiting: a half-made container cannot be removed.
            tokio::spawn(async move {
                let made = docker.create_container(Some(options), body).await;
                made.map(|made| made.warnings).map_err(EngineError::from)
            })
        };
        Container {
            docker: docker.clone(),
            name,
            making: Some(making),
            removals: self.removals.clone(),
        }
    }

    /// Waits until all containers are removed, but not longer than [`END`].
    pub(super) async fn empty(&self) {
        self.removals.close();
        let _ = timeout(END, self.removals.wait()).await;
    }
}

/// A container of ours. **On drop** it is removed in the background, also if a process still runs in it.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) docker: Docker,
    pub(super) name: String,
    making: Option<JoinHandle<Result<Vec<String>, EngineError>>>,
    removals: TaskTracker,
}

impl Container {
    /// Waits until the container is created. The first call returns the engine's warnings.
    ///
    /// # Cancel-safety
    /// Cancel-safe.
    pub(super) async fn made(&mut self) -> Result<Vec<String>, EngineError> {
        let Some(making) = &mut self.making else {
            return Ok(Vec::new());
        };
        let made = making.await;
        self.making = None;
        // The runtime is shutting down.
        made.unwrap_or_else(|lost| {
            Err(EngineError::new(
                EngineErrorKind::Unreachable,
                lost.to_string(),
            ))
        })
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Without a runtime nothing can remove the container. A later supervisor finds it.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let (docker, name) = (self.docker.clone(), std::mem::take(&mut self.name));
        let making = self.making.take();
        let removal = async move {
            if let Some(making) = making {
                let _ = making.await;
            }
            if let Err(error) = remove_at_last(&docker, &name).await {
                tracing::warn!(container = name, %error, "container not removed; a cleanup will try again");
            }
            change(|names| {
                names.remove(&name);
            });
        };
        self.removals.spawn_on(removal, &runtime);
    }
}

async fn remove_at_last(docker: &Docker, name: &str) -> Result<(), EngineError> {
    let mut tries = 1;
    loop {
        match remove(docker, name).await {
            Ok(_) => return Ok(()),
            Err(error) if tries == TRIES => return Err(error),
            Err(_) => tries += 1,
        }
        sleep(PAUSE).await;
    }
}

/// Removes a container, also if a process still runs in it. Returns whether the container existed and no one else is
/// removing it.
pub(super) async fn remove(docker: &Docker, name: &str) -> Result<bool, EngineError> {
    let options = RemoveContainerOptions {
        force: true,
        // Removes the volumes without a name too. No other container can use them.
        v: true,
        link: false,
    };
    let removed = docker.remove_container(name, Some(options)).await;
    match removed.map_err(EngineError::from) {
        Ok(()) => Ok(true),
        Err(error)
            if matches!(
                error.kind,
                EngineErrorKind::NotFound | EngineErrorKind::Conflict
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
