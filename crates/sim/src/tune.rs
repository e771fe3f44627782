//! Tuning: the cheapest setting of a pool's own policy that holds a target.
//!
//! A setting is chosen on the first part of a recording and checked on the rest, which it has not seen. The search goes
//! from key to key: it tries values of one key, keeps the best, and continues with the next key, until a whole round
//! changes nothing. So it finds a good setting with a few dozen runs. It does not prove that no other is better.

use std::{num::NonZeroU32, time::Duration};

use tidegate_core::decide::{Policy, PolicyKind, Utilisation};

use crate::{PoolModel, Report, Workload};

/// The maximum number of rounds over all keys.
const ROUNDS: usize = 3;

/// A setting must be cheaper by this share to be taken. Less is chance.
const CHEAPER: f64 = 0.005;

/// How to search.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// The part of the recording that settings are chosen on, 0 to 1. The rest is for the check.
    pub first: f64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { first: 0.7 }
    }
}

/// The result of a search.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Tuned {
    /// The pool with the best setting: the cheapest that holds the target on the first part. If none holds it, the one with
    /// the shortest waits.
    pub best: PoolModel,
    /// The best setting on the first part, and on the rest.
    pub best_runs: [Report; 2],
    /// The present setting on the first part, and on the rest.
    pub present_runs: [Report; 2],
    /// Runs that were made.
    pub tried: usize,
}

impl Tuned {
    /// Whether the best setting holds the target on both parts.
    pub fn holds(&self, target: Duration) -> bool {
        self.best_runs.iter().all(|run| holds(run, target))
    }
}

/// Whether 95 of 100 jobs waited no longer than the target.
fn holds(run: &Report, target: Duration) -> bool {
    run.left == 0 && run.wait_s.p95 <= target.as_secs_f64()
}

/// Whether `one` is better than `other`.
fn is_better(one: &Report, other: &Report, target: Duration) -> bool {
    match (holds(one, target), holds(other, target)) {
        (true, true) => one.worker_seconds < other.worker_seconds * (1.0 - CHEAPER),
        (false, false) => one.wait_s.p95 < other.wait_s.p95 * (1.0 - CHEAPER),
        (holds, _) => holds,
    }
}

/// Runs a workload on several pools. The reports have the pools' order.
type Evaluate<'a> = dyn FnMut(&Workload, &[PoolModel]) -> Vec<Report> + 'a;

/// Searches the keys of the policy of `present`.
pub fn tune(
    workload: &Workload,
    present: &PoolModel,
    tuning: Tuning,
    evaluate: &mut Evaluate<'_>,
) -> Tuned {
    let at = workload
        .trace
        .length()
        .mul_f64(tuning.first.clamp(0.0, 1.0));
    let (first, rest) = workload.trace.split(at);
    let part = |trace| Workload {
        trace,
        ..workload.clone()
    };
    let (first, rest) = (part(first), part(rest));
    let target = workload.target;
    let mut tried = 0;
    let mut run = |workload: &Workload, models: &[PoolModel]| {
        tried += models.len();
        evaluate(workload, models)
    };

    let present_first = run(&first, std::slice::from_ref(present)).swap_remove(0);
    let mut best = (present.clone(), present_first.clone());
    for _ in 0..ROUNDS {
        let mut has_changed = false;
        for key in KEYS {
            let others: Vec<PoolModel> = key(&best.0)
                .into_iter()
                .filter(|model| model.rules != best.0.rules)
                .collect();
            let reports = run(&first, &others);
            for (model, report) in others.into_iter().zip(reports) {
                if is_better(&report, &best.1, target) {
                    best = (model, report);
                    has_changed = true;
                }
            }
        }
        if !has_changed {
            break;
        }
    }
    let on_rest = run(&rest, &[present.clone(), best.0.clone()]);
    let [present_rest, best_rest] =
        <[Report; 2]>::try_from(on_rest).expect("one report for each pool");
    Tuned {
        best: best.0,
        best_runs: [best.1, best_rest],
        present_runs: [present_first, present_rest],
        tried,
    }
}

/// The values of one key, with all others as they are.
type KeyVariants = fn(&PoolModel) -> Vec<PoolModel>;

const KEYS: [KeyVariants; 3] = [by_kind, by_window, by_max];

/// The policy's own key.
fn by_kind(model: &PoolModel) -> Vec<PoolModel> {
    let with = |kind: PolicyKind| {
        let mut model = model.clone();
        let Policy {
            min_active, max, ..
        } = model.rules.policy;
        model.rules.policy = Policy {
            kind,
            min_active,
            max,
        };
        model
    };
    match &model.rules.policy.kind {
        PolicyKind::Fixed { .. } => steps(model.rules.policy.max)
            .map(|workers| with(PolicyKind::Fixed { workers }))
            .collect(),
        PolicyKind::Backlog { .. } => steps(1000)
            .filter_map(NonZeroU32::new)
            .map(|jobs_per_worker| with(PolicyKind::Backlog { jobs_per_worker }))
            .collect(),
        PolicyKind::TargetWait(wait) => (10..=20)
            .filter_map(|twentieths| Utilisation::new(f64::from(twentieths) / 20.0))
            .map(|share| with(PolicyKind::TargetWait(wait.utilisation(share))))
            .collect(),
        // The steps must be chosen by people.
        _ => Vec::new(),
    }
}

fn by_window(model: &PoolModel) -> Vec<PoolModel> {
    let with = |seconds: u64| {
        let mut model = model.clone();
        model.rules.scaling.down_window = Duration::from_secs(seconds);
        model
    };
    [0, 5, 10, 20, 30, 60, 120, 300].map(with).to_vec()
}

/// A ceiling is never raised: it may be there for another reason.
fn by_max(model: &PoolModel) -> Vec<PoolModel> {
    let policy = &model.rules.policy;
    let least = policy.min_active.max(model.rules.keep_warm).max(1);
    let with = |max: u32| {
        let mut model = model.clone();
        model.rules.policy.max = max;
        model
    };
    let lower = steps(policy.max).filter(|max| (least..policy.max).contains(max));
    lower.map(with).collect()
}

/// 1, 2, 3, 4, 5, 6, 8, 10 and so on, by about a quarter each, up to `most`.
fn steps(most: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(1u32), |step| step.checked_add((step / 4).max(1)))
        .take_while(move |step| *step <= most)
}

#[cfg(test)]
mod tests {
    use tidegate_core::{
        decide::{DrainAfter, Rules, Scaling, Schedule},
        trace::Trace,
    };

    use super::*;
    use crate::{Contender, ServiceTimes, simulate};

    fn workload(text: &str) -> Workload {
        let trace = Trace::parse(text).expect("a trace");
        let service = ServiceTimes::named("exp:2s")
            .expect("named")
            .expect("valid");
        Workload::new(trace, service)
    }

    fn pool(policy: Policy) -> PoolModel {
        let rules = Rules {
            policy,
            own: None,
            scaling: Scaling::default(),
            drain_after: DrainAfter::default(),
            keep_warm: 0,
            preempt: false,
            schedule: Schedule::default(),
        };
        PoolModel::new("pool", rules)
    }

    fn tuned(workload: &Workload, present: &PoolModel) -> Tuned {
        tune(
            workload,
            present,
            Tuning::default(),
            &mut |workload, models| {
                let contenders = models
                    .iter()
                    .cloned()
                    .map(|model| Contender::Pool(Box::new(model)));
                contenders
                    .map(|contender| simulate(workload, &contender, &mut |_, _, _| {}).report)
                    .collect()
            },
        )
    }

    #[test]
    fn finds_a_cheaper_setting_that_meets_the_target_on_traffic_it_was_not_tuned_on() {
        let rows: String = (0..60)
            .map(|n| format!("{},{}\n", n * 60, 30 + 20 * (n % 3)))
            .collect();
        let workload = workload(&format!("time,arrivals\n{rows}"));
        let tuned = tuned(&workload, &pool(Policy::backlog(1).max(20)));
        let [first, rest] = &tuned.best_runs;
        assert!(tuned.holds(workload.target), "{tuned:?}");
        assert!(
            first.worker_seconds < tuned.present_runs[0].worker_seconds,
            "{tuned:?}"
        );
        assert!(
            rest.worker_seconds < tuned.present_runs[1].worker_seconds,
            "{tuned:?}"
        );
        let PolicyKind::Backlog { jobs_per_worker } = tuned.best.rules.policy.kind else {
            panic!("the kind of policy stays: {tuned:?}");
        };
        assert!(jobs_per_worker.get() > 1);
    }

    #[test]
    fn a_target_that_no_setting_meets_is_not_reported_as_met() {
        // Two workers can do one job a second, and two come.
        let workload = workload("time,arrivals\n0,1200\n600,0\n600,0\n");
        let tuned = tuned(&workload, &pool(Policy::backlog(50).max(2)));
        assert!(!tuned.holds(workload.target));
        assert_eq!(tuned.best.rules.policy.max, 2, "a ceiling is never raised");
    }

    /// So many jobs at once, at the beginning of each minute.
    fn batches(sizes: impl IntoIterator<Item = u32>) -> Workload {
        let rows = sizes.into_iter().enumerate().map(|(minute, jobs)| {
            let second = minute * 60;
            format!("{second},{jobs}\n{second},0\n")
        });
        let rows: String = rows.collect();
        let mut workload = workload(&format!("time,arrivals\n{rows}"));
        workload.service = ServiceTimes::Fixed {
            time: Duration::from_secs(2),
        };
        workload
    }

    /// Four workers take 60 jobs of 2 s in 15 rounds. The 57th job, which is the last of 95 %, waits for 14 of them:
    /// 28 s. With three workers it waits 36 s. Workers that never drain cost what their number says.
    #[test]
    fn finds_the_setting_that_arithmetic_says_is_the_best_and_its_margin() {
        let mut present = pool(Policy::fixed(15));
        present.rules.drain_after = DrainAfter::Never;
        let tuned = tuned(&batches([60; 40]), &present);
        let best = &tuned.best.rules.policy;
        // Fixed at four, or a ceiling of four.
        let workers = match best.kind {
            PolicyKind::Fixed { workers } => workers.min(best.max),
            _ => panic!("the kind of policy stays: {best}"),
        };
        assert_eq!(workers, 4, "{best}");
        for run in &tuned.best_runs {
            assert!((27.9..=28.6).contains(&run.wait_s.p95), "{run:?}");
        }
        assert!(tuned.holds(Duration::from_secs(30)));
    }

    #[test]
    fn a_setting_that_fails_on_the_rest_is_not_reported_as_one_that_holds() {
        let mut present = pool(Policy::fixed(15));
        present.rules.drain_after = DrainAfter::Never;
        let sizes = (0..40).map(|minute| if minute < 30 { 60 } else { 100 });
        let tuned = tuned(&batches(sizes), &present);
        let [first, rest] = &tuned.best_runs;
        assert!(holds(first, Duration::from_secs(30)), "{first:?}");
        assert!(rest.wait_s.p95 > 30.0, "{rest:?}");
        assert!(!tuned.holds(Duration::from_secs(30)));
    }

    #[test]
    fn values_are_close_to_each_other_and_never_above_the_ceiling() {
        let values: Vec<u32> = steps(30).collect();
        assert_eq!(values, [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 22, 27]);
    }
}
