//! The commands to a pool, its events, and its decisions.

use std::time::Duration;

use tokio::{
    sync::oneshot,
    task::{self, JoinError},
};

use super::{reading::PoolReading, request::ResultRequest};
use crate::{
    decide::{ReconcileResult, SetPolicy},
    run::{FlushMode, Foresight, PoolSpec, steering::Steering, worker_state::WorkerStopReason},
};

/// A command to a pool. Sent by the supervisor's handle.
#[derive(Debug)]
pub(crate) enum PoolCommand {
    /// Reconcile now, and answer with the result.
    Reconcile(oneshot::Sender<ReconcileResult>),
    /// Apply an order of the operator, reconcile, and answer with the result of both.
    Steer(Box<Steering>),
    /// Delete runners now, and reconcile.
    Flush(FlushMode, oneshot::Sender<ReconcileResult>),
    /// Say what the pool would do now with this policy set by hand, or with none, and change nothing.
    Foresee(Option<Box<SetPolicy>>, oneshot::Sender<Foresight>),
    /// Apply a changed configuration, and answer when it is in force.
    Update(Box<PoolSpec>, oneshot::Sender<()>),
    /// Take no more messages, finish what is held, and end. Stop what still runs after this long.
    Drain(Duration),
    /// Fail as a bug of tidegate would make it fail.
    #[cfg(test)]
    Panic(&'static str),
}

/// An event of the pool.
pub(super) enum PoolEvent {
    /// Time to read the queue's depth.
    Tick,
    /// The reading that a reconcile needs has come back.
    ReadingDone(Box<PoolReading>),
    /// A worker's task ended.
    WorkerEnded(Result<(task::Id, WorkerStopReason), JoinError>),
    /// A background task ended: nothing depends on it.
    ChoreEnded,
    /// The gate was closed or opened.
    GateChanged,
    /// The daemons that share the queue changed.
    GroupChanged,
    /// The pool may have another number of the supervisor's workers.
    BudgetChanged,
    /// The supervisor has sent a command.
    Command(PoolCommand),
    /// The drain's deadline has passed.
    DeadlinePassed,
    /// The time for ending the jobs and for their settlements has passed too.
    Overdue,
    /// The supervisor stops everything now.
    Killed,
}

/// What the pool does after an event.
#[must_use = "a decision that is not carried out leaves the pool behind"]
pub(super) enum PoolAction {
    Nothing,
    /// Read the depth and clean up, and reconcile with the result.
    Read,
    /// Reconcile on the last reading.
    Reconcile(&'static str),
    /// Read, reconcile with the result, and answer a request.
    Answer(ResultRequest),
    /// Reconcile on the last reading, and answer a request.
    AnswerNow(ResultRequest),
    /// The pool has ended.
    End,
}
