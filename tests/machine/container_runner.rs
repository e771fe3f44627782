//! The `container` runner on a real engine: tests that the conformance suite cannot make for every kind.

mod ending;
mod pools;
mod seen;
mod start;
mod strays;

use std::sync::Arc;

use bollard::models::ContainerSummary;
use tidegate::{
    decide::RunnerId,
    queue::{Message, Properties},
    runner::{CreateRunner, Failure, Job, JobControl, JobEnd, RunnerManager, StartError},
    runners::container::{ContainerManager, ContainerSettings, Mount},
};

use crate::harness::Trials;
use crate::support::{
    engine::Engine,
    witness::{Witness, soon},
};

pub(crate) fn trials(all: &mut Trials) {
    ending::trials(all);
    pools::trials(all);
    seen::trials(all);
    start::trials(all);
    strays::trials(all);
}

/// A shell script in a container. `/folder` is the witness's folder, and descriptor 9 is the witness.
fn witnessed(engine: &Engine, witness: &Witness, script: &str) -> ContainerSettings {
    let mut settings = engine.script(&format!("exec 9>/folder/witness\n{script}"));
    settings.mounts = vec![folder(witness)];
    settings
}

fn folder(witness: &Witness) -> Mount {
    let folder = witness.folder().to_str().expect("a UTF-8 path");
    Mount::parse(&format!("{folder}:/folder")).expect("a mount")
}

/// A message with a unique id, by which its containers are found.
fn message() -> Message {
    Message {
        properties: Properties {
            message_id: Some(format!("job-{:016x}", rand::random::<u64>())),
            ..Properties::default()
        },
        ..Message::default()
    }
}

fn job(message: Message) -> Job {
    Job::new("pool".into(), "queue".into(), Arc::new(message), 2, || {
        "job".into()
    })
}

async fn try_run(
    manager: &ContainerManager,
    message: Message,
    control: JobControl,
) -> Result<JobEnd, StartError> {
    let request = CreateRunner {
        id: RunnerId(1),
        pool: "pool".into(),
    };
    let mut runner = soon(manager.create(request)).await?;
    let job = job(message);
    match soon(runner.run(&job, control)).await.end {
        JobEnd::NotStarted(error) => Err(error),
        end => Ok(end),
    }
}

async fn run(settings: ContainerSettings, message: Message) -> JobEnd {
    let manager = ContainerManager::new(settings);
    let end = try_run(&manager, message, JobControl::default()).await;
    end.expect("an engine and an image")
}

fn failure(end: JobEnd) -> Failure {
    match end {
        JobEnd::Failed(failure) | JobEnd::WrapperFailed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

/// The containers of a message's job.
async fn containers_of(engine: &Engine, message: &Message) -> Vec<ContainerSummary> {
    let id = message.properties.message_id.as_deref().expect("an id");
    engine.labelled(&format!("tidegate.job={id}")).await
}

/// The one container of a message's job.
async fn container_of(engine: &Engine, message: &Message) -> ContainerSummary {
    let mut found = containers_of(engine, message).await;
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}
