//! A runner that a worker has borrowed for a job.

use std::{sync::atomic::Ordering, time::Duration};

use super::{CRASHED, Fleet, IDLE_TIMEOUT, IdleRunner};
use crate::{
    decide::RunnerId,
    run::panics::{self, Contained, PanicSite},
    runner::{Job, JobControl, ProgramControl, ProgramEnd, RunReport},
};

const IS_THERE: &str = "a borrowed runner is there until it is returned";

/// A runner that a worker has borrowed. **On drop** it is no longer counted as busy. Each method that ends the loan
/// decides what happens to the runner.
pub(crate) struct BorrowedRunner<'a> {
    fleet: &'a Fleet,
    runner: Option<IdleRunner>,
    /// How long it had been idle before.
    pub(crate) was_idle: Duration,
}

impl<'a> BorrowedRunner<'a> {
    pub(super) fn new(fleet: &'a Fleet, runner: IdleRunner, was_idle: Duration) -> Self {
        fleet.borrowed.fetch_add(1, Ordering::Relaxed);
        Self {
            fleet,
            runner: Some(runner),
            was_idle,
        }
    }

    /// The runner's id.
    pub(crate) fn id(&self) -> RunnerId {
        self.runner.as_ref().expect(IS_THERE).id
    }

    /// Runs a job on it.
    pub(crate) fn run<'r>(
        &'r mut self,
        job: &'r Job,
        control: JobControl,
    ) -> Contained<'r, RunReport> {
        let runner = self.runner.as_mut().expect(IS_THERE);
        panics::catch_future(|| runner.runner.get().run(job, control))
    }

    /// Waits for the end of a program that consumes the queue itself.
    pub(crate) fn consume(&mut self, control: ProgramControl) -> Contained<'_, ProgramEnd> {
        let runner = self.runner.as_mut().expect(IS_THERE);
        panics::catch_future(|| runner.runner.get().consume(control))
    }

    /// The process id of such a program.
    pub(crate) fn program_id(&mut self) -> Option<i32> {
        let runner = &mut self.runner.as_mut().expect(IS_THERE).runner;
        let id = panics::catch(|| runner.get().program_id());
        self.fleet.panics.value_or(PanicSite::Check, id, None)
    }

    /// A program has ended, for this reason.
    pub(crate) fn stopped(mut self, reason: &'static str) {
        if let Some(runner) = self.runner.take() {
            if reason == CRASHED {
                self.fleet.crashed.fetch_add(1, Ordering::Relaxed);
            }
            self.fleet.count_stopped(&runner, reason);
        }
    }

    /// The runner ended by itself with its job, so it does not have to be stopped.
    pub(crate) fn finished(mut self) {
        if let Some(runner) = self.runner.take() {
            runner.source.metrics.finished.increment(1);
        }
    }

    /// The runner was lost with its job.
    pub(crate) fn crashed(mut self) {
        if let Some(runner) = self.runner.take() {
            self.fleet.crashed.fetch_add(1, Ordering::Relaxed);
            self.fleet.metrics.stopped(runner.kind(), CRASHED);
        }
    }

    /// Returns the runner to the idle ones. A runner that should be replaced is ended in the background.
    pub(crate) fn give_back(mut self) {
        let Some(mut runner) = self.runner.take() else {
            return;
        };
        // A runner that has just run a job has not been idle.
        let retires = self.fleet.retires(&mut runner);
        let reason = match retires.filter(|why| *why != IDLE_TIMEOUT) {
            Some(why) => Some((runner, why)),
            None => self
                .fleet
                .put_back(runner)
                .map(|runner| (runner, "replaced")),
        };
        if let Some((runner, reason)) = reason {
            self.fleet.count_stopped(&runner, reason);
            // The worker's next job does not wait for it.
            self.fleet.end(runner);
        }
    }

    /// Ends the runner in the background, because its worker leaves.
    pub(crate) fn retire(mut self) {
        if let Some(runner) = self.runner.take() {
            self.fleet.count_stopped(&runner, "retired");
            self.fleet.end(runner);
        }
    }
}

impl Drop for BorrowedRunner<'_> {
    fn drop(&mut self) {
        self.fleet.borrowed.fetch_sub(1, Ordering::Relaxed);
    }
}
