//! Runners that break the protocol.

use std::time::Duration;

use tidegate::{
    runner::{FailureKind, JobEnd},
    runners::WarmSettings,
};

use super::{create, each_job, loss, lost, run, script, try_create};
use crate::support::witness::Witness;

async fn start_failure(settings: WarmSettings) -> String {
    match try_create(settings).await {
        Ok(_) => panic!("it cannot start"),
        Err(error) => error.what,
    }
}

#[tokio::test]
async fn a_process_that_never_reports_ready_has_not_started() {
    let mut witness = Witness::new();
    let mut settings = script(&witness, "sleep 1000");
    settings.start_timeout = Duration::from_millis(100);
    assert_eq!(
        start_failure(settings).await,
        "sh: did not report that it is ready within 100ms"
    );
    witness.gone().await;
}

#[tokio::test]
async fn a_process_whose_first_line_is_not_ready_has_not_started() {
    let table = [
        (
            "echo hello; sleep 1000",
            "sh: wrote a stray line to standard output: `hello`",
        ),
        (
            "echo '{\"ready\":true,\"protocol\":2}'; sleep 1000",
            "sh: uses version 2 of the protocol instead of version 1",
        ),
        (
            "echo '{\"ready\":true}'; sleep 1000",
            "sh: wrote a line that says ready without its protocol version: `{\"ready\":true}`",
        ),
        (
            "answer '\"done\"'; sleep 1000",
            "sh: did not begin with a ready line: wrote a stray line to standard output: \
             `{\"id\":\"job\",\"outcome\":\"done\"}`",
        ),
        (
            "echo 'no module\u{1b}' >&2; exit 3",
            "sh: ended with exit code 3 before it was ready: no module\\u{1b}",
        ),
        (
            "exec >&-; sleep 1000",
            "sh: closed its standard output before it was ready",
        ),
    ];
    for (text, expected) in table {
        let mut witness = Witness::new();
        assert_eq!(start_failure(script(&witness, text)).await, expected);
        witness.gone().await;
    }
}

#[tokio::test]
async fn a_line_that_is_not_an_answer_is_an_error_that_quotes_it() {
    let table = [
        (
            "echo hello",
            "its runner wrote a stray line to standard output: `hello`",
        ),
        (
            "printf '\\033[2J42\\n'",
            "its runner wrote a stray line to standard output: `\\u{1b}[2J42`",
        ),
        (
            "echo",
            "its runner wrote a stray line to standard output: ``",
        ),
        (
            "echo '[\"job\"]'",
            "its runner wrote a stray line to standard output: `[\"job\"]`",
        ),
        (
            "echo '{\"id\":\"other\",\"outcome\":\"done\"}'",
            "its runner answered \"other\", which is another job",
        ),
        (
            "echo '{\"id\":\"other\",\"progress\":1}'",
            "its runner answered \"other\", which is another job",
        ),
        (
            "echo \"$ready\"",
            "its runner reported again that it is ready",
        ),
        (
            "answer '\"maybe\"'",
            "its runner wrote a line whose outcome is not done, retry, reject or failed: \
             `{\"id\":\"job\",\"outcome\":\"maybe\"}`",
        ),
        (
            "answer '\"retry\",\"delay\":-1'",
            "its runner wrote a line whose delay is not a valid time: \
             `{\"id\":\"job\",\"outcome\":\"retry\",\"delay\":-1}`",
        ),
    ];
    for (work, expected) in table {
        let mut witness = Witness::new();
        assert_eq!(lost(each_job(&witness, work)).await, expected);
        witness.gone().await;
    }
}

#[tokio::test]
async fn a_long_stray_line_is_cut() {
    let witness = Witness::new();
    let told = lost(each_job(
        &witness,
        "head -c 5000 /dev/zero | tr '\\0' x; echo",
    ))
    .await;
    let start = "x".repeat(200);
    assert_eq!(
        told,
        format!("its runner wrote a stray line to standard output: `{start}` and 4800 more bytes")
    );
}

#[tokio::test]
async fn a_line_of_a_hundred_mebibytes_is_not_read_to_its_end() {
    let mut witness = Witness::new();
    let told = lost(each_job(
        &witness,
        "head -c 104857600 /dev/zero | tr '\\0' x; sleep 1000",
    ))
    .await;
    assert_eq!(
        told,
        "its runner wrote a line of more than 16 MiB to standard output"
    );
    witness.gone().await;
}

#[tokio::test]
async fn a_process_that_ends_or_closes_its_output_during_a_job_fails_that_job() {
    let table = [
        (
            "exit 3",
            "its runner ended with exit code 3 without an answer",
        ),
        (
            "kill -SEGV $$",
            "its runner was ended by SIGSEGV (signal 11) without an answer",
        ),
        (
            "exec >&-; sleep 1000",
            "its runner closed its standard output without an answer",
        ),
    ];
    for (work, expected) in table {
        let mut witness = Witness::new();
        assert_eq!(lost(each_job(&witness, work)).await, expected);
        witness.gone().await;
    }
}

#[tokio::test]
async fn a_crash_reports_the_end_of_standard_error() {
    let witness = Witness::new();
    let failure = loss(each_job(&witness, "echo Traceback >&2; exit 1")).await;
    assert_eq!(failure.stderr_tail.as_deref(), Some("Traceback"));
}

#[tokio::test]
async fn a_process_that_hangs_is_ended_at_the_timeout() {
    let mut witness = Witness::new();
    let mut settings = each_job(&witness, "trap '' TERM; while :; do sleep 1000; done");
    settings.process.timeout = Duration::from_millis(50);
    settings.process.kill_grace = Duration::from_millis(50);
    let failure = loss(settings).await;
    assert_eq!(failure.kind, FailureKind::Timeout);
    witness.gone().await;
}

#[tokio::test]
async fn an_answer_counts_when_it_is_given_twice_but_its_runner_is_ended() {
    let mut witness = Witness::new();
    let settings = each_job(
        &witness,
        "printf '%s\\n%s\\n' '{\"id\":\"job\",\"outcome\":\"done\"}' '{\"id\":\"job\",\"outcome\":\"done\"}'",
    );
    let mut runner = create(settings).await;
    let report = run(&mut *runner, "").await;
    assert!(matches!(report.end, JobEnd::Done { .. }), "{report:?}");
    assert!(!report.reusable);
    witness.gone().await;
}

#[tokio::test]
async fn an_answer_counts_when_it_comes_before_the_job_was_read_but_its_runner_is_ended() {
    let mut witness = Witness::new();
    // More than a pipe holds. The runner reads no more than it has to.
    let settings = script(
        &witness,
        "echo \"$ready\"; head -c 1 >/dev/null; answer '\"done\"'; exec sleep 1000",
    );
    let mut runner = create(settings).await;
    let report = run(&mut *runner, &"x".repeat(1024 * 1024)).await;
    assert!(matches!(report.end, JobEnd::Done { .. }), "{report:?}");
    assert!(!report.reusable);
    witness.gone().await;
}

#[tokio::test]
async fn a_process_that_writes_between_two_jobs_is_not_used_again() {
    let mut witness = Witness::new();
    // It waits until the test opens the FIFO. It must not wait on standard input, where the second job's line comes.
    nix::unistd::mkfifo(&witness.folder().join("cue"), nix::sys::stat::Mode::S_IRWXU)
        .expect("a fifo");
    let settings = each_job(
        &witness,
        "answer '\"done\"'; read cue <\"$FOLDER/cue\"; echo hello; echo said >&9",
    );
    let mut runner = create(settings).await;
    assert!(run(&mut *runner, "").await.reusable);
    assert!(runner.is_alive());
    std::fs::write(witness.folder().join("cue"), "now\n").expect("a reader");
    assert_eq!(witness.line().await, "said");
    assert!(!runner.is_alive());
    drop(runner);
    witness.gone().await;
}

#[tokio::test]
async fn a_process_that_ended_between_two_jobs_is_replaced_and_the_next_job_is_not_affected() {
    let mut witness = Witness::new();
    let settings = each_job(&witness, "answer '\"done\"'; echo $$ >&9; exit");
    let mut runner = create(settings).await;
    let mut processes = Vec::new();
    for _ in 0..3 {
        let report = run(&mut *runner, "").await;
        assert!(matches!(report.end, JobEnd::Done { .. }), "{report:?}");
        processes.push(witness.line().await);
    }
    processes.dedup();
    assert_eq!(processes.len(), 3);
}

/// Waits for the job, reads nothing of it, and ends.
const SHY: &str = "exec python3 -c 'import select; select.select([0], [], [])'";

#[tokio::test]
async fn a_job_that_a_dying_runner_never_read_goes_to_another_runner() {
    for body in ["", &"x".repeat(1024 * 1024)] {
        let witness = Witness::new();
        let settings = script(
            &witness,
            &format!(
                "echo \"$ready\"\n\
                 mkdir \"$FOLDER/first\" 2>/dev/null && {SHY}\n\
                 while IFS= read -r line; do answer '\"done\"'; done"
            ),
        );
        let mut runner = create(settings).await;
        let report = run(&mut *runner, body).await;
        assert!(matches!(report.end, JobEnd::Done { .. }), "{report:?}");
        assert!(report.reusable);
    }
}

#[tokio::test]
async fn runners_that_never_read_a_job_have_not_started() {
    let witness = Witness::new();
    let mut runner = create(script(&witness, &format!("echo \"$ready\"; {SHY}"))).await;
    let report = run(&mut *runner, "").await;
    let JobEnd::NotStarted(error) = report.end else {
        panic!("{report:?}");
    };
    assert_eq!(
        error.what,
        "sh: ended with exit code 0 before it took its job, and so did the next process"
    );
}
