//! One job of a worker: a runner is borrowed, the job runs on it while the worker still reads its consumer, the message
//! is settled, and the runner is returned. The result says whether the worker must leave, and why.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::{self, Instant};
use tracing::{Instrument as _, debug, debug_span, info, warn};

use super::{
    Worker,
    intake::ReceivedDelivery,
    job_end::{breaker_signal, lost_hint, outcome_of, runner_panicked},
};
use crate::{
    decide::Phase,
    escape::Escaped,
    queue::Message,
    run::{
        events::Event,
        fleet::BorrowedRunner,
        metrics::{JobOutcome, Settlement},
        panics::PanicSite,
        running_jobs::{self, Stopping},
        settling::{HeldDelivery, HoldUntil, output_use, prepare, stay_blocked},
        traces::{self, DeliveryTrace},
        worker_state::WorkerStopReason,
    },
    runner::{FailureKind, Job, JobControl, JobEnd, RunReport},
    settle::{History, Verdict, carried_job_id, give_back, past_deadline, verdict},
};
use tidegate_core::text::chain;

/// How long a worker whose runner could not start waits for the other workers of its pool to stop waiting, before it gives
/// its message back.
const QUIET_WAIT: Duration = Duration::from_secs(2);

/// How a job was stopped before its own end.
#[derive(Debug, Clone, PartialEq, Eq)]
enum JobStop {
    /// The job was not cut short, or the pool or supervisor stopped it.
    No,
    /// Its delivery could be held no longer.
    AtDeadline,
    /// An operator stopped it.
    ByHand(Stopping),
}

impl Worker<'_> {
    /// Runs the job of a delivery and settles the delivery. An error is the reason why the worker must leave.
    pub(super) async fn job(&mut self, received: ReceivedDelivery) -> Result<(), WorkerStopReason> {
        let ReceivedDelivery {
            delivery,
            at,
            waited,
            is_copyable,
        } = received;
        let mut held = HeldDelivery::new(self.shared, self.settings(), delivery, at);
        let job = self.job_of(&held);
        held.job = Some(job.id().clone());
        // A retry or a returned message does not show the age of the queue's head: it was published long before.
        if held.history.attempt == 1 && !held.history.was_taken {
            let waited = held
                .message()
                .published_at()
                .and_then(|at| self.waited_since(at));
            self.shared.stats.recent.head(self.shared.now(), waited);
        }
        let span = debug_span!("job", job.id = %Escaped(job.id().as_str()));
        self.trace = span.in_scope(|| DeliveryTrace::received(self.shared.traces.clone(), &job));
        async {
            // A suspect keeps its turn until it is settled.
            let mut turn = None;
            let timeout = self.shared.fleet.times().timeout;
            let unrun = if waited && !held.deadlines.is_worth_starting(at.elapsed(), timeout) {
                debug!("job is given back: its delivery has waited too long behind others");
                Some(give_back(held.history))
            } else if held.history.unfinished() == 0 {
                match self.shared.redeliveries.is_quiet() || self.until_quiet().await {
                    true => None,
                    false => Some(give_back(held.history)),
                }
            } else {
                self.before_it_runs_again(&mut held, is_copyable, &mut turn)
                    .await
            };
            match unrun {
                Some(verdict) => self.settle(held, verdict).await,
                None => self.run_and_settle(held, &job).await,
            }
        }
        .instrument(span)
        .await
    }

    fn job_of(&self, held: &HeldDelivery) -> Job {
        let HeldDelivery {
            settings, history, ..
        } = held;
        Job::new(
            self.shared.name.clone(),
            settings.queue.clone(),
            as_taken(held.message(), *history),
            history.attempt,
            || carried_job_id(held.message()).unwrap_or_else(|| self.shared.make_job_id()),
        )
        .max_attempts(settings.retry.max_attempts)
    }

    async fn run_and_settle(
        &mut self,
        mut held: HeldDelivery,
        job: &Job,
    ) -> Result<(), WorkerStopReason> {
        let shared = self.shared.clone();
        let borrowing = Instant::now();
        // Starting a runner may take as long as a job. The start is stopped like a job.
        let borrowed = tokio::select! {
            biased;
            () = self.state.stop.cancelled() => Err(JobStop::No),
            () = shared.kill.cancelled() => Err(JobStop::No),
            borrowed = shared.fleet.borrow_runner() => Ok(borrowed),
            () = time::sleep_until(held.stop_at()) => Err(JobStop::AtDeadline),
        };
        let mut runner = match borrowed {
            Ok(Ok(runner)) => runner,
            Ok(Err(error)) => {
                let now = shared.now();
                shared
                    .stats
                    .job_ended(now, JobOutcome::NotStarted, Duration::ZERO);
                return self.not_started(held, &chain(&error)).await;
            }
            Err(stop) => {
                self.report_stopped(&held, &stop);
                // The job never began, so no attempt is spent.
                let verdict = give_back(held.history);
                return self.settle(held, verdict).await;
            }
        };
        if let Some(opened) = self.opened_in.take() {
            let took = opened + borrowing.elapsed();
            shared.stats.recent.worker_ready(shared.now(), took);
        }
        self.report_start(job, &runner);
        let begun = Instant::now();
        let (span, told) = self.trace.runs();
        let (report, stop) = self
            .run(&mut held, &mut runner, told.as_ref().unwrap_or(job))
            .instrument(span)
            .await;
        let took = begun.elapsed();
        let outcome = match (outcome_of(&report.end), &stop) {
            (JobOutcome::Stopped, JobStop::AtDeadline) => JobOutcome::Deadline,
            (outcome, _) => outcome,
        };
        self.trace.ran(outcome);
        self.report_end(job, &report, outcome, took);

        let RunReport { end, reusable } = report;
        if let JobEnd::NotStarted(error) = &end {
            self.return_runner(runner, reusable, false);
            return self.not_started(held, &chain(error)).await;
        }
        self.tell_gate(job, &end, took);
        let lost = matches!(
            &end,
            JobEnd::Failed(failure) if failure.kind == FailureKind::RunnerLost
        );
        let retry = &held.settings.retry;
        let verdict = match (end, stop) {
            (JobEnd::Stopped, stop) => {
                self.report_stopped(&held, &stop);
                match stop {
                    JobStop::No => verdict(JobEnd::Stopped, held.history, retry),
                    JobStop::AtDeadline => past_deadline(held.history, retry),
                    JobStop::ByHand(stopping) => verdict(stopping.end(), held.history, retry),
                }
            }
            (end, _) => verdict(end, held.history, retry),
        };
        let settled = self.settle(held, verdict).await;
        self.return_runner(runner, reusable, lost);
        settled
    }

    /// Reports a job's end to the gate, for its counts of launches and failures.
    fn tell_gate(&self, job: &Job, end: &JobEnd, took: Duration) {
        let gate = &self.shared.gate;
        match end {
            JobEnd::WrapperFailed(failure) => {
                gate.launch_failed(self.shared.now(), job.id(), &failure.message);
            }
            JobEnd::Stopped => {}
            _ => gate.launched(),
        }
        let takes_more = breaker_signal(end)
            .is_none_or(|signal| gate.job_ended(|| self.shared.now(), took, signal));
        if !takes_more {
            // Before the settlement, so that the broker does not answer it with another message.
            self.state.leave_because(WorkerStopReason::Faulted);
        }
    }

    /// Runs a job on a runner. Meanwhile it keeps the prefetched deliveries, and notices if the consumer is lost. Stops
    /// the job when its delivery can be held no longer.
    async fn run(
        &mut self,
        held: &mut HeldDelivery,
        runner: &mut BorrowedRunner<'_>,
        job: &Job,
    ) -> (RunReport, JobStop) {
        let shared = self.shared.clone();
        let stop = self
            .stop
            .get_or_insert_with(|| self.state.stop.child_token())
            .clone();
        let control = JobControl {
            stop: stop.clone(),
            kill: shared.kill.clone(),
            started: self.on_start.clone(),
            output: output_use(&shared, &held.settings, job.message()),
        };
        let begun = Instant::now();
        let timeout = shared.fleet.times().timeout;
        let entry = shared.running.enter(running_jobs::JobDescription {
            id: job.id().clone(),
            worker: self.state.id,
            runner: runner.id(),
            attempt: job.attempt(),
            since: begun,
            deadline: timeout
                .and_then(|timeout| begun.checked_add(timeout))
                .map_or(held.stop_at(), |end| end.min(held.stop_at())),
            stop: stop.clone(),
            stopping: None,
        });
        let mut running = runner.run(job, control);
        // Costs nothing until it is first polled, which is when the worker has to wait for the job.
        let mut due = std::pin::pin!(time::sleep_until(held.stop_at()));
        let (mut is_told, mut cut) = (false, JobStop::No);
        loop {
            tokio::select! {
                biased;
                report = &mut running => {
                    let report = report.unwrap_or_else(|panicked| {
                        shared.fleet.panics().record(PanicSite::Run, &panicked);
                        runner_panicked(&panicked)
                    });
                    if let Some(stopping) = entry.leave() {
                        // The next job has a token of its own.
                        self.stop = None;
                        if cut == JobStop::No && !self.state.stop.is_cancelled() {
                            cut = JobStop::ByHand(stopping);
                        }
                    }
                    return (report, cut);
                }
                () = &mut due => {
                    // The job's own token is cancelled, not the worker's. The worker's token means that the pool ends
                    // the job, and then a copy is not tried for long.
                    self.stop = None;
                    if is_told {
                        // The runner did not end a job that it was told to end. It must end the job when it is dropped.
                        let end = JobEnd::Stopped;
                        return (RunReport { end, reusable: false }, cut);
                    }
                    is_told = true;
                    if !self.state.stop.is_cancelled() {
                        cut = JobStop::AtDeadline;
                        stop.cancel();
                    }
                    due.as_mut().reset(held.abandon_at());
                }
                next = self.intake.next() => match next {
                    Ok(received) => {
                        self.keep(received);
                        self.state.set_held(1 + self.buffered());
                    }
                    Err(why) => {
                        self.state.consumer_closed();
                        warn!(
                            pool = %shared.name,
                            worker.id = %self.state.id,
                            job.id = %Escaped(job.id().as_str()),
                            reason = why.as_str(),
                            held_ms = held.since.elapsed().as_millis() as u64,
                            hint = lost_hint(why),
                            "consumer lost under a running job: it runs on, but cannot be settled \
                             if its channel is closed"
                        );
                    }
                },
            }
        }
    }

    /// Carries a verdict out.
    ///
    /// If the worker leaves after this, its consumer is cancelled first: a broker answers a settlement with the next
    /// message, which would only have to be given back. The same holds for a worker that gives a message back, because
    /// it could get the same message again.
    pub(super) async fn settle(
        &mut self,
        held: HeldDelivery,
        verdict: Verdict,
    ) -> Result<(), WorkerStopReason> {
        let span = self.trace.settles();
        let settling = self.settle_held(held, verdict).instrument(span.clone());
        let (settlement, gives_back) = settling.await;
        traces::settled(&span, settlement);
        if gives_back {
            Err(WorkerStopReason::GaveBack)
        } else {
            Ok(())
        }
    }

    /// Carries a verdict out. Returns how the delivery was settled, and whether its message was given back.
    async fn settle_held(&mut self, held: HeldDelivery, verdict: Verdict) -> (Settlement, bool) {
        let hold = HoldUntil::new(held.settle_at(), &self.state.stop, &self.shared.kill);
        let goes_back = matches!(verdict, Verdict::GiveBack | Verdict::GiveBackCopy { .. });
        let verdict = match verdict {
            Verdict::GiveBackCopy { .. } | Verdict::Park { .. } if self.intake.is_gone() => {
                Verdict::GiveBack
            }
            verdict => verdict,
        };
        let wants_copy = !matches!(
            verdict,
            Verdict::Ack { .. } | Verdict::Reject { .. } | Verdict::GiveBack
        );
        if goes_back {
            self.cancel().await;
        }
        let prepared = prepare(self.shared, held, verdict, hold).await;
        if wants_copy && prepared.is_requeued() {
            stay_blocked(self.shared);
        }
        let gives_back = prepared.gives_back();
        if gives_back || self.state.leaves_after_this_job() {
            self.cancel().await;
        }
        (prepared.settle(self.shared).await, gives_back)
    }

    /// Gives a message back because no runner could be started for it. The result is the reason why the worker leaves.
    ///
    /// First the gate is closed and the consumer cancelled. Then the worker waits a moment until no other worker of the
    /// pool waits for a delivery: otherwise the message would pass from worker to worker, and a quorum queue drops it
    /// after twenty returns.
    async fn not_started(
        &mut self,
        held: HeldDelivery,
        cause: &str,
    ) -> Result<(), WorkerStopReason> {
        self.shared
            .gate
            .start_failed(self.shared.now(), cause.to_owned());
        self.cancel().await;
        let quiet = time::timeout(QUIET_WAIT, self.shared.roster.until_none_waits());
        tokio::select! {
            biased;
            _ = quiet => {}
            () = self.state.stop.cancelled() => {}
            () = self.shared.kill.cancelled() => {}
        }
        let verdict = give_back(held.history);
        // The worker leaves in any case, for the reason below.
        let _ = self.settle(held, verdict).await;
        Err(WorkerStopReason::Faulted)
    }

    /// Returns a runner to the fleet. It is ended if it is not reusable, or if this worker leaves.
    fn return_runner(&self, runner: BorrowedRunner<'_>, reusable: bool, lost: bool) {
        let stays = self.state.snapshot().phase == Phase::Busy;
        match (reusable, lost) {
            (false, true) => runner.crashed(),
            (false, false) => runner.finished(),
            (true, _) if stays => runner.give_back(),
            (true, _) => runner.retire(),
        }
    }

    /// Time since a message was published. `None` if that is in the future.
    fn waited_since(&self, published: Timestamp) -> Option<Duration> {
        let now = self.shared.orders.clock.now();
        Duration::try_from(now.duration_since(published)).ok()
    }

    // Reports: metrics, events and the log.

    fn report_start(&self, job: &Job, runner: &BorrowedRunner<'_>) {
        let waited = job
            .message()
            .published_at()
            .and_then(|at| self.waited_since(at));
        self.shared.stats.job_began(self.shared.now(), waited);
        self.shared.fleet.emit(|pool| Event::RunnerStart {
            pool,
            job_id: job.id().clone(),
            idle: runner.was_idle,
            queue_duration: waited,
        });
    }

    fn report_end(&self, job: &Job, report: &RunReport, outcome: JobOutcome, took: Duration) {
        self.shared
            .stats
            .job_ended(self.shared.now(), outcome, took);
        debug!(
            outcome = outcome.as_str(),
            took_ms = took.as_millis() as u64,
            "job ended"
        );
        if report.reusable {
            return;
        }
        self.shared.fleet.emit(|pool| Event::RunnerStop {
            pool,
            job_id: Some(job.id().clone()),
            status: outcome.as_str(),
            status_info: match &report.end {
                JobEnd::Failed(failure) | JobEnd::WrapperFailed(failure) => {
                    Some(failure.message.clone())
                }
                JobEnd::Rejected { reason, .. } => Some(reason.clone()),
                JobEnd::NotStarted(error) => Some(chain(error)),
                _ => None,
            },
            job_duration: Some(took),
        });
    }

    /// Counts a job that the pool or supervisor stopped. Logs a job that an operator or its deadline stopped.
    fn report_stopped(&self, held: &HeldDelivery, stop: &JobStop) {
        let pool = &self.shared.name;
        let job = held.job.as_ref().map(|id| Escaped(id.as_str()));
        let job = job.as_ref().map(tracing::field::display);
        match stop {
            JobStop::No => self.shared.stats.job_stopped(),
            JobStop::ByHand(stopping) => info!(
                pool = %pool,
                job.id = job,
                then = stopping.then.as_str(),
                by = stopping.by,
                "job was stopped by hand"
            ),
            JobStop::AtDeadline => warn!(
                pool = %pool,
                job.id = job,
                held_ms = held.since.elapsed().as_millis() as u64,
                ack_deadline_ms = held.settings.ack_deadline.as_millis() as u64,
                "job was stopped and is given back: its delivery has reached ack_deadline"
            ),
        }
    }
}

/// The message as its job sees it. A copy of a message that was delivered before is marked as redelivered, although the
/// broker delivers the copy for the first time.
fn as_taken(message: &Arc<Message>, history: History) -> Arc<Message> {
    if message.redelivered || !history.was_taken {
        return message.clone();
    }
    Arc::new(Message {
        redelivered: true,
        ..Message::clone(message)
    })
}
