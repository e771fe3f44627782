//! The specification from which a pool is started.

use std::{sync::Arc, time::Duration};

use crate::{
    config::{PoolSettings, SupervisorSettings},
    decide::PolicyKind,
    run::panics::catch,
    runner::RunnerManager,
};

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

/// The first setting that no pool can work with, as a sentence; `None` if all are valid. `tidegate check` refuses the same,
/// and more: mistakes that a pool can live with, such as jobs that may run beyond `ack_deadline`, at which it stops them.
pub(super) fn problem(pool: &PoolSpec) -> Option<&'static str> {
    let PoolSpec { settings, runners } = pool;
    // A manager that panics here is taken for one whose runners run jobs. The pool contains and reports its panics.
    let consumes = catch(|| runners.consumes()).unwrap_or(false);
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
        (policy.max == 0, "policy.max must be 1 or more"),
        (settings.weight == 0, "weight must be 1 or more"),
        (settings.local_max == Some(0), "local_max must be 1 or more"),
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
        (
            consumes && matches!(policy.kind, PolicyKind::TargetWait(_)),
            "its policy cannot aim at a waiting time: programs that consume the queue do not say how long messages wait",
        ),
        (
            consumes && (settings.prefetch != 1 || settings.preempt || settings.share),
            "prefetch, preempt and share have no effect on programs that consume the queue themselves",
        ),
    ];
    let wrong = problems.into_iter().find(|(is_wrong, _)| *is_wrong)?;
    Some(wrong.1)
}

/// The first limit that makes no sense, as a sentence.
pub(super) fn problem_of(limits: &SupervisorSettings) -> Option<&'static str> {
    let is_percent = |limit: Option<u8>| limit.is_none_or(|percent| (1..=100).contains(&percent));
    let pressures = [limits.max_memory_pressure, limits.max_cpu_pressure];
    match limits.max_workers {
        Some(0) => Some("max_workers must be 1 or more"),
        _ if !pressures.into_iter().all(is_percent) => {
            Some("max_memory_pressure and max_cpu_pressure must be 1 to 100")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;

    use super::*;
    use crate::{
        config::KeySettings,
        decide::{BreakerRules, Policy, TargetWait},
        runner::{CreateRunner, Runner, StartError},
    };

    #[derive(Debug, Clone, Copy, Default)]
    struct Kind {
        consumes: bool,
    }

    #[async_trait]
    impl RunnerManager for Kind {
        fn kind(&self) -> &'static str {
            "test"
        }

        fn consumes(&self) -> bool {
            self.consumes
        }

        async fn create(&self, _: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
            unimplemented!("nothing is started")
        }
    }

    fn problem_with(settings: PoolSettings, kind: Kind) -> &'static str {
        let runners = Arc::new(kind);
        problem(&PoolSpec { settings, runners }).unwrap_or("none")
    }

    #[test]
    fn names_the_setting_that_no_pool_can_work_with() {
        let of = |change: fn(&mut PoolSettings)| {
            let mut settings = PoolSettings::new("jobs");
            change(&mut settings);
            problem_with(settings, Kind::default())
        };
        let breaker = |change: fn(&mut BreakerRules)| {
            let mut settings = PoolSettings::new("jobs");
            let mut rules = BreakerRules::default();
            change(&mut rules);
            settings.retry.breaker = Some(rules);
            problem_with(settings, Kind::default())
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
            (of(|pool| pool.policy = Policy::fixed(0)), "policy.max"),
            (of(|pool| pool.weight = 0), "weight"),
            (of(|pool| pool.local_max = Some(0)), "local_max"),
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

    #[test]
    fn what_means_nothing_to_programs_that_consume_is_refused() {
        let of = |change: fn(&mut PoolSettings)| {
            let mut settings = PoolSettings::new("jobs");
            change(&mut settings);
            let kind = Kind { consumes: true };
            problem_with(settings, kind)
        };
        assert_eq!(of(|_| {}), "none");
        let aims = of(|pool| {
            pool.policy.kind = PolicyKind::TargetWait(TargetWait::new(Duration::from_secs(30)));
        });
        assert!(aims.starts_with("its policy"), "{aims}");
        for found in [
            of(|pool| pool.prefetch = 2),
            of(|pool| pool.preempt = true),
            of(|pool| pool.share = true),
        ] {
            assert!(found.starts_with("prefetch, preempt and share"), "{found}");
        }
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        let of = |max_workers, max_memory_pressure, max_cpu_pressure| {
            problem_of(&SupervisorSettings {
                max_workers,
                max_memory_pressure,
                max_cpu_pressure,
            })
        };
        assert_eq!(of(None, None, None), None);
        assert_eq!(of(Some(1), Some(1), Some(100)), None);
        assert!(of(Some(0), None, None).is_some_and(|why| why.starts_with("max_workers")));
        for pressures in [(Some(101), None), (None, Some(0))] {
            let why = of(None, pressures.0, pressures.1).unwrap_or("none");
            assert!(why.starts_with("max_memory_pressure"), "{why}");
        }
    }
}
