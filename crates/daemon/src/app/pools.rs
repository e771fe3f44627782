//! Builds pools from settings, each with the manager of its runners.

use std::sync::Arc;

use tidegate::{
    config::PoolConfig, decide::PoolName, host::instance::Instance, run::PoolSpec,
    runner::RunnerManager,
};

/// The runner managers of the running pools. They are kept so that a reload that does not change a pool's runners also
/// keeps the runners themselves.
#[derive(Debug)]
pub(super) struct PoolManagers {
    /// The owner of what runners leave outside this process.
    owner: Instance,
    current: Vec<(PoolConfig, Arc<dyn RunnerManager>)>,
}

impl PoolManagers {
    /// No pools yet.
    pub(super) fn new(owner: Instance) -> Self {
        Self {
            owner,
            current: Vec::new(),
        }
    }

    /// The specs of these pools, and the managers to keep after the specs are applied.
    pub(super) fn plan(&self, pools: &[PoolConfig]) -> (Vec<PoolSpec>, Self) {
        let manager = |config: &PoolConfig| {
            let kept = self
                .current
                .iter()
                .find(|(old, _)| old.pool.name == config.pool.name && old.runner == config.runner);
            match kept {
                Some((_, manager)) => Arc::clone(manager),
                None => config.runner.manager(&self.owner),
            }
        };
        let current: Vec<_> = pools
            .iter()
            .map(|config| (config.clone(), manager(config)))
            .collect();
        let specs = current.iter().map(|(config, manager)| PoolSpec {
            settings: config.pool.clone(),
            runners: Arc::clone(manager),
        });
        let owner = self.owner.clone();
        (specs.collect(), Self { owner, current })
    }
}

/// Names of the pools that a reload has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) added: Vec<String>,
    pub(super) removed: Vec<String>,
    pub(super) changed: Vec<String>,
}

impl PoolManagers {
    /// The differences between these pools and the previous ones.
    pub(super) fn changes_since(&self, before: &Self) -> Changes {
        let find = |pools: &Self, name: &PoolName| {
            let mut pools = pools.current.iter().map(|(config, _)| config);
            pools.find(|config| config.pool.name == *name).cloned()
        };
        let names = |pools: &Self, is_meant: &dyn Fn(&PoolConfig) -> bool| {
            let pools = pools.current.iter().map(|(config, _)| config);
            let meant = pools.filter(|config| is_meant(config));
            meant.map(|config| config.pool.name.to_string()).collect()
        };
        Changes {
            added: names(self, &|config| find(before, &config.pool.name).is_none()),
            removed: names(before, &|config| find(self, &config.pool.name).is_none()),
            changed: names(self, &|config| {
                find(before, &config.pool.name).is_some_and(|old| old != *config)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate::{
        config::{ExecSettings, PoolSettings},
        host::instance::InstanceLock,
    };

    fn pool(name: &str, command: &str) -> PoolConfig {
        PoolConfig {
            pool: PoolSettings::new(name),
            runner: ExecSettings::new([command]).into(),
        }
    }

    #[test]
    fn keeps_the_runners_of_a_pool_whose_runner_has_not_changed() {
        let state = tempfile::tempdir().expect("a folder");
        let lock = InstanceLock::take(state.path()).expect("a lock");
        let (before, pools) =
            PoolManagers::new(lock.instance().clone()).plan(&[pool("a", "one"), pool("b", "one")]);
        let mut changed = pool("a", "one");
        changed.pool.prefetch = 2;
        let (after, _) = pools.plan(&[pool("b", "two"), changed]);
        assert_eq!(after[1].settings.prefetch, 2);
        assert!(Arc::ptr_eq(&before[0].runners, &after[1].runners));
        assert!(!Arc::ptr_eq(&before[1].runners, &after[0].runners));
    }

    #[test]
    fn names_the_pools_that_a_reload_changed() {
        let state = tempfile::tempdir().expect("a folder");
        let lock = InstanceLock::take(state.path()).expect("a lock");
        let none = PoolManagers::new(lock.instance().clone());
        let before = none
            .plan(&[
                pool("a", "one"),
                pool("b", "one"),
                pool("c", "one"),
                pool("d", "one"),
            ])
            .1;
        let mut deeper = pool("c", "one");
        deeper.pool.prefetch = 2;
        let after = before
            .plan(&[pool("e", "one"), deeper, pool("b", "two"), pool("a", "one")])
            .1;
        let changes = Changes {
            added: vec!["e".to_owned()],
            removed: vec!["d".to_owned()],
            changed: vec!["c".to_owned(), "b".to_owned()],
        };
        assert_eq!(after.changes_since(&before), changes);
        assert_eq!(after.changes_since(&after), Changes::default());
    }
}
