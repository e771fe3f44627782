//! Looking: the part of a reconcile that waits for the outside world.

use std::time::Duration;

use tokio::time;

use crate::{
    config::{Declare, PoolSettings},
    decide::{Moment, Probe},
    queue::{QueueDepth, QueueDriver, QueueError, QueueErrorKind},
    run::{declaring::declare, settling::chain, shared::Shared},
    runner::CleanupReport,
};

/// Longest that a runner manager may clean up in one look.
const CLEANUP: Duration = Duration::from_secs(10);

/// What a reconcile saw of the outside world.
pub(super) struct Look {
    /// When it began: consumers that are younger may be unknown to the broker yet.
    pub(super) begun: Moment,
    pub(super) cleaned: CleanupReport,
    pub(super) probe: Probe,
}

/// Cleans up and reads the queue's depth: the first two steps of a reconcile.
///
/// # Cancel-safety
/// Cancel-safe: the next look does it again.
pub(super) async fn look(shared: &Shared) -> Look {
    let begun = shared.now();
    let manager = shared.fleet.manager();
    // A manager that hangs must not hold the pool up: what it did not clean now is there the next time.
    let cleaned = time::timeout(CLEANUP, manager.cleanup())
        .await
        .unwrap_or_default();
    let settings = shared.settings();
    shared.declaring.keep(&*shared.driver, &settings).await;
    let probe = probe(&*shared.driver, &settings).await;
    Look {
        begun,
        cleaned,
        probe,
    }
}

/// Reads the queue's depth, and declares the queue where it is missing and the pool is told to.
async fn probe(driver: &dyn QueueDriver, settings: &PoolSettings) -> Probe {
    let missing = |error: &QueueError| error.kind == QueueErrorKind::NotFound;
    let mut answer = driver.probe(&settings.queue).await;
    if answer.as_ref().is_err_and(missing) && settings.declare != Declare::No {
        answer = match declare(driver, settings).await {
            Ok(()) => driver.probe(&settings.queue).await,
            Err(error) => Err(error),
        };
    }
    match answer {
        Ok(QueueDepth { ready, consumers }) => Probe::Answered { ready, consumers },
        Err(error) if missing(&error) => Probe::Missing,
        Err(error) => Probe::Failed {
            why: format!("failed to {}", chain(&error)),
        },
    }
}
