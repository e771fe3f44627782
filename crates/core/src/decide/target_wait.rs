//! The policy `target_wait`: as many workers as keep waiting under a target.
//!
//! Two terms, from measurements:
//! - *arrivals*: by Little's law, `arrivals x run time` workers are busy on average. Divided by the planned utilisation,
//!   they have time to spare for bursts.
//! - *backlog*: the busy ones of above, and as many more as work off all waiting messages within the time that is left.
//!
//! The larger term wins: the spare time of the first also works on the backlog. Both look one start-up time ahead,
//! because a worker that is started now takes its first message only then.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{Inputs, Recommendation, STUCK_AFTER, Spread};

/// Jobs that must have succeeded before their run time is used.
const LEAST_SAMPLES: u64 = 5;

/// Most workers that are started before it is known how long jobs run.
const BOUNDED_START: u64 = 10;

/// Part of the target that is planned with. The rest is for chance: run times and arrivals are averages.
const PLANNED: f64 = 0.7;

/// Settings of the policy `target_wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TargetWait {
    /// The longest that 95 of 100 messages should wait.
    #[serde(with = "text")]
    pub target: Duration,
    /// The share of their time that workers are planned to be busy.
    pub utilisation: Utilisation,
}

impl TargetWait {
    /// This target, with a utilisation of 80 %.
    pub fn new(target: Duration) -> Self {
        Self {
            target,
            utilisation: Utilisation::default(),
        }
    }

    /// The same target, with another utilisation.
    #[must_use]
    pub fn utilisation(mut self, utilisation: Utilisation) -> Self {
        self.utilisation = utilisation;
        self
    }

    /// Workers for this queue, before any bound, and why.
    pub(super) fn recommendation(&self, inputs: &Inputs, expected: u32) -> Recommendation {
        let Recommendation { workers, why } = match inputs.measured.timings.service {
            Some(service) if service.samples >= LEAST_SAMPLES => self.measured(inputs, service),
            service => self.unmeasured(inputs, service),
        };
        match self.fruitless(inputs) {
            Some(since) if workers < expected => Recommendation::new(
                expected,
                format!(
                    "stuck: no job succeeded for {}, so {expected} workers stay ({why})",
                    human(since)
                ),
            ),
            _ => Recommendation::new(workers, why),
        }
    }

    /// How long nothing succeeded, where that is too long to be chance. What is measured then says nothing about the
    /// jobs that run now.
    fn fruitless(&self, inputs: &Inputs) -> Option<Duration> {
        let timings = &inputs.measured.timings;
        let usual = timings
            .service
            .map_or(Duration::ZERO, |service| service.p95);
        timings
            .fruitless
            .filter(|since| *since >= STUCK_AFTER.max(usual * 2))
    }

    fn measured(&self, inputs: &Inputs, service: Spread) -> Recommendation {
        let mean = service.mean.as_secs_f64();
        let waiting = inputs.ready.saturating_add(inputs.behind);
        let start_up = inputs.measured.timings.start_up;
        let lead = start_up.map_or(0.0, |start_up| start_up.p95.as_secs_f64());
        let target = self.target.as_secs_f64();
        let left = (target * PLANNED - lead).max(target / 4.0);
        let backlog = waiting as f64 * mean / left;

        let Some(arrivals) = inputs.measured.arrivals else {
            let workers = whole(backlog);
            return Recommendation::new(
                workers,
                format!(
                    "{}: {waiting} waiting x {} within {} = {backlog:.1}; arrivals are not known yet",
                    count(workers),
                    seconds(mean),
                    seconds(left)
                ),
            );
        };
        let rate = arrivals.fast.max(arrivals.slow);
        let busy = rate * mean;
        let share = self.utilisation.share();
        let relaxed = busy / share;
        let workers = whole(relaxed.max(busy + backlog));
        Recommendation::new(
            workers,
            format!(
                "{}: {rate:.2} jobs/s x {} at {} = {relaxed:.1}; {waiting} waiting within {} needs {backlog:.1} beside \
                 {busy:.1} busy",
                count(workers),
                seconds(mean),
                self.utilisation,
                seconds(left),
            ),
        )
    }

    /// Before enough jobs have succeeded, their run time is not known.
    fn unmeasured(&self, inputs: &Inputs, service: Option<Spread>) -> Recommendation {
        let demand = inputs.demand;
        let samples = service.map_or(0, |service| service.samples);
        let known = match samples {
            0 => String::from("no job has succeeded yet"),
            1 => String::from("only 1 job has succeeded yet"),
            n => format!("only {n} jobs have succeeded yet"),
        };
        // A job that is still running after this time tells that those that wait would be late.
        let slow = inputs
            .measured
            .timings
            .fruitless
            .filter(|since| *since >= self.target / 2);
        let (workers, rule) = match slow {
            None => (
                demand.min(BOUNDED_START),
                format!("one worker for each job, at most {BOUNDED_START}"),
            ),
            Some(since) => (
                demand,
                format!("nothing for {}: one worker for each job", human(since)),
            ),
        };
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        Recommendation::new(
            workers,
            format!(
                "{}: {known}, {rule}, for {demand} jobs of demand",
                count(workers)
            ),
        )
    }
}

/// `wait under 30s at 80 % utilisation`.
impl fmt::Display for TargetWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = human(self.target);
        write!(f, "wait under {target} at {} utilisation", self.utilisation)
    }
}

/// A share of time between 10 % and 100 %, in steps of 0.1 %. As data it is a number: 0.8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Utilisation(u16);

impl Utilisation {
    /// The least share.
    pub const LEAST: f64 = 0.1;

    /// This share, or `None` if it is not between 0.1 and 1.
    pub fn new(share: f64) -> Option<Self> {
        (Self::LEAST..=1.0)
            .contains(&share)
            .then(|| Self((share * 1000.0).round() as u16))
    }

    /// This share, or the nearest bound.
    pub(super) fn clamped(share: f64) -> Self {
        let share = if share.is_nan() { 1.0 } else { share };
        Self::new(share.clamp(Self::LEAST, 1.0)).expect("it is within the bounds")
    }

    /// The share: 0.8.
    pub fn share(self) -> f64 {
        f64::from(self.0) / 1000.0
    }
}

impl Default for Utilisation {
    fn default() -> Self {
        Self(800)
    }
}

/// `80 %`.
impl fmt::Display for Utilisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", f64::from(self.0) / 10.0)
    }
}

impl Serialize for Utilisation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.share())
    }
}

impl<'de> Deserialize<'de> for Utilisation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let share = f64::deserialize(deserializer)?;
        Self::new(share).ok_or_else(|| D::Error::custom("a share from 0.1 to 1"))
    }
}

/// A duration as text: `"30s"`.
mod text {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(D::Error::custom)
    }
}

/// Rounded up, but not for what is only an error of arithmetic.
fn whole(workers: f64) -> u32 {
    // A cast from a float saturates.
    (workers - 1e-6).ceil().max(0.0) as u32
}

fn count(workers: u32) -> String {
    match workers {
        1 => String::from("1 worker"),
        n => format!("{n} workers"),
    }
}

fn seconds(seconds: f64) -> String {
    match seconds {
        0.0..1.0 => format!("{:.0} ms", seconds * 1000.0),
        1.0..10.0 => format!("{seconds:.1} s"),
        _ => format!("{seconds:.0} s"),
    }
}

fn human(duration: Duration) -> String {
    let rounded = match duration.as_secs() {
        0 => duration,
        seconds => Duration::from_secs(seconds),
    };
    humantime::format_duration(rounded).to_string()
}
