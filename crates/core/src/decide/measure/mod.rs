//! Measurements: what a pool knows about its own traffic, from events and depth readings.
//!
//! A [`Meter`] takes the events of workers: a delivery was taken, a job finished, a worker became ready. The reconciler
//! keeps an [`ArrivalMeter`], because only the reconciler knows which depth readings can be trusted. Both use a fixed
//! amount of memory and read no clock.

mod arrivals;
mod durations;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(super) use self::arrivals::ArrivalMeter;
use self::durations::Durations;
pub use self::{
    arrivals::{Arrivals, FAST, Rates, SLOW},
    durations::Spread,
};
use super::Moment;

/// Time constant of service and start-up times: a measurement of this age counts for 1/e (37 %) of a new one.
pub const SERVICE_CONSTANT: Duration = Duration::from_secs(600);

/// Time constant of waiting times. They change faster, because they follow the number of workers.
pub const WAIT_CONSTANT: Duration = Duration::from_secs(60);

/// Takes a pool's events and gives its [`Timings`].
#[derive(Debug, Clone)]
pub struct Meter {
    service: Durations,
    start_up: Durations,
    wait: Durations,
    /// The start of the time in which our workers have held deliveries and no job has succeeded.
    fruitless: Option<Moment>,
    finished: u64,
    failed: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            service: Durations::new(SERVICE_CONSTANT),
            start_up: Durations::new(SERVICE_CONSTANT),
            wait: Durations::new(WAIT_CONSTANT),
            fruitless: None,
            finished: 0,
            failed: 0,
        }
    }
}

impl Meter {
    /// A delivery was taken. `waited` is the time since its message was published, if the message says when.
    pub fn taken(&mut self, now: Moment, waited: Option<Duration>) {
        self.fruitless.get_or_insert(now);
        if let Some(waited) = waited {
            self.wait.add(now, waited);
        }
    }

    /// A job finished after this run time. The run time of a failed job is not measured: it may fail at once, and a job
    /// that succeeds may take minutes.
    pub fn finished(&mut self, now: Moment, took: Duration, is_success: bool) {
        if is_success {
            self.service.add(now, took);
            self.fruitless = Some(now);
            self.finished += 1;
        } else {
            self.failed += 1;
        }
    }

    /// A worker or a runner became ready this long after it was started.
    pub fn ready(&mut self, now: Moment, took: Duration) {
        self.start_up.add(now, took);
    }

    /// Run times of jobs that succeeded.
    pub fn service(&mut self, now: Moment) -> Option<Spread> {
        self.service.spread(now)
    }

    /// Times that messages waited.
    pub fn wait(&mut self, now: Moment) -> Option<Spread> {
        self.wait.spread(now)
    }

    /// The measurements as of `now`. `held` is the number of deliveries that our workers hold.
    pub fn timings(&mut self, now: Moment, held: u64) -> Timings {
        if held == 0 {
            // Nothing runs, so nothing can finish.
            self.fruitless = None;
        }
        Timings {
            service: self.service.spread(now),
            start_up: self.start_up.spread(now),
            wait: self.wait.spread(now),
            fruitless: self.fruitless.map(|since| now.since(since)),
            finished: self.finished,
            failed: self.failed,
        }
    }
}

/// How long jobs run and wait, and how long workers take to start. Measured by a [`Meter`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Timings {
    /// Run times of jobs that succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Spread>,
    /// Times from the start of a worker or runner until it was ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_up: Option<Spread>,
    /// Times from a message's `timestamp_in_ms` until its delivery was taken. Absent if messages have no timestamp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<Spread>,
    /// How long our workers have held deliveries without one job that succeeded. Absent if they hold none.
    #[serde(
        with = "crate::json_time::seconds_if_known",
        skip_serializing_if = "Option::is_none"
    )]
    pub fruitless: Option<Duration>,
    /// Jobs that succeeded since the start.
    pub finished: u64,
    /// Jobs that ran and did not succeed since the start.
    pub failed: u64,
}

/// All measurements that a policy is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Measured {
    /// How fast messages arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrivals: Option<Arrivals>,
    /// How long jobs run and wait, and how long workers take to start.
    #[serde(flatten)]
    pub timings: Timings,
}

#[cfg(test)]
mod tests;
