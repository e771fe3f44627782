//! The last failures of each pool, for the dashboard. They are kept in memory, are bounded, and are lost at a restart.
//!
//! Written by workers through [`EventSink`], read by the HTTP routes. The output of a job is kept unchanged and only
//! sent as JSON: readers escape it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::Serialize;
use tidegate::{
    decide::PoolName,
    run::{Event, EventSink, Fate, JobFailure},
    runner::{Failure, FailureKind},
    text::first_chars,
};

use crate::telemetry::events_file::EventsFile;

/// Failures of a pool that are kept.
const KEPT: usize = 50;

/// Characters of an error and of a job's id that are kept.
const MAX_CHARS: usize = 1024;

/// The last failures of every pool.
#[derive(Debug, Clone, Default)]
pub struct Failures(Arc<Mutex<HashMap<PoolName, VecDeque<Arc<Recent>>>>>);

/// A failure as the API shows it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Recent {
    at: Timestamp,
    job_id: Option<String>,
    attempt: u32,
    /// `retried` or `dead`.
    outcome: &'static str,
    /// Milliseconds until it runs again, if it does.
    retry_in_ms: Option<u64>,
    /// The reason of the dead letter, if there is one: the value of its header.
    reason: Option<&'static str>,
    /// The kind of the failure in one word, if a runner reported it.
    failure: Option<&'static str>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    error: String,
    /// The end of the job's standard error.
    stderr: Option<String>,
}

impl Recent {
    fn new(failure: JobFailure, at: Timestamp) -> Self {
        let (outcome, retry_in_ms, reason) = match failure.fate {
            Fate::Retried(delay) => ("retried", u64::try_from(delay.as_millis()).ok(), None),
            Fate::Dead(reason) => ("dead", None, Some(reason)),
        };
        let kind = failure.failure.as_ref().map(|failure| failure.kind);
        Self {
            at,
            job_id: failure.job_id.map(|id| cut(id.as_str().to_owned())),
            attempt: failure.attempt,
            outcome,
            retry_in_ms,
            reason,
            failure: kind.map(FailureKind::as_str),
            exit_code: match kind {
                Some(FailureKind::Exit(code)) => Some(code),
                _ => None,
            },
            signal: match kind {
                Some(FailureKind::Signal(signal)) => Some(signal),
                _ => None,
            },
            error: cut(failure.error),
            stderr: failure
                .failure
                .and_then(|Failure { stderr_tail, .. }| stderr_tail),
        }
    }
}

fn cut(mut text: String) -> String {
    text.truncate(first_chars(&text, MAX_CHARS).len());
    text
}

impl Failures {
    /// The failures of a pool, the newest first.
    pub fn of(&self, pool: &PoolName) -> Vec<Arc<Recent>> {
        let rings = self.lock();
        let ring = rings.get(pool).into_iter();
        ring.flat_map(|ring| ring.iter().rev()).cloned().collect()
    }

    /// Forgets the failures of every other pool.
    pub fn keep_only(&self, stays: impl Fn(&PoolName) -> bool) {
        self.lock().retain(|name, _| stays(name));
    }

    fn add(&self, pool: PoolName, recent: Recent) {
        let mut rings = self.lock();
        let ring = rings.entry(pool).or_default();
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(Arc::new(recent));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PoolName, VecDeque<Arc<Recent>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sink for the library's events: the events file, if there is one, and the last failures.
#[derive(Debug)]
pub(crate) struct Events {
    /// The file.
    pub file: Option<EventsFile>,
    /// The failures.
    pub failures: Failures,
}

impl EventSink for Events {
    fn emit(&self, event: Event) {
        if let Some(file) = &self.file {
            file.emit(event);
        }
    }

    fn job_failed(&self, failure: JobFailure) {
        let pool = failure.pool.clone();
        self.failures
            .add(pool, Recent::new(failure, Timestamp::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recent(attempt: u32) -> Recent {
        Recent {
            at: Timestamp::UNIX_EPOCH,
            job_id: None,
            attempt,
            outcome: "retried",
            retry_in_ms: Some(1000),
            reason: None,
            failure: Some("exit"),
            exit_code: Some(1),
            signal: None,
            error: "exit code 1".to_owned(),
            stderr: None,
        }
    }

    #[test]
    fn keeps_the_last_failures_of_each_pool_the_newest_first() {
        let failures = Failures::default();
        let (a, b) = (PoolName::from("a"), PoolName::from("b"));
        for attempt in 0..KEPT + 3 {
            failures.add(a.clone(), recent(u32::try_from(attempt).unwrap()));
        }
        failures.add(b.clone(), recent(1));
        let of_a = failures.of(&a);
        assert_eq!(of_a.len(), KEPT);
        assert_eq!((of_a[0].attempt, of_a[KEPT - 1].attempt), (52, 3));
        failures.keep_only(|name| *name == b);
        assert!(failures.of(&a).is_empty());
        assert_eq!(failures.of(&b).len(), 1);
    }

    #[test]
    fn a_long_error_is_cut_between_two_characters() {
        assert_eq!(cut("é".repeat(MAX_CHARS + 1)), "é".repeat(MAX_CHARS));
        assert_eq!(cut("short".to_owned()), "short");
    }
}
