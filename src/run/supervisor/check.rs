//! The checks of a supervisor on its pools, before it starts or changes any.

use super::SupervisorError;
use crate::{
    config::SupervisorSettings,
    run::{
        PoolSpec,
        spec::{problem, problem_of},
    },
};

/// Checks the limits over all pools.
pub(super) fn check_limits(limits: &SupervisorSettings) -> Result<(), SupervisorError> {
    problem_of(limits).map_or(Ok(()), |problem| Err(SupervisorError::Limits(problem)))
}

/// Checks each pool by itself and against the others.
pub(super) fn check(pools: &[PoolSpec]) -> Result<(), SupervisorError> {
    for (n, pool) in pools.iter().enumerate() {
        if let Some(problem) = problem(pool) {
            let pool = pool.settings.name.clone();
            return Err(SupervisorError::Settings { pool, problem });
        }
        for other in &pools[..n] {
            let (pool, other) = (&pool.settings, &other.settings);
            if pool.name == other.name {
                return Err(SupervisorError::SharedName(pool.name.clone()));
            }
            if pool.queue == other.queue {
                return Err(SupervisorError::SharedQueue {
                    first: other.name.clone(),
                    second: pool.name.clone(),
                    queue: pool.queue.clone(),
                });
            }
        }
    }
    Ok(())
}
