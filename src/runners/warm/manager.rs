//! The manager of `warm` runners, and the runner: a process, and the settings to start another process.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use super::{
    WarmSettings,
    link::{StopMode, WarmLink},
    shared::{WarmShared, warn_of_loss},
    slots::{Taken, WarmSlot},
    talk::{TalkOutcome, talk},
    wear::ProcessUsage,
};
use crate::{
    host::cgroup,
    runner::{
        CleanupReport, CreateRunner, Job, JobControl, JobEnd, JobTimes, Retirement, RunReport,
        Runner, RunnerManager, StartError,
    },
};

/// Runs jobs in processes that serve one job after another. The documentation of [`warm`](crate::runners::warm)
/// describes what a process receives and writes.
pub struct WarmManager {
    shared: Arc<WarmShared>,
}

impl WarmManager {
    /// A manager for this command. Reads the supervisor's own environment once, here.
    pub fn new(settings: WarmSettings) -> Self {
        Self {
            shared: Arc::new(WarmShared::new(settings)),
        }
    }
}

impl fmt::Debug for WarmManager {
    // The environment may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WarmManager")
            .field("command", &self.shared.settings.process.command)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl RunnerManager for WarmManager {
    fn kind(&self) -> &'static str {
        "warm"
    }

    fn answers(&self) -> bool {
        true
    }

    fn times(&self) -> JobTimes {
        let settings = &self.shared.settings.process;
        JobTimes {
            timeout: Some(settings.timeout),
            stop_grace: settings.kill_grace,
        }
    }

    fn prestart(&self) -> u32 {
        self.shared.settings.prestart
    }

    async fn cleanup(&self) -> CleanupReport {
        cgroup::sweep();
        CleanupReport::default()
    }

    async fn create(&self, request: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        let shared = &self.shared;
        let up = if shared.settings.concurrency > 1 {
            match shared.take(&request).await? {
                Taken::Slot(held) => {
                    return Ok(Box::new(WarmSlot::new(Arc::clone(shared), request, held)));
                }
                Taken::Single(link) => {
                    shared.warn_of_single(&request);
                    ReadyProcess::new(shared, link)
                }
            }
        } else {
            ReadyProcess::start(shared, &request).await?
        };
        Ok(Box::new(WarmRunner {
            shared: Arc::clone(&self.shared),
            request,
            up: Some(up),
        }))
    }
}

struct WarmRunner {
    shared: Arc<WarmShared>,
    request: CreateRunner,
    /// `None` while a job has it, and after a process was lost.
    up: Option<ReadyProcess>,
}

/// A process that is ready.
struct ReadyProcess {
    link: Box<WarmLink>,
    wear: ProcessUsage,
    /// Whether a check after its last job found no problem.
    looked_at: bool,
}

impl ReadyProcess {
    /// The reason why it can take no other job, if there is one.
    fn problem(&mut self) -> Option<String> {
        let problem = self.link.problem();
        self.looked_at = problem.is_none();
        problem
    }
}

impl ReadyProcess {
    async fn start(shared: &WarmShared, request: &CreateRunner) -> Result<Self, StartError> {
        Ok(Self::new(shared, shared.start(request).await?))
    }

    fn new(shared: &WarmShared, link: Box<WarmLink>) -> Self {
        let wear = ProcessUsage::new(&shared.settings, rand::random());
        Self {
            link,
            wear,
            looked_at: true,
        }
    }
}

impl WarmRunner {
    /// Runs a job. If the process can take another job, it is put back.
    async fn run_job(&mut self, job: &Job, control: &JobControl) -> JobEnd {
        let settings = &self.shared.settings.process;
        // A process may end before it has read any part of the job. The job can then run in another process. This is
        // tried once.
        let mut replaced = false;
        loop {
            let mut fit = self.up.take();
            // Usually the pool has just checked the process.
            if let Some(up) = fit.as_mut().filter(|up| !up.looked_at)
                && let Some(problem) = up.problem()
            {
                warn_of_loss(&self.request, &problem);
                fit = None;
            }
            let up = match fit {
                Some(up) => up,
                None => match self.start(control).await {
                    Ok(Some(up)) => up,
                    Ok(None) => return JobEnd::Stopped,
                    Err(error) => return JobEnd::NotStarted(error),
                },
            };
            let mut wear = up.wear;
            match talk(up.link, settings, job, control).await {
                TalkOutcome::Stays { link, end, last } => {
                    wear.worked(last);
                    self.up = Some(ReadyProcess {
                        link,
                        wear,
                        looked_at: false,
                    });
                    return end;
                }
                TalkOutcome::Gone(end) => return end,
                TalkOutcome::NotTaken(end) => {
                    let problem = format!(
                        "{} before it took its job",
                        end.in_words("closed its standard input or output")
                    );
                    if replaced {
                        return JobEnd::NotStarted(self.shared.taken_by_none(&problem));
                    }
                    warn_of_loss(&self.request, &problem);
                    replaced = true;
                }
            }
        }
    }

    /// Starts another process, unless the job is stopped in the meantime.
    async fn start(&self, control: &JobControl) -> Result<Option<ReadyProcess>, StartError> {
        tokio::select! {
            biased;
            () = control.kill.cancelled() => Ok(None),
            () = control.stop.cancelled() => Ok(None),
            up = ReadyProcess::start(&self.shared, &self.request) => up.map(Some),
        }
    }
}

#[async_trait]
impl Runner for WarmRunner {
    async fn run(&mut self, job: &Job, control: JobControl) -> RunReport {
        if control.kill.is_cancelled() || control.stop.is_cancelled() {
            return RunReport {
                end: JobEnd::Stopped,
                reusable: self.up.is_some(),
            };
        }
        RunReport {
            end: self.run_job(job, &control).await,
            reusable: self.up.is_some(),
        }
    }

    fn is_alive(&mut self) -> bool {
        let problem = self.up.as_mut().map(ReadyProcess::problem);
        match problem {
            Some(None) => true,
            Some(Some(problem)) => {
                warn_of_loss(&self.request, &problem);
                false
            }
            None => false,
        }
    }

    fn retires(&mut self) -> Option<Retirement> {
        let up = self.up.as_mut()?;
        up.wear.retires(&self.shared.settings, up.link.process.id())
    }

    async fn stop(self: Box<Self>) {
        if let Some(up) = self.up {
            let time_limit = self.shared.settings.process.kill_grace;
            up.link.end(StopMode::Polite(time_limit)).await;
        }
    }
}
