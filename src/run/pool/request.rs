//! A caller that waits for the result of a reconcile.

use tokio::sync::oneshot;

use crate::{
    decide::{Changed, OrderRefused, ReconcileResult},
    run::Steered,
};

/// A caller that waits for the result of a reconcile.
pub(super) struct ResultRequest {
    pub(super) answer: Answer,
    pub(super) reason: &'static str,
    /// The work that was done for the request before that reconcile.
    pub(super) before: ReconcileResult,
    /// Whether a reading that has begun already is good enough: the next reconcile does what is wanted, whatever its
    /// reading is.
    pub(super) joins: bool,
}

/// How the caller gets the result.
pub(super) enum Answer {
    Plain(oneshot::Sender<ReconcileResult>),
    Steered(Changed, oneshot::Sender<Result<Steered, OrderRefused>>),
}
