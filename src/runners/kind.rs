//! A kind of runner as an entry of the registry, and the settings of any kind.

use std::{any::Any, fmt, sync::Arc};

use futures_util::future::BoxFuture;

use super::{
    facts::Facts,
    keys::{JobKeys, OwnKeys, SharedKeys},
    process::{ExecSettings, program, scripts},
};
use crate::{
    config::{problem::Refuse, schema::Table},
    host::instance::Instance,
    runner::RunnerManager,
};

/// A kind of runner that the configuration file can name: one entry of the registry.
#[derive(Debug)]
pub(crate) struct RunnerKind {
    /// Its name, its description and the shared keys that it takes.
    pub(crate) facts: Facts,
    /// Registers the kind's own keys. Called for every pool, independent of the pool's kind.
    pub(crate) keys: fn(&mut OwnKeys<'_, '_, '_>) -> Finish,
}

/// Makes settings of the kind's own keys and the shared keys, and reports keys that contradict each other. Called only
/// for pools of this kind.
pub(crate) type Finish = Box<dyn FnOnce(SharedKeys, &mut Table<'_, '_>) -> FinishedRunner>;

/// The result of reading a `runner` table.
pub(crate) struct FinishedRunner {
    pub(crate) runner: RunnerSettings,
    /// The keys of a job's time; `None` if this kind has no time limit.
    pub(crate) job: Option<JobKeys>,
}

/// The settings of one kind.
pub(crate) trait KindSettings: Comparable + fmt::Debug + Send + Sync {
    /// The kind's name.
    fn kind(&self) -> &'static str;

    /// How its processes are started, if they are processes of this machine.
    fn process(&self) -> Option<&ExecSettings> {
        None
    }

    /// Whether its processes stay for several jobs.
    fn stays(&self) -> bool {
        false
    }

    /// Whether its processes consume the queue themselves, as in [`RunnerManager::consumes`].
    fn consumes(&self) -> bool {
        false
    }

    /// Whether its runners give answers by themselves, as in [`RunnerManager::answers`].
    fn answers(&self) -> bool {
        false
    }

    /// Reports what this machine lacks for these settings. Reads the file system, and never runs a program.
    fn inspect(&self, refuse: &mut Refuse<'_>) {
        if let Some(process) = self.process() {
            program::inspect(process, refuse);
        }
    }

    /// Reports settings that are possible on this machine, but most likely a mistake.
    fn suspect(&self, refuse: &mut Refuse<'_>) {
        if let Some(process) = self.process() {
            scripts::suspect(process, refuse);
        }
    }

    /// An external dependency of its jobs whose availability can be checked.
    fn dependency(&self) -> Option<Dependency> {
        None
    }

    /// The manager that runs jobs with these settings. `owner` owns its runners.
    fn manager(&self, owner: &Instance) -> Arc<dyn RunnerManager>;
}

/// A service outside this process that jobs depend on, such as a container engine.
pub struct Dependency {
    /// The key of the `runner` table that holds its address.
    pub key: &'static str,
    /// Its name. Two pools with the same kind and name depend on the same service.
    pub name: String,
    /// Checks whether it is available. The error has the problem and the fix.
    pub ask: BoxFuture<'static, Result<(), (String, &'static str)>>,
}

impl fmt::Debug for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dependency")
            .field("key", &self.key)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Equality of values of unknown types.
pub(crate) trait Comparable: Any {
    fn equals(&self, other: &dyn Any) -> bool;
}

impl<T: PartialEq + 'static> Comparable for T {
    fn equals(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<T>() == Some(self)
    }
}

/// The content of a pool's `runner` table: a kind, and its settings.
#[derive(Clone)]
pub struct RunnerSettings(Arc<dyn KindSettings>);

impl RunnerSettings {
    pub(crate) fn new(settings: impl KindSettings) -> Self {
        Self(Arc::new(settings))
    }

    /// The name of the kind.
    pub fn kind(&self) -> &'static str {
        self.0.kind()
    }

    /// The settings themselves, if they are of this type.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        let settings: &dyn Any = &*self.0;
        settings.downcast_ref()
    }

    /// How its processes are started, if they are processes of this machine.
    pub fn process(&self) -> Option<&ExecSettings> {
        self.0.process()
    }

    /// Whether its processes serve one job after another.
    pub fn stays(&self) -> bool {
        self.0.stays()
    }

    /// Whether its processes consume the queue themselves.
    pub fn consumes(&self) -> bool {
        self.0.consumes()
    }

    /// The external dependency of its jobs, if it has one that can be checked.
    pub fn dependency(&self) -> Option<Dependency> {
        self.0.dependency()
    }

    /// The manager that runs jobs with these settings. `owner` owns its runners, also those that outlive this process.
    pub fn manager(&self, owner: &Instance) -> Arc<dyn RunnerManager> {
        self.0.manager(owner)
    }

    pub(crate) fn answers(&self) -> bool {
        self.0.answers()
    }

    pub(crate) fn inspect(&self, refuse: &mut Refuse<'_>) {
        self.0.inspect(refuse);
    }

    pub(crate) fn suspect(&self, refuse: &mut Refuse<'_>) {
        self.0.suspect(refuse);
    }
}

impl PartialEq for RunnerSettings {
    fn eq(&self, other: &Self) -> bool {
        self.0.equals(&*other.0)
    }
}

impl fmt::Debug for RunnerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
