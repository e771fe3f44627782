//! The state of every route, and the type of a route.

use std::sync::Arc;

use axum::routing::MethodRouter;

use super::{control::Control, live::LiveStreams};
use crate::{
    actions::Actions, dead::DeadLetterAccess, failures::Failures, history::PoolHistory,
    lab::trials::Trials, telemetry::prometheus::Prometheus, view::View,
};
use tidegate::run::Supervisor;

/// The state that the routes read.
#[derive(Debug, Clone)]
pub struct Api {
    /// The pools.
    pub supervisor: Supervisor,
    /// The recorder behind `/metrics`.
    pub prometheus: Prometheus,
    /// The facts about the daemon that are shown with each pool.
    pub view: View,
    /// The daemon as a whole.
    pub control: Arc<dyn Control>,
    /// The source of the event stream.
    pub live: LiveStreams,
    /// The last hour of every pool.
    pub history: PoolHistory,
    /// The last failures of every pool.
    pub failures: Failures,
    /// The log of manual actions.
    pub actions: Actions,
    /// Access to the dead letters of every pool.
    pub dead: DeadLetterAccess,
    /// Policies tried on recordings.
    pub trials: Trials,
}

/// A route: its path, its methods, and its handler.
pub(super) type HttpRoute = (&'static str, &'static [&'static str], MethodRouter<Api>);
