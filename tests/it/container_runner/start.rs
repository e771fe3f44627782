//! What keeps a container from starting: the runner's fault, and told so that it can be mended.

use tidegate::{
    adapters::container::ContainerManager,
    config::{ContainerSettings, EngineAddress, Mount, Pull},
    runner::{JobControl, RunnerManager},
};

use super::{containers_of, message, try_run};
use crate::support::engine::engine;

/// What a person reads where nothing can be started.
async fn refusal(settings: ContainerSettings) -> String {
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
    if let Some(engine) = engine() {
        assert_eq!(containers_of(engine, &message).await, []);
    }
    said
}

#[tokio::test]
async fn says_what_was_tried_where_no_engine_answers() {
    let mut settings = ContainerSettings::new("a");
    settings.engine = Some(EngineAddress::Unix("/no/such/engine.sock".into()));
    assert_eq!(
        refusal(settings).await,
        "start a runner: no container engine answers at unix:///no/such/engine.sock (no such socket)"
    );
}

#[tokio::test]
async fn an_image_that_does_not_exist_is_not_the_jobs_fault() {
    let Some(engine) = engine() else { return };
    let mut settings = engine.settings("tidegate-test-no-such-image");
    let told = refusal(settings.clone()).await;
    let expected = "start a runner: pull the image tidegate-test-no-such-image: ";
    assert!(told.starts_with(expected), "{told}");

    settings.pull = Pull::Never;
    let told = refusal(settings).await;
    let expected = "start a runner: make a container of tidegate-test-no-such-image: No such image";
    assert!(told.starts_with(expected), "{told}");
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_anew_is_used_as_it_is() {
    let Some(engine) = engine() else { return };
    let mut settings = engine.script("exit 0");
    settings.pull = Pull::Always;
    let manager = ContainerManager::new(settings);
    let end = try_run(&manager, message(), JobControl::default()).await;
    end.expect("the image is there");
}

#[tokio::test]
async fn what_the_engine_lacks_is_not_the_jobs_fault() {
    let Some(engine) = engine() else { return };
    let mut no_network = engine.script("exit 0");
    no_network.network = Some("no-such-network".to_owned());
    let told = refusal(no_network).await;
    assert!(told.contains("no-such-network not found"), "{told}");

    let mut no_mount = engine.script("exit 0");
    no_mount.mounts = vec![Mount::parse("/no/such/folder:/folder").expect("a mount")];
    let told = refusal(no_mount).await;
    assert!(told.contains("/no/such/folder"), "{told}");

    let mut no_program = engine.settings(engine.image());
    no_program.command = vec!["/no/such/program".to_owned()];
    let told = refusal(no_program).await;
    let expected = format!("start a runner: start a container of {}: ", engine.image());
    assert!(told.starts_with(&expected), "{told}");
    assert!(told.contains("/no/such/program"), "{told}");
}
