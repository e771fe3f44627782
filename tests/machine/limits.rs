//! Limits, and variables from files, in the program as users run it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::needs::Need;
use crate::support::{
    broker::broker_url,
    daemon::{Daemon, Signal, poll, tidegate},
    queue::Queue,
};

trials! {
    plain(Need::Nothing): [
        a_limit_that_the_machine_cannot_set_is_an_error_of_check_and_of_a_start,
        a_reload_with_a_limit_that_the_machine_cannot_set_is_refused_whole,
        variables_of_a_file_are_read_again_on_hup,
        the_launchers_variable_changes_no_other_command,
    ],
    plain(Need::UserNamespace): [
        check_reports_the_limits_that_root_of_a_user_namespace_cannot_set,
    ],
    plain(Need::Root): [
        a_launcher_that_fails_faults_the_pool_and_costs_the_job_no_attempt,
    ],
}

fn pool(queue: &Queue, script: &str, keys: &str) -> String {
    format!(
        "[pools.work]\nqueue = \"{}\"\npoll_interval = \"100ms\"\n\
         [pools.work.runner]\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']\n{keys}\n",
        queue.name()
    )
}

/// The output for a pool with a user that no machine has.
fn run_with_a_missing_user(command: &str) -> Output {
    let dir = TempDir::new().unwrap();
    let config = "[pools.work.runner]\ncommand = [\"/bin/true\"]\nuser = \"no-such-user\"\n";
    fs::write(dir.path().join("tidegate.toml"), config).unwrap();
    tidegate(dir.path()).arg(command).output().unwrap()
}

fn a_limit_that_the_machine_cannot_set_is_an_error_of_check_and_of_a_start() {
    let problem = "tidegate.toml:3:8: pools.work.runner.user: found \"no-such-user\", but there is no user \
                   \"no-such-user\", write a user of this machine\n";
    let check = run_with_a_missing_user("check");
    assert_eq!(check.status.code(), Some(78));
    assert_eq!(String::from_utf8(check.stdout).unwrap(), problem);
    let run = run_with_a_missing_user("run");
    assert_eq!(run.status.code(), Some(78));
    let said = String::from_utf8(run.stderr).unwrap();
    assert!(said.starts_with(problem), "{said}");
}

fn check_reports_the_limits_that_root_of_a_user_namespace_cannot_set() {
    let own_namespace = || {
        let mut command = Command::new("unshare");
        command.arg("--map-root-user");
        command
    };
    let dir = TempDir::new().unwrap();
    let config = "[pools.work.runner]\ncommand = [\"/bin/true\"]\nuser = \"daemon\"\nnice = -20\n";
    fs::write(dir.path().join("tidegate.toml"), config).unwrap();
    let check = own_namespace()
        .arg(env!("CARGO_BIN_EXE_tidegate"))
        .arg("check")
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8(check.stdout).unwrap();
    assert_eq!(check.status.code(), Some(78), "{said}");
    assert!(
        said.contains("runner.user: found \"daemon\", which does not exist in tidegate"),
        "{said}"
    );
    assert!(
        said.contains("runner.nice: found -20, which is lower"),
        "{said}"
    );
}

fn a_reload_with_a_limit_that_the_machine_cannot_set_is_refused_whole() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &pool(&queue, "true", ""));
    let bad = pool(&queue, "true", "group = \"no-such-group\"");
    daemon.configure(&broker_url(), "", &bad);
    daemon.signal(Signal::SIGHUP);
    let problem = daemon.wait_for_message("a problem in the configuration");
    assert_eq!(problem["key"], "pools.work.runner.group");
    daemon.wait_for_message("refused the configuration; the old one stays");
    queue.publish("job");
    daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == 1);
}

fn a_launcher_that_fails_faults_the_pool_and_costs_the_job_no_attempt() {
    let queue = Queue::new();
    let folder = TempDir::new().unwrap();
    let may_enter = |mode| {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
    };
    may_enter(0o700);
    let keys = format!(
        "user = \"daemon\"\nworking_dir = \"{}\"",
        folder.path().display()
    );
    let script = "printf %s \"$TIDEGATE_ATTEMPT\" > attempt";
    let daemon = Daemon::start(&broker_url(), &pool(&queue, script, &keys));
    queue.publish("job");
    let state = daemon.wait_for_pool("work", |pool| pool["state"] == "faulted");
    let cause = state["cause"].as_str().unwrap_or_default();
    assert!(
        cause.contains("cannot enter its working directory"),
        "{state:#}"
    );
    may_enter(0o777);
    let attempt = poll(|| {
        fs::read_to_string(folder.path().join("attempt"))
            .ok()
            .filter(|text| !text.is_empty())
    });
    assert_eq!(attempt.as_deref(), Some("1"), "{}", daemon.said());
}

fn variables_of_a_file_are_read_again_on_hup() {
    let queue = Queue::new();
    let script = "printf %s \"$COLOUR\" > \"$1-\"; mv \"$1-\" \"$1\"";
    let script = script.replace("$1", "$(cat)");
    // The script reads the body once, because standard input can be read only once.
    let script = format!("name=$(cat); {}", script.replace("$(cat)", "$name"));
    let config = pool(&queue, &script, "env_file = \"env\"");
    let files = [("env", "COLOUR=red\n")];
    let daemon = Daemon::start_with_files(&files, &broker_url(), "", &config);
    let said = |job: &str| {
        queue.publish(job);
        let file = daemon.dir().join(job);
        poll(|| fs::read_to_string(&file).ok()).unwrap_or_else(|| panic!("{}", daemon.said()))
    };
    assert_eq!(said("one"), "red");
    fs::write(daemon.dir().join("env"), "COLOUR=green\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_message("applied the configuration");
    assert_eq!(said("two"), "green");
}

fn the_launchers_variable_changes_no_other_command() {
    let dir = TempDir::new().unwrap();
    for command in ["status", "--help", "anything"] {
        let output = tidegate(dir.path())
            .arg(command)
            .env("TIDEGATE_LAUNCHER", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("TIDEGATE_LAUNCHER is set"), "{said}");
        assert_eq!(output.stdout, b"");
    }
}
