//! A dry run on a recording: the old and the new policy of a pool on its last day, in virtual time.
//!
//! Pure: settings, measurements and a recording come in, numbers and curves come out. [`Trials`](super::trials::Trials)
//! reads the recording and limits what this costs.

use std::time::Duration;

use jiff::Timestamp;
use tidegate::{
    api::v1::{TrialAssumptions, TrialOnRecording, TrialRun, TrialWaits},
    config::PoolSettings,
    decide::{By, ByHand, Orders, Policy, PolicyKind, Rules, SetPolicy, Spread, Timings},
    text,
};
use tidegate_sim::{Contender, PoolModel, ServiceTimes, SimulatedRun, Workload, simulate_while};

use super::course::curve;
use crate::recordings::LastDay;

/// Jobs that must have succeeded before their run time is used.
const LEAST_JOBS: u64 = 5;
/// Attempts that must have ended before their failures are used.
const LEAST_ATTEMPTS: u64 = 20;
/// What is assumed of jobs that were not measured.
const SERVICE: &str = "exp:1s";
const START_UP: Duration = Duration::from_millis(100);

/// Most jobs of a recording that are simulated: 115 a second for a day, or about 6 s of a core. Of more, the newest part is
/// used.
const MOST_JOBS: f64 = 1e7;
/// Most workers that are simulated. Each is looked at in each reconcile.
const MOST_WORKERS: u32 = 10_000;
/// Most points of a curve in an answer.
const MOST_POINTS: usize = 400;

/// What is tried.
#[derive(Debug)]
pub(crate) struct Trial {
    /// The pool as it is configured.
    pub(crate) settings: std::sync::Arc<PoolSettings>,
    /// The policy that is set by hand now.
    pub(crate) before: Option<SetPolicy>,
    /// The policy that would be set by hand.
    pub(crate) after: Option<SetPolicy>,
    /// What the pool measured since the daemon started.
    pub(crate) timings: Timings,
    /// What it had measured before.
    pub(crate) timings_before: Option<Timings>,
    /// `[supervisor] max_workers`.
    pub(crate) max_workers: Option<u32>,
    /// What the caller knows better than the pool.
    pub(crate) given: JobAssumptions,
}

/// What a caller says about the jobs.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct JobAssumptions {
    pub(crate) service: Option<(String, ServiceTimes)>,
    pub(crate) target: Option<Duration>,
}

/// Nothing was simulated. Reads as a sentence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoTrial {
    #[error(
        "the policy has up to {0} workers, and the daemon simulates at most {MOST_WORKERS}: use `tidegate simulate`"
    )]
    TooManyWorkers(u32),
    #[error(
        "the newest line of the recording with messages has {0} of them, and the daemon simulates at most {MOST_JOBS:.0}: \
         use `tidegate simulate`"
    )]
    TooManyMessages(f64),
    #[error("the simulation took longer than {} s: use `tidegate simulate`", .0.as_secs())]
    Overdue(Duration),
}

impl Trial {
    /// Runs both policies on a recording, as long as `goes_on` says so. `None` if it does not.
    ///
    /// # Errors
    /// The policies have too many workers, or one line of the recording has too many messages.
    pub(crate) fn run(
        &self,
        day: LastDay,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<TrialOnRecording>, NoTrial> {
        let sets = [&self.before, &self.after];
        let most = sets.map(|set| self.policy(set.as_ref()).max);
        let most = most.into_iter().max().unwrap_or_default();
        if most.min(self.ceiling().unwrap_or(u32::MAX)) > MOST_WORKERS {
            return Err(NoTrial::TooManyWorkers(most));
        }
        let (day, is_cut) = newest(day)?;
        let (service, mut assumed) = self.assumed();
        if is_cut {
            assumed.text.insert(
                0,
                format!("Only the newest {MOST_JOBS:.0} messages of the recording are used."),
            );
        }
        let from = day.from;
        let workload = Workload {
            trace: day.trace,
            service,
            start_up: Duration::try_from_secs_f64(assumed.start_up_s).unwrap_or(START_UP),
            failures: assumed.failures,
            target: self.target().unwrap_or(Duration::MAX),
            seed: 1,
        };
        let mut runs = Vec::with_capacity(2);
        for set in sets {
            let contender = Contender::Pool(Box::new(self.model(set.as_ref())));
            match simulate_while(&workload, &contender, goes_on) {
                Some(run) => runs.push(self.result(&run)),
                None => return Ok(None),
            }
        }
        let (Some(after), Some(before)) = (runs.pop(), runs.pop()) else {
            return Ok(None);
        };
        Ok(Some(TrialOnRecording {
            from,
            seconds: workload.trace.length().as_secs_f64(),
            jobs: before.jobs,
            assumed,
            before,
            after,
        }))
    }

    fn policy<'t>(&'t self, set: Option<&'t SetPolicy>) -> &'t Policy {
        set.map_or(&self.settings.policy, |set| &set.policy)
    }

    /// Most workers that this daemon could have for the pool if it were alone.
    fn ceiling(&self) -> Option<u32> {
        let own = self.settings.local_max.filter(|_| self.settings.share);
        own.into_iter().chain(self.max_workers).min()
    }

    fn model(&self, set: Option<&SetPolicy>) -> PoolModel {
        let settings = &*self.settings;
        let mut orders = Orders::default();
        orders.policy = set.map(|set| ByHand {
            what: set.clone(),
            by: By::new("dry run"),
            since: Timestamp::UNIX_EPOCH,
            until: None,
        });
        PoolModel {
            name: settings.name.to_string(),
            rules: Rules::from(settings),
            poll_interval: settings.poll_interval,
            prefetch: settings.prefetch,
            retry: settings.retry.clone(),
            orders,
            max_workers: self.ceiling(),
        }
    }

    /// The wait that is looked at: the one that was asked for, or that of a policy `target_wait`.
    fn target(&self) -> Option<Duration> {
        let of = |set: &Option<SetPolicy>| match self.policy(set.as_ref()).kind {
            PolicyKind::TargetWait(wait) => Some(wait.target),
            _ => None,
        };
        self.given
            .target
            .or_else(|| of(&self.after))
            .or_else(|| of(&self.before))
    }

    /// What the pool measured, and whether that was before the daemon started.
    fn timings(&self) -> (&Timings, bool) {
        let is_enough = |timings: &Timings| {
            let samples = timings.service.map_or(0, |service| service.samples);
            samples >= LEAST_JOBS
        };
        match &self.timings_before {
            Some(before) if !is_enough(&self.timings) && is_enough(before) => (before, true),
            _ => (&self.timings, false),
        }
    }

    fn assumed(&self) -> (ServiceTimes, TrialAssumptions) {
        let (timings, is_old) = self.timings();
        let service = timings
            .service
            .filter(|service| service.samples >= LEAST_JOBS);
        let (name, times, samples, said) = match (&self.given.service, service) {
            (Some((name, times)), _) => {
                let said = format!("Jobs take {name}, as asked.");
                (name.clone(), times.clone(), 0, said)
            }
            (None, Some(spread)) => {
                let (name, times) = fitted(&spread);
                let when = if is_old {
                    " before the daemon started"
                } else {
                    ""
                };
                let said = format!(
                    "Jobs take {name}, from {} that the pool measured{when}.",
                    text::counted(spread.samples, "job")
                );
                (name, times, spread.samples, said)
            }
            (None, None) => {
                let measured = timings.service.map_or(0, |service| service.samples);
                let mean = Duration::from_secs(1);
                let said = format!(
                    "Jobs take {SERVICE}, which is a guess: the pool has measured {}, and needs {LEAST_JOBS}.",
                    text::counted(measured, "job")
                );
                (
                    SERVICE.to_owned(),
                    ServiceTimes::Exponential { mean },
                    0,
                    said,
                )
            }
        };
        let mut said = vec![said];
        let start = timings.start_up.map_or(START_UP, |start_up| start_up.mean);
        let starts = timings.start_up.map_or(0, |start_up| start_up.samples);
        let shown = text::duration(rounded(start));
        said.push(match starts {
            0 => format!("A runner starts in {shown}, which is a guess."),
            starts => {
                let starts = text::counted(starts, "start");
                format!("A runner starts in {shown}, the mean of {starts}.")
            }
        });
        let attempts = timings.finished.saturating_add(timings.failed);
        let attempts = if attempts < LEAST_ATTEMPTS {
            0
        } else {
            attempts
        };
        let failures = match attempts {
            0 => 0.0,
            attempts => timings.failed as f64 / attempts as f64,
        };
        if failures > 0.0 {
            let percent = failures * 100.0;
            said.push(format!(
                "{percent:.2}% of the attempts fail, counted from {attempts}."
            ));
        }
        said.extend(self.left_out());
        let assumed = TrialAssumptions {
            service: name,
            service_samples: samples,
            start_up_s: start.as_secs_f64(),
            start_up_samples: starts,
            failures,
            attempts,
            target_s: self.target().map(|target| target.as_secs_f64()),
            text: said,
        };
        (times, assumed)
    }

    /// What differs from the real pool.
    fn left_out(&self) -> Vec<String> {
        let mut said = Vec::new();
        if let Some(workers) = self.max_workers {
            said.push(format!(
                "The pool is simulated alone, with all {workers} workers of [supervisor] max_workers."
            ));
        }
        if self.settings.share {
            said.push(
                "Only the part of this daemon is recorded and simulated (share = true).".to_owned(),
            );
        }
        said
    }

    fn result(&self, run: &SimulatedRun) -> TrialRun {
        let report = &run.report;
        let wait = &report.wait_s;
        TrialRun {
            jobs: report.jobs,
            wait_s: TrialWaits {
                mean: wait.mean,
                p50: wait.p50,
                p95: wait.p95,
                p99: wait.p99,
                max: wait.max,
            },
            over_target: self.target().map(|_| report.over_target),
            worker_seconds: report.worker_seconds,
            busy_seconds: report.busy_seconds,
            starts: report.starts,
            stops: report.stops,
            peak: report.peak,
            dead: report.dead,
            left: report.left,
            retried: report.retried,
            interrupted: report.interrupted,
            seconds: report.seconds,
            curve: curve(&run.curve, MOST_POINTS),
        }
    }
}

/// The newest part of a recording that has too many messages, and whether it is only a part.
///
/// # Errors
/// Not even one line with messages fits.
fn newest(day: LastDay) -> Result<(LastDay, bool), NoTrial> {
    if day.trace.arrivals() <= MOST_JOBS {
        return Ok((day, false));
    }
    let mut jobs = 0.0;
    let mut length = Duration::ZERO;
    for span in day.trace.spans().iter().rev() {
        if jobs + span.arrivals > MOST_JOBS {
            if jobs < 0.5 {
                return Err(NoTrial::TooManyMessages(span.arrivals));
            }
            break;
        }
        jobs += span.arrivals;
        length += span.length;
    }
    let trace = day.trace.split(day.trace.length() - length).1;
    let from = trace.begin().unwrap_or(day.from);
    Ok((LastDay { trace, from }, true))
}

/// A lognormal distribution with the measured mean, and the measured ratio of the 95th percentile to the median. Named as
/// `simulate --service` takes it: mean and standard deviation.
fn fitted(spread: &Spread) -> (String, ServiceTimes) {
    /// The 95th percentile of the standard normal distribution.
    const P95: f64 = 1.645;
    /// More spread than this is a few odd jobs among thousands.
    const WIDEST: f64 = 2.5;
    /// No job runs longer: a year.
    const LONGEST: Duration = Duration::from_secs(366 * 86_400);
    let (p50, p95) = (spread.p50.as_secs_f64(), spread.p95.as_secs_f64());
    let sigma = match p50 > 0.0 {
        true => ((p95 / p50).max(1.0).ln() / P95).min(WIDEST),
        false => 0.0,
    };
    let mean = rounded(spread.mean.clamp(Duration::from_micros(1), LONGEST));
    let deviation = mean.mul_f64((sigma * sigma).exp_m1().sqrt());
    let deviation = rounded(deviation);
    let mean_text = text::short_duration(mean);
    if deviation.is_zero() {
        let name = format!("fixed:{mean_text}");
        return (name, ServiceTimes::Fixed { time: mean });
    }
    let name = format!("lognormal:{mean_text},{}", text::short_duration(deviation));
    (name, ServiceTimes::LogNormal { mean, deviation })
}

/// To three digits or so, for people. Milliseconds have no fractions if they have two digits.
fn rounded(time: Duration) -> Duration {
    let micros = time.as_micros();
    let digits = micros.max(1).ilog10().saturating_sub(2);
    let step = 10_u128.pow(digits);
    let step = if micros >= 10_000 {
        step.max(1000)
    } else {
        step
    };
    let micros = (micros + step / 2) / step * step;
    u64::try_from(micros).map_or(Duration::MAX, Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate::{config::PoolSettings, decide::Configured, trace::Trace};

    use super::*;

    fn day(text: &str) -> LastDay {
        let trace = Trace::parse(text).unwrap();
        let from = "2026-01-02T03:04:05Z".parse().unwrap();
        LastDay { trace, from }
    }

    fn set(policy: Policy) -> SetPolicy {
        let over = PoolSettings::new("jobs");
        SetPolicy {
            policy,
            scaling: over.scaling,
            keys: [("policy.jobs_per_worker".to_owned(), "1".to_owned())].into(),
            over: Configured {
                policy: over.policy,
                scaling: over.scaling,
            },
        }
    }

    fn trial(after: Policy) -> Trial {
        Trial {
            settings: PoolSettings::new("jobs").into(),
            before: None,
            after: Some(set(after)),
            timings: Timings::default(),
            timings_before: None,
            max_workers: None,
            given: JobAssumptions::default(),
        }
    }

    const TIDE: &str = "time,arrivals\n0,300\n60,0\n600,100\n660,0\n900,0\n";

    fn run(trial: &Trial) -> TrialOnRecording {
        let tried = trial.run(day(TIDE), &mut || true).unwrap();
        tried.expect("it ends")
    }

    #[test]
    fn more_workers_for_the_same_jobs_mean_shorter_waits() {
        let tried = run(&trial(Policy::backlog(1).max(50)));
        assert_eq!((tried.jobs, tried.seconds), (400, 1140.0));
        assert!(
            tried.after.wait_s.p95 < tried.before.wait_s.p95,
            "{tried:?}"
        );
        assert!(tried.after.peak > tried.before.peak, "{tried:?}");
        assert_eq!(tried.after.over_target, None);
        for run in [&tried.before, &tried.after] {
            let curve = &run.curve;
            assert!((10..=MOST_POINTS).contains(&curve.at.len()));
            for length in [curve.ready.len(), curve.workers.len(), curve.wait.len()] {
                assert_eq!(length, curve.at.len());
            }
            assert_eq!(curve.workers.iter().max(), Some(&run.peak));
        }
    }

    #[test]
    fn what_was_not_measured_is_said_to_be_a_guess() {
        let assumed = run(&trial(Policy::backlog(1))).assumed;
        assert_eq!(
            (assumed.service.as_str(), assumed.service_samples),
            (SERVICE, 0)
        );
        assert!(assumed.text[0].contains("is a guess"), "{assumed:?}");
        assert!(assumed.text[1].contains("is a guess"), "{assumed:?}");
    }

    #[test]
    fn run_times_have_the_measured_mean_and_spread_with_their_number() {
        let mut trial = trial(Policy::target_wait(Duration::from_secs(30)));
        let ms = Duration::from_millis;
        // Of an exponential distribution.
        trial.timings.service = Some(Spread::new(ms(2000), ms(1386), ms(5991), 840));
        trial.timings.start_up = Some(Spread::new(ms(250), ms(200), ms(400), 12));
        (trial.timings.finished, trial.timings.failed) = (95, 5);
        let tried = run(&trial);
        let assumed = &tried.assumed;
        assert_eq!(assumed.service_samples, 840);
        assert_eq!(assumed.start_up_s, 0.25);
        assert_eq!((assumed.failures, assumed.attempts), (0.05, 100));
        assert_eq!(assumed.target_s, Some(30.0));
        assert!(tried.before.over_target.is_some());
        let named = ServiceTimes::named(&assumed.service).unwrap().unwrap();
        let ServiceTimes::LogNormal { mean, deviation } = named else {
            panic!("{named:?}");
        };
        assert_eq!(mean, ms(2000));
        assert!(
            (1.8..2.6).contains(&deviation.as_secs_f64()),
            "{deviation:?}"
        );
        let mean = tried.before.busy_seconds / (400.0 * 1.05);
        assert!((1.7..2.3).contains(&mean), "{mean}");
    }

    #[test]
    fn after_a_restart_the_measurements_of_before_are_used_until_there_are_new_ones() {
        let second = Duration::from_secs(1);
        let spread = |seconds: u32, samples| {
            let time = second * seconds;
            Some(Spread::new(time, time, time, samples))
        };
        let mut before = Timings::default();
        before.service = spread(3, 500);
        let mut trial = trial(Policy::backlog(1));
        trial.timings_before = Some(before);
        trial.timings.service = spread(1, 4);
        let assumed = trial.assumed().1;
        assert_eq!(assumed.service_samples, 500);
        assert!(
            assumed.text[0].contains("before the daemon started"),
            "{assumed:?}"
        );
        trial.timings.service = spread(1, 5);
        assert_eq!(trial.assumed().1.service_samples, 5);
    }

    #[test]
    fn times_have_few_digits() {
        for (micros, rounded_micros) in [
            (0, 0),
            (39_429, 39_000),
            (1_234, 1_230),
            (2_093_412, 2_090_000),
        ] {
            let rounded = rounded(Duration::from_micros(micros));
            assert_eq!(rounded, Duration::from_micros(rounded_micros));
        }
    }

    #[test]
    fn even_run_times_are_even() {
        let spread = Spread::new(
            Duration::from_millis(300),
            Duration::from_millis(301),
            Duration::from_millis(299),
            10,
        );
        let (name, times) = fitted(&spread);
        assert_eq!(times.mean(), Duration::from_millis(300));
        assert_eq!(name, "fixed:300ms");
        assert!(ServiceTimes::named(&name).unwrap().is_ok(), "{name}");
    }

    #[test]
    fn the_supervisor_s_workers_are_a_ceiling_and_too_many_are_refused() {
        let mut trial = trial(Policy::backlog(1).max(50));
        trial.max_workers = Some(4);
        let tried = run(&trial);
        assert_eq!((tried.before.peak, tried.after.peak), (4, 4));
        assert!(
            tried
                .assumed
                .text
                .iter()
                .any(|text| text.contains("all 4 workers"))
        );
        let trial = self::trial(Policy::backlog(1).max(MOST_WORKERS + 1));
        let refused = trial.run(day(TIDE), &mut || true).unwrap_err();
        assert!(matches!(refused, NoTrial::TooManyWorkers(_)), "{refused}");
    }

    #[test]
    fn of_too_many_messages_the_newest_part_is_used() {
        let long = day("time,arrivals\n0,8000000\n100,8000000\n200,1000\n300,0\n");
        let (day, is_cut) = newest(long).unwrap();
        assert!(is_cut);
        assert_eq!(day.trace.arrivals(), 8_001_000.0);
        assert_eq!(day.trace.length().as_secs(), 300);
    }

    #[test]
    fn a_newest_line_with_too_many_messages_is_the_reason_why_nothing_is_simulated() {
        for text in [
            "time,arrivals\n0,10\n100,10000001\n110,0\n900,0\n",
            "time,arrivals\n0,10\n100,1e12\n100,0\n900,0\n",
        ] {
            let refused = trial(Policy::backlog(1)).run(day(text), &mut || true);
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("at most 10000000"), "{refused}");
        }
    }

    #[test]
    fn a_trial_that_nobody_waits_for_ends() {
        let trial = trial(Policy::backlog(1));
        assert_eq!(trial.run(day(TIDE), &mut || false).unwrap(), None);
    }

    /// Any JSON with the keys of the measurements, with numbers that no pool measures.
    fn any_measurements() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::{Value, json};
        let number = || {
            prop_oneof![
                any::<f64>().prop_map(|number| json!(number)),
                any::<u64>().prop_map(|number| json!(number)),
                (0.0..100.0f64).prop_map(|number| json!(number)),
                (0u64..1000).prop_map(|number| json!(number)),
                Just(json!(1e19)),
                Just(json!("9999999d")),
                Just(json!({"secs": u64::MAX, "nanos": 999_999_999})),
                Just(Value::Null),
            ]
        };
        let spread = || {
            let numbers = proptest::collection::vec(number(), 5);
            numbers.prop_map(|numbers| {
                let keys = ["mean", "p50", "p95", "samples", "age"];
                let spread = keys.into_iter().map(String::from).zip(numbers);
                Value::Object(spread.collect())
            })
        };
        let keys = (
            spread(),
            spread(),
            number(),
            number(),
            number(),
            any::<bool>(),
        );
        keys.prop_map(|(service, start_up, finished, failed, fruitless, whole)| {
            let mut measured = json!({
                "service": service, "start_up": start_up, "finished": finished, "failed": failed,
            });
            if whole {
                measured["fruitless"] = fruitless;
            }
            measured
        })
    }

    /// Measurements that may be beyond what a file of the state directory may say.
    fn any_timings() -> impl Strategy<Value = Timings> {
        let time = || {
            prop_oneof![
                any::<Duration>(),
                (0u64..100_000).prop_map(Duration::from_micros)
            ]
        };
        let spread = move || {
            (time(), time(), time(), any::<u64>())
                .prop_map(|(mean, p50, p95, samples)| Spread::new(mean, p50, p95, samples))
        };
        (spread(), spread(), any::<u64>(), any::<u64>()).prop_map(
            |(service, start_up, finished, failed)| {
                let mut timings = Timings::default();
                timings.service = Some(service);
                timings.start_up = Some(start_up);
                (timings.finished, timings.failed) = (finished, failed);
                timings
            },
        )
    }

    fn is_tried_without_a_panic(trial: &Trial) {
        let assumed = trial.assumed().1;
        assert!((0.0..=1.0).contains(&assumed.failures), "{assumed:?}");
        let named = ServiceTimes::named(&assumed.service);
        assert!(named.is_some_and(|named| named.is_ok()), "{assumed:?}");
        // A job that takes a year would be simulated for a while.
        let mut decisions = 0;
        let _ = trial.run(day("time,arrivals\n0,20\n60,0\n60,0\n"), &mut || {
            decisions += 1;
            decisions < 2000
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn no_measurements_in_the_state_directory_make_a_trial_panic(measured in any_measurements()) {
            let folder = tempfile::tempdir().unwrap();
            let recordings = folder.path().join("recordings");
            std::fs::create_dir(&recordings).unwrap();
            std::fs::write(recordings.join("jobs.measured.json"), measured.to_string()).unwrap();
            let mut trial = trial(Policy::target_wait(Duration::from_secs(30)));
            trial.timings_before = crate::recordings::measured_before(folder.path(), &"jobs".into());
            is_tried_without_a_panic(&trial);
        }

        #[test]
        fn no_measurements_of_a_pool_make_a_trial_panic(timings in any_timings()) {
            let mut trial = trial(Policy::target_wait(Duration::from_secs(30)));
            trial.timings = timings;
            is_tried_without_a_panic(&trial);
        }
    }
}
