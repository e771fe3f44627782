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
    /// What was done for the request before that reconcile, such as a flush.
    pub(super) before: ReconcileResult,
    /// Whether a reading that has already begun is enough. If not, the reconcile must use a reading that begins after the
    /// request.
    pub(super) joins: bool,
}

/// How the caller gets the result.
pub(super) enum Answer {
    Plain(oneshot::Sender<ReconcileResult>),
    Steered(Changed, oneshot::Sender<Result<Steered, OrderRefused>>),
}
