//! What a job leaves behind, and what becomes of it.

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
