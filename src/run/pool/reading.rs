//! Reading the depth and cleaning up: the part of a reconcile that waits. At most one reading runs at a time.

use std::{mem, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::time::{self, Instant};
use tracing::{Instrument as _, debug_span};

use super::{
    programs::{self, ProgramsView},
    request::ResultRequest,
};
use crate::{
    config::{Declare, PoolSettings},
    decide::{Moment, Probe, ReconcileResult, absent_pause},
    queue::{QueueDepth, QueueDriver, QueueError, QueueErrorKind},
    run::{declaring::declare, panics, shared::PoolShared},
    runner::CleanupReport,
};
use tidegate_core::text::chain;

/// Longest time that a runner manager may clean up in one reading.
const CLEANUP: Duration = Duration::from_secs(10);

/// The data from outside that a reconcile needs.
pub(super) struct PoolReading {
    /// When the reading began. The broker may not know consumers yet that were opened later.
    pub(super) begun: Moment,
    pub(super) cleaned: CleanupReport,
    pub(super) probe: Probe,
    /// Whether the broker refuses to show the queue until an operator changes something.
    pub(super) refused: bool,
    /// What programs hold that consume the queue themselves, if that was looked at.
    pub(super) viewed: Option<ProgramsView>,
}

/// The reading that runs now, and the callers that wait for one.
#[derive(Default)]
pub(super) struct ReadingState {
    running: Option<BoxFuture<'static, PoolReading>>,
    /// Callers that wait for the reading that runs now.
    waiting: Vec<ResultRequest>,
    /// Callers that asked after it began, and so need another one.
    late: Vec<ResultRequest>,
    /// While the queue is missing: the pause before the next reading of the clock, and when the pause is over.
    absent: Option<(Duration, Instant)>,
}

impl ReadingState {
    /// Starts a reading, unless one runs.
    pub(super) fn start(&mut self, shared: &Arc<PoolShared>) {
        if self.running.is_some() {
            return;
        }
        let shared = shared.clone();
        let span = debug_span!("read", pool = %shared.name);
        self.running = Some(async move { read(&shared).await }.instrument(span).boxed());
    }

    /// The result of the reading that runs now. Pending for ever if none runs. Cancel-safe.
    pub(super) async fn next(&mut self) -> PoolReading {
        match &mut self.running {
            Some(running) => running.await,
            None => std::future::pending().await,
        }
    }

    /// Adds a caller. Returns whether a reading must be started for it.
    pub(super) fn add(&mut self, request: ResultRequest) -> bool {
        if self.running.is_some() && !request.joins {
            self.late.push(request);
            return false;
        }
        self.waiting.push(request);
        true
    }

    /// A reconcile took place while the reading was running. Its result counts for the callers that accept it.
    pub(super) fn add_result(&mut self, result: &ReconcileResult) {
        for request in self.waiting.iter_mut().filter(|request| request.joins) {
            request.before = mem::take(&mut request.before).and(result);
        }
    }

    /// The reason of the reconcile for which the reading was made.
    pub(super) fn reason(&self) -> &'static str {
        self.waiting
            .first()
            .map_or("poll", |request| request.reason)
    }

    /// The reading is done. `is_absent`: the queue is missing, or may not be read; then the next readings of the clock
    /// come at growing intervals.
    pub(super) fn done(&mut self, is_absent: bool, interval: Duration) {
        self.running = None;
        self.absent = is_absent.then(|| {
            let pause = absent_pause(self.absent.map(|(pause, _)| pause), interval);
            (pause, Instant::now() + pause)
        });
    }

    /// The callers that waited for the reading that is done. Those that asked later wait for the next one.
    pub(super) fn take_waiting(&mut self) -> Vec<ResultRequest> {
        let late = mem::take(&mut self.late);
        mem::replace(&mut self.waiting, late)
    }

    /// Whether a caller waits for a reading.
    pub(super) fn is_wanted(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether the clock starts no reading now, because the queue was missing a moment ago.
    pub(super) fn is_paused(&self) -> bool {
        self.absent.is_some_and(|(_, until)| Instant::now() < until)
    }

    /// Drops the reading that runs now, because it belongs to another queue. Its callers wait for the next one.
    pub(super) fn restart(&mut self) {
        self.running = None;
        self.absent = None;
        let mut waiting = mem::take(&mut self.late);
        waiting.append(&mut self.waiting);
        self.waiting = waiting;
    }
}

/// Cleans up and reads the queue's depth: the first two steps of a reconcile.
///
/// # Cancel-safety
/// Cancel-safe: the next reading does it again.
pub(super) async fn read(shared: &PoolShared) -> PoolReading {
    let begun = shared.now();
    // A manager that hangs must not delay the pool. The next cleanup does the rest.
    let cleaned = time::timeout(CLEANUP, shared.fleet.cleanup())
        .await
        .unwrap_or_default();
    let settings = shared.settings();
    let probe = panics::catch_future(|| {
        let declared_then_probed = async {
            shared
                .declaring
                .keep(&*shared.broker.driver, &settings)
                .await;
            probe(&*shared.broker.driver, &settings).await
        };
        declared_then_probed.boxed()
    });
    let (probe, viewed) = tokio::join!(probe, programs::look(shared));
    let (probe, refused) = probe.unwrap_or_else(|panicked| {
        let why = format!("the queue driver panicked: {panicked}");
        (Probe::Failed { why }, false)
    });
    PoolReading {
        begun,
        cleaned,
        probe,
        refused,
        viewed,
    }
}

/// Reads the queue's depth. Declares the queue if it is missing and the settings say so. The flag says whether the broker
/// refuses this until an operator changes something.
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
