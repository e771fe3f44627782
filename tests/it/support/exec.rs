//! The `exec` runner for tests: one job in a real child process.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use tidegate::{
    config::ExecSettings,
    decide::RunnerId,
    queue::Message,
    runner::{CreateRunner, Failure, Job, JobControl, JobEnd, RunnerManager},
    runners::exec::ExecManager,
};

use super::witness::{Witness, soon};

/// A shell script as a pool's command. `$FOLDER` is the witness's folder, and descriptor 9 is the witness.
pub(crate) fn script(witness: &Witness, script: &str) -> ExecSettings {
    let script = format!("exec 9>\"$FOLDER/witness\"\n{script}");
    let mut settings = ExecSettings::new(["sh", "-c", &script]);
    let folder = witness.folder().to_str().expect("a UTF-8 path");
    settings.env = [("FOLDER".to_owned(), folder.to_owned())].into();
    settings.timeout = Duration::from_secs(3600);
    settings.kill_grace = Duration::from_secs(3600);
    settings
}

pub(crate) fn job(message: Message) -> Job {
    Job::new("pool".into(), "queue".into(), Arc::new(message), 1, || {
        "job".into()
    })
}

pub(crate) async fn run(settings: ExecSettings, message: Message, control: JobControl) -> JobEnd {
    let manager = ExecManager::new(settings);
    let request = CreateRunner {
        id: RunnerId(1),
        pool: "pool".into(),
    };
    let mut runner = manager.create(request).await.expect("a runner");
    let job = job(message);
    soon(runner.run(&job, control)).await.end
}

pub(crate) fn failure(end: JobEnd) -> Failure {
    match end {
        JobEnd::Failed(failure) | JobEnd::WrapperFailed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

/// Makes a file through a child process. If this process wrote it, a process that another test spawns at the same
/// moment could inherit the open handle. Then the file could not be executed ("text file busy").
pub(crate) fn file(path: &Path, mode: u32, text: &str) -> String {
    let made = std::process::Command::new("sh")
        .args(["-c", "printf %s \"$1\" >\"$0\""])
        .args([path.as_os_str(), text.as_ref()])
        .status();
    assert!(made.expect("a shell").success());
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
    path.to_str().expect("a UTF-8 path").to_owned()
}

pub(crate) const MIB: usize = 1024 * 1024;
