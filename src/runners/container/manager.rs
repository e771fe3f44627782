//! The manager of `container` runners, which are single-use: one container for each job.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bollard::Docker;
use tokio::time::{Instant, timeout};

use super::{
    ContainerSettings,
    engine::Finder,
    image::Image,
    making::common_variables,
    ours::ContainerTracker,
    run::run,
    shared::ContainerShared,
    stray::{self, Rounds},
};
use crate::{
    host::instance::Instance,
    runner::{
        CleanupReport, CreateRunner, Job, JobControl, JobTimes, RunReport, Runner, RunnerManager,
        StartError, StrayRunner,
    },
};

/// How long a pool waits for the removal of orphaned containers. After that the removal continues in the background.
const CLEANUP: Duration = Duration::from_secs(2);

/// Runs each job in its own container. The documentation of [`container`](crate::runners::container) describes what a
/// job receives.
pub struct ContainerManager {
    shared: Arc<ContainerShared>,
}

impl ContainerManager {
    /// A manager for this image. Reads the supervisor's own environment once, here. The engine is searched when a job
    /// needs it.
    pub fn new(settings: ContainerSettings) -> Self {
        Self::with(settings, None)
    }

    /// Labels containers with this supervisor and its lock. If this supervisor is killed, a later supervisor finds its
    /// containers. Call this before the manager runs a job.
    #[must_use]
    pub fn owned_by(self, owner: Instance) -> Self {
        Self::with(self.shared.settings.clone(), Some(owner))
    }

    fn with(settings: ContainerSettings, owner: Option<Instance>) -> Self {
        Self {
            shared: Arc::new(ContainerShared {
                common: common_variables(&settings),
                owner,
                finder: Finder::new(settings.engine.as_ref()),
                image: Image::new(&settings.image, settings.pull),
                yard: ContainerTracker::default(),
                rounds: Mutex::new(Rounds::new()),
                orphans: AtomicU32::new(0),
                settings,
            }),
        }
    }
}

impl fmt::Debug for ContainerManager {
    // The environment may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerManager")
            .field("image", &self.shared.settings.image)
            .field("command", &self.shared.settings.command)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl RunnerManager for ContainerManager {
    fn kind(&self) -> &'static str {
        "container"
    }

    fn times(&self) -> JobTimes {
        let settings = &self.shared.settings;
        JobTimes {
            timeout: Some(settings.timeout),
            stop_grace: settings.stop_timeout,
        }
    }

    /// Finds the engine and makes sure that it has the image. The container is created with its job, because it holds
    /// the variables of the job.
    async fn create(&self, _: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        let docker = self.shared.finder.engine().await?;
        self.shared.image.ensure(&docker).await?;
        Ok(Box::new(ContainerRunner {
            shared: Arc::clone(&self.shared),
            docker,
        }))
    }

    async fn list(&self) -> Vec<StrayRunner> {
        let Ok(docker) = self.shared.finder.engine().await else {
            return Vec::new();
        };
        let strays = stray::find(&docker, self.shared.owner.as_ref()).await;
        let strays = strays.unwrap_or_default().into_iter();
        strays
            .map(|stray| StrayRunner { name: stray.name })
            .collect()
    }

    async fn cleanup(&self) -> CleanupReport {
        if self.shared.rounds().begin(Instant::now()) {
            let shared = Arc::clone(&self.shared);
            // A task, so that a slow engine does not delay the pool and gets no second request.
            let round = tokio::spawn(async move { shared.round().await });
            let _ = timeout(CLEANUP, round).await;
        }
        CleanupReport {
            orphans: self.shared.orphans.swap(0, Ordering::Relaxed),
        }
    }

    async fn quiesce(&self) {
        self.shared.yard.empty().await;
    }
}

/// A runner for one job. Nothing runs before the job starts.
struct ContainerRunner {
    shared: Arc<ContainerShared>,
    docker: Docker,
}

#[async_trait]
impl Runner for ContainerRunner {
    async fn run(&mut self, job: &Job, control: JobControl) -> RunReport {
        RunReport {
            end: run(&self.shared, &self.docker, job, &control).await,
            reusable: false,
        }
    }

    async fn stop(self: Box<Self>) {}
}
