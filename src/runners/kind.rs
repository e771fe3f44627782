//! A kind of runner, as the registry has it, and the settings of any kind.

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
    /// What it says of itself and of the keys that kinds share.
    pub(crate) facts: Facts,
    /// Asks for the kind's own keys. Called for every pool, independent of the pool's kind.
    pub(crate) keys: fn(&mut OwnKeys<'_, '_, '_>) -> Finish,
}

/// Makes settings of a kind's own keys and the shared ones, and notes what is wrong with them in the light of each other.
/// Called only for pools of this kind.
pub(crate) type Finish = Box<dyn FnOnce(SharedKeys, &mut Table<'_, '_>) -> Finished>;

/// What a kind makes of a `runner` table.
pub(crate) struct Finished {
    pub(crate) runner: RunnerSettings,
    /// The keys of a job's time; `None` if this kind has no time limit.
    pub(crate) job: Option<JobKeys>,
}

/// The settings of one kind.
pub(crate) trait KindSettings: Comparable + fmt::Debug + Send + Sync {
    /// The kind's name.
    fn kind(&self) -> &'static str;

    /// How its processes are started, where they are processes of this machine.
    fn process(&self) -> Option<&ExecSettings> {
        None
    }

    /// Whether its processes stay for several jobs.
    fn stays(&self) -> bool {
        false
    }

    /// Whether its runners give answers by themselves, as in [`RunnerManager::answers`].
    fn answers(&self) -> bool {
        false
    }

    /// Notes what this machine lacks for these settings. Reads the file system, and never runs anything.
    fn inspect(&self, refuse: &mut Refuse<'_>) {
        if let Some(process) = self.process() {
            program::inspect(process, refuse);
        }
    }

    /// Notes settings that are possible on this machine, but most likely a mistake.
    fn suspect(&self, refuse: &mut Refuse<'_>) {
        if let Some(process) = self.process() {
            scripts::suspect(process, refuse);
        }
    }

    /// An external dependency of its jobs, which can be asked whether it is available.
    fn dependency(&self) -> Option<Dependency> {
        None
    }

    /// The manager that runs jobs by these settings. `owner` is whose its runners are.
    fn manager(&self, owner: &Instance) -> Arc<dyn RunnerManager>;
}

/// Something outside this process that jobs depend on, such as an engine.
pub struct Dependency {
    /// The key of the `runner` table that says where it is.
    pub key: &'static str,
    /// Which one it is. Two pools with the same kind and name depend on the same thing.
    pub name: String,
    /// Asks whether it is available. The error has the problem and the fix.
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

/// Equality of values whose types are not known.
pub(crate) trait Comparable: Any {
    fn equals(&self, other: &dyn Any) -> bool;
}

impl<T: PartialEq + 'static> Comparable for T {
    fn equals(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<T>() == Some(self)
    }
}

/// What a pool's jobs run on, as the configuration file names it: a kind, and its settings.
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

    /// The settings themselves, where they are of this type.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        let settings: &dyn Any = &*self.0;
        settings.downcast_ref()
    }

    /// How its processes are started, where they are processes of this machine.
    pub fn process(&self) -> Option<&ExecSettings> {
        self.0.process()
    }

    /// Whether its processes stay for job after job.
    pub fn stays(&self) -> bool {
        self.0.stays()
    }

    /// What its jobs depend on outside this machine's files, where that can be asked.
    pub fn dependency(&self) -> Option<Dependency> {
        self.0.dependency()
    }

    /// The manager that runs jobs by these settings. `owner` is whose the runners are, for what outlives this process.
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
