//! The worker: a task that owns one consumer and runs one job at a time.
//!
//! Order of its end, whatever ends it: the consumer is cancelled and the broker's confirmation awaited, what had
//! been sent ahead is given back, the channel is closed. A running job comes before all of that: it is finished
//! and settled first, unless it was ordered to stop.

use std::{
    collections::VecDeque,
    future::poll_fn,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::FutureExt as _;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, debug_span, warn};

use super::{
    cell::{After, Leaving, WorkerCell},
    events::Event,
    fleet::Lent,
    metrics::JobOutcome,
    replies::output_use,
    settling::{HoldUntil, chain, prepare},
    shared::Shared,
};
use crate::{
    config::PoolSettings,
    decide::{Ending, Hours, JobId, QueueName},
    queue::{ConsumeRequest, Consumer, Delivery, QueueErrorKind},
    runner::{Failure, FailureKind, Job, JobControl, JobEnd, OnStart, RunReport},
    settle::{History, Verdict, carried_job_id, crash_loop, give_back, past_deadline, verdict},
};

/// How long a worker whose runner could not start keeps its message from workers that still wait.
const QUIET_WAIT: Duration = Duration::from_secs(2);

/// Runs a worker to its end, and says why it ended.
pub(crate) async fn work(shared: Arc<Shared>, cell: Arc<WorkerCell>) -> Leaving {
    let settings = shared.settings();
    let request = ConsumeRequest {
        queue: settings.queue.clone(),
        prefetch: settings.prefetch,
        tag: consumer_tag(&shared, &cell),
    };
    let opened = tokio::select! {
        biased;
        () = cell.leave.cancelled() => return cell.go(Leaving::ScaledDown),
        opened = shared.driver.consume(request) => opened,
    };
    let consumer = match opened {
        Ok(consumer) => consumer,
        Err(error) => {
            debug!(error = %chain(&error), "consumer not opened");
            shared.open_failed(chain(&error));
            return cell.go(Leaving::NotOpened);
        }
    };
    cell.consuming(shared.now());
    shared.opened();
    let on_start = OnStart::new(Arc::new({
        let shared = shared.clone();
        move || shared.gate.started()
    }));
    let mut worker = Worker {
        shared: &shared,
        cell: &cell,
        queue: settings.queue.clone(),
        intake: Intake {
            consumer,
            ahead: VecDeque::new(),
            ended: None,
        },
        on_start,
        stop: None,
    };
    let why = worker.serve().await;
    worker.leave().await;
    why
}

/// Consumer tags name their worker to whoever looks at the broker, and are unique to a channel anyway.
fn consumer_tag(shared: &Shared, cell: &WorkerCell) -> String {
    // A tag is a short string: 255 bytes.
    let host: String = shared.host.chars().take(64).collect();
    format!(
        "tidegate.{}.{}@{host}.{}",
        shared.name,
        cell.id,
        std::process::id()
    )
}

struct Worker<'a> {
    shared: &'a Arc<Shared>,
    cell: &'a WorkerCell,
    /// The queue that it consumes: the pool's own may have changed since.
    queue: QueueName,
    intake: Intake,
    on_start: OnStart,
    /// Ends the job that runs, with grace. A child of the cell's, made when first needed.
    stop: Option<CancellationToken>,
}

/// A consumer, and what it was sent ahead of need.
struct Intake {
    consumer: Box<dyn Consumer>,
    ahead: VecDeque<Arrived>,
    /// Why no more will come.
    ended: Option<Leaving>,
}

/// A delivery and when it came: from then on the broker counts.
struct Arrived {
    delivery: Delivery,
    at: Instant,
    /// Whether others were before it.
    waited: bool,
}

/// How a job came to be ended before its own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Not at all, or by the pool's or the supervisor's word.
    No,
    /// Its delivery could be held no longer.
    AtDeadline,
}

impl Intake {
    /// The next thing that the consumer says. Pending for ever once it has ended. Cancel-safe.
    async fn next(&mut self) -> Result<Arrived, Leaving> {
        if self.ended.is_some() {
            return std::future::pending().await;
        }
        match poll_fn(|cx| self.consumer.poll_next(cx)).await {
            Some(Ok(delivery)) => Ok(Arrived {
                delivery,
                at: Instant::now(),
                waited: false,
            }),
            Some(Err(error)) => {
                let why = match error.kind {
                    QueueErrorKind::HeldTooLong => Leaving::HeldTooLong,
                    _ => Leaving::Lost,
                };
                debug!(error = %chain(&error), "consumer lost");
                self.ended = Some(why);
                Err(why)
            }
            // Nobody here has cancelled it.
            None => {
                self.ended = Some(Leaving::Cancelled);
                Err(Leaving::Cancelled)
            }
        }
    }
}

impl Worker<'_> {
    /// Takes deliveries and works on them, until something ends it.
    async fn serve(&mut self) -> Leaving {
        loop {
            let arrived = match self.wait().await {
                Ok(arrived) => arrived,
                Err(why) => return self.cell.go(why),
            };
            if !self.cell.take() {
                self.intake.ahead.push_front(arrived);
                return self.cell.go(Leaving::ScaledDown);
            }
            self.shared.delivery_taken();
            if let Err(why) = self.job(arrived).await {
                return self.cell.go(why);
            }
            match self.cell.finish(self.held()) {
                After::Stay => {}
                After::Go(why) => return why,
            }
        }
    }

    /// Waits for a delivery.
    async fn wait(&mut self) -> Result<Arrived, Leaving> {
        if let Some(mut arrived) = self.intake.ahead.pop_front() {
            arrived.waited = true;
            return Ok(arrived);
        }
        if let Some(why) = self.intake.ended {
            return Err(why);
        }
        self.shared.waiting_more();
        let next = tokio::select! {
            biased;
            () = self.cell.leave.cancelled() => None,
            next = self.intake.next() => Some(next),
        };
        let result = match next {
            // Still counted as waiting until the broker has confirmed that nothing more will come.
            None => {
                self.cancel().await;
                Err(Leaving::ScaledDown)
            }
            Some(Ok(arrived)) => Ok(arrived),
            Some(Err(why)) => {
                self.cell.not_consuming();
                Err(why)
            }
        };
        self.shared.waiting_less();
        result
    }

    /// The pool's settings, with the queue that this worker consumes.
    fn settings(&self) -> Arc<PoolSettings> {
        let settings = self.shared.settings();
        if settings.queue == self.queue {
            return settings;
        }
        Arc::new(PoolSettings {
            queue: self.queue.clone(),
            ..PoolSettings::clone(&settings)
        })
    }

    fn held(&self) -> u32 {
        u32::try_from(self.intake.ahead.len()).unwrap_or(u32::MAX)
    }

    /// Runs the job of a delivery and settles it.
    async fn job(&mut self, arrived: Arrived) -> Result<(), Leaving> {
        let Arrived {
            delivery,
            at,
            waited,
        } = arrived;
        let settings = self.settings();
        let history = History::of(delivery.message(), &settings.retry);
        let times = self.shared.fleet.times();
        let hours = Hours::new(settings.ack_deadline, times.stop_grace);
        let deadline = at + hours.settle;
        let job = Job::new(
            self.shared.name.clone(),
            settings.queue.clone(),
            delivery.message().clone(),
            history.attempt,
            || carried_job_id(delivery.message()).unwrap_or_else(|| self.shared.make_job_id()),
        );
        let span = debug_span!("job", job.id = %job.id().as_str().escape_debug());
        async {
            if history.is_crash_loop() {
                let verdict = crash_loop(history, &settings.retry);
                return self
                    .settle(
                        &settings,
                        Some(job.id()),
                        delivery,
                        history,
                        verdict,
                        deadline,
                    )
                    .await;
            }
            if waited && !hours.is_worth_starting(at.elapsed(), times.timeout) {
                debug!("job is given back: its delivery has waited too long behind others");
                let verdict = give_back(history, &settings.retry);
                return self
                    .settle(
                        &settings,
                        Some(job.id()),
                        delivery,
                        history,
                        verdict,
                        deadline,
                    )
                    .await;
            }
            self.run_and_settle(&settings, delivery, history, &job, at, hours)
                .await
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
        hours: Hours,
    ) -> Result<(), Leaving> {
        let deadline = at + hours.settle;
        let shared = self.shared.clone();
        // Bringing a runner up may take as long as some jobs do, and ends as they do.
        let lent = tokio::select! {
            biased;
            () = self.cell.stop.cancelled() => None,
            () = shared.kill.cancelled() => None,
            lent = shared.fleet.lend(&shared.metrics) => Some(Ok(lent)),
            () = time::sleep_until(at + hours.stop) => Some(Err(Cut::AtDeadline)),
        };
        let mut lent = match lent {
            Some(Ok(Ok(lent))) => lent,
            None | Some(Err(_)) => {
                let cut = lent.map_or(Cut::No, |_| Cut::AtDeadline);
                let verdict = self.stopped(job, cut, at, history, settings);
                return self
                    .settle(
                        settings,
                        Some(job.id()),
                        delivery,
                        history,
                        verdict,
                        deadline,
                    )
                    .await;
            }
            Some(Ok(Err(error))) => {
                self.shared
                    .metrics
                    .job_ended(JobOutcome::NotStarted, Duration::ZERO);
                let cause = chain(&error);
                self.give_up(settings, job, delivery, history, &cause, deadline)
                    .await;
                return Err(Leaving::Faulted);
            }
        };
        self.note_start(job, &lent);
        let begun = Instant::now();
        let (report, cut) = self.run(settings, &mut lent, job, at, hours).await;
        let took = begun.elapsed();
        let outcome = match (outcome_of(&report.end), cut) {
            (JobOutcome::Stopped, Cut::AtDeadline) => JobOutcome::Deadline,
            (outcome, _) => outcome,
        };
        self.shared.metrics.job_ended(outcome, took);
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
            return Err(Leaving::Faulted);
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
            self.cell.go(Leaving::Faulted);
        }
        let reusable = report.reusable;
        let lost = matches!(
            &report.end,
            JobEnd::Failed(failure) if failure.kind == FailureKind::RunnerLost
        );
        let verdict = match report.end {
            JobEnd::Stopped => self.stopped(job, cut, at, history, settings),
            end => verdict(end, history, &settings.retry),
        };
        let settled = self
            .settle(
                settings,
                Some(job.id()),
                delivery,
                history,
                verdict,
                deadline,
            )
            .await;
        self.bring_back(lent, reusable, lost);
        settled
    }

    /// What becomes of a job that was stopped.
    fn stopped(
        &self,
        job: &Job,
        cut: Cut,
        at: Instant,
        history: History,
        settings: &PoolSettings,
    ) -> Verdict {
        if cut == Cut::No {
            self.shared.totals.count_stopped();
            return verdict(JobEnd::Stopped, history, &settings.retry);
        }
        warn!(
            pool = %self.shared.name,
            job.id = %job.id().as_str().escape_debug(),
            held_ms = at.elapsed().as_millis() as u64,
            ack_deadline_ms = settings.ack_deadline.as_millis() as u64,
            "job was stopped and is given back: its delivery may be held no longer than ack_deadline"
        );
        past_deadline(history, &settings.retry)
    }

    /// Runs a job on a runner, and meanwhile takes in what the consumer is sent ahead, or that it was lost. Stops it
    /// when its delivery can be held no longer.
    async fn run(
        &mut self,
        settings: &PoolSettings,
        lent: &mut Lent<'_>,
        job: &Job,
        at: Instant,
        hours: Hours,
    ) -> (RunReport, Cut) {
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
        let running = AssertUnwindSafe(lent.runner().run(job, control)).catch_unwind();
        let mut running = std::pin::pin!(running);
        // Costs nothing until it is first polled, which is when a job has to be waited for.
        let mut due = std::pin::pin!(time::sleep_until(at + hours.stop));
        let (mut told, mut cut) = (false, Cut::No);
        loop {
            tokio::select! {
                biased;
                report = &mut running => {
                    let report = report.unwrap_or_else(|panic| runner_panicked(panic.as_ref()));
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
                        cut = Cut::AtDeadline;
                        stop.cancel();
                    }
                    due.as_mut().reset(at + hours.abandon);
                }
                next = self.intake.next() => match next {
                    Ok(arrived) => {
                        self.intake.ahead.push_back(arrived);
                        self.cell.hold(1 + self.held());
                    }
                    Err(why) => {
                        self.cell.not_consuming();
                        warn!(
                            pool = %self.shared.name,
                            worker.id = %self.cell.id,
                            job.id = %job.id().as_str().escape_debug(),
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
    async fn settle(
        &mut self,
        settings: &PoolSettings,
        job: Option<&JobId>,
        delivery: Delivery,
        history: History,
        verdict: Verdict,
        deadline: Instant,
    ) -> Result<(), Leaving> {
        let hold = HoldUntil {
            deadline,
            stop: &self.cell.stop,
            kill: &self.shared.kill,
        };
        let prepared = prepare(self.shared, settings, job, delivery, history, verdict, hold).await;
        let gives_back = prepared.gives_back();
        if gives_back || self.cell.goes_after_this() {
            self.cancel().await;
        }
        prepared.settle(self.shared).await;
        if gives_back {
            Err(Leaving::GaveBack)
        } else {
            Ok(())
        }
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
        let verdict = give_back(history, &settings.retry);
        // It goes in any case, and by its own reason.
        let _ = self
            .settle(
                settings,
                Some(job.id()),
                delivery,
                history,
                verdict,
                deadline,
            )
            .await;
    }

    /// Returns a runner to the fleet, or ends it where the worker goes too.
    fn bring_back(&mut self, lent: Lent<'_>, reusable: bool, lost: bool) {
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

    /// Cancels the consumer, once.
    async fn cancel(&mut self) {
        self.cell.not_consuming();
        if self.intake.ended.is_some() {
            return;
        }
        self.intake.ended = Some(Leaving::ScaledDown);
        if let Err(error) = self.intake.consumer.cancel().await {
            // The broker gives back by itself what was sent ahead on a channel that is gone.
            debug!(error = %chain(&error), "consumer not cancelled: its channel is gone");
            return;
        }
        // What was sent before the broker heard of it.
        while let Some(Ok(delivery)) = poll_fn(|cx| self.intake.consumer.poll_next(cx)).await {
            self.intake.ahead.push_back(Arrived {
                delivery,
                at: Instant::now(),
                waited: false,
            });
        }
    }

    /// Ends the worker: consumer cancelled, what was sent ahead given back, channel closed.
    async fn leave(mut self) {
        self.cancel().await;
        let settings = self.settings();
        let deadline = Instant::now();
        while let Some(Arrived { delivery, .. }) = self.intake.ahead.pop_front() {
            let history = History::of(delivery.message(), &settings.retry);
            let verdict = give_back(history, &settings.retry);
            let _ = self
                .settle(&settings, None, delivery, history, verdict, deadline)
                .await;
        }
        self.intake.consumer.close().await;
    }

    fn note_start(&self, job: &Job, lent: &Lent<'_>) {
        let waited = job.message().properties.timestamp.and_then(waited_since);
        if let Some(waited) = waited {
            self.shared.metrics.job_waited(waited);
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

/// What to look at where a consumer was lost under a job.
fn lost_hint(why: Leaving) -> Option<&'static str> {
    match why {
        Leaving::HeldTooLong => Some(
            "the broker's consumer timeout is shorter than ack_deadline: lower ack_deadline below it, or raise it \
             (consumer_timeout in rabbitmq.conf, or the queue's x-consumer-timeout)",
        ),
        Leaving::Cancelled => Some(
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
fn ending_of(end: &JobEnd) -> Option<Ending<'_>> {
    match end {
        JobEnd::Done { .. } | JobEnd::Retry { .. } | JobEnd::Rejected { .. } => {
            Some(Ending::Answered)
        }
        JobEnd::Failed(failure) => Some(Ending::Failed(&failure.message)),
        JobEnd::WrapperFailed(failure) => Some(Ending::Unproven(&failure.message)),
        JobEnd::NotStarted(_) | JobEnd::Stopped => None,
    }
}

/// A runner that panics broke its promise; the job is taken to have failed.
fn runner_panicked(panic: &(dyn std::any::Any + Send)) -> RunReport {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    RunReport {
        end: JobEnd::Failed(Failure {
            kind: FailureKind::RunnerLost,
            message: format!("the runner panicked: {text}"),
            stderr_tail: None,
        }),
        reusable: false,
    }
}

/// Time since a timestamp in whole seconds, where it is in the past.
fn waited_since(timestamp: u64) -> Option<Duration> {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()?
        .checked_sub(Duration::from_secs(timestamp))
}
