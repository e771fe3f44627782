//! Containers of supervisors that have ended, and of supervisors that still run.

use tempfile::TempDir;
use tidegate::{
    decide::RunnerId,
    host::instance::InstanceLock,
    queue::Message,
    runner::{CreateRunner, JobControl, RunnerManager},
    runners::container::{ContainerManager, ContainerSettings},
};
use tokio::task::JoinHandle;

use super::{containers_of, job, message, witnessed};
use crate::needs::Need;
use crate::support::{
    engine::{Engine, engine},
    witness::{Witness, soon},
};

trials! {
    tasks(Need::Engine): [
        removes_the_containers_of_the_dead_and_no_others,
    ],
}

/// A supervisor with one job that runs until the test ends it.
struct Supervisor {
    witness: Witness,
    message: Message,
    running: JoinHandle<()>,
}

impl Supervisor {
    async fn start(engine: &Engine, lock: Option<&InstanceLock>) -> Self {
        let mut witness = Witness::new();
        let message = message();
        let settings = witnessed(engine, &witness, "echo started >&9; sleep 1000");
        let manager = manager(settings, lock);
        let request = CreateRunner {
            id: RunnerId(1),
            pool: "pool".into(),
        };
        let mut runner = soon(manager.create(request)).await.expect("a runner");
        let job = job(message.clone());
        let running = tokio::spawn(async move {
            runner.run(&job, JobControl::default()).await;
        });
        witness.line().await;
        Self {
            witness,
            message,
            running,
        }
    }

    async fn has_container(&self, engine: &Engine) -> bool {
        !containers_of(engine, &self.message).await.is_empty()
    }

    async fn end(mut self) {
        self.running.abort();
        self.witness.gone().await;
    }
}

fn manager(settings: ContainerSettings, lock: Option<&InstanceLock>) -> ContainerManager {
    let manager = ContainerManager::new(settings);
    match lock {
        Some(lock) => manager.owned_by(lock.instance().clone()),
        None => manager,
    }
}

async fn removes_the_containers_of_the_dead_and_no_others() {
    let engine = engine();
    let folder = TempDir::new().expect("a folder");
    let take = |name: &str| InstanceLock::take(&folder.path().join(name)).expect("a lock");

    let neighbour_lock = take("neighbour");
    let neighbour = Supervisor::start(engine, Some(&neighbour_lock)).await;
    let foreign_lock = take("foreign");
    let foreign = Supervisor::start(engine, Some(&foreign_lock)).await;
    let nobody = Supervisor::start(engine, None).await;
    let dead_lock = take("dead");
    let mut dead = Supervisor::start(engine, Some(&dead_lock)).await;
    let here_lock = take("here");
    let mut before = Supervisor::start(engine, Some(&here_lock)).await;

    // A lock that cannot be found, as if it were on another machine.
    drop(foreign_lock);
    std::fs::rename(folder.path().join("foreign"), folder.path().join("away")).expect("a folder");
    drop(dead_lock);
    // A supervisor starts on the state directory of a dead one.
    drop(here_lock);
    let here_lock = take("here");
    let own = Supervisor::start(engine, Some(&here_lock)).await;

    let manager = manager(engine.script("exit 0"), Some(&here_lock));
    let mut listed: Vec<_> = soon(manager.list()).await;
    listed.retain(|stray| !stray.name.is_empty());
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(soon(manager.cleanup()).await.orphans, 2);
    dead.witness.gone().await;
    before.witness.gone().await;
    assert!(!dead.has_container(engine).await);
    assert!(!before.has_container(engine).await);
    for alive in [&neighbour, &foreign, &nobody, &own] {
        assert!(alive.has_container(engine).await);
    }
    // The next cleanup is not due yet.
    assert_eq!(soon(manager.cleanup()).await.orphans, 0);
    for supervisor in [neighbour, foreign, nobody, own] {
        supervisor.end().await;
    }
}
