//! The `exec` runner on real children: what the conformance suite cannot ask of every kind.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tidegate::{
    adapters::exec::ExecManager,
    config::ExecSettings,
    decide::RunnerId,
    queue::{HeaderValue, Headers, Message, Properties},
    runner::{CreateRunner, Failure, FailureKind, Job, JobControl, JobEnd, RunnerManager},
};

use crate::support::witness::{Witness, soon};

/// A shell script as a pool's command, with the witness's folder in `$FOLDER` and the witness as descriptor 9.
fn script(witness: &Witness, script: &str) -> ExecSettings {
    let script = format!("exec 9>\"$FOLDER/witness\"\n{script}");
    let mut settings = ExecSettings::new(["sh", "-c", &script]);
    let folder = witness.folder().to_str().expect("a path of text");
    settings.env = [("FOLDER".to_owned(), folder.to_owned())].into();
    settings.timeout = Duration::from_secs(3600);
    settings.kill_grace = Duration::from_secs(3600);
    settings
}

fn job(message: Message) -> Job {
    Job::new("pool".into(), "queue".into(), Arc::new(message), 1, || {
        "job".into()
    })
}

async fn run(settings: ExecSettings, message: Message, control: JobControl) -> JobEnd {
    let manager = ExecManager::new(settings);
    let request = CreateRunner {
        id: RunnerId(1),
        pool: "pool".into(),
    };
    let mut runner = manager.create(request).await.expect("a runner");
    let job = job(message);
    soon(runner.run(&job, control)).await.end
}

/// Runs a script that nobody interferes with, until nothing of it runs any more.
async fn run_script(text: &str, message: Message) -> JobEnd {
    let mut witness = Witness::new();
    let end = run(script(&witness, text), message, JobControl::default()).await;
    witness.gone().await;
    end
}

fn failure(end: JobEnd) -> Failure {
    match end {
        JobEnd::Failed(failure) | JobEnd::WrapperFailed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

/// What a person reads where a command cannot start.
async fn start_failure(settings: ExecSettings) -> String {
    match run(settings, Message::default(), JobControl::default()).await {
        JobEnd::NotStarted(error) => {
            assert!(std::error::Error::source(&error).is_some(), "{error}");
            error.to_string()
        }
        other => panic!("{other:?}"),
    }
}

/// Makes a file, by way of a child: a handle of ours could be inherited by a process that another test spawns in
/// the same moment, and then the file could not be run for being written to.
fn file(path: &Path, mode: u32, text: &str) -> String {
    let made = std::process::Command::new("sh")
        .args(["-c", "printf %s \"$1\" >\"$0\""])
        .args([path.as_os_str(), text.as_ref()])
        .status();
    assert!(made.expect("a shell").success());
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
    path.to_str().expect("a path of text").to_owned()
}

const MIB: usize = 1024 * 1024;

// ---- How a job ends

#[tokio::test]
async fn reads_exit_codes_as_the_contract_has_them() {
    let table = [
        (0, "Done"),
        (1, "Failed(Failure { kind: Exit(1)"),
        (2, "Failed(Failure { kind: Exit(2)"),
        (65, "Rejected"),
        (75, "Retry { after: None }"),
        (126, "WrapperFailed(Failure { kind: Exit(126)"),
        (127, "WrapperFailed(Failure { kind: Exit(127)"),
        (255, "Failed(Failure { kind: Exit(255)"),
    ];
    for (code, expected) in table {
        let end = run_script(&format!("exit {code}"), Message::default()).await;
        let end = format!("{end:?}");
        assert!(end.starts_with(expected), "{code}: {end}");
    }
}

#[tokio::test]
async fn names_the_signal_that_ended_a_job() {
    let failure = failure(run_script("kill -SEGV $$", Message::default()).await);
    assert_eq!(failure.kind, FailureKind::Signal(11));
    assert_eq!(failure.message, "ended by SIGSEGV (signal 11)");
}

#[tokio::test]
async fn carries_the_last_of_standard_error_in_a_failure() {
    let text = "i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1";
    let tail = failure(run_script(text, Message::default()).await).stderr_tail;
    let tail = tail.expect("a tail");
    assert!(tail.ends_with("line 1998\nline 1999"), "{tail}");
    assert!(tail.len() <= 2048);
}

#[tokio::test]
async fn times_a_job_out_even_where_it_then_exits_with_zero() {
    let mut witness = Witness::new();
    let mut settings = script(
        &witness,
        "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done",
    );
    settings.timeout = Duration::from_millis(100);
    let end = run(settings, Message::default(), JobControl::default()).await;
    assert_eq!(failure(end).kind, FailureKind::Timeout);
    witness.gone().await;
}

#[tokio::test]
async fn believes_a_stopped_job_that_asks_for_later_but_not_one_that_fails() {
    for (code, expected) in [
        (75, "Retry"),
        (65, "Rejected"),
        (1, "Stopped"),
        (127, "Stopped"),
    ] {
        let mut witness = Witness::new();
        let text = format!(
            "trap 'exit {code}' TERM; echo started >&9; while :; do sleep 1000 & wait; done"
        );
        let control = JobControl::default();
        let running = tokio::spawn(run(
            script(&witness, &text),
            Message::default(),
            control.clone(),
        ));
        witness.line().await;
        control.stop.cancel();
        let end = format!("{:?}", soon(running).await.expect("no panic"));
        assert!(end.starts_with(expected), "{code}: {end}");
        witness.gone().await;
    }
}

#[tokio::test]
async fn ends_a_job_that_stands_still_under_a_sigstop() {
    let mut witness = Witness::new();
    let control = JobControl::default();
    let settings = script(&witness, "echo $$ >&9; kill -STOP $$; sleep 1000");
    let running = tokio::spawn(run(settings, Message::default(), control.clone()));
    witness.line().await;
    control.stop.cancel();
    let end = soon(running).await.expect("no panic");
    assert!(matches!(end, JobEnd::Stopped), "{end:?}");
    witness.gone().await;
}

#[tokio::test]
async fn ends_a_job_and_its_children_where_all_ignore_term() {
    let mut witness = Witness::new();
    let mut settings = script(
        &witness,
        "trap '' TERM; sh -c 'sleep 1000; sleep 1000' & sh -c 'sleep 1000; sleep 1000'",
    );
    settings.timeout = Duration::from_millis(100);
    settings.kill_grace = Duration::from_millis(100);
    let end = run(settings, Message::default(), JobControl::default()).await;
    assert_eq!(failure(end).kind, FailureKind::Timeout);
    witness.gone().await;
}

#[tokio::test]
async fn reaps_its_children() {
    let mut witness = Witness::new();
    let running = run(
        script(&witness, "echo $$ >&9"),
        Message::default(),
        JobControl::default(),
    );
    let (end, pid) = tokio::join!(running, witness.line());
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    let pid = Pid::from_raw(pid.parse().expect("a process id"));
    // A zombie would still answer.
    assert_eq!(kill(pid, None), Err(Errno::ESRCH));
}

// ---- What it leaves behind

#[tokio::test]
async fn goes_on_at_once_where_nothing_is_left_behind() {
    const JOBS: u32 = 20;
    let start = Instant::now();
    for _ in 0..JOBS {
        let settings = ExecSettings::new(["true"]);
        let end = run(settings, Message::default(), JobControl::default()).await;
        assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    }
    // The second that left-overs are given would show, on the slowest machine.
    assert!(start.elapsed() < Duration::from_secs(1) * JOBS / 2);
}

#[tokio::test]
async fn ends_a_grandchild_that_holds_the_output_open() {
    let start = Instant::now();
    let end = run_script("sleep 1000 & echo not yet; exit 0", Message::default()).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    assert!(
        start.elapsed() >= Duration::from_secs(1),
        "it has a second of its own"
    );
}

#[tokio::test]
async fn reads_what_a_grandchild_still_writes_in_its_second() {
    let logged = Logged::default();
    let guard = logged.capture();
    // The job is a zombie until its output has ended, so the grandchild can see that it has exited.
    let text = "export JOB=$$; sh -c 'until grep -q State:.Z /proc/$JOB/status; do :; done; echo after it' & exit 0";
    run_script(text, Message::default()).await;
    drop(guard);
    assert_eq!(logged.lines("stdout"), ["after it"]);
}

#[tokio::test]
async fn ends_a_grandchild_that_holds_nothing() {
    let text = "sleep 1000 >/dev/null 2>&1 </dev/null & exit 3";
    assert_eq!(
        failure(run_script(text, Message::default()).await).kind,
        FailureKind::Exit(3)
    );
}

#[tokio::test]
async fn goes_on_where_a_grandchild_has_left_the_group_with_the_pipes() {
    let mut witness = Witness::new();
    let settings = script(
        &witness,
        "setsid sh -c 'echo $$ >&9; exec sleep 1000' & read -r _; exit 0",
    );
    let running = run(settings, Message::default(), JobControl::default());
    let (end, pid) = tokio::join!(running, witness.line());
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    // It is out of reach, so this is for the test to end.
    let pid = Pid::from_raw(pid.parse().expect("a process id"));
    kill(pid, Signal::SIGKILL).expect("it runs on");
    witness.gone().await;
}

#[tokio::test]
async fn a_dropped_run_ends_the_grandchildren_too() {
    let mut witness = Witness::new();
    let settings = script(
        &witness,
        "trap '' TERM; (sleep 1000; sleep 1000) & echo $$ >&9; wait",
    );
    let running = tokio::spawn(run(settings, Message::default(), JobControl::default()));
    let pid = Pid::from_raw(witness.line().await.parse().expect("a process id"));
    running.abort();
    witness.gone().await;
    // Reaped in the background: the process table is looked at until it says so.
    let reaped = async {
        while kill(pid, None).is_ok() {
            // Any child's exit makes the runtime look for those that were dropped.
            tokio::process::Command::new("true")
                .status()
                .await
                .expect("a child");
        }
    };
    soon(reaped).await;
}

// ---- Pipes

#[tokio::test]
async fn survives_a_job_that_does_not_read_its_input() {
    let message = Message {
        body: vec![b'x'; 16 * MIB].into(),
        ..Message::default()
    };
    let end = run_script("exit 0", message).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
}

#[tokio::test]
async fn survives_a_job_that_floods_both_pipes_before_it_reads_its_input() {
    let message = Message {
        body: vec![b'x'; 16 * MIB].into(),
        ..Message::default()
    };
    let text = "head -c 4194304 /dev/zero; head -c 4194304 /dev/zero >&2; [ $(wc -c) = 16777216 ]";
    let end = run_script(text, message).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
}

#[tokio::test]
async fn reads_on_where_a_job_writes_100_mib() {
    let logged = Logged::default();
    let guard = logged.capture();
    let end = run_script(
        "yes 'a line of output' | head -c 104857600",
        Message::default(),
    )
    .await;
    drop(guard);
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    let shown: usize = logged
        .lines("stdout")
        .iter()
        .map(|line| line.len() + 1)
        .sum();
    assert!((MIB - 100..=MIB).contains(&shown), "{shown}");
    assert_eq!(logged.dropped(), [100 * MIB - shown]);
}

#[tokio::test]
async fn logs_each_line_with_its_pool_its_job_and_its_stream() {
    let logged = Logged::default();
    let guard = logged.capture();
    let message = Message {
        properties: Properties {
            message_id: Some("id\nforged".into()),
            ..Properties::default()
        },
        ..Message::default()
    };
    run_script(r"printf 'one\n\033[31mtwo\377'; echo three >&2", message).await;
    drop(guard);
    assert_eq!(logged.lines("stdout"), ["one", "\\u{1b}[31mtwo\u{fffd}"]);
    assert_eq!(logged.lines("stderr"), ["three"]);
    let event = &logged.events()[0];
    assert_eq!(event["fields"]["message"], "job output");
    assert_eq!(event["fields"]["pool"], "pool");
    assert_eq!(event["fields"]["job.id"], "id\\nforged");
    assert_eq!(event["level"], "INFO");
}

// ---- Environment

/// The whole environment of a job, as its process has it.
async fn environment(
    message: Message,
    adjust: impl FnOnce(&mut ExecSettings),
) -> BTreeMap<String, String> {
    let mut witness = Witness::new();
    let mut settings = script(&witness, "cat /proc/$$/environ >\"$FOLDER/environ\"");
    adjust(&mut settings);
    let end = run(settings, message, JobControl::default()).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    witness.gone().await;
    let environ = fs::read_to_string(witness.folder().join("environ")).expect("an environment");
    environ
        .split_terminator('\0')
        .map(|entry| entry.split_once('=').expect("name=value"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[tokio::test]
async fn clears_the_environment_but_for_what_is_listed() {
    let ours = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for tests");
    let seen = environment(Message::default(), |settings| {
        settings.env.insert("LISTED".to_owned(), "a\nb".to_owned());
    });
    let seen = seen.await;
    assert_eq!(seen["LISTED"], "a\nb");
    assert_eq!(seen["PATH"], std::env::var("PATH").expect("a PATH"));
    let known = |name: &str| {
        ["PATH", "HOME", "LANG", "TZ", "FOLDER", "LISTED"].contains(&name)
            || name.starts_with("TIDEGATE_")
    };
    let unknown: Vec<_> = seen.keys().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");

    let seen = environment(Message::default(), |settings| {
        settings.env_pass.push("CARGO_MANIFEST_DIR".to_owned());
    });
    assert_eq!(seen.await["CARGO_MANIFEST_DIR"], ours);
}

#[tokio::test]
async fn tells_the_job_about_its_message() {
    let message = Message {
        routing_key: "key".into(),
        properties: Properties {
            message_id: Some("m-1".into()),
            content_type: Some("application/json".into()),
            correlation_id: Some("c-1".into()),
            ..Properties::default()
        },
        headers: Headers::from([
            ("newline".into(), "a\nb".into()),
            ("nul".into(), "a\0b".into()),
            ("bytes".into(), HeaderValue::Text(b"\xff".as_slice().into())),
        ]),
        ..Message::default()
    };
    let seen = environment(message, |_| {}).await;
    let told = seen
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("TIDEGATE_")?, value.as_str())));
    let expected = BTreeMap::from([
        ("POOL", "pool"),
        ("QUEUE", "queue"),
        ("JOB_ID", "m-1"),
        ("ATTEMPT", "1"),
        ("REDELIVERED", "false"),
        ("ROUTING_KEY", "key"),
        ("CONTENT_TYPE", "application/json"),
        ("CORRELATION_ID", "c-1"),
        (
            "HEADERS",
            r#"{"bytes":{"base64":"/w=="},"newline":"a\nb","nul":"a\u0000b"}"#,
        ),
    ]);
    assert_eq!(told.collect::<BTreeMap<_, _>>(), expected);
}

#[tokio::test]
async fn survives_hostile_values() {
    let message = Message {
        routing_key: "nul\0newline\n=".into(),
        properties: Properties {
            message_id: Some("\0".repeat(255)),
            correlation_id: Some("x".repeat(200 * 1024)),
            ..Properties::default()
        },
        headers: Headers::from([("h".into(), "{\"k\":1},".repeat(130 * 1024 / 8).into())]),
        ..Message::default()
    };
    let seen = environment(message, |_| {}).await;
    assert_eq!(seen["TIDEGATE_ROUTING_KEY"], "nul\u{fffd}newline\n=");
    assert_eq!(seen["TIDEGATE_JOB_ID"], "\u{fffd}".repeat(255));
    assert!(!seen.contains_key("TIDEGATE_CORRELATION_ID"));
    assert!(!seen.contains_key("TIDEGATE_HEADERS"));
    assert_eq!(seen["TIDEGATE_TRUNCATED"], "1");
}

#[tokio::test]
async fn leaves_the_headers_out_where_the_system_has_no_room_for_them() {
    use rustix::process::{Resource, getrlimit};
    // As Linux reckons: a quarter of the stack's limit, and never more than 6 MiB.
    let stack = getrlimit(Resource::Stack).current.unwrap_or(u64::MAX);
    let limit = usize::try_from((stack / 4).min(6 * MIB as u64)).expect("it fits");
    let message = Message {
        headers: Headers::from([("h".into(), "x".repeat(60 * 1024).into())]),
        ..Message::default()
    };
    let seen = environment(message, |settings| {
        let mut left = limit - 40 * 1024;
        for number in 0.. {
            let size = left.min(100 * 1024);
            settings
                .env
                .insert(format!("FILL_{number}"), "x".repeat(size));
            left -= size;
            if left == 0 {
                break;
            }
        }
    });
    let seen = seen.await;
    assert!(!seen.contains_key("TIDEGATE_HEADERS"));
    assert_eq!(seen["TIDEGATE_TRUNCATED"], "1");
    assert_eq!(seen["TIDEGATE_ATTEMPT"], "1");
}

#[tokio::test]
async fn starts_in_its_working_directory_under_its_own_name() {
    let mut witness = Witness::new();
    fs::create_dir(witness.folder().join("inside")).expect("a folder");
    file(
        &witness.folder().join("inside/where"),
        0o755,
        "#!/bin/sh\npwd >place\necho \"$0\" >>place\n",
    );
    let mut settings = script(&witness, "exec ./where");
    settings.working_dir = Some(witness.folder().join("inside"));
    let end = run(settings.clone(), Message::default(), JobControl::default()).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    witness.gone().await;
    let inside = witness.folder().join("inside");
    let place = fs::read_to_string(inside.join("place")).expect("a place");
    assert_eq!(
        place,
        format!(
            "{}\n./where\n",
            inside.canonicalize().expect("a path").display()
        )
    );

    // A command that is a relative path is found from there too.
    settings.command = vec!["./where".into()];
    let end = run(settings, Message::default(), JobControl::default()).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
}

// ---- What cannot start

#[tokio::test]
async fn says_why_a_command_cannot_start() {
    let witness = Witness::new();
    let here = |name: &str| witness.folder().join(name);
    let plain = file(&here("plain"), 0o644, "#!/bin/sh\n");
    let orphan = file(&here("orphan"), 0o755, "#!/no/such/interpreter -x\n");
    let barred = file(&here("barred"), 0o755, &format!("#!{plain}\n"));
    let shapeless = file(&here("shapeless"), 0o755, "no program at all\n");
    let folder = witness
        .folder()
        .to_str()
        .expect("a path of text")
        .to_owned();
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
            "is no program that this system can run (a script without a `#!` line?)",
        ),
        (folder.clone(), "is a directory"),
    ];
    for (command, expected) in table {
        let told = start_failure(ExecSettings::new([&command])).await;
        assert_eq!(told, format!("start a runner: {command}: {expected}"));
    }
}

#[tokio::test]
async fn says_that_it_is_the_working_directory_that_is_missing() {
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
            format!("start a runner: true: {expected}")
        );
    }
}

#[tokio::test]
async fn finds_a_command_that_is_installed_later() {
    let witness = Witness::new();
    let mut settings = ExecSettings::new(["late"]);
    let folder = witness.folder().to_str().expect("a path of text");
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

// ---- What the tests read the log with

/// The JSON log of the present thread's jobs.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    /// Captures the log of this thread until the guard is dropped. Each test has a runtime of one thread.
    fn capture(&self) -> tracing::subscriber::DefaultGuard {
        let logged = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_writer(move || logged.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn events(&self) -> Vec<serde_json::Value> {
        let text = self.0.lock().expect("a log");
        let lines = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).expect("JSON"))
            .collect()
    }

    fn lines(&self, stream: &str) -> Vec<String> {
        let events = self.events().into_iter();
        let ours = events.filter(|event| event["fields"]["stream"] == stream);
        ours.filter_map(|event| Some(event["fields"]["line"].as_str()?.to_owned()))
            .collect()
    }

    fn dropped(&self) -> Vec<usize> {
        let events = self.events().into_iter();
        let ours = events.filter(|event| event["fields"]["message"] == "job output dropped");
        ours.filter_map(|event| event["fields"]["bytes"].as_u64()?.try_into().ok())
            .collect()
    }
}

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("a log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
