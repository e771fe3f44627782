//! Cgroups for jobs: set up at the start, or by the first configuration that needs them.

use std::path::Path;

use nix::unistd::Pid;
use tracing::{debug, info, warn};

use crate::guard;
use tidegate::{
    config::{CgroupUse, PoolConfig},
    host::{
        cgroup::{self, CgroupError, Controller, Home},
        instance::finishing,
    },
    run::chain,
    runner::BoxError,
};

/// How much pools need cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Want {
    Nothing,
    /// Cgroups are used if they are available.
    Some,
    /// Limits need them.
    All,
}

/// Sets up the cgroups that the jobs of these pools need. `lock` distinguishes this instance from others.
///
/// Waits until the processes that a dead instance left are gone.
///
/// # Errors
/// Limits need something that is not available.
pub(super) async fn prepare(
    pools: &[PoolConfig],
    lock: (u64, u64),
    state_dir: &Path,
) -> Result<(), BoxError> {
    let (pools, state_dir) = (pools.to_vec(), state_dir.to_owned());
    let prepared =
        tokio::task::spawn_blocking(move || prepare_now(&pools, lock, &finishing(&state_dir)));
    Ok(prepared.await??)
}

/// The same on this thread. `finishing` are the supervisors that this one has taken over from.
fn prepare_now(
    pools: &[PoolConfig],
    lock: (u64, u64),
    finishing: &[Pid],
) -> Result<(), CgroupError> {
    let wanted = pools.iter().map(want).max().unwrap_or(Want::Nothing);
    if wanted == Want::Nothing {
        return Ok(());
    }
    match set_up(lock, finishing) {
        Ok(()) if wanted == Want::All => enable(pools),
        Ok(()) => Ok(()),
        Err(error) if wanted == Want::All => Err(error),
        Err(error) => {
            warn!(error = %chain(&error), "jobs have no cgroups of their own");
            Ok(())
        }
    }
}

fn set_up(lock: (u64, u64), finishing: &[Pid]) -> Result<(), CgroupError> {
    if cgroup::groups().is_some() {
        return Ok(());
    }
    let home = match Home::find() {
        Ok(home) => home,
        // Limits that need cgroups were refused above.
        Err(none) => {
            debug!(reason = %none, "jobs have no cgroups of their own");
            return Ok(());
        }
    };
    let shown = home.dir.display().to_string();
    let movers: Vec<_> = [Pid::this()].into_iter().chain(guard::pid()).collect();
    cgroup::set_up(home, lock, &movers, finishing)?;
    info!(below = shown, "jobs may have cgroups of their own");
    Ok(())
}

fn enable(pools: &[PoolConfig]) -> Result<(), CgroupError> {
    let Some(groups) = cgroup::groups() else {
        return Ok(());
    };
    let processes = pools.iter().filter_map(|pool| pool.runner.process());
    for limits in processes.map(|process| &process.limits) {
        let wanted = [
            (limits.cpu_max.is_some(), Controller::Cpu),
            (limits.memory_max.is_some(), Controller::Memory),
            (limits.pids_max.is_some(), Controller::Pids),
        ];
        for (_, controller) in wanted.into_iter().filter(|(is_wanted, _)| *is_wanted) {
            groups.enable(controller)?;
        }
    }
    Ok(())
}

fn want(pool: &PoolConfig) -> Want {
    let Some(process) = pool.runner.process() else {
        return Want::Nothing;
    };
    let limits = &process.limits;
    if limits.wants_cgroup() {
        Want::All
    } else if limits.cgroup == CgroupUse::Auto && (pool.runner.stays() || limits.changes_process())
    {
        Want::Some
    } else {
        Want::Nothing
    }
}
