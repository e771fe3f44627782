//! From settings to pools: which adapter runs a pool's jobs.

use std::sync::Arc;

use crate::{
    adapters::{
        container::ContainerManager, exec::ExecManager, instance::Instance, warm::WarmManager,
    },
    config::{PoolConfig, RunnerSettings},
    run::PoolSpec,
    runner::RunnerManager,
};

/// The runner managers of the pools that run, kept so that a reload which leaves a pool's runners as they are
/// leaves the runners themselves as they are.
#[derive(Debug)]
pub(super) struct Pools {
    /// Whose they are, for what runners leave outside of this process.
    owner: Instance,
    current: Vec<(PoolConfig, Arc<dyn RunnerManager>)>,
}

impl Pools {
    /// No pools yet.
    pub(super) fn new(owner: Instance) -> Self {
        Self {
            owner,
            current: Vec::new(),
        }
    }

    /// The specs of these pools, and the managers to keep once they are taken over.
    pub(super) fn plan(&self, pools: &[PoolConfig]) -> (Vec<PoolSpec>, Self) {
        let manager = |config: &PoolConfig| {
            let kept = self
                .current
                .iter()
                .find(|(old, _)| old.pool.name == config.pool.name && old.runner == config.runner);
            match kept {
                Some((_, manager)) => Arc::clone(manager),
                None => manager(&config.runner, &self.owner),
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

fn manager(settings: &RunnerSettings, owner: &Instance) -> Arc<dyn RunnerManager> {
    match settings {
        RunnerSettings::Exec(exec) => Arc::new(ExecManager::new(exec.clone())),
        RunnerSettings::Warm(warm) => Arc::new(WarmManager::new(warm.clone())),
        RunnerSettings::Container(container) => {
            Arc::new(ContainerManager::new(container.clone()).owned_by(owner.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adapters::instance::InstanceLock,
        config::{ExecSettings, PoolSettings},
    };

    fn pool(name: &str, command: &str) -> PoolConfig {
        PoolConfig {
            pool: PoolSettings::new(name),
            runner: RunnerSettings::Exec(ExecSettings::new([command])),
        }
    }

    #[test]
    fn keeps_the_runners_of_a_pool_whose_runner_has_not_changed() {
        let state = tempfile::tempdir().expect("a folder");
        let lock = InstanceLock::take(state.path()).expect("a lock");
        let (before, pools) =
            Pools::new(lock.instance().clone()).plan(&[pool("a", "one"), pool("b", "one")]);
        let mut changed = pool("a", "one");
        changed.pool.prefetch = 2;
        let (after, _) = pools.plan(&[pool("b", "two"), changed]);
        assert_eq!(after[1].settings.prefetch, 2);
        assert!(Arc::ptr_eq(&before[0].runners, &after[1].runners));
        assert!(!Arc::ptr_eq(&before[1].runners, &after[0].runners));
    }
}
