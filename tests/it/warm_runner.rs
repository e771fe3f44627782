//! The `warm` runner with real processes: tests that the conformance suite cannot make for every kind.

mod broken;
mod life;
mod pools;
mod talk;

use std::{sync::Arc, time::Duration};

use tidegate::{
    decide::RunnerId,
    queue::Message,
    runner::{
        CreateRunner, Failure, FailureKind, Job, JobControl, JobEnd, RunReport, Runner,
        RunnerManager, StartError,
    },
    runners::{WarmSettings, warm::WarmManager},
};

use crate::support::witness::{Witness, soon};

/// A shell script as a pool's command. `$FOLDER` is the witness's folder, and descriptor 9 is the witness. `$ready`
/// is the ready line, and `answer OUTCOME` answers the job "job".
fn script(witness: &Witness, script: &str) -> WarmSettings {
    let script = format!(
        "exec 9>\"$FOLDER/witness\"\n\
         ready='{{\"ready\":true,\"protocol\":1}}'\n\
         answer() {{ echo \"{{\\\"id\\\":\\\"job\\\",\\\"outcome\\\":$1}}\"; }}\n\
         {script}"
    );
    let mut settings = WarmSettings::new(["sh", "-c", &script]);
    let folder = witness.folder().to_str().expect("a UTF-8 path");
    settings.process.env = [("FOLDER".to_owned(), folder.to_owned())].into();
    settings.process.timeout = Duration::from_secs(3600);
    settings.process.kill_grace = Duration::from_secs(3600);
    settings.start_timeout = Duration::from_secs(3600);
    settings
}

/// A process that does this for each job.
fn each_job(witness: &Witness, work: &str) -> WarmSettings {
    script(
        witness,
        &format!("echo \"$ready\"\nwhile IFS= read -r line; do\n{work}\ndone"),
    )
}

fn job(body: &str) -> Job {
    let message = Message {
        body: body.to_owned().into(),
        ..Message::default()
    };
    Job::new("pool".into(), "queue".into(), Arc::new(message), 1, || {
        "job".into()
    })
}

async fn try_create(settings: WarmSettings) -> Result<Box<dyn Runner>, StartError> {
    let request = CreateRunner {
        id: RunnerId(1),
        pool: "pool".into(),
    };
    soon(WarmManager::new(settings).create(request)).await
}

async fn create(settings: WarmSettings) -> Box<dyn Runner> {
    try_create(settings).await.expect("a runner")
}

async fn run(runner: &mut dyn Runner, body: &str) -> RunReport {
    soon(runner.run(&job(body), JobControl::default())).await
}

/// The failure of a job that was lost with its runner.
async fn loss(settings: WarmSettings) -> Failure {
    let mut runner = create(settings).await;
    let report = run(&mut *runner, "").await;
    assert!(!report.reusable, "{report:?}");
    match report.end {
        JobEnd::Failed(failure) => failure,
        end => panic!("{end:?}"),
    }
}

/// The error text for the loss of a runner.
async fn lost(settings: WarmSettings) -> String {
    let failure = loss(settings).await;
    assert_eq!(failure.kind, FailureKind::RunnerLost);
    failure.message
}
