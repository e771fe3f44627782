//! The state that a worker and its pool share.
//!
//! The worker itself changes between waiting and busy. The pool marks it and gives it orders. Both do this under one lock.
//! So a worker never begins a job after it was told to leave, and the pool never removes a mark from a worker that has
//! left because of it.
//!
//! ```text
//!        consumer_opened        begin_job
//! starting ───────────► waiting ◄───────────► busy        finish_job: the delivery is settled
//!     │                    │     finish_job     │
//!     │ order_to_leave     │ order_to_leave     │ mark_retiring: leaves at finish_job, unless unmarked before
//!     ▼                    ▼                    ▼ order_to_leave: leaves at finish_job
//!  leaving ◄───────────────┴────────────────────┘
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::decide::{Moment, Phase, WorkerId};

/// Why a worker leaves or has left: a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum WorkerStopReason {
    /// There were more workers than expected.
    ScaledDown,
    /// There were more workers than expected, and this one was busy: it finished its job first.
    Retired,
    /// Its job was stopped to scale down.
    Preempted,
    /// The pool ends, or its queue changed.
    Drained,
    /// A runner could not be started.
    Faulted,
    /// It gave its message back, so it had to stop consuming.
    GaveBack,
    /// It ran a message that may have caused crashes, and held no other message meanwhile.
    Alone,
    /// Its channel or connection was lost.
    Lost,
    /// The broker closed its channel, because a delivery was held longer than the broker allows.
    HeldTooLong,
    /// The broker cancelled its consumer: the queue was deleted, or a node has failed.
    Cancelled,
    /// Its consumer could not be opened.
    NotOpened,
    /// It was a program that consumes the queue itself, and ended by itself.
    Ended,
    /// A bug of tidegate.
    Panicked,
}

impl WorkerStopReason {
    pub(crate) const ALL: [Self; 13] = [
        Self::ScaledDown,
        Self::Retired,
        Self::Preempted,
        Self::Drained,
        Self::Faulted,
        Self::GaveBack,
        Self::Alone,
        Self::Lost,
        Self::HeldTooLong,
        Self::Cancelled,
        Self::NotOpened,
        Self::Ended,
        Self::Panicked,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ScaledDown => "scaled_down",
            Self::Retired => "retired",
            Self::Preempted => "preempted",
            Self::Drained => "drained",
            Self::Faulted => "faulted",
            Self::GaveBack => "gave_back",
            Self::Alone => "alone",
            Self::Lost => "lost",
            Self::HeldTooLong => "held_too_long",
            Self::Cancelled => "cancelled",
            Self::NotOpened => "not_opened",
            Self::Ended => "ended",
            Self::Panicked => "panicked",
        }
    }
}

/// The state that a worker and its pool share.
#[derive(Debug)]
pub(crate) struct WorkerState {
    pub(crate) id: WorkerId,
    state: Mutex<StateFields>,
    /// Wakes a waiting worker that was ordered to leave. Cancelled by the pool, read by the worker.
    pub(crate) leave: CancellationToken,
    /// Ends the worker's job with grace. Cancelled by the pool, read by the worker and its runner.
    pub(crate) stop: CancellationToken,
}

#[derive(Debug)]
struct StateFields {
    /// Deliveries that it holds: the one whose job runs, and those that wait behind it. Written by the worker.
    held: u32,
    /// Whether the job of one of them runs. Written by the worker.
    busy: bool,
    /// When the broker confirmed its consumer. Written by the worker.
    consuming: Option<Moment>,
    /// Since when its program is up, if it is a program that consumes the queue itself, and the program's process id.
    /// Written by the worker.
    program: Option<(Moment, Option<i32>)>,
    /// Why it leaves. Written by the pool, and by a worker that decides to leave by itself.
    leaving: Option<WorkerStopReason>,
    /// Written by the pool.
    retire: bool,
}

/// What a worker does after it has settled a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a worker that should leave must leave"]
pub(crate) enum AfterSettlement {
    Stay,
    Leave(WorkerStopReason),
}

/// A worker as the pool sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkerSnapshot {
    pub(crate) phase: Phase,
    pub(crate) held: u32,
    pub(crate) consuming: Option<Moment>,
    /// Since when it is a program that is up.
    pub(crate) up: Option<Moment>,
}

impl WorkerState {
    pub(crate) fn new(id: WorkerId, stop: CancellationToken) -> Self {
        Self {
            id,
            state: Mutex::new(StateFields {
                held: 0,
                busy: false,
                consuming: None,
                program: None,
                leaving: None,
                retire: false,
            }),
            leave: CancellationToken::new(),
            stop,
        }
    }

    // The worker's side.

    /// The broker has confirmed the consumer.
    pub(crate) fn consumer_opened(&self, now: Moment) {
        self.lock().consuming = Some(now);
    }

    /// The consumer is closed. A job may still run.
    pub(crate) fn consumer_closed(&self) {
        self.lock().consuming = None;
    }

    /// Its program is up. From here on the pool says what the program holds.
    pub(crate) fn program_started(&self, now: Moment, id: Option<i32>) {
        self.lock().program = Some((now, id));
    }

    /// Begins the job of a delivery. `false`: the worker was told to leave, and must give the delivery back.
    #[must_use = "a worker that was told to leave must not start a job"]
    pub(crate) fn begin_job(&self) -> bool {
        let mut state = self.lock();
        if state.leaving.is_some() {
            return false;
        }
        state.busy = true;
        state.held = state.held.max(1);
        true
    }

    /// Sets how many deliveries it holds now.
    pub(crate) fn set_held(&self, held: u32) {
        self.lock().held = held;
    }

    /// Whether the worker leaves after the delivery that it settles next. If so, its consumer must be cancelled first,
    /// because a broker answers an acknowledgement with the next message.
    pub(crate) fn leaves_after_this_job(&self) -> bool {
        let mut state = self.lock();
        if state.retire {
            state.leaving.get_or_insert(WorkerStopReason::Retired);
        }
        state.leaving.is_some()
    }

    /// A delivery is settled, and `held` deliveries are left. Returns what the worker does next.
    pub(crate) fn finish_job(&self, held: u32) -> AfterSettlement {
        let mut state = self.lock();
        state.held = held;
        if state.retire && state.leaving.is_none() {
            state.leaving = Some(WorkerStopReason::Retired);
        }
        // A worker that leaves counts as busy only as long as it holds a delivery.
        state.busy = held > 0;
        match state.leaving {
            Some(why) => AfterSettlement::Leave(why),
            None => AfterSettlement::Stay,
        }
    }

    /// The worker decides to leave. If it was ordered to leave before, the reason of the order stays. Returns the reason.
    pub(crate) fn leave_because(&self, why: WorkerStopReason) -> WorkerStopReason {
        *self.lock().leaving.get_or_insert(why)
    }

    // The pool's side.

    pub(crate) fn snapshot(&self) -> WorkerSnapshot {
        let state = self.lock();
        let phase = match (state.leaving, state.busy) {
            (Some(_), _) => Phase::Draining,
            (None, true) if state.retire => Phase::Retiring,
            (None, true) => Phase::Busy,
            (None, false) => Phase::Waiting,
        };
        WorkerSnapshot {
            phase,
            held: state.held,
            consuming: state.consuming.filter(|_| state.leaving.is_none()),
            up: state.program.map(|(since, _)| since),
        }
    }

    /// The process id of its program.
    pub(crate) fn program_id(&self) -> Option<i32> {
        self.lock().program?.1
    }

    /// Its program holds this many messages.
    pub(crate) fn set_program_holds(&self, held: u32) {
        let mut state = self.lock();
        state.held = held;
        state.busy = held > 0;
    }

    /// Marks it to leave after its job.
    pub(crate) fn mark_retiring(&self) {
        self.lock().retire = true;
    }

    /// Removes the mark. A worker that has already left because of it does not come back; the next reconcile sees that.
    pub(crate) fn unmark_retiring(&self) {
        self.lock().retire = false;
    }

    /// Orders it to leave: at once if it waits, after its job if it has one.
    pub(crate) fn order_to_leave(&self, why: WorkerStopReason) {
        self.lock().leaving.get_or_insert(why);
        self.leave.cancel();
    }

    /// Orders it to leave, and stops its job. The message is given back. Returns whether that is new to it.
    pub(crate) fn preempt(&self) -> bool {
        let is_new = !self.stop.is_cancelled();
        self.order_to_leave(WorkerStopReason::Preempted);
        self.stop.cancel();
        is_new
    }

    fn lock(&self) -> MutexGuard<'_, StateFields> {
        // No code of ours panics while it holds the lock, and the state is consistent after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> WorkerState {
        WorkerState::new(WorkerId(1), CancellationToken::new())
    }

    #[test]
    fn a_worker_that_was_told_to_leave_begins_no_job() {
        let worker = worker();
        worker.order_to_leave(WorkerStopReason::ScaledDown);
        assert!(!worker.begin_job());
        assert!(worker.leave.is_cancelled() && !worker.stop.is_cancelled());
    }

    #[test]
    fn a_mark_that_is_removed_in_time_keeps_the_worker() {
        let worker = worker();
        assert!(worker.begin_job());
        worker.mark_retiring();
        assert_eq!(worker.snapshot().phase, Phase::Retiring);
        worker.unmark_retiring();
        assert_eq!(worker.finish_job(0), AfterSettlement::Stay);
        assert_eq!(worker.snapshot().phase, Phase::Waiting);
    }

    #[test]
    fn a_mark_that_is_removed_too_late_does_not_bring_the_worker_back() {
        let worker = worker();
        assert!(worker.begin_job());
        worker.mark_retiring();
        assert_eq!(
            worker.finish_job(0),
            AfterSettlement::Leave(WorkerStopReason::Retired)
        );
        worker.unmark_retiring();
        assert_eq!(worker.snapshot().phase, Phase::Draining);
    }

    #[test]
    fn a_busy_worker_that_is_ordered_to_leave_finishes_first_and_is_draining_meanwhile() {
        let worker = worker();
        assert!(worker.begin_job());
        worker.order_to_leave(WorkerStopReason::Drained);
        assert_eq!(worker.snapshot().phase, Phase::Draining);
        assert_eq!(
            worker.finish_job(0),
            AfterSettlement::Leave(WorkerStopReason::Drained)
        );
    }

    #[test]
    fn only_preemption_stops_a_job() {
        let worker = worker();
        assert!(worker.begin_job());
        assert!(worker.preempt());
        assert!(worker.stop.is_cancelled());
        assert!(!worker.preempt(), "it was told before");
    }
}
