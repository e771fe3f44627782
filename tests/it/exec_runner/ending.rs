//! Ends of a job: codes, signals, timeouts, stops.

use std::time::Duration;

use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
use tidegate::{
    queue::Message,
    runner::{FailureKind, JobControl, JobEnd},
};

use super::{failure, run, run_script, script};
use crate::support::witness::{Witness, soon};

#[tokio::test]
async fn reads_exit_codes() {
    let table = [
        (0, "Done"),
        (1, "Failed(Failure { kind: Exit(1)"),
        (2, "Failed(Failure { kind: Exit(2)"),
        (65, "Rejected"),
        (
            75,
            "Retry { after: None, failure: Some(Failure { kind: Exit(75)",
        ),
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
async fn a_failure_has_the_last_lines_of_standard_error() {
    let text = "i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1";
    let tail = failure(run_script(text, Message::default()).await).stderr_tail;
    let tail = tail.expect("a tail");
    assert!(tail.ends_with("line 1998\nline 1999"), "{tail}");
    assert!(tail.len() <= 2048);
}

#[tokio::test]
async fn a_job_beyond_its_timeout_has_failed_even_if_it_then_exits_with_zero() {
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
async fn a_stopped_job_may_still_ask_for_a_retry_but_its_failure_does_not_count() {
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
async fn kills_a_job_that_is_stopped_by_sigstop() {
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
    // A zombie would still exist.
    assert_eq!(kill(pid, None), Err(Errno::ESRCH));
}
