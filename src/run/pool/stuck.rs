//! Whether the pool gets at its work: what is said of consumers that do not open and of a queue that gives nothing.

use tracing::{info, warn};

use super::Pool;
use crate::decide::{Counts, Depth, Intake, Observation, Phase, Probe, StuckInputs, StuckWatch};

/// What is watched, and what was said of it.
#[derive(Debug, Default)]
pub(super) struct StuckReport {
    watch: StuckWatch,
    /// Why consumers do not open, as it was said in the log.
    refusal: Option<String>,
    is_stuck: bool,
}

impl Pool {
    /// How many of the workers that are planned may be started now, where consumers do not open.
    pub(super) fn openings(&self, planned: u32) -> u32 {
        let shared = &self.shared;
        let opening = shared.workers().values().any(|cell| {
            let seen = cell.seen();
            seen.phase == Phase::Waiting && seen.consuming.is_none()
        });
        let mut openings = shared.openings();
        if planned == 0 && !opening {
            openings.satisfied();
        }
        openings.most(shared.now(), planned, opening)
    }

    /// Looks whether the pool is stuck, and says it once. `refused`: the queue may not be looked at.
    pub(super) fn look_out(
        &mut self,
        observation: &Observation,
        stale: Option<&str>,
        refused: bool,
        counts: &Counts,
        expected: u32,
    ) {
        let shared = self.shared.clone();
        let refusal = shared.openings().refusal().cloned();
        let depth = match (&observation.probe, stale) {
            (Probe::Held, _) => Depth::Held,
            (Probe::Missing, _) => Depth::Missing,
            (Probe::Failed { why }, _) => Depth::Unread {
                why,
                lasting: refused,
            },
            (Probe::Answered { .. }, Some(why)) => Depth::Unread {
                why,
                lasting: false,
            },
            (&Probe::Answered { ready, consumers }, None) => Depth::Read { ready, consumers },
        };
        let cause = self.troubles.watch.look(&StuckInputs {
            at: observation.at,
            open: observation.intake == Intake::Open && shared.is_connected(),
            expected,
            depth,
            refusal: refusal.as_ref(),
            consumers: observation.consumers,
            busy: counts.busy + counts.retiring + counts.draining,
            last_taken: observation.last_taken,
        });
        self.say_refusal(refusal.map(|refusal| refusal.why));
        self.say_stuck(cause.as_deref());
        let since = self.troubles.watch.since().filter(|_| cause.is_some());
        let lasted = since.map(|since| observation.at.since(since));
        shared.metrics.stuck(lasted);
        shared.view().stuck = cause;
    }

    fn say_refusal(&mut self, why: Option<String>) {
        let said = &mut self.troubles.refusal;
        // The broker's words may differ from try to try: what matters is that there is a trouble.
        match (&why, said.is_some()) {
            (Some(error), false) => warn!(
                pool = %self.shared.name,
                error,
                "a consumer could not be opened: trying one at a time, less and less often"
            ),
            (None, true) => info!(pool = %self.shared.name, "consumers open again"),
            _ => {}
        }
        *said = why;
    }

    fn say_stuck(&mut self, cause: Option<&str>) {
        let name = &self.shared.name;
        match (cause, self.troubles.is_stuck) {
            (Some(cause), false) => warn!(pool = %name, cause, "pool is stuck"),
            (None, true) => info!(pool = %name, "pool is no longer stuck"),
            _ => {}
        }
        self.troubles.is_stuck = cause.is_some();
    }
}
