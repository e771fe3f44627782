//! Runners without a job: those that are ready, and those that are being started before a job needs them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{sync::oneshot, time::Instant};

use super::source::RunnerSource;
use crate::{
    decide::RunnerId,
    run::panics::{self, ContainedRunner, PanicSite},
    runner::StartError,
};

/// A runner without a job.
pub(crate) struct IdleRunner {
    pub(super) id: RunnerId,
    pub(super) runner: ContainedRunner,
    pub(super) since: Instant,
    pub(super) source: Arc<RunnerSource>,
}

impl IdleRunner {
    pub(crate) fn kind(&self) -> &'static str {
        self.source.kind
    }

    /// Ends the runner.
    pub(crate) async fn delete(self) {
        let source = self.source;
        let ended = panics::catch_future(|| source.manager.delete(self.runner.into_inner())).await;
        source.panics.value_or(PanicSite::End, ended, ());
    }

    /// Ends all of these. They are of one kind, because a change of kind removes every idle runner.
    pub(crate) async fn delete_all(runners: Vec<Self>) {
        let Some(first) = runners.first() else { return };
        let source = first.source.clone();
        let runners = runners.into_iter().map(|idle| idle.runner.into_inner());
        let ended = panics::catch_future(|| source.manager.flush(runners.collect())).await;
        source.panics.value_or(PanicSite::End, ended, ());
    }
}

/// A runner for the worker that waits for it, or the reason why no runner is available.
type StartResult = Result<IdleRunner, StartError>;

/// The idle runners of a fleet. Written by workers and by the pool.
#[derive(Default)]
pub(super) struct IdleRunners(Mutex<Stock>);

/// The contents.
#[derive(Default)]
pub(super) struct Stock {
    /// The newest is last and is lent first. The others may become cold: they are the ones that have been idle longest.
    pub(super) idle: Vec<IdleRunner>,
    /// Runners that are being started before a job needs them.
    starting: Vec<StartingRunner>,
}

/// The answer to a worker that needs a runner.
pub(super) enum RunnerOffer {
    Idle(IdleRunner),
    /// A runner that is being started.
    Promised(oneshot::Receiver<StartResult>),
    Nothing,
}

/// A runner that is being started, and the worker that waits for it.
struct StartingRunner {
    id: RunnerId,
    claim: Option<oneshot::Sender<StartResult>>,
}

impl IdleRunners {
    pub(super) fn lock(&self) -> MutexGuard<'_, Stock> {
        // `is_alive` and `retires` of runners are the only foreign code that runs under this lock, and their panics are
        // contained.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a runner that is being started before a job needs it.
    pub(super) fn begin_start(&self, id: RunnerId) -> StartingGuard<'_> {
        let starting = StartingRunner { id, claim: None };
        self.lock().starting.push(starting);
        StartingGuard { runners: self, id }
    }

    /// Runners that are being started before a job needs them.
    pub(super) fn starting(&self) -> u32 {
        u32::try_from(self.lock().starting.len()).unwrap_or(u32::MAX)
    }

    /// Takes out the idle runners for which `is_wanted` is true.
    pub(super) fn take_out(
        &self,
        is_wanted: impl FnMut(&mut IdleRunner) -> bool,
    ) -> Vec<IdleRunner> {
        self.lock().idle.extract_if(.., is_wanted).collect()
    }

    pub(super) fn take_all(&self) -> Vec<IdleRunner> {
        std::mem::take(&mut self.lock().idle)
    }

    /// An idle runner if there is one, otherwise a runner that is being started. Both are looked for under one lock, so
    /// that no runner becomes idle in between.
    pub(super) fn offer(&self) -> RunnerOffer {
        let mut stock = self.lock();
        if let Some(idle) = stock.idle.pop() {
            return RunnerOffer::Idle(idle);
        }
        // A claim whose worker no longer waits is free again.
        let free = stock.starting.iter_mut().find(|starting| {
            let claim = starting.claim.as_ref();
            claim.is_none_or(oneshot::Sender::is_closed)
        });
        match free {
            Some(starting) => {
                let (claim, promised) = oneshot::channel();
                starting.claim = Some(claim);
                RunnerOffer::Promised(promised)
            }
            None => RunnerOffer::Nothing,
        }
    }
}

impl Stock {
    /// Removes a runner from those that are being started. Returns the channel to the worker that waits for it.
    fn remove_starting(&mut self, id: RunnerId) -> Option<oneshot::Sender<StartResult>> {
        let at = self
            .starting
            .iter()
            .position(|starting| starting.id == id)?;
        self.starting.swap_remove(at).claim
    }
}

/// A runner that is being started. **On drop** without [`arrive`](Self::arrive) the start was cancelled.
pub(super) struct StartingGuard<'a> {
    runners: &'a IdleRunners,
    pub(super) id: RunnerId,
}

/// The result of starting a runner before a job needed it.
pub(super) enum PrestartOutcome {
    /// The worker that waited has the runner, or the error.
    Claimed,
    Idle,
    /// Its kind is no longer wanted; or the start failed, and no worker waited for it.
    Unclaimed(StartResult),
}

impl StartingGuard<'_> {
    /// The start has succeeded or failed. Hands the result to the worker that waits for it. A runner without such a
    /// worker becomes idle if `is_wanted`.
    pub(super) fn arrive(self, result: StartResult, is_wanted: bool) -> PrestartOutcome {
        let mut stock = self.runners.lock();
        let claim = stock.remove_starting(self.id);
        let result = match claim {
            // Sent under the lock, although it wakes a task: so at each moment either the start or the idle runner is
            // visible.
            Some(claim) => match claim.send(result) {
                Ok(()) => return PrestartOutcome::Claimed,
                Err(result) => result,
            },
            None => result,
        };
        match result {
            Ok(idle) if is_wanted => {
                stock.idle.push(idle);
                PrestartOutcome::Idle
            }
            result => PrestartOutcome::Unclaimed(result),
        }
    }
}

impl Drop for StartingGuard<'_> {
    fn drop(&mut self) {
        let claim = self.runners.lock().remove_starting(self.id);
        // It wakes a task, so it is dropped after the lock.
        drop(claim);
    }
}
