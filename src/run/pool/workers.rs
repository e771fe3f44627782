//! The tasks of a pool's workers: their start and their end.

use std::{collections::HashMap, sync::Arc};

use tokio::task::{self, JoinError, JoinSet};
use tracing::{Instrument as _, debug, debug_span, error};

use crate::{
    decide::WorkerId,
    run::{
        panics::Panicked,
        shared::PoolShared,
        worker,
        worker_state::{WorkerState, WorkerStopReason},
    },
};

/// The tasks of the workers. Their states are in the roster.
#[derive(Default)]
pub(super) struct WorkerTasks {
    tasks: JoinSet<WorkerStopReason>,
    ids: HashMap<task::Id, WorkerId>,
    next: u64,
}

impl WorkerTasks {
    /// Starts a worker.
    pub(super) fn spawn(&mut self, shared: &Arc<PoolShared>) {
        let id = WorkerId(self.next);
        self.next += 1;
        let state = Arc::new(WorkerState::new(id, shared.stop.child_token()));
        shared.roster.workers().insert(id, state.clone());
        shared.stats.metrics.worker_started();
        // A root of its own: a worker outlives the reconcile that started it.
        let span = debug_span!(parent: None, "worker", pool = %shared.name, worker.id = %id);
        let work = worker::work(shared.clone(), state);
        let handle = self.tasks.spawn(work.instrument(span));
        self.ids.insert(handle.id(), id);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The next task that ends; `None` if there is no task. Cancel-safe.
    pub(super) async fn join_next(
        &mut self,
    ) -> Option<Result<(task::Id, WorkerStopReason), JoinError>> {
        self.tasks.join_next_with_id().await
    }

    /// Records a task that ended.
    pub(super) fn ended(
        &mut self,
        shared: &PoolShared,
        ended: Result<(task::Id, WorkerStopReason), JoinError>,
    ) {
        let (task, why, panicked) = match ended {
            Ok((task, why)) => (task, why, None),
            Err(failed) => {
                let task = failed.id();
                let panic = failed.try_into_panic();
                let panicked = panic.map_or_else(
                    |failed| failed.to_string(),
                    |panic| Panicked::new(&*panic).to_string(),
                );
                (task, WorkerStopReason::Panicked, Some(panicked))
            }
        };
        let Some(id) = self.ids.remove(&task) else {
            return;
        };
        // Counted before the worker leaves the status: a reader that no longer sees the worker finds it in the metrics.
        shared.stats.metrics.worker_stopped(why.as_str());
        let worker = shared.roster.workers().remove(&id);
        if let Some(panicked) = panicked {
            let held = worker.map_or(0, |worker| worker.snapshot().held);
            error!(pool = %shared.name, error = ?panicked, held, "worker panicked: its messages are given back");
            shared.stats.given_back(held);
            // The next worker may panic too, so workers are started with backoff.
            let cause = format!("a worker panicked: {panicked}");
            shared.gate.start_failed(shared.now(), cause);
        }
        debug!(pool = %shared.name, worker.id = %id, reason = why.as_str(), "worker ended");
    }
}
