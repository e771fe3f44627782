//! One job of a worker: a runner is borrowed for it, it is run while the intake is minded, its message is settled, and
//! the runner goes back. It decides nothing about the worker's own end but says why the worker must go.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::{self, Instant};
use tracing::{Instrument as _, debug, debug_span, info, warn};

use super::{Worker, intake::ReceivedDelivery};
use crate::{
    config::PoolSettings,
    decide::{BreakerSignal, DeliveryDeadlines, JobId},
    escape::Escaped,
    queue::{Delivery, Message},
    run::{
        cell::WorkerStopReason,
        contain::{PanicSite, Panicked},
        events::Event,
        fleet::BorrowedRunner,
        metrics::{JobOutcome, Settlement},
        running::{self, Stopping},
        settling::{HoldUntil, output_use, prepare, stay_blocked},
        traces::{self, DeliveryTrace},
    },
    runner::{Failure, FailureKind, Job, JobControl, JobEnd, RunReport},
    settle::{History, Verdict, carried_job_id, give_back, past_deadline, verdict},
};
use tidegate_core::text::chain;

/// How long a worker whose runner could not start keeps its message from workers that still wait.
const QUIET_WAIT: Duration = Duration::from_secs(2);

/// How a job came to be ended before its own time.
#[derive(Debug, Clone, PartialEq, Eq)]
enum JobStop {
    /// Not at all, or by the pool's or the supervisor's word.
    No,
    /// Its delivery could be held no longer.
    AtDeadline,
    /// An operator stopped it.
    ByHand(Stopping),
}

impl Worker<'_> {
    /// Runs the job of a delivery and settles it.
    pub(super) async fn job(&mut self, arrived: ReceivedDelivery) -> Result<(), WorkerStopReason> {
        let ReceivedDelivery {
            delivery,
            at,
            waited,
            is_copyable,
        } = arrived;
        let settings = self.settings();
        let history = History::of(delivery.message(), &settings.retry);
        let times = self.shared.fleet.times();
        let deadlines = DeliveryDeadlines::new(settings.ack_deadline, times.stop_grace);
        let deadline = at + deadlines.settle;
        let job = Job::new(
            self.shared.name.clone(),
            settings.queue.clone(),
            as_taken(delivery.message(), history),
            history.attempt,
            || carried_job_id(delivery.message()).unwrap_or_else(|| self.shared.make_job_id()),
        )
        .max_attempts(settings.retry.max_attempts);
        let span = debug_span!("job", job.id = %Escaped(job.id().as_str()));
        self.trace = span.in_scope(|| DeliveryTrace::received(self.shared.traces.clone(), &job));
        async {
            let mut turn = None;
            let unrun = if waited && !deadlines.is_worth_starting(at.elapsed(), times.timeout) {
                debug!("job is given back: its delivery has waited too long behind others");
                Some(give_back(history))
            } else if history.unfinished() == 0 {
                match self.shared.redeliveries.is_quiet() || self.until_quiet().await {
                    true => None,
                    false => Some(give_back(history)),
                }
            } else {
                self.before_it_runs_again(&settings, job.id(), history, is_copyable, &mut turn)
                    .await
            };
            match unrun {
                Some(verdict) => {
                    self.settle(&settings, &job, delivery, history, verdict, deadline)
                        .await
                }
                None => {
                    self.run_and_settle(&settings, delivery, history, &job, at, deadlines)
                        .await
                }
            }
        }
        .instrument(span)
        .await
    }

    async fn run_and_settle(
        &mut self,
        settings: &PoolSettings,
        delivery: Delivery,
        history: History,
        job: &Job,
        at: Instant,
        deadlines: DeliveryDeadlines,
    ) -> Result<(), WorkerStopReason> {
        let deadline = at + deadlines.settle;
        let shared = self.shared.clone();
        // Bringing a runner up may take as long as some jobs do, and ends as they do.
        let lent = tokio::select! {
            biased;
            () = self.cell.stop.cancelled() => None,
            () = shared.kill.cancelled() => None,
            lent = shared.fleet.lend(&shared.metrics) => Some(Ok(lent)),
            () = time::sleep_until(at + deadlines.stop) => Some(Err(JobStop::AtDeadline)),
        };
        let mut lent = match lent {
            Some(Ok(Ok(lent))) => lent,
            None | Some(Err(_)) => {
                let cut = lent.map_or(JobStop::No, |_| JobStop::AtDeadline);
                self.note_stopped(job, &cut, at, settings);
                // It was never begun, so whatever kept it from that was not its own fault.
                let verdict = give_back(history);
                return self
                    .settle(settings, job, delivery, history, verdict, deadline)
                    .await;
            }
            Some(Ok(Err(error))) => {
                self.shared
                    .metrics
                    .job_ended(JobOutcome::NotStarted, Duration::ZERO);
                let cause = chain(&error);
                self.give_up(settings, job, delivery, history, &cause, deadline)
                    .await;
                return Err(WorkerStopReason::Faulted);
            }
        };
        self.note_start(job, &lent);
        let begun = Instant::now();
        let (span, traced) = self.trace.runs(job);
        let (report, cut) = self
            .run(settings, &mut lent, &traced, at, deadlines)
            .instrument(span)
            .await;
        let took = begun.elapsed();
        let outcome = match (outcome_of(&report.end), &cut) {
            (JobOutcome::Stopped, JobStop::AtDeadline) => JobOutcome::Deadline,
            (outcome, _) => outcome,
        };
        self.trace.ran(outcome);
        self.shared.metrics.job_ended(outcome, took);
        if !matches!(report.end, JobEnd::Stopped | JobEnd::NotStarted(_)) {
            self.shared.recent.ended(self.shared.now(), took);
        }
        debug!(
            outcome = outcome.as_str(),
            took_ms = took.as_millis() as u64,
            "job ended"
        );
        if !report.reusable {
            self.note_stop(job, outcome, &report.end, took);
        }

        if let JobEnd::NotStarted(error) = &report.end {
            let cause = chain(error);
            self.bring_back(lent, report.reusable, false);
            self.give_up(settings, job, delivery, history, &cause, deadline)
                .await;
            return Err(WorkerStopReason::Faulted);
        }
        match &report.end {
            JobEnd::WrapperFailed(failure) => {
                let now = self.shared.now();
                self.shared
                    .gate
                    .launch_failed(now, job.id(), &failure.message);
            }
            JobEnd::Stopped => {}
            _ => self.shared.gate.launched(),
        }
        let takes_more = ending_of(&report.end).is_none_or(|ending| {
            let now = || self.shared.now();
            self.shared.gate.job_ended(now, took, ending)
        });
        if !takes_more {
            // Before it settles, so that no further message comes with the settlement.
            self.cell.go(WorkerStopReason::Faulted);
        }
        let reusable = report.reusable;
        let lost = matches!(
            &report.end,
            JobEnd::Failed(failure) if failure.kind == FailureKind::RunnerLost
        );
        let verdict = match report.end {
            JobEnd::Stopped => {
                self.note_stopped(job, &cut, at, settings);
                match cut {
                    JobStop::No => verdict(JobEnd::Stopped, history, &settings.retry),
                    JobStop::AtDeadline => past_deadline(history, &settings.retry),
                    JobStop::ByHand(stopping) => verdict(stopping.end(), history, &settings.retry),
                }
            }
            end => verdict(end, history, &settings.retry),
        };
        let settled = self
            .settle(settings, job, delivery, history, verdict, deadline)
            .await;
        self.bring_back(lent, reusable, lost);
        settled
    }

    /// Counts a job that we stopped, or says that its delivery could be held no longer.
    fn note_stopped(&self, job: &Job, cut: &JobStop, at: Instant, settings: &PoolSettings) {
        match cut {
            JobStop::No => return self.shared.totals.count_stopped(),
            JobStop::ByHand(stopping) => {
                info!(
                    pool = %self.shared.name,
                    job.id = %Escaped(job.id().as_str()),
                    then = stopping.then.as_str(),
                    by = stopping.by,
                    "job was stopped by hand"
                );
                return;
            }
            JobStop::AtDeadline => {}
        }
        warn!(
            pool = %self.shared.name,
            job.id = %Escaped(job.id().as_str()),
            held_ms = at.elapsed().as_millis() as u64,
            ack_deadline_ms = settings.ack_deadline.as_millis() as u64,
            "job was stopped and is given back: its delivery may be held no longer than ack_deadline"
        );
    }

    /// Runs a job on a runner, and meanwhile takes in what the consumer is sent ahead, or that it was lost. Stops it
    /// when its delivery can be held no longer.
    async fn run(
        &mut self,
        settings: &PoolSettings,
        lent: &mut BorrowedRunner<'_>,
        job: &Job,
        at: Instant,
        deadlines: DeliveryDeadlines,
    ) -> (RunReport, JobStop) {
        let shared = self.shared.clone();
        let stop = self
            .stop
            .get_or_insert_with(|| self.cell.stop.child_token())
            .clone();
        let control = JobControl {
            stop: stop.clone(),
            kill: self.shared.kill.clone(),
            started: self.on_start.clone(),
            output: output_use(self.shared, settings, job.message()),
        };
        let begun = Instant::now();
        let timeout = self.shared.fleet.times().timeout;
        let entry = shared.running.enter(running::Job {
            id: job.id().clone(),
            worker: self.cell.id,
            runner: lent.id(),
            attempt: job.attempt(),
            since: begun,
            deadline: timeout
                .and_then(|timeout| begun.checked_add(timeout))
                .map_or(at + deadlines.stop, |end| end.min(at + deadlines.stop)),
            stop: stop.clone(),
            stopping: None,
        });
        let mut running = lent.run(job, control);
        // Costs nothing until it is first polled, which is when a job has to be waited for.
        let mut due = std::pin::pin!(time::sleep_until(at + deadlines.stop));
        let (mut told, mut cut) = (false, JobStop::No);
        loop {
            tokio::select! {
                biased;
                report = &mut running => {
                    let report = report.unwrap_or_else(|panicked| {
                        self.shared.fleet.panics().note(PanicSite::Run, &panicked);
                        runner_panicked(&panicked)
                    });
                    if let Some(stopping) = entry.leave() {
                        // The next job has a token of its own.
                        self.stop = None;
                        if cut == JobStop::No && !self.cell.stop.is_cancelled() {
                            cut = JobStop::ByHand(stopping);
                        }
                    }
                    return (report, cut);
                }
                () = &mut due => {
                    // Not by the cell's own token, which stands for the pool's word and keeps no copy from being
                    // tried again.
                    self.stop = None;
                    if told {
                        // A runner that does not end a job that it was told to: dropped, it must.
                        let end = JobEnd::Stopped;
                        return (RunReport { end, reusable: false }, cut);
                    }
                    told = true;
                    if !self.cell.stop.is_cancelled() {
                        cut = JobStop::AtDeadline;
                        stop.cancel();
                    }
                    due.as_mut().reset(at + deadlines.abandon);
                }
                next = self.intake.next() => match next {
                    Ok(arrived) => {
                        self.keep(arrived);
                        self.cell.hold(1 + self.held());
                    }
                    Err(why) => {
                        self.cell.not_consuming();
                        warn!(
                            pool = %self.shared.name,
                            worker.id = %self.cell.id,
                            job.id = %Escaped(job.id().as_str()),
                            reason = why.as_str(),
                            held_ms = at.elapsed().as_millis() as u64,
                            hint = lost_hint(why),
                            "consumer lost under a running job: it runs on, but cannot be settled \
                             if its channel is gone"
                        );
                    }
                },
            }
        }
    }

    /// Carries a verdict out.
    ///
    /// The consumer of a worker that goes after this is cancelled first: a broker answers a settlement with the
    /// next message, which would only have to be given back. So does one that gives a message back, lest it get
    /// the same one again.
    pub(super) async fn settle(
        &mut self,
        settings: &PoolSettings,
        job: &Job,
        delivery: Delivery,
        history: History,
        verdict: Verdict,
        deadline: Instant,
    ) -> Result<(), WorkerStopReason> {
        let span = self.trace.settles(job);
        let settling =
            self.settle_delivery(settings, job.id(), delivery, history, verdict, deadline);
        let (settlement, gives_back) = settling.instrument(span.clone()).await;
        traces::settled(&span, settlement);
        if gives_back {
            Err(WorkerStopReason::GaveBack)
        } else {
            Ok(())
        }
    }

    /// Carries a verdict out. Returns how the delivery was settled, and whether its message was given back.
    async fn settle_delivery(
        &mut self,
        settings: &PoolSettings,
        job: &JobId,
        delivery: Delivery,
        history: History,
        verdict: Verdict,
        deadline: Instant,
    ) -> (Settlement, bool) {
        let hold = HoldUntil::new(deadline, &self.cell.stop, &self.shared.kill);
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
        let prepared = prepare(
            self.shared,
            settings,
            Some(job),
            delivery,
            history,
            verdict,
            hold,
        )
        .await;
        if wants_copy && prepared.is_requeued() {
            stay_blocked(self.shared);
        }
        let gives_back = prepared.gives_back();
        if gives_back || self.cell.goes_after_this() {
            self.cancel().await;
        }
        (prepared.settle(self.shared).await, gives_back)
    }

    /// Gives a message back that no runner could be started for.
    ///
    /// First the gate is closed and this consumer cancelled, then the others are given a moment to be gone too:
    /// otherwise the message would go round among them, and a quorum queue drops it after twenty rounds.
    async fn give_up(
        &mut self,
        settings: &PoolSettings,
        job: &Job,
        delivery: Delivery,
        history: History,
        cause: &str,
        deadline: Instant,
    ) {
        self.shared
            .gate
            .start_failed(self.shared.now(), cause.to_owned());
        self.cancel().await;
        let quiet = time::timeout(QUIET_WAIT, self.shared.until_nobody_waits());
        tokio::select! {
            _ = quiet => {}
            () = self.cell.stop.cancelled() => {}
            () = self.shared.kill.cancelled() => {}
        }
        let verdict = give_back(history);
        // It goes in any case, and by its own reason.
        let _ = self
            .settle(settings, job, delivery, history, verdict, deadline)
            .await;
    }

    /// Returns a runner to the fleet, or ends it where the worker goes too.
    fn bring_back(&mut self, lent: BorrowedRunner<'_>, reusable: bool, lost: bool) {
        if !reusable {
            if lost {
                lent.crashed(&self.shared.metrics);
            } else {
                lent.finished();
            }
            return;
        }
        let stays = self.cell.seen().phase == crate::decide::Phase::Busy;
        let over = if stays {
            lent.bring_back()
        } else {
            lent.take_out().map(|idle| (idle, "retired"))
        };
        if let Some((idle, reason)) = over {
            let fleet = &self.shared.fleet;
            fleet.count_out(idle.kind(), &self.shared.metrics, reason);
            // The next job need not wait for it.
            fleet.end(idle);
        }
    }

    fn note_start(&self, job: &Job, lent: &BorrowedRunner<'_>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let waited = now.ok().and_then(|now| job.message().waited_at(now));
        if let Some(waited) = waited {
            self.shared.metrics.job_waited(waited);
            self.shared.recent.waited(self.shared.now(), waited);
        }
        self.shared.fleet.emit(|pool| Event::RunnerStart {
            pool,
            job_id: job.id().clone(),
            idle: lent.was_idle,
            queue_duration: waited,
        });
    }

    fn note_stop(&self, job: &Job, outcome: JobOutcome, end: &JobEnd, took: Duration) {
        self.shared.fleet.emit(|pool| Event::RunnerStop {
            pool,
            job_id: Some(job.id().clone()),
            status: outcome.as_str(),
            status_info: match end {
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
}

/// The message as its job sees it: of a copy, too, a job is told that there may have been one before.
fn as_taken(message: &Arc<Message>, history: History) -> Arc<Message> {
    if message.redelivered || !history.was_taken {
        return message.clone();
    }
    Arc::new(Message {
        redelivered: true,
        ..Message::clone(message)
    })
}

/// What to look at where a consumer was lost under a job.
fn lost_hint(why: WorkerStopReason) -> Option<&'static str> {
    match why {
        WorkerStopReason::HeldTooLong => Some(
            "the broker's consumer timeout is shorter than ack_deadline: lower ack_deadline below it, or raise it \
             (consumer_timeout in rabbitmq.conf, or the queue's x-consumer-timeout)",
        ),
        WorkerStopReason::Cancelled => Some(
            "the queue was deleted, its node lost, or a delivery held longer than the broker's consumer timeout",
        ),
        _ => None,
    }
}

fn outcome_of(end: &JobEnd) -> JobOutcome {
    match end {
        JobEnd::Done { .. } => JobOutcome::Done,
        JobEnd::Retry { .. } => JobOutcome::Retry,
        JobEnd::Rejected { .. } => JobOutcome::Rejected,
        JobEnd::Failed(Failure {
            kind: FailureKind::Timeout,
            ..
        }) => JobOutcome::Timeout,
        JobEnd::Failed(_) => JobOutcome::Failed,
        JobEnd::WrapperFailed(_) => JobOutcome::LaunchFailed,
        JobEnd::NotStarted(_) => JobOutcome::NotStarted,
        JobEnd::Stopped => JobOutcome::Stopped,
    }
}

/// What a job's end is to the breaker. `None`: nothing, for it was our doing.
fn ending_of(end: &JobEnd) -> Option<BreakerSignal<'_>> {
    match end {
        JobEnd::Done { .. } | JobEnd::Retry { .. } | JobEnd::Rejected { .. } => {
            Some(BreakerSignal::Answered)
        }
        JobEnd::Failed(failure) => Some(BreakerSignal::Failed(&failure.message)),
        JobEnd::WrapperFailed(failure) => Some(BreakerSignal::Unproven(&failure.message)),
        JobEnd::NotStarted(_) | JobEnd::Stopped => None,
    }
}

/// A runner that panics broke its promise; the job is taken to have failed.
fn runner_panicked(panicked: &Panicked) -> RunReport {
    RunReport {
        end: JobEnd::Failed(Failure {
            kind: FailureKind::RunnerLost,
            message: format!("the runner panicked: {panicked}"),
            stderr_tail: None,
        }),
        reusable: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_consumer_was_lost_under_a_job_the_log_says_what_to_look_at() {
        let too_long = lost_hint(WorkerStopReason::HeldTooLong).expect("a hint");
        for part in [
            "consumer timeout",
            "lower ack_deadline",
            "x-consumer-timeout",
        ] {
            assert!(too_long.contains(part), "{too_long}");
        }
        let cancelled = lost_hint(WorkerStopReason::Cancelled).expect("a hint");
        for part in ["queue was deleted", "node lost", "consumer timeout"] {
            assert!(cancelled.contains(part), "{cancelled}");
        }
        // The loss of a connection says why itself.
        assert_eq!(lost_hint(WorkerStopReason::Lost), None);
    }
}
