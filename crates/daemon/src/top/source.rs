//! The data that this screen reads from a supervisor, and the orders that it sends.

use std::future::Future;

use tidegate::api::v1;

/// The details of one pool in addition to its numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Detail {
    /// The decision, as `explain` prints it.
    pub(crate) decision: String,
    /// Running jobs, a line each.
    pub(crate) jobs: Vec<String>,
}

/// The supervisor of this screen. An error is one line for people.
pub(crate) trait ScreenSource: Clone + Send + Sync + 'static {
    /// Every pool.
    fn pools(&self) -> impl Future<Output = Result<Vec<v1::Pool>, String>> + Send;
    /// One pool in detail.
    fn detail(&self, pool: &str) -> impl Future<Output = Result<Detail, String>> + Send;
    /// Gives an order to a pool, and returns a description of the result.
    fn steer(
        &self,
        pool: &str,
        steer: Steer,
    ) -> impl Future<Output = Result<String, String>> + Send;
}

/// An order that an operator can give to a pool on this screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steer {
    /// Stop intake.
    Pause,
    /// Open intake.
    Resume,
    /// Stop intake, and let every worker leave.
    Drain,
    /// Pin to a number of workers; `None` removes the pin.
    Scale(Option<u32>),
}
