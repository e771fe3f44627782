//! The needs of a configuration on this machine: for the runners of its pools, and for the daemon's own files and
//! sockets.

use nix::unistd::Pid;

use super::{
    parse::Loaded,
    places,
    problem::{Problem, Problems, Refuse},
};
use crate::runners::{RunnerSettings, process::rights};

impl Loaded {
    /// What this machine lacks for these settings: a program that does not exist, or cannot be run. Reads the file
    /// system, and never runs anything.
    ///
    /// This is not part of loading, because a daemon starts without it: a pool whose runners cannot start backs off
    /// until they can.
    pub fn inspect_machine(&self) -> Problems {
        self.of_runners(|runner, refuse| runner.inspect(refuse))
    }

    /// The limits in these settings that this machine cannot give to this process. Changes nothing.
    ///
    /// A daemon refuses to start in that case: a limit that is not enforced is worse than no limit. `guard` is the
    /// process that is always moved together with this one.
    pub fn inspect_limits(&self, guard: Option<Pid>) -> Problems {
        let runners = self.settings.pools.iter().map(|config| &config.runner);
        let limits = runners.filter_map(|runner| Some(&runner.process()?.limits));
        let machine = rights::Machine::look(limits, guard);
        self.of_runners(|runner, refuse| {
            // A container engine reports itself which limits it cannot keep.
            if let Some(process) = runner.process() {
                rights::inspect(&process.limits, &machine, refuse);
            }
        })
    }

    /// The daemon's own files and sockets that it cannot write to or listen on, so that it would not start: its state
    /// directory, its socket, its address, its events file. Creates nothing.
    pub fn inspect_places(&self) -> Problems {
        Problems::new(places::unusable(&self.settings, &|key| self.place(key)))
    }

    /// Warnings about this machine: a script that does not exist, a secret that every user may read.
    pub fn suspicions(&self) -> Problems {
        let mut found = places::exposed(&self.secrets, &|key| self.place(key));
        found.extend(
            self.of_runners(|runner, refuse| runner.suspect(refuse))
                .into_vec(),
        );
        Problems::new(found)
    }

    /// The problems that `look` notes for the pools' runners, each at its place in the configuration.
    fn of_runners(&self, look: impl Fn(&RunnerSettings, &mut Refuse<'_>)) -> Problems {
        let mut problems = Vec::new();
        for config in &self.settings.pools {
            let mut refuse = |key: &str, found: String, fix: String| {
                let key = format!("pools.{}.runner.{key}", config.pool.name);
                problems.push(Problem::new(self.place(&key), key, found, fix));
            };
            look(&config.runner, &mut refuse);
        }
        Problems::new(problems)
    }
}
