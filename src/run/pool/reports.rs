//! Problems that a pool reports once when they begin and once when they are over: faults of runners, failing jobs, and
//! a depth that cannot be read.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::stuck::StuckReport;
use crate::{
    decide::{Group, Intake, MemberId, Moment, Probe},
    run::shared::PoolShared,
};

/// The reports that were already logged.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// Why intake is closed.
    fault: Option<ReportedFault>,
    /// Why the depth is not known.
    depth: Option<String>,
    /// Members of the group that have another policy.
    differing: Vec<MemberId>,
    /// The number of members, and when it was logged.
    members: Option<(usize, Moment)>,
    pub(super) stuck: StuckReport,
}

/// Why intake is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReportedFault {
    Runners,
    Breaker,
}

impl Reported {
    /// Logs the number of daemons that share the queue when it has changed, at most once a second.
    pub(super) fn members(&mut self, shared: &PoolShared, now: Moment, group: Option<&Group>) {
        let Some(members) = group.map(|group| group.members.len()) else {
            self.members = None;
            return;
        };
        let is_due = self.members.is_none_or(|(before, at)| {
            before != members && now.since(at) >= Duration::from_secs(1)
        });
        if is_due {
            self.members = Some((members, now));
            info!(pool = %shared.name, members, "daemons share the queue");
        }
    }

    /// Logs once that other daemons have another policy for the queue, and once that it is the same again.
    pub(super) fn differing(&mut self, shared: &PoolShared, group: Option<&Group>) {
        let differing = group.map_or(&[][..], |group| &group.differing);
        if self.differing == differing {
            return;
        }
        self.differing = differing.to_vec();
        let name = &shared.name;
        match differing {
            [] => info!(pool = %name, "all daemons of the queue have the same policy again"),
            [first, ..] => warn!(
                pool = %name,
                member = %first,
                members = differing.len(),
                "other daemons have another policy for this queue: no daemon grows until they are the same"
            ),
        }
    }

    /// Logs once that runners cannot start or that jobs fail, and once that it is over.
    pub(super) fn fault(&mut self, shared: &PoolShared, intake: Intake) {
        let name = &shared.name;
        let fault = match intake {
            Intake::Faulted => ReportedFault::Runners,
            Intake::BreakerOpen => ReportedFault::Breaker,
            Intake::Open => {
                match self.fault.take() {
                    Some(ReportedFault::Runners) => info!(pool = %name, "runners start again"),
                    Some(ReportedFault::Breaker) => {
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
            ReportedFault::Runners => warn!(
                pool = %name,
                error,
                "runners cannot start: messages stay in the queue, one is tried from time to time"
            ),
            ReportedFault::Breaker => {
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
        if *probe == Probe::Skipped {
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
