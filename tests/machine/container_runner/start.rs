//! Causes that keep a container from starting. None of them is a failure of the job, and the error text names the cause.

use std::{io, path::Path};

use tidegate::{
    runner::{JobControl, RunnerManager},
    runners::container::{ContainerManager, ContainerSettings, EngineAddress, Mount, Pull},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

use super::{containers_of, message, try_run};
use crate::needs::Need;
use crate::support::engine::{Engine, engine};

trials! {
    tasks(Need::Nothing): [
        names_the_addresses_that_were_tried_if_no_engine_answers,
        a_limit_that_the_engine_drops_is_an_error,
    ],
    tasks(Need::Engine): [
        a_missing_image_is_not_a_failure_of_the_job,
        an_image_that_cannot_be_pulled_again_is_used_as_it_is,
        a_network_mount_or_program_that_does_not_exist_is_not_a_failure_of_the_job,
    ],
}

/// The error text if nothing can be started. No container may be left at the engine.
async fn refusal(engine: Option<&Engine>, settings: ContainerSettings) -> String {
    let manager = ContainerManager::new(settings);
    let message = message();
    let refused = try_run(&manager, message.clone(), JobControl::default()).await;
    let mut error: &dyn std::error::Error = &refused.expect_err("nothing starts");
    let mut said = error.to_string();
    while let Some(source) = error.source() {
        error = source;
        said = format!("{said}: {error}");
    }
    manager.quiesce().await;
    if let Some(engine) = engine {
        assert_eq!(containers_of(engine, &message).await, []);
    }
    said
}

async fn names_the_addresses_that_were_tried_if_no_engine_answers() {
    let mut settings = ContainerSettings::new("a");
    settings.engine = Some(EngineAddress::Unix("/no/such/engine.sock".into()));
    assert_eq!(
        refusal(None, settings).await,
        "failed to start a runner: no container engine answers at unix:///no/such/engine.sock (no such socket)"
    );
}

/// An engine that drops the memory limit and reports it as a warning, like an engine on a machine without that limit.
fn forgetful_engine(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
}

/// Answers one request.
async fn answer(stream: UnixStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut request, mut body) = (String::new(), Vec::new());
    stream.read_line(&mut request).await?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(length) = line.strip_prefix("content-length:") {
            body = vec![0; length.trim().parse().unwrap()];
        }
    }
    stream.read_exact(&mut body).await?;
    let (code, said) = if request.contains("/version") {
        ("200 OK", r#"{"ApiVersion":"1.41"}"#)
    } else if request.contains("/containers/create") {
        (
            "201 Created",
            r#"{"Id":"1","Warnings":["Limitation discarded."]}"#,
        )
    } else if request.starts_with("GET") {
        ("200 OK", r#"{"HostConfig":{"Memory":0,"PidsLimit":9}}"#)
    } else {
        ("200 OK", "")
    };
    let head = "connection: close\r\ncontent-type: application/json\r\ncontent-length:";
    let answer = format!("HTTP/1.1 {code}\r\n{head} {}\r\n\r\n{said}", said.len());
    stream.write_all(answer.as_bytes()).await
}

async fn a_limit_that_the_engine_drops_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    forgetful_engine(&socket);
    let mut settings = ContainerSettings::new("a");
    settings.pull = Pull::Never;
    settings.engine = Some(EngineAddress::Unix(socket));
    settings.memory_max = Some(64 << 20);
    settings.pids_max = Some(9);
    assert_eq!(
        refusal(None, settings).await,
        "failed to start a runner: the engine does not apply memory_max: Limitation discarded."
    );
}

async fn a_missing_image_is_not_a_failure_of_the_job() {
    let engine = engine();
    let mut settings = engine.settings("tidegate-test-no-such-image");
    let told = refusal(Some(engine), settings.clone()).await;
    let expected = "failed to start a runner: pull the image tidegate-test-no-such-image: ";
    assert!(told.starts_with(expected), "{told}");

    settings.pull = Pull::Never;
    let told = refusal(Some(engine), settings).await;
    let expected = "failed to start a runner: create a container of tidegate-test-no-such-image: No such image";
    assert!(told.starts_with(expected), "{told}");
}

async fn an_image_that_cannot_be_pulled_again_is_used_as_it_is() {
    let engine = engine();
    let mut settings = engine.script("exit 0");
    settings.pull = Pull::Always;
    let manager = ContainerManager::new(settings);
    let end = try_run(&manager, message(), JobControl::default()).await;
    end.expect("the image is there");
}

async fn a_network_mount_or_program_that_does_not_exist_is_not_a_failure_of_the_job() {
    let engine = engine();
    let mut no_network = engine.script("exit 0");
    no_network.network = Some("no-such-network".to_owned());
    let told = refusal(Some(engine), no_network).await;
    assert!(told.contains("no-such-network not found"), "{told}");

    let mut no_mount = engine.script("exit 0");
    no_mount.mounts = vec![Mount::parse("/no/such/folder:/folder").expect("a mount")];
    let told = refusal(Some(engine), no_mount).await;
    assert!(told.contains("/no/such/folder"), "{told}");

    let mut no_program = engine.settings(engine.image());
    no_program.command = vec!["/no/such/program".to_owned()];
    let told = refusal(Some(engine), no_program).await;
    let expected = format!(
        "failed to start a runner: start a container of {}: ",
        engine.image()
    );
    assert!(told.starts_with(&expected), "{told}");
    assert!(told.contains("/no/such/program"), "{told}");
}
