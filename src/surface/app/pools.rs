//! From settings to pools: which adapter runs a pool's jobs.

use std::sync::Arc;

use crate::{
    adapters::{exec::ExecManager, warm::WarmManager},
    config::{PoolConfig, RunnerSettings},
    run::PoolSpec,
    runner::RunnerManager,
};

/// The runner managers of the pools that run, kept so that a reload which leaves a pool's runners as they are
/// leaves the runners themselves as they are.
#[derive(Debug, Default)]
pub(super) struct Pools {
    current: Vec<(PoolConfig, Arc<dyn RunnerManager>)>,
}

impl Pools {
    /// The specs of these pools, and the managers to keep once they are taken over.
    pub(super) fn plan(&self, pools: &[PoolConfig]) -> (Vec<PoolSpec>, Self) {
        let manager = |config: &PoolConfig| {
            let kept = self
                .current
                .iter()
                .find(|(old, _)| old.pool.name == config.pool.name && old.runner == config.runner);
            match kept {
                Some((_, manager)) => Arc::clone(manager),
                None => manager(&config.runner),
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
        (specs.collect(), Self { current })
    }
}

fn manager(settings: &RunnerSettings) -> Arc<dyn RunnerManager> {
    match settings {
        RunnerSettings::Exec(exec) => Arc::new(ExecManager::new(exec.clone())),
        RunnerSettings::Warm(warm) => Arc::new(WarmManager::new(warm.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ExecSettings, PoolSettings};

    fn pool(name: &str, command: &str) -> PoolConfig {
        PoolConfig {
            pool: PoolSettings::new(name),
            runner: RunnerSettings::Exec(ExecSettings::new([command])),
        }
    }

    #[test]
    fn keeps_the_runners_of_a_pool_whose_runner_has_not_changed() {
        let (before, pools) = Pools::default().plan(&[pool("a", "one"), pool("b", "one")]);
        let mut changed = pool("a", "one");
        changed.pool.prefetch = 2;
        let (after, _) = pools.plan(&[pool("b", "two"), changed]);
        assert_eq!(after[1].settings.prefetch, 2);
        assert!(Arc::ptr_eq(&before[0].runners, &after[1].runners));
        assert!(!Arc::ptr_eq(&before[1].runners, &after[0].runners));
    }
}
