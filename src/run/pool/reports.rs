//! What a pool reports once when it begins and once when it is over: faults of runners, failing jobs, and a depth that
//! cannot be read.

use tracing::{debug, info, warn};

use super::stuck::StuckReport;
use crate::{
    decide::{Intake, Probe},
    run::shared::PoolShared,
};

/// What the log has been told.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// Why intake is closed.
    fault: Option<Fault>,
    /// Why the depth is not known.
    depth: Option<String>,
    pub(super) stuck: StuckReport,
}

/// Why intake is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Runners,
    Breaker,
}

impl Reported {
    /// Logs once that runners cannot start or that jobs fail, and once that it is over.
    pub(super) fn fault(&mut self, shared: &PoolShared, intake: Intake) {
        let name = &shared.name;
        let fault = match intake {
            Intake::Faulted => Fault::Runners,
            Intake::BreakerOpen => Fault::Breaker,
            Intake::Open => {
                match self.fault.take() {
                    Some(Fault::Runners) => info!(pool = %name, "runners start again"),
                    Some(Fault::Breaker) => {
                        info!(pool = %name, "breaker closed: jobs are run again")
                    }
                    None => {}
                }
                return;
            }
            _ => return,
        };
        if self.fault == Some(fault) {
            return;
        }
        self.fault = Some(fault);
        let error = shared.gate.cause();
        match fault {
            Fault::Runners => warn!(
                pool = %name,
                error,
                "runners cannot start: messages stay in the queue, one is tried from time to time"
            ),
            Fault::Breaker => {
                shared.stats.metrics.breaker_opened();
                warn!(
                    pool = %name,
                    error,
                    "too many jobs fail: messages stay in the queue, one is tried from time to time"
                );
            }
        }
    }

    /// Logs once why the queue's depth is not known, and once that it is known again.
    pub(super) fn depth(&mut self, shared: &PoolShared, probe: &Probe, stale: Option<&str>) {
        if *probe == Probe::Held {
            return;
        }
        let problem = match probe {
            Probe::Missing => Some("the queue does not exist"),
            _ => stale,
        };
        if problem == self.depth.as_deref() {
            return;
        }
        match problem {
            // The supervisor logs a lost connection once for all pools.
            Some(_) if !shared.broker.is_connected() => {}
            Some(why) => warn!(
                pool = %shared.name,
                messaging.destination.name = %shared.settings().queue,
                error = why,
                "queue depth is not known"
            ),
            None => debug!(pool = %shared.name, "queue depth is known again"),
        }
        self.depth = problem.map(str::to_owned);
    }
}
