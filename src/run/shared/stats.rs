//! The counts of a pool: totals for the status, rates of the last minute, and the metrics. Each fact is reported here
//! once, and is passed to those of the three that need it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    decide::{Moment, PoolName},
    run::{
        metrics::{JobOutcome, PoolMetrics, ReplyOutcome, Settlement},
        recent_stats::RecentStats,
        status::{JobTotals, ReplyTotals},
    },
};

/// A pool's counts. Written by workers and by the pool, read for the status.
pub(crate) struct PoolStats {
    pub(crate) metrics: PoolMetrics,
    /// Read for the status.
    pub(crate) recent: RecentStats,
    settlements: [AtomicU64; Settlement::ALL.len()],
    replies: [AtomicU64; ReplyOutcome::ALL.len()],
    stopped: AtomicU64,
    /// When the last delivery was taken, in microseconds since the supervisor's start, plus one; 0 for never. Written
    /// by workers, read by the pool.
    last_taken: AtomicU64,
}

impl PoolStats {
    pub(super) fn new(pool: &PoolName) -> Self {
        Self {
            metrics: PoolMetrics::new(pool),
            recent: RecentStats::default(),
            settlements: Default::default(),
            replies: Default::default(),
            stopped: AtomicU64::new(0),
            last_taken: AtomicU64::new(0),
        }
    }

    /// A worker has taken a delivery.
    pub(crate) fn delivery_taken(&self, now: Moment) {
        let micros = now.since(Moment::ZERO).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX - 1);
        self.last_taken.fetch_max(micros + 1, Ordering::Relaxed);
    }

    /// When a worker took the last delivery.
    pub(crate) fn last_taken(&self) -> Option<Moment> {
        let micros = self.last_taken.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Moment::after_start(Duration::from_micros(micros)))
    }

    /// A job begins. Its message was published this long before, if that is known.
    pub(crate) fn job_began(&self, now: Moment, waited: Option<Duration>) {
        if let Some(waited) = waited {
            self.metrics.job_waited(waited);
        }
        self.recent.job_began(now, waited);
    }

    /// A job has ended after running this long.
    pub(crate) fn job_ended(&self, now: Moment, outcome: JobOutcome, took: Duration) {
        self.metrics.job_ended(outcome, took);
        let is_its_own_end = !matches!(
            outcome,
            JobOutcome::Stopped | JobOutcome::Deadline | JobOutcome::NotStarted
        );
        if is_its_own_end {
            self.recent
                .job_ended(now, took, outcome == JobOutcome::Done);
        }
    }

    /// A delivery was settled.
    pub(crate) fn settled(&self, settlement: Settlement) {
        self.metrics.settled(settlement);
        self.settlements[settlement as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Deliveries went back to the queue with the task that held them.
    pub(crate) fn given_back(&self, deliveries: u32) {
        for _ in 0..deliveries {
            self.settled(Settlement::Requeue);
        }
    }

    /// A reply was sent, or could not be sent.
    pub(crate) fn replied(&self, outcome: ReplyOutcome) {
        self.metrics.replied(outcome);
        self.replies[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// tidegate stopped a job.
    pub(crate) fn job_stopped(&self) {
        self.stopped.fetch_add(1, Ordering::Relaxed);
    }

    /// Jobs that tidegate stopped.
    pub(crate) fn stopped(&self) -> u64 {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The results of jobs since the supervisor's start.
    pub(crate) fn jobs(&self) -> JobTotals {
        let of =
            |settlement: Settlement| self.settlements[settlement as usize].load(Ordering::Relaxed);
        JobTotals {
            done: of(Settlement::Ack),
            retried: of(Settlement::Retry),
            dead: of(Settlement::DeadLetter) + of(Settlement::Reject),
            requeued: of(Settlement::Requeue) + of(Settlement::RequeueCopy),
            lost: of(Settlement::Lost) + of(Settlement::LostCopy),
        }
    }

    /// Jobs that left the queue: done, retried later, or dead-lettered.
    pub(crate) fn gone(&self) -> u64 {
        let JobTotals {
            done,
            retried,
            dead,
            ..
        } = self.jobs();
        done + retried + dead
    }

    /// The results of replies since the supervisor's start.
    pub(crate) fn replies(&self) -> ReplyTotals {
        let of = |outcome: ReplyOutcome| self.replies[outcome as usize].load(Ordering::Relaxed);
        ReplyTotals {
            done: of(ReplyOutcome::Done),
            failed: of(ReplyOutcome::Failed) + of(ReplyOutcome::TooLarge),
            refused: of(ReplyOutcome::Refused),
            undeliverable: of(ReplyOutcome::Undeliverable),
        }
    }
}
