//! Looking: the part of a reconcile that waits for the outside world.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time;

use crate::{
    config::{Declare, PoolSettings},
    decide::{Moment, Probe},
    queue::{QueueDepth, QueueDriver, QueueError, QueueErrorKind},
    run::{contain, declaring::declare, shared::PoolShared},
    runner::CleanupReport,
};
use tidegate_core::text::chain;

/// Longest that a runner manager may clean up in one look.
const CLEANUP: Duration = Duration::from_secs(10);

/// What a reconcile saw of the outside world.
pub(super) struct PoolReading {
    /// When it began: consumers that are younger may be unknown to the broker yet.
    pub(super) begun: Moment,
    pub(super) cleaned: CleanupReport,
    pub(super) probe: Probe,
    /// Whether the broker refuses to be asked, until someone changes something.
    pub(super) refused: bool,
}

/// Cleans up and reads the queue's depth: the first two steps of a reconcile.
///
/// # Cancel-safety
/// Cancel-safe: the next look does it again.
pub(super) async fn look(shared: &PoolShared) -> PoolReading {
    let begun = shared.now();
    // A manager that hangs must not hold the pool up: what it did not clean now is there the next time.
    let cleaned = time::timeout(CLEANUP, shared.fleet.cleanup())
        .await
        .unwrap_or_default();
    let settings = shared.settings();
    let probe = contain::future(|| {
        let declared_then_probed = async {
            shared.declaring.keep(&*shared.driver, &settings).await;
            probe(&*shared.driver, &settings).await
        };
        declared_then_probed.boxed()
    });
    let probe = probe.await;
    let (probe, refused) = probe.unwrap_or_else(|panicked| {
        let why = format!("the queue driver panicked: {panicked}");
        (Probe::Failed { why }, false)
    });
    PoolReading {
        begun,
        cleaned,
        probe,
        refused,
    }
}

/// Reads the queue's depth, and declares the queue where it is missing and the pool is told to. Says also whether the
/// broker refuses that for good.
async fn probe(driver: &dyn QueueDriver, settings: &PoolSettings) -> (Probe, bool) {
    let missing = |error: &QueueError| error.kind == QueueErrorKind::NotFound;
    let mut answer = driver.probe(&settings.queue).await;
    if answer.as_ref().is_err_and(missing) && settings.declare != Declare::No {
        answer = match declare(driver, settings).await {
            Ok(()) => driver.probe(&settings.queue).await,
            Err(error) => Err(error),
        };
    }
    let refused = answer
        .as_ref()
        .is_err_and(|error| !missing(error) && !error.is_transient());
    let probe = match answer {
        Ok(QueueDepth { ready, consumers }) => Probe::Answered { ready, consumers },
        Err(error) if missing(&error) => Probe::Missing,
        Err(error) => Probe::Failed { why: chain(&error) },
    };
    (probe, refused)
}
