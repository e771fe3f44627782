//! `[supervisor]`: limits over all pools.

use super::{
    schema::{Key, Table, WholeNumber},
    settings::{MAX_WORKERS, SupervisorSettings},
    whole::PoolConfig,
};

/// Reads the limits. Returns the limit on workers as a key, to compare it with the pools' floors.
pub(super) fn supervisor(root: &mut Table<'_, '_>) -> (SupervisorSettings, Key<Option<u32>>) {
    let mut table = root.table("supervisor", "Limits over all pools of this daemon.");
    let max_workers = table.optional(
        "max_workers",
        "Maximum number of workers of all pools together. Each pool with work first gets its `min_active`. The pools \
         divide the rest by `weight` and need. When absent, there is no limit beside each pool's own.",
        WholeNumber(1..=MAX_WORKERS),
        "200",
    );
    let percent = || WholeNumber(1..=100u8);
    let memory = table.optional(
        "max_memory_pressure",
        "Stops growth while more than this percentage of the last 10 seconds was lost to waiting for memory \
         (`some avg10` of the cgroup's or the host's pressure information). No running job is stopped. When absent, \
         memory pressure does not limit growth.",
        percent(),
        "10",
    );
    let cpu = table.optional(
        "max_cpu_pressure",
        "The same for processor time. Busy workers raise it themselves: choose a high number.",
        percent(),
        "80",
    );
    let settings = SupervisorSettings {
        max_workers: max_workers.value,
        max_memory_pressure: memory.value,
        max_cpu_pressure: cpu.value,
    };
    (settings, max_workers)
}

/// Refuses a limit that cannot give every pool its floor.
pub(super) fn refuse_small_limit(
    root: &mut Table<'_, '_>,
    max_workers: &Key<Option<u32>>,
    pools: &[PoolConfig],
) {
    let floors: u64 = pools
        .iter()
        .map(|config| u64::from(config.pool.policy.min_active))
        .sum();
    if let Some(max) = max_workers.value
        && max_workers.is_sound()
        && u64::from(max) < floors
    {
        let fix = format!(
            "write at least {floors}, the sum of min_active of all pools, or lower a min_active"
        );
        root.refuse(max_workers, fix);
    }
}
