//! Commands that cannot start, and their error texts.

use tidegate::{
    config::ExecSettings,
    decide::RunnerId,
    queue::Message,
    runner::{CreateRunner, JobControl, JobEnd, RunnerManager},
    runners::exec::ExecManager,
};

use super::{file, job, run};
use crate::support::witness::{Witness, soon};

/// The error text if a command cannot start.
async fn start_failure(settings: ExecSettings) -> String {
    match run(settings, Message::default(), JobControl::default()).await {
        JobEnd::NotStarted(error) => {
            assert!(std::error::Error::source(&error).is_some(), "{error}");
            error.to_string()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn says_why_a_command_cannot_start() {
    let witness = Witness::new();
    let here = |name: &str| witness.folder().join(name);
    let plain = file(&here("plain"), 0o644, "#!/bin/sh\n");
    let orphan = file(&here("orphan"), 0o755, "#!/no/such/interpreter -x\n");
    let barred = file(&here("barred"), 0o755, &format!("#!{plain}\n"));
    let shapeless = file(&here("shapeless"), 0o755, "no program at all\n");
    let folder = witness.folder().to_str().expect("a UTF-8 path").to_owned();
    let table = [
        (
            "no-such-program-at-all".to_owned(),
            "no such program in PATH",
        ),
        ("/no/such/program".to_owned(), "no such file"),
        (
            format!("{plain}/under"),
            "a part of its path is not a directory",
        ),
        (plain, "is not executable"),
        (
            orphan,
            "its interpreter /no/such/interpreter does not exist",
        ),
        (
            barred,
            &format!("its interpreter {folder}/plain may not be run"),
        ),
        (
            shapeless,
            "is not a program that this system can run (a script without a `#!` line?)",
        ),
        (folder.clone(), "is a directory"),
    ];
    for (command, expected) in table {
        let told = start_failure(ExecSettings::new([&command])).await;
        assert_eq!(
            told,
            format!("failed to start a runner: {command}: {expected}")
        );
    }
}

#[tokio::test]
async fn names_the_working_directory_if_it_is_missing() {
    let witness = Witness::new();
    let text = file(&witness.folder().join("text"), 0o644, "");
    let table = [
        (
            "/no/such/folder",
            "its working directory /no/such/folder does not exist",
        ),
        (
            &text,
            &format!("its working directory {text} is not a directory"),
        ),
    ];
    for (folder, expected) in table {
        let mut settings = ExecSettings::new(["true"]);
        settings.working_dir = Some(folder.into());
        assert_eq!(
            start_failure(settings).await,
            format!("failed to start a runner: true: {expected}")
        );
    }
}

#[tokio::test]
async fn finds_a_command_that_is_installed_later() {
    let witness = Witness::new();
    let mut settings = ExecSettings::new(["late"]);
    let folder = witness.folder().to_str().expect("a UTF-8 path");
    settings.env = [("PATH".to_owned(), format!("{folder}:/usr/bin:/bin"))].into();
    let manager = ExecManager::new(settings);
    for installed in [false, true] {
        if installed {
            file(&witness.folder().join("late"), 0o755, "#!/bin/sh\nexit 0\n");
        }
        let request = CreateRunner {
            id: RunnerId(1),
            pool: "pool".into(),
        };
        let mut runner = manager.create(request).await.expect("a runner");
        let report = soon(runner.run(&job(Message::default()), JobControl::default())).await;
        match report.end {
            JobEnd::NotStarted(_) => assert!(!installed),
            JobEnd::Done { .. } => assert!(installed),
            other => panic!("{other:?}"),
        }
    }
}
