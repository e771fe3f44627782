//! The specification from which a pool is started.

use std::{sync::Arc, time::Duration};

use crate::{config::PoolSettings, decide::PolicyKind, runner::RunnerManager};

/// A pool to run: its settings, and the manager of its runners.
///
/// A supervisor checks it at its start and at each reconfiguration.
#[derive(Debug, Clone)]
pub struct PoolSpec {
    /// Settings.
    pub settings: PoolSettings,
    /// Starts its runners. On a reconfiguration, the same `Arc` means the same runners.
    pub runners: Arc<dyn RunnerManager>,
}

/// The first setting that no pool can work with, as a sentence; `None` if all are valid.
pub(super) fn problem(settings: &PoolSettings) -> Option<&'static str> {
    let PoolSettings {
        policy,
        scaling,
        retry,
        ..
    } = settings;
    let breaker = retry.breaker.as_ref();
    let key = settings.key.as_ref();
    let problems = [
        (
            settings.name.as_str().is_empty(),
            "its name must not be empty",
        ),
        (
            settings.queue.as_str().is_empty(),
            "the name of its queue must not be empty",
        ),
        (settings.prefetch == 0, "prefetch must be 1 or more"),
        (
            settings.key.is_some() && settings.prefetch > 1,
            "prefetch must be 1 where jobs have a key: the window is the key's",
        ),
        (
            key.is_some_and(|key| key.per_key == 0),
            "per_key must be 1 or more",
        ),
        (
            key.is_some_and(|key| key.window == Some(0)),
            "the window of the key must be 1 or more",
        ),
        (
            settings.poll_interval.is_zero(),
            "poll_interval must be above zero",
        ),
        (
            settings.ack_deadline.is_zero(),
            "ack_deadline must be above zero",
        ),
        (
            policy.min_active > policy.max,
            "policy.min_active must be at most policy.max",
        ),
        (
            settings.keep_warm > policy.max,
            "keep_warm must be at most policy.max",
        ),
        (
            scaling.up_step == 0 || scaling.down_step == 0,
            "scaling.up_step and scaling.down_step must be 1 or more",
        ),
        (
            matches!(&policy.kind, PolicyKind::TargetWait(wait) if wait.target.is_zero()),
            "policy.target must be above zero",
        ),
        (
            retry.max_attempts == 0,
            "retry.max_attempts must be 1 or more",
        ),
        (
            retry.backoff.is_zero() || retry.backoff > retry.backoff_max,
            "retry.backoff must be above zero and at most retry.backoff_max",
        ),
        (
            breaker.is_some_and(|rules| !(1..=100).contains(&rules.failure_percent)),
            "retry.breaker.failure_percent must be 1 to 100",
        ),
        (
            breaker.is_some_and(|rules| rules.window == Duration::ZERO || rules.min_jobs == 0),
            "retry.breaker.window must be above zero, and min_jobs 1 or more",
        ),
        (
            breaker.is_some_and(|rules| rules.pause.is_zero()),
            "retry.breaker.pause must be above zero",
        ),
    ];
    let wrong = problems.into_iter().find(|(is_wrong, _)| *is_wrong)?;
    Some(wrong.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::KeySettings,
        decide::{BreakerRules, TargetWait},
    };

    #[test]
    fn names_the_setting_that_no_pool_can_work_with() {
        let of = |change: fn(&mut PoolSettings)| {
            let mut settings = PoolSettings::new("jobs");
            change(&mut settings);
            problem(&settings).unwrap_or("none")
        };
        let breaker = |change: fn(&mut BreakerRules)| {
            let mut settings = PoolSettings::new("jobs");
            let mut rules = BreakerRules::default();
            change(&mut rules);
            settings.retry.breaker = Some(rules);
            problem(&settings).unwrap_or("none")
        };
        for (found, begins) in [
            (of(|_| {}), "none"),
            (of(|pool| pool.name = "".into()), "its name"),
            (of(|pool| pool.queue = "".into()), "the name of its queue"),
            (of(|pool| pool.prefetch = 0), "prefetch"),
            (
                of(|pool| {
                    pool.key = Some(KeySettings::header("tenant"));
                    pool.prefetch = 2;
                }),
                "prefetch",
            ),
            (
                of(|pool| pool.key = Some(KeySettings::header("tenant").per_key(0))),
                "per_key",
            ),
            (
                of(|pool| pool.key = Some(KeySettings::header("tenant").window(0))),
                "the window of the key",
            ),
            (
                of(|pool| pool.poll_interval = Duration::ZERO),
                "poll_interval",
            ),
            (
                of(|pool| pool.ack_deadline = Duration::ZERO),
                "ack_deadline",
            ),
            (
                of(|pool| pool.policy.min_active = pool.policy.max + 1),
                "policy.min_active",
            ),
            (of(|pool| pool.keep_warm = pool.policy.max + 1), "keep_warm"),
            (of(|pool| pool.scaling.up_step = 0), "scaling.up_step"),
            (of(|pool| pool.scaling.down_step = 0), "scaling.up_step"),
            (
                of(|pool| {
                    pool.policy.kind = PolicyKind::TargetWait(TargetWait::new(Duration::ZERO));
                }),
                "policy.target",
            ),
            (of(|pool| pool.retry.max_attempts = 0), "retry.max_attempts"),
            (
                of(|pool| pool.retry.backoff = Duration::ZERO),
                "retry.backoff",
            ),
            (
                of(|pool| pool.retry.backoff_max = Duration::ZERO),
                "retry.backoff",
            ),
            (breaker(|_| {}), "none"),
            (
                breaker(|rules| rules.failure_percent = 101),
                "retry.breaker.failure_percent",
            ),
            (
                breaker(|rules| rules.window = Duration::ZERO),
                "retry.breaker.window",
            ),
            (breaker(|rules| rules.min_jobs = 0), "retry.breaker.window"),
            (
                breaker(|rules| rules.pause = Duration::ZERO),
                "retry.breaker.pause",
            ),
        ] {
            assert!(found.starts_with(begins), "{found}: {begins}");
        }
    }
}
