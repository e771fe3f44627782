//! The runner: one slot of a process.

use std::{pin::pin, sync::Arc};

use async_trait::async_trait;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep},
};

use super::{
    super::{
        protocol,
        shared::{WarmShared, warn_of_loss},
        talk::{job_end, lost, timed_out},
    },
    conversation::{SentJob, SlotEnd, SlotOrder},
    processes::{GivenSlot, HeldSlot, SharedProcess, Taken},
};
use crate::{
    runner::{CreateRunner, Job, JobControl, JobEnd, Retirement, RunReport, Runner, StartError},
    runners::process::{EndCause, FOREVER},
};

/// A runner that is a slot of a process.
pub(in crate::runners::warm) struct WarmSlot {
    shared: Arc<WarmShared>,
    request: CreateRunner,
    /// `None` after it was given up or its process was lost.
    held: Option<HeldSlot>,
}

/// How a job's time in one process ended.
enum SlotOutcome {
    Ended(JobEnd),
    /// The process ended before it read any part of the job. The text is how it ended.
    NotTaken(String),
}

impl WarmSlot {
    pub(in crate::runners::warm) fn new(
        shared: Arc<WarmShared>,
        request: CreateRunner,
        held: GivenSlot,
    ) -> Self {
        Self {
            shared,
            request,
            held: Some(held.0),
        }
    }

    /// Runs a job. If the slot can take another job, it is kept.
    async fn run_job(&mut self, job: &Job, control: &JobControl) -> JobEnd {
        // A process may end before it has read any part of the job. The job can then run in another process. This is
        // tried once.
        let mut replaced = false;
        loop {
            let held = match self.held.take().filter(|held| !held.process.is_lost()) {
                Some(held) => held,
                None => match self.take_slot(control).await {
                    Ok(Some(held)) => held,
                    Ok(None) => return JobEnd::Stopped,
                    Err(error) => return JobEnd::NotStarted(error),
                },
            };
            let mut work = SlotWork::new(&self.shared, held);
            let outcome = work.run(job, control).await;
            self.held = work.into_slot();
            match outcome {
                SlotOutcome::Ended(end) => return end,
                SlotOutcome::NotTaken(how) => {
                    let problem = format!("{how} before it took its job");
                    if replaced {
                        return JobEnd::NotStarted(self.shared.taken_by_none(&problem));
                    }
                    warn_of_loss(&self.request, &problem);
                    replaced = true;
                }
            }
        }
    }

    /// Takes a slot of another process, unless the job is stopped in the meantime.
    async fn take_slot(&self, control: &JobControl) -> Result<Option<HeldSlot>, StartError> {
        let taken = tokio::select! {
            biased;
            () = control.kill.cancelled() => return Ok(None),
            () = control.stop.cancelled() => return Ok(None),
            taken = self.shared.take(&self.request) => taken?,
        };
        match taken {
            Taken::Slot(GivenSlot(held)) => Ok(Some(held)),
            Taken::Single(_) => Err(StartError {
                what: "the next process takes one job at a time: it uses version 1 of the protocol"
                    .to_owned(),
                source: None,
            }),
        }
    }
}

/// A job in a slot. **On drop** in the middle of the job, the process is killed: nothing else would end the job.
struct SlotWork<'s> {
    shared: &'s WarmShared,
    held: Option<HeldSlot>,
    is_running: bool,
}

impl<'s> SlotWork<'s> {
    fn new(shared: &'s WarmShared, held: HeldSlot) -> Self {
        held.process.begin();
        Self {
            shared,
            held: Some(held),
            is_running: false,
        }
    }

    fn into_slot(mut self) -> Option<HeldSlot> {
        let held = self.held.take()?;
        held.process.end();
        Some(held).filter(|held| !held.given_up && !held.process.is_lost())
    }

    fn process(&self) -> Option<&Arc<SharedProcess>> {
        Some(&self.held.as_ref()?.process)
    }

    async fn run(&mut self, job: &Job, control: &JobControl) -> SlotOutcome {
        let settings = &self.shared.settings.process;
        let Some(HeldSlot { process, slot, .. }) = &self.held else {
            return SlotOutcome::Ended(JobEnd::Stopped);
        };
        let (process, slot) = (Arc::clone(process), *slot);
        let (end, ended) = oneshot::channel();
        let (progress, mut progressed) = watch::channel(());
        process.order(SlotOrder::Job {
            slot,
            job: SentJob {
                id: job.id().clone(),
                line: protocol::job_line(job, Some(slot)).into(),
                progress,
                end,
            },
        });
        self.is_running = true;
        control.started.notify();
        let mut ended = pin!(ended);
        let mut stopped = pin!(control.stop.cancelled());
        let mut killed = pin!(control.kill.cancelled());
        let mut timer = pin!(sleep(settings.timeout.min(FOREVER)));
        let mut cause = None;
        let mut hears_progress = true;
        loop {
            let why = tokio::select! {
                biased;
                end = &mut ended => {
                    self.is_running = false;
                    return self.conclude(end.ok(), cause);
                }
                () = &mut killed => {
                    process.order(SlotOrder::Kill);
                    self.give_up();
                    return SlotOutcome::Ended(JobEnd::Stopped);
                }
                () = &mut stopped, if cause.is_none() => EndCause::Stop,
                () = &mut timer => match cause {
                    None => EndCause::Timeout,
                    Some(cause) => {
                        process.order(SlotOrder::GiveUp { slot });
                        self.give_up();
                        return SlotOutcome::Ended(match cause {
                            EndCause::Timeout => timed_out(settings.timeout, None),
                            EndCause::Stop => JobEnd::Stopped,
                        });
                    }
                },
                changed = progressed.changed(), if hears_progress => {
                    hears_progress = changed.is_ok();
                    // After a stop or the timeout, progress no longer extends the time.
                    if changed.is_ok() && cause.is_none() {
                        let deadline = Instant::now() + settings.timeout.min(FOREVER);
                        timer.as_mut().reset(deadline);
                    }
                    continue;
                }
            };
            cause = Some(why);
            process.order(SlotOrder::Stop { slot });
            timer
                .as_mut()
                .reset(Instant::now() + settings.kill_grace.min(FOREVER));
        }
    }

    /// Neither the slot nor its process gets another job.
    fn give_up(&mut self) {
        self.is_running = false;
        if let Some(held) = &mut self.held {
            held.given_up = true;
            held.process.close();
        }
    }

    fn conclude(&mut self, end: Option<SlotEnd>, cause: Option<EndCause>) -> SlotOutcome {
        let timeout = self.shared.settings.process.timeout;
        match end {
            Some(SlotEnd::Answered {
                answer,
                last,
                stderr_tail,
            }) => {
                if let Some(process) = self.process() {
                    process.worked(last);
                }
                SlotOutcome::Ended(job_end(answer, cause, timeout, stderr_tail))
            }
            Some(SlotEnd::NotTaken(how)) if cause.is_none() => SlotOutcome::NotTaken(how),
            Some(SlotEnd::Lost { problem, end }) => {
                SlotOutcome::Ended(lost(problem, end, cause, timeout))
            }
            // The process had ended before the order, or it was stopped before it read the job.
            Some(SlotEnd::NotTaken(_)) | None => match cause {
                None => SlotOutcome::NotTaken("ended".to_owned()),
                Some(EndCause::Stop) => SlotOutcome::Ended(JobEnd::Stopped),
                Some(EndCause::Timeout) => SlotOutcome::Ended(timed_out(timeout, None)),
            },
        }
    }
}

impl Drop for SlotWork<'_> {
    fn drop(&mut self) {
        if let Some(held) = &mut self.held {
            held.process.end();
            if self.is_running {
                held.given_up = true;
                held.process.close();
                held.process.order(SlotOrder::Kill);
            }
        }
    }
}

#[async_trait]
impl Runner for WarmSlot {
    async fn run(&mut self, job: &Job, control: JobControl) -> RunReport {
        if control.kill.is_cancelled() || control.stop.is_cancelled() {
            return RunReport {
                end: JobEnd::Stopped,
                reusable: self.held.is_some(),
            };
        }
        RunReport {
            end: self.run_job(job, &control).await,
            reusable: self.held.is_some(),
        }
    }

    fn is_alive(&mut self) -> bool {
        self.held
            .as_ref()
            .is_some_and(|held| !held.process.is_lost())
    }

    fn retires(&mut self) -> Option<Retirement> {
        let held = self.held.as_ref()?;
        held.process.retires(&self.shared.settings)
    }

    async fn stop(self: Box<Self>) {
        let Some(held) = self.held else { return };
        let lost = held.process.lost();
        let is_last = Arc::strong_count(&held.process) == 1;
        drop(held);
        if is_last {
            SharedProcess::ended(lost, self.shared.settings.process.kill_grace).await;
        }
    }
}
