//! Limits of an `exec` job, as the job itself sees them.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use tidegate::{
    config::{CgroupUse, ExecSettings, Limits},
    host::launcher,
    queue::Message,
    runner::{JobControl, JobEnd, StartError},
};

use crate::{
    needs::Need,
    support::{
        exec::{MIB, failure, file, run, script},
        witness::Witness,
    },
};

trials! {
    tasks(Need::Nothing): [
        a_job_has_the_limits_that_it_was_given,
        a_launched_job_has_the_same_environment_and_descriptors_as_a_direct_one,
        a_launched_job_reads_its_body_from_a_pipe_and_has_a_group_of_its_own,
        a_job_that_runs_out_of_processor_time_is_told_so_by_its_signal,
        a_limit_that_the_launcher_cannot_set_is_an_error_of_the_runner_and_is_named,
        a_missing_program_gives_the_same_error_with_and_without_a_launcher,
        a_launched_job_starts_even_if_its_message_is_too_large_for_the_environment,
    ],
    tasks(Need::Root): [
        a_job_of_another_user_may_reopen_its_streams,
        a_job_runs_as_its_user_with_the_environment_of_that_users_login,
        a_program_that_its_user_may_not_run_is_named_with_that_user,
        a_working_directory_is_entered_as_the_user_of_the_job,
    ],
}

/// A script as a job with these limits.
fn limited(witness: &Witness, limits: Limits, text: &str) -> ExecSettings {
    launcher::use_program(env!("CARGO_BIN_EXE_tidegate"));
    let mut settings = script(witness, text);
    settings.limits = limits;
    settings
}

/// The text that a job with these limits writes to `$FOLDER/said`.
async fn said_with(limits: Limits, text: &str) -> String {
    let mut witness = Witness::new();
    let text = format!("{{ {text}\n}} > \"$FOLDER/said\"");
    let settings = limited(&witness, limits, &text);
    open_to_all(&witness);
    let end = run(settings, Message::default(), JobControl::default()).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    witness.gone().await;
    fs::read_to_string(witness.folder().join("said")).unwrap()
}

/// For a job that runs as another user.
fn open_to_all(witness: &Witness) {
    for path in [
        witness.folder().to_owned(),
        witness.folder().join("witness"),
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
}

fn not_started(end: JobEnd) -> StartError {
    match end {
        JobEnd::NotStarted(error) => error,
        other => panic!("{other:?}"),
    }
}

fn as_user(user: &str) -> Limits {
    Limits {
        user: Some(user.to_owned()),
        ..Limits::default()
    }
}

async fn a_job_has_the_limits_that_it_was_given() {
    let mut limits = Limits {
        nice: Some(7),
        ..Limits::default()
    };
    limits.rlimits.open_files = Some(123);
    limits.rlimits.address_space = Some(1 << 32);
    limits.rlimits.cpu_time = Some(Duration::from_secs(77));
    limits.rlimits.core = Some(0);
    let text = "ulimit -Sn; ulimit -Hn; ulimit -Sv; ulimit -St; ulimit -Ht; ulimit -Sc; nice";
    assert_eq!(
        said_with(limits, text).await,
        "123\n123\n4194304\n77\n78\n0\n7\n"
    );
}

async fn a_launched_job_has_the_same_environment_and_descriptors_as_a_direct_one() {
    let limits = Limits {
        nice: Some(1),
        ..Limits::default()
    };
    let text = "tr '\\0' '\\n' < /proc/$$/environ | cut -d= -f1 | sort | tr '\\n' ' '\n\
                echo; readlink /proc/$$/exe; tr '\\0' ' ' < /proc/$$/cmdline | cut -c 1-6\n\
                set -- /proc/$$/fd/*; echo $* | sed s/$$/PID/g";
    let direct = said_with(Limits::default(), text).await;
    let launched = said_with(limits, text).await;
    assert!(direct.contains("TIDEGATE_JOB_ID"), "{direct}");
    assert_eq!(launched, direct);
}

async fn a_launched_job_reads_its_body_from_a_pipe_and_has_a_group_of_its_own() {
    let mut witness = Witness::new();
    let limits = Limits {
        nice: Some(1),
        ..Limits::default()
    };
    let text = "test -p /proc/self/fd/0 && test $(ps -o pgid= $$) = $$ && wc -c > \"$FOLDER/said\"";
    let settings = limited(&witness, limits, text);
    let message = Message {
        body: vec![b'x'; MIB].into(),
        ..Message::default()
    };
    let end = run(settings, message, JobControl::default()).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    witness.gone().await;
    let said = fs::read_to_string(witness.folder().join("said")).unwrap();
    assert_eq!(said.trim(), MIB.to_string());
}

async fn a_job_that_runs_out_of_processor_time_is_told_so_by_its_signal() {
    let mut limits = Limits::default();
    limits.rlimits.cpu_time = Some(Duration::from_secs(1));
    let witness = Witness::new();
    let settings = limited(&witness, limits, "while :; do :; done");
    let end = run(settings, Message::default(), JobControl::default()).await;
    assert_eq!(failure(end).message, "ended by SIGXCPU (signal 24)");
}

async fn a_job_of_another_user_may_reopen_its_streams() {
    let witness = Witness::new();
    let text = "cat </dev/stdin && echo out >/dev/stdout && echo err >/dev/stderr";
    let settings = limited(&witness, as_user("daemon"), text);
    open_to_all(&witness);
    let end = run(settings, Message::default(), JobControl::default()).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
}

async fn a_job_runs_as_its_user_with_the_environment_of_that_users_login() {
    let text = "id -un; id -gn; id -Gn; echo $HOME $USER $LOGNAME; grep -h '^Cap[EPIA]' /proc/self/status | \
                sort -u -k 2 | cut -f 2";
    let daemon = std::process::Command::new("id")
        .args(["-Gn", "daemon"])
        .output();
    let groups = String::from_utf8(daemon.unwrap().stdout).unwrap();
    let nothing = "0000000000000000\n";
    assert_eq!(
        said_with(as_user("daemon"), text).await,
        format!("daemon\ndaemon\n{groups}/usr/sbin daemon daemon\n{nothing}")
    );
    let mut limits = as_user("1");
    limits.group = Some("adm".into());
    let said = said_with(limits, "id -un; id -gn; id -Gn").await;
    assert!(said.starts_with("daemon\nadm\nadm"), "{said}");
    // A number without an account has only its own group.
    let mut limits = as_user("1234567");
    limits.group = Some("7654321".into());
    assert_eq!(
        said_with(limits, "id -u; id -g; id -G").await,
        "1234567\n7654321\n7654321\n"
    );
}

async fn a_limit_that_the_launcher_cannot_set_is_an_error_of_the_runner_and_is_named() {
    let witness = Witness::new();
    let fault = async |limits: Limits| {
        let settings = limited(&witness, limits, "exit 0");
        let end = run(settings, Message::default(), JobControl::default()).await;
        let error = not_started(end);
        let source = error.source.map(|source| source.to_string());
        (error.what, source.unwrap_or_default())
    };
    let (what, _) = fault(as_user("no-such-user")).await;
    assert_eq!(what, "sh: there is no user \"no-such-user\"");
    let (what, _) = fault(Limits {
        group: Some("no-such-group".into()),
        ..Limits::default()
    })
    .await;
    assert_eq!(what, "sh: there is no group \"no-such-group\"");
    let mut limits = Limits::default();
    limits.rlimits.open_files = Some(1 << 31);
    let (what, source) = fault(limits).await;
    assert_eq!(
        what,
        "sh: cannot be given the limit open_files = 2147483648"
    );
    assert!(source.contains("Operation not permitted"), "{source}");
    let (what, _) = fault(Limits {
        cgroup: CgroupUse::Always,
        ..Limits::default()
    })
    .await;
    assert_eq!(what, "sh: its limits need a cgroup, and none is available");
}

async fn a_missing_program_gives_the_same_error_with_and_without_a_launcher() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let plain = file(&folder.path().join("plain"), 0o644, "");
    let script = file(&folder.path().join("script"), 0o755, "#!/no/such\n");
    let words = async |program: &str, limits: &Limits| {
        let mut settings = ExecSettings::new([program]);
        settings.limits = limits.clone();
        let end = run(settings, Message::default(), JobControl::default()).await;
        let error = not_started(end);
        (error.what, error.source.map(|source| source.to_string()))
    };
    launcher::use_program(env!("CARGO_BIN_EXE_tidegate"));
    let nice = Limits {
        nice: Some(1),
        ..Limits::default()
    };
    for program in ["no-such-program", "/no/such/program", &plain, &script] {
        let direct = words(program, &Limits::default()).await;
        assert_eq!(words(program, &nice).await, direct);
    }
}

async fn a_program_that_its_user_may_not_run_is_named_with_that_user() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    launcher::use_program(env!("CARGO_BIN_EXE_tidegate"));
    let secret = file(&folder.path().join("secret"), 0o700, "#!/bin/sh\n");
    let mut settings = ExecSettings::new([&secret]);
    settings.limits = as_user("daemon");
    let end = run(settings, Message::default(), JobControl::default()).await;
    assert_eq!(
        not_started(end).what,
        format!("{secret}: may not be run by the user daemon")
    );
}

async fn a_working_directory_is_entered_as_the_user_of_the_job() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let witness = Witness::new();
    let mut settings = limited(&witness, as_user("daemon"), "exit 0");
    settings.working_dir = Some(folder.path().to_owned());
    let end = run(settings, Message::default(), JobControl::default()).await;
    let shown = folder.path().display();
    assert_eq!(
        not_started(end).what,
        format!("sh: cannot enter its working directory {shown}")
    );
}

async fn a_launched_job_starts_even_if_its_message_is_too_large_for_the_environment() {
    let mut witness = Witness::new();
    let limits = Limits {
        nice: Some(1),
        ..Limits::default()
    };
    // A small stack leaves half of the space for arguments.
    let text = "test \"$TIDEGATE_TRUNCATED\" = 1";
    let settings = limited(&witness, limits, text);
    let message = Message {
        headers: [("h".to_owned(), "x".repeat(130 * 1024).into())].into(),
        ..Message::default()
    };
    let end = run(settings, message, JobControl::default()).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    witness.gone().await;
}
