//! Processes that a job leaves behind, and what happens to them.

use std::time::{Duration, Instant};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tidegate::{
    config::ExecSettings,
    queue::Message,
    runner::{FailureKind, JobControl, JobEnd},
};

use super::{failure, run, run_script, script};
use crate::support::{
    logged::Logged,
    witness::{Witness, soon},
};

#[tokio::test]
async fn continues_at_once_if_no_process_is_left() {
    const JOBS: u32 = 20;
    let start = Instant::now();
    for _ in 0..JOBS {
        let settings = ExecSettings::new(["true"]);
        let end = run(settings, Message::default(), JobControl::default()).await;
        assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    }
    // The second that left-over processes get would show, even on the slowest machine.
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
async fn reads_what_a_grandchild_writes_within_a_second_after_the_job() {
    let logged = Logged::default();
    let guard = logged.capture();
    // The job stays a zombie until its output ends, so the grandchild can see that the job has exited.
    let text = "export JOB=$$; sh -c 'until grep -q State:.Z /proc/$JOB/status; do :; done; echo after it' & exit 0";
    run_script(text, Message::default()).await;
    drop(guard);
    assert_eq!(logged.lines("stdout"), ["after it"]);
}

#[tokio::test]
async fn ends_a_grandchild_that_has_closed_all_its_pipes() {
    let text = "sleep 1000 >/dev/null 2>&1 </dev/null & exit 3";
    assert_eq!(
        failure(run_script(text, Message::default()).await).kind,
        FailureKind::Exit(3)
    );
}

#[tokio::test]
async fn continues_if_a_grandchild_left_the_group_and_holds_the_pipes() {
    let mut witness = Witness::new();
    let settings = script(
        &witness,
        "setsid sh -c 'echo $$ >&9; exec sleep 1000' & read -r _; exit 0",
    );
    let running = run(settings, Message::default(), JobControl::default());
    let (end, pid) = tokio::join!(running, witness.line());
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    // The daemon cannot reach it, so the test kills it.
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
    // It is reaped in the background, so the process table is polled.
    let reaped = async {
        while kill(pid, None).is_ok() {
            // When any child exits, the runtime also reaps dropped children.
            tokio::process::Command::new("true")
                .status()
                .await
                .expect("a child");
        }
    };
    soon(reaped).await;
}
