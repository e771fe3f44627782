//! A pool as the API shows it, with facts about the whole daemon.

use crate::{predecessors::Predecessors, reloads::Reloads};
use tidegate::{api::v1, run::PoolStatus};

/// The facts about the daemon that the API shows with each pool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct View {
    /// The result of the last reload.
    pub(crate) reloads: Reloads,
    /// The supervisors that have handed over to this one.
    pub(crate) predecessors: Predecessors,
}

impl View {
    /// A pool as the API shows it.
    pub(crate) fn of(&self, status: PoolStatus) -> v1::Pool {
        v1::Pool {
            predecessors: self.predecessors.of(&status.name),
            reload_refused: self.reloads.refusal(),
            removed: false,
            status,
        }
    }

    /// A pool that a reload has removed and that still drains.
    pub(crate) fn of_removed(&self, status: PoolStatus) -> v1::Pool {
        v1::Pool {
            removed: true,
            ..self.of(status)
        }
    }
}
