//! Whether the pool can get its messages: reports consumers that cannot be opened, and a queue that delivers nothing.

use tracing::{info, warn};

use crate::{
    decide::{Depth, Phase, Probe, StuckInputs, StuckWatch},
    run::shared::PoolShared,
};

/// The watch for a stuck pool, and the cause that was logged.
#[derive(Debug, Default)]
pub(super) struct StuckReport {
    watch: StuckWatch,
    /// Whether the log says that consumers cannot be opened.
    is_refused: bool,
    is_stuck: bool,
}

impl StuckReport {
    /// Decides whether the pool is stuck. Returns the cause, and logs it once.
    pub(super) fn check(
        &mut self,
        shared: &PoolShared,
        inputs: &StuckInputs<'_>,
    ) -> Option<String> {
        let cause = self.watch.check(inputs);
        let name = &shared.name;
        // The broker's words may differ from try to try. It matters only that there is a refusal.
        match (inputs.refusal, self.is_refused) {
            (Some(refusal), false) => warn!(
                pool = %name,
                error = refusal.why,
                "a consumer could not be opened: trying one at a time, less and less often"
            ),
            (None, true) => info!(pool = %name, "consumers open again"),
            _ => {}
        }
        self.is_refused = inputs.refusal.is_some();
        match (&cause, self.is_stuck) {
            (Some(cause), false) => warn!(pool = %name, cause, "pool is stuck"),
            (None, true) => info!(pool = %name, "pool is no longer stuck"),
            _ => {}
        }
        self.is_stuck = cause.is_some();
        let since = self.watch.since().filter(|_| self.is_stuck);
        let lasted = since.map(|since| inputs.at.since(since));
        shared.stats.metrics.stuck(lasted);
        cause
    }
}

/// The depth as the decision about a stuck pool needs it. `refused`: the broker does not let the pool read it.
pub(super) fn depth_of<'p>(probe: &'p Probe, stale: Option<&'p str>, refused: bool) -> Depth<'p> {
    match (probe, stale) {
        (Probe::Skipped, _) => Depth::Skipped,
        (Probe::Missing, _) => Depth::Missing,
        (Probe::Failed { why }, _) => Depth::Unread {
            why,
            permanent: refused,
        },
        (Probe::Answered { .. }, Some(why)) => Depth::Unread {
            why,
            permanent: false,
        },
        (&Probe::Answered { ready, consumers }, None) => Depth::Read { ready, consumers },
    }
}

/// How many of the planned workers may be started now. Fewer than planned if consumers cannot be opened.
pub(super) fn allowed_openings(shared: &PoolShared, planned: u32) -> u32 {
    let is_opening = shared.roster.workers().values().any(|worker| {
        let worker = worker.snapshot();
        worker.phase == Phase::Waiting && worker.consuming.is_none()
    });
    let mut openings = shared.broker.openings();
    if planned == 0 && !is_opening {
        openings.satisfied();
    }
    openings.may_open(shared.now(), planned, is_opening)
}
