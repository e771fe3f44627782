//! What a configuration needs of the machine that it is to run on: what pools' runners need, and the daemon's own places.

use nix::unistd::Pid;

use super::{
    parse::Loaded,
    places,
    problem::{Problem, Problems, Refuse},
};
use crate::runners::{RunnerSettings, process::rights};

impl Loaded {
    /// What this machine does not have for these settings: a program that is not there, or cannot be run. Looks at
    /// the file system, and never runs anything.
    ///
    /// Not part of loading, for a daemon starts all the same: a pool whose runners cannot start backs off until
    /// they can.
    pub fn inspect_machine(&self) -> Problems {
        self.of_runners(|runner, refuse| runner.inspect(refuse))
    }

    /// What of the limits in these settings this machine cannot give to this process. Looks, and changes nothing.
    ///
    /// A daemon refuses to start then: a limit that does not hold is worse than none. `guard` is the process that
    /// goes wherever this one goes.
    pub fn inspect_limits(&self, guard: Option<Pid>) -> Problems {
        let runners = self.settings.pools.iter().map(|config| &config.runner);
        let limits = runners.filter_map(|runner| Some(&runner.process()?.limits));
        let machine = rights::Machine::look(limits, guard);
        self.of_runners(|runner, refuse| {
            // An engine says itself what it cannot do.
            if let Some(process) = runner.process() {
                rights::inspect(&process.limits, &machine, refuse);
            }
        })
    }

    /// What the daemon cannot write to or listen on here, so that it would not start: its state directory, its socket,
    /// its address, its events file. Makes nothing.
    pub fn inspect_places(&self) -> Problems {
        Problems::new(places::unusable(&self.settings, &|key| self.place(key)))
    }

    /// What is no error on this machine, but hardly meant: a script that is not there, a secret that everybody may read.
    pub fn suspicions(&self) -> Problems {
        let mut found = places::exposed(&self.secrets, &|key| self.place(key));
        found.extend(
            self.of_runners(|runner, refuse| runner.suspect(refuse))
                .into_vec(),
        );
        Problems::new(found)
    }

    /// What `look` notes of the pools' runners, at their places.
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
