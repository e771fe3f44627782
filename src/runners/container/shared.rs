//! The state that all runners of a pool share: its settings, the engine, the image, and the containers that are being
//! removed.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::time::Instant;

use super::{
    ContainerSettings,
    engine::Finder,
    image::Image,
    ours::ContainerTracker,
    stray::{self, Rounds},
};
use crate::host::instance::Instance;

pub(super) struct ContainerShared {
    pub(super) settings: ContainerSettings,
    /// The variables that all jobs of the pool receive.
    pub(super) common: BTreeMap<String, String>,
    pub(super) owner: Option<Instance>,
    pub(super) finder: Finder,
    pub(super) image: Image,
    pub(super) yard: ContainerTracker,
    /// When to search. Written by searches.
    pub(super) rounds: Mutex<Rounds>,
    /// Removed orphans that no report has counted yet. Written by searches, read by reports.
    pub(super) orphans: AtomicU32,
}

impl ContainerShared {
    /// Searches for strays once, and removes them.
    pub(super) async fn round(&self) {
        let went_well = self.sweep().await;
        self.rounds().over(Instant::now(), went_well);
    }

    async fn sweep(&self) -> bool {
        // If no engine answers, the jobs report this as an error.
        let Ok(docker) = self.finder.engine().await else {
            return false;
        };
        match stray::find(&docker, self.owner.as_ref()).await {
            Ok(strays) => {
                let orphan = || {
                    self.orphans.fetch_add(1, Ordering::Relaxed);
                };
                stray::remove(&docker, strays, orphan).await
            }
            Err(error) => {
                self.finder.note(&error).await;
                tracing::debug!(%error, "containers not listed");
                false
            }
        }
    }

    pub(super) fn rounds(&self) -> std::sync::MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
