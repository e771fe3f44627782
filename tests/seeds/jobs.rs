//! The jobs of a run, and the runners that they get.

use std::{
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tidegate::{
    adapters::handler::HandlerManager,
    runner::{BoxError, CreateRunner, Job, Outcome, Runner, RunnerManager, StartError},
};
use tokio::time;

use super::{
    ledger::{End, Ledger},
    plan::{Act, PlannedJob},
};

/// After this time a handler is stopped. Longer than every job that ends.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Runners that cannot start while they are broken.
#[derive(Debug)]
pub(crate) struct Runners {
    runners: Box<dyn RunnerManager>,
    pub(crate) broken: AtomicBool,
}

impl Runners {
    pub(crate) fn new(jobs: &[PlannedJob], ledger: &Arc<Ledger>) -> Self {
        let jobs: Arc<[PlannedJob]> = jobs.into();
        let ledger = ledger.clone();
        let handler = move |job: Job| {
            let (jobs, ledger) = (jobs.clone(), ledger.clone());
            async move { work(&jobs, &ledger, &job).await }
        };
        Self {
            runners: Box::new(HandlerManager::new(handler).timeout(TIMEOUT)),
            broken: AtomicBool::new(false),
        }
    }
}

async fn work(jobs: &[PlannedJob], ledger: &Ledger, job: &Job) -> Result<Outcome, BoxError> {
    let n: usize = std::str::from_utf8(job.body())?.parse()?;
    let attempt = job.attempt();
    let acts = &jobs[n].acts;
    let (time, act) = acts[(attempt as usize - 1).min(acts.len() - 1)];
    let run = ledger.begin(n, attempt);
    time::sleep(time).await;
    if act == Act::Hang {
        job.cancelled().cancelled().await;
    }
    run.end(End::Own(act));
    match act {
        Act::Done => Ok(Outcome::Done),
        Act::Retry => Ok(Outcome::retry()),
        Act::Reject => Ok(Outcome::reject("as planned")),
        Act::Fail | Act::Hang => Err(BoxError::from("as planned")),
        // Without the panic hook, which would print it.
        Act::Panic => panic::resume_unwind(Box::new("as planned")),
    }
}

#[async_trait]
impl RunnerManager for Runners {
    fn kind(&self) -> &'static str {
        self.runners.kind()
    }

    async fn create(&self, request: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(StartError {
                what: String::from("start a runner: they are broken"),
                source: None,
            });
        }
        self.runners.create(request).await
    }
}
