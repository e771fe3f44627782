//! The policy `target_wait`: enough workers to keep waiting times below a target.
//!
//! Two numbers, from measurements:
//! - *useful*: by Little's law, `arrivals x run time` workers are busy on average. This number, divided by the
//!   planned utilisation, leaves workers spare time for bursts. More workers would only add cost.
//! - *needed*: enough to start all waiting messages within the time that is left of the target. The oldest message has
//!   used up part of it, and a worker that is started now takes its first message only after its start-up time.
//!
//! With fewer than *needed*, messages are late. Above both, workers are idle. Between the two the pool keeps its size,
//! so that random changes do not start and stop workers.
//!
//! If the target is many run times long and hardly anything waits, workers beyond the load itself go as well: the queue
//! is the reserve. It grows slowly then, and long before a message is late, *needed* brings the workers back.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{DrainAfter, Group, Inputs, Recommendation, STUCK_AFTER, Spread};
use crate::text::{self, counted, form_for};

/// How many jobs must have succeeded before the measured run time is used.
const LEAST_SAMPLES: u64 = 5;

/// Largest number of workers that are started before the run time of jobs is known.
const BOUNDED_START: u64 = 10;

/// Share of the target that the plan uses. The rest absorbs chance: run times and arrivals are averages.
const PLANNED: f64 = 0.8;

/// Smallest share of the target that the plan uses, even if the oldest message is already late.
const LEAST_LEFT: f64 = 0.15;

/// If the target is shorter than this many run times, there is no time to react to a backlog.
const RUN_TIMES_TO_REACT: f64 = 5.0;

/// If the target is longer than this many run times, workers need no spare time: messages can wait a little instead.
const RUN_TIMES_OF_RESERVE: f64 = 10.0;

/// Share of the target within which waiting is short, so that workers beyond the load may go.
const SHORT: f64 = 0.2;

/// Settings of the policy `target_wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TargetWait {
    /// The longest that 95 of 100 messages should wait.
    #[serde(with = "crate::json_time::text")]
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

    /// How long a queue must be empty before all workers stop, if the configuration file does not set it: a third of
    /// the target, from 5 s to a minute, and longer while messages come often.
    pub fn drain_after(&self) -> DrainAfter {
        let third = self.target / 3;
        DrainAfter::ByArrivals(third.clamp(Duration::from_secs(5), Duration::from_secs(60)))
    }

    /// Workers for this queue, before any bound, and why.
    pub(super) fn recommendation(&self, inputs: &Inputs, expected: u32) -> Recommendation {
        let Recommendation { workers, why } = match inputs.measured.timings.service {
            Some(service) if service.samples >= LEAST_SAMPLES => {
                self.measured(inputs, service, expected)
            }
            service => self.unmeasured(inputs, service),
        };
        match self.fruitless(inputs) {
            Some(since) if workers < expected => Recommendation::new(
                expected,
                format!(
                    "stuck: no job succeeded for {}, so {} {} ({why})",
                    human(since),
                    counted(expected, "worker"),
                    form_for(expected, "stays", "stay")
                ),
            ),
            _ => Recommendation::new(workers, why),
        }
    }

    /// How long no job has succeeded, if that is too long to be chance. The measurements then say nothing about the
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

    /// From measured arrivals and run times: not fewer than `needed`, not more than `useful`, and between the two, as
    /// many as there are now.
    fn measured(&self, inputs: &Inputs, service: Spread, expected: u32) -> Recommendation {
        let mean = service.mean.as_secs_f64();
        let target = self.target.as_secs_f64();
        let start_up = inputs.measured.timings.start_up;
        let lead = start_up.map_or(0.0, |start_up| start_up.p95.as_secs_f64());
        let (fast, slow) = match inputs.measured.arrivals {
            Some(arrivals) => (arrivals.fast, arrivals.slow),
            None => (0.0, 0.0),
        };
        let rate = fast.max(slow);
        let busy = rate * mean;

        // Messages that wait now, and those that will wait in addition when a worker that is started now is ready.
        // Messages that wait for a job of their key do not start sooner with more workers.
        let ahead = inputs.ahead.map_or(0, |ahead| ahead.ready);
        let waiting = inputs
            .ready
            .saturating_add(inputs.behind)
            .saturating_add(ahead);
        let elsewhere = inputs.group.as_ref().map_or(0, Group::busy_elsewhere);
        let holders = inputs.holders.saturating_add(elsewhere);
        let served = f64::from(holders) / mean.max(1e-9);
        let more = (fast - served).max(0.0) * lead;
        let age = inputs.oldest.map_or(0.0, |oldest| oldest.as_secs_f64());
        let left = (target * PLANNED - lead - age).max(target * LEAST_LEFT);
        let backlog = (waiting as f64 + more) * mean / left;

        // If run times are much shorter than the target, messages can wait for busy workers: a growing backlog is
        // seen in time. Otherwise workers must be free. With random arrivals, 19 of 20 messages wait less than the
        // target if `3 x run time / target` workers are free in addition to the busy ones.
        let room = (target * PLANNED - lead).max(target * LEAST_LEFT);
        let risk = (RUN_TIMES_TO_REACT * mean / room).min(1.0);
        let ready = risk * (busy + 3.0 * mean / room * busy.min(1.0));

        let relaxed = busy / self.utilisation.share();
        let at_least = u64::from(inputs.demand > 0) as u32;
        let needed = whole(backlog.max(ready)).max(at_least);

        // The lower average, so that workers go soon when fewer messages come. Rounded down: one worker too few lets
        // the queue grow by less than one message each run time.
        let spare = (RUN_TIMES_OF_RESERVE * mean / room - 1.0).clamp(0.0, 1.0);
        let load = fast.min(slow) * mean;
        let enough = load * (1.0 + spare * (1.0 / self.utilisation.share() - 1.0));
        let wait = waiting as f64 * mean / f64::from(expected.max(1));
        let is_short = wait.max(age) <= target * SHORT;
        let useful = if is_short {
            whole(relaxed).min((enough + 1e-6) as u32).max(needed)
        } else {
            whole(relaxed).max(needed)
        };
        let workers = expected.clamp(needed, useful);

        let mut why = match inputs.measured.arrivals {
            None => String::from("arrivals are not known yet"),
            Some(_) => format!(
                "{rate:.1} jobs/s x {} at {} = {relaxed:.1} at most",
                seconds(mean),
                self.utilisation
            ),
        };
        if more >= 0.5 {
            why = format!("{why}; {more:.0} more come before a new worker is ready");
        }
        why = format!(
            "{}: {why}; {waiting} waiting within {} needs {backlog:.1}",
            counted(workers, "worker"),
            seconds(left)
        );
        if ready > backlog {
            why = format!("{why}; {ready:.1} so that a message finds a worker in time");
        }
        if is_short && useful > needed && useful < whole(relaxed) {
            why = format!("{why}; while waiting is short, {useful} are enough");
        }
        if needed < workers && workers < useful {
            why = format!("{why}; between the two numbers the pool keeps its size");
        }
        Recommendation::new(workers, why)
    }

    /// Before enough jobs have succeeded, their run time is not known.
    fn unmeasured(&self, inputs: &Inputs, service: Option<Spread>) -> Recommendation {
        let demand = inputs.demand;
        let samples = service.map_or(0, |service| service.samples);
        let known = match samples {
            0 => String::from("no job has succeeded yet"),
            n => format!(
                "only {} {} succeeded yet",
                counted(n, "job"),
                form_for(n, "has", "have")
            ),
        };
        // If no job has succeeded by this time, the waiting messages would be late.
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
                format!(
                    "no job succeeded for {}: one worker for each job",
                    human(since)
                ),
            ),
        };
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        Recommendation::new(
            workers,
            format!(
                "{}: {known}, {rule}, for {} of demand",
                counted(workers, "worker"),
                counted(demand, "job")
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
    /// The smallest share.
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

/// Rounds up. An excess that is only a floating-point error is ignored.
fn whole(workers: f64) -> u32 {
    // A cast from a float saturates.
    (workers - 1e-6).ceil().max(0.0) as u32
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
    text::duration(rounded)
}

#[cfg(test)]
mod tests;
