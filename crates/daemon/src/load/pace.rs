//! The pace of a load: when the next message is due.

use std::time::Duration;

use super::{
    plan::LoadPlan,
    shape::{LoadSchedule, Until},
};

/// How much longer a load with a duration may send late messages.
const LATE: Duration = Duration::from_secs(5);

/// When the next message is due.
#[derive(Debug)]
pub(super) enum Pace {
    /// By a schedule. `next` is the due time that was taken from it.
    Scheduled {
        schedule: LoadSchedule,
        next: Option<Duration>,
    },
    /// As fast as the broker confirms: each is due when fewer than the maximum are in flight.
    Flat(Until),
}

impl Pace {
    pub(super) fn new(plan: &LoadPlan) -> Self {
        match plan.schedule() {
            None => Self::Flat(plan.until),
            Some(mut schedule) => {
                let next = schedule.next();
                Self::Scheduled { schedule, next }
            }
        }
    }

    /// When the next message is due, after this number of messages. `None`: no more messages are due.
    pub(super) fn due(&self, elapsed: Duration, sent: u64, until: Until) -> Option<Duration> {
        match self {
            Self::Scheduled { next, .. } => match until {
                Until::Time(end) if elapsed >= end + LATE => None,
                _ => *next,
            },
            Self::Flat(until) => match *until {
                Until::Count(count) => (sent < count).then_some(elapsed),
                Until::Time(end) => (elapsed < end).then_some(elapsed),
                Until::End => None,
            },
        }
    }

    /// When to check again, if the next message is due later. At once, if messages have no due time.
    pub(super) fn next(&self) -> Option<Duration> {
        match self {
            Self::Scheduled { next, .. } => *next,
            Self::Flat(_) => Some(Duration::ZERO),
        }
    }

    /// The due message was sent. Advances to the next one.
    pub(super) fn advance(&mut self) {
        if let Self::Scheduled { schedule, next } = self {
            *next = schedule.next();
        }
    }

    /// Messages that were due by now and were not sent.
    pub(super) fn unsent(&self, elapsed: Duration, ended_early: bool) -> u64 {
        match self {
            Self::Scheduled {
                schedule,
                next: Some(next),
            } if *next <= elapsed && !ended_early => {
                1 + schedule.clone().take_while(|due| *due <= elapsed).count() as u64
            }
            _ => 0,
        }
    }
}
