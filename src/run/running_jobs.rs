//! The jobs that run now, for `jobs` and the API, and how an operator stops one of them.
//!
//! Written by workers, each for the one job that it runs; read for the status. A job is told to stop through its entry. The
//! worker removes the entry under the same lock, so an order that comes too late finds no entry.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    decide::{JobId, RunnerId, WorkerId},
    runner::{Failure, FailureKind, JobEnd},
};

/// How a message is settled if an operator stops its job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopThen {
    /// It is retried later with backoff, and an attempt is spent, as if the job had failed.
    #[default]
    Retry,
    /// It is dead-lettered at once.
    Reject,
    /// It goes back to its queue, and no attempt is spent. A worker may take it at once.
    Requeue,
}

impl StopThen {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Reject => "reject",
            Self::Requeue => "requeue",
        }
    }
}

/// A job that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunningJob {
    /// Its id. Ids come from the publishers of the messages, so two jobs may have the same id.
    pub id: JobId,
    /// The worker that it runs on.
    pub worker: WorkerId,
    /// The runner that it runs on.
    pub runner: RunnerId,
    /// Which attempt this is: 1 is the first.
    pub attempt: u32,
    /// Since when it runs.
    pub since: Timestamp,
    /// When it is stopped at the latest: at its runner's timeout, or when its delivery can be held no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// How its message is settled, if a stop was ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping: Option<Stopping>,
}

/// A job was told to stop by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// How its message is settled.
    pub then: StopThen,
    /// By whom.
    pub by: String,
}

impl Stopping {
    /// The end of a job that was stopped so. The chosen settlement follows from it.
    pub(crate) fn end(self) -> JobEnd {
        let reason = format!("stopped by hand, by {}", self.by);
        match self.then {
            StopThen::Retry => JobEnd::Failed(Failure {
                kind: FailureKind::Error,
                message: reason,
                stderr_tail: None,
            }),
            StopThen::Reject => JobEnd::Rejected {
                reason,
                failure: None,
            },
            StopThen::Requeue => JobEnd::Stopped,
        }
    }
}

/// The jobs of a pool that run now.
#[derive(Debug, Default)]
pub(crate) struct RunningJobs {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    jobs: BTreeMap<u64, JobDescription>,
}

/// A job, as its worker describes it.
#[derive(Debug)]
pub(crate) struct JobDescription {
    pub(crate) id: JobId,
    pub(crate) worker: WorkerId,
    pub(crate) runner: RunnerId,
    pub(crate) attempt: u32,
    pub(crate) since: Instant,
    pub(crate) deadline: Instant,
    /// Ends it with grace.
    pub(crate) stop: CancellationToken,
    /// Written by the caller that stops the job.
    pub(crate) stopping: Option<Stopping>,
}

impl RunningJobs {
    /// A job begins. It is in the list until the entry is dropped.
    pub(crate) fn enter(&self, job: JobDescription) -> Entry<'_> {
        let mut state = self.state();
        let key = state.next;
        state.next += 1;
        state.jobs.insert(key, job);
        Entry {
            running: self,
            key: Some(key),
        }
    }

    /// The jobs, the oldest first. `clock` is the time now, on the wall clock.
    pub(crate) fn list(&self, clock: Timestamp) -> Vec<RunningJob> {
        let now = Instant::now();
        let jobs = self.state();
        let jobs = jobs.jobs.values();
        jobs.map(|job| RunningJob {
            id: job.id.clone(),
            worker: job.worker,
            runner: job.runner,
            attempt: job.attempt,
            since: clock
                .checked_sub(now.saturating_duration_since(job.since))
                .unwrap_or(clock),
            // A time that the calendar cannot show is left out.
            deadline: clock
                .checked_add(job.deadline.saturating_duration_since(now))
                .ok(),
            stopping: job.stopping.clone(),
        })
        .collect()
    }

    /// Tells the jobs with this id to stop, and returns how many there are. A job that was told before keeps its first
    /// order.
    pub(crate) fn stop(&self, id: &JobId, stopping: &Stopping) -> usize {
        let mut state = self.state();
        let jobs = state.jobs.values_mut().filter(|job| job.id == *id);
        jobs.map(|job| {
            job.stopping.get_or_insert_with(|| stopping.clone());
            job.stop.cancel();
        })
        .count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code of ours panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job's place in the list. It leaves on drop.
#[derive(Debug)]
pub(crate) struct Entry<'r> {
    running: &'r RunningJobs,
    key: Option<u64>,
}

impl Entry<'_> {
    /// The job has ended. Returns the order to stop, if there was one.
    pub(crate) fn leave(mut self) -> Option<Stopping> {
        self.take()
    }

    fn take(&mut self) -> Option<Stopping> {
        let key = self.key.take()?;
        let job = self.running.state().jobs.remove(&key);
        job.and_then(|job| job.stopping)
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.take();
    }
}
