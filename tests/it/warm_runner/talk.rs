//! The lines of the protocol, and their effects.

use std::time::Duration;

use tidegate::{
    runner::{FailureKind, JobControl, JobEnd},
    runners::WarmSettings,
};

use super::{create, each_job, job, loss, run};
use crate::support::witness::{Witness, soon};

async fn end(settings: WarmSettings) -> JobEnd {
    let mut runner = create(settings).await;
    let report = run(&mut *runner, "").await;
    assert!(report.reusable, "{report:?}");
    report.end
}

#[tokio::test]
async fn an_answer_decides_the_settlement() {
    let table = [
        ("\"done\"", "Done { reply: None }"),
        (
            "\"done\",\"reply\":\"text\"",
            "Done { reply: Some(Reply { bytes: 4, content_type: Some(\"text/plain; charset=utf-8\") }) }",
        ),
        (
            "\"done\",\"reply\":{\"a\":[1]}",
            "Done { reply: Some(Reply { bytes: 9, content_type: Some(\"application/json\") }) }",
        ),
        (
            "\"done\",\"reply_base64\":\"/w==\"",
            "Done { reply: Some(Reply { bytes: 1, content_type: Some(\"application/octet-stream\") }) }",
        ),
        (
            "\"retry\"",
            "Retry { after: None, failure: Some(Failure { kind: Error, ",
        ),
        (
            "\"retry\",\"delay\":null",
            "Retry { after: None, failure: Some(Failure { kind: Error, ",
        ),
        ("\"retry\",\"delay\":2", "Retry { after: Some(2s), "),
        ("\"retry\",\"delay\":0.5", "Retry { after: Some(500ms), "),
        (
            "\"reject\",\"error\":\"no such image\"",
            "Rejected { reason: \"refused by the job: no such image\", ",
        ),
        (
            "\"reject\",\"unknown\":1",
            "Rejected { reason: \"refused by the job\", ",
        ),
    ];
    for (answer, expected) in table {
        let witness = Witness::new();
        // Escaped for a shell's double quotes.
        let answer = answer.replace('"', "\\\"");
        let work = format!("echo \"{{\\\"id\\\":\\\"job\\\",\\\"outcome\\\":{answer}}}\"");
        let end = end(each_job(&witness, &work)).await;
        let end = format!("{end:?}");
        assert!(end.starts_with(expected), "{end}");
    }
}

#[tokio::test]
async fn a_failure_contains_only_the_log_lines_of_its_own_job() {
    let witness = Witness::new();
    let work = "echo \"job $((n += 1))\" >&2; answer '\"failed\",\"error\":\"why\"'";
    let mut runner = create(each_job(&witness, work)).await;
    for n in 1..=3 {
        let report = run(&mut *runner, "").await;
        assert!(report.reusable);
        let JobEnd::Failed(failure) = report.end else {
            panic!("{report:?}");
        };
        assert_eq!(
            (failure.kind, &*failure.message),
            (FailureKind::Error, "why")
        );
        assert_eq!(failure.stderr_tail, Some(format!("job {n}")));
    }
}

#[tokio::test]
async fn an_answer_without_success_contains_the_log_lines_of_the_job() {
    for word in ["retry", "reject"] {
        let witness = Witness::new();
        let work = format!("echo why >&2; answer '\"{word}\"'");
        let (JobEnd::Retry { failure, .. } | JobEnd::Rejected { failure, .. }) =
            end(each_job(&witness, &work)).await
        else {
            panic!("{word}");
        };
        let tail = failure.and_then(|failure| failure.stderr_tail);
        assert_eq!(tail.as_deref(), Some("why"), "{word}");
    }
}

#[tokio::test]
async fn progress_extends_the_deadline() {
    let mut witness = Witness::new();
    let work = "for n in 1 2 3 4; do sleep 1.2; echo '{\"id\":\"job\",\"progress\":\"half\"}'; done; \
                [ \"$line\" = \"${line#*stuck}\" ] || sleep 1000; answer '\"done\"'";
    let mut settings = each_job(&witness, work);
    settings.process.timeout = Duration::from_secs(4);
    settings.process.kill_grace = Duration::from_millis(50);
    let mut runner = create(settings).await;
    let report = run(&mut *runner, "").await;
    assert!(matches!(report.end, JobEnd::Done { .. }), "{report:?}");
    let report = run(&mut *runner, "stuck").await;
    let JobEnd::Failed(failure) = report.end else {
        panic!("{report:?}");
    };
    assert_eq!(failure.kind, FailureKind::Timeout);
    witness.gone().await;
}

#[tokio::test]
async fn an_answer_after_a_term_counts_but_not_after_the_timeout() {
    // In a loop, because TERM may come between two commands.
    let work = "heard=; trap 'answer \"\\\"retry\\\"\"; heard=yes' TERM; echo started >&9; \
                until [ $heard ]; do sleep 0.02; done";
    let mut witness = Witness::new();
    let mut runner = create(each_job(&witness, work)).await;
    let control = JobControl::default();
    let running = tokio::spawn({
        let control = control.clone();
        async move { runner.run(&job(""), control).await }
    });
    assert_eq!(witness.line().await, "started");
    control.stop.cancel();
    let report = soon(running).await.expect("no panic");
    assert!(matches!(report.end, JobEnd::Retry { .. }), "{report:?}");
    // A process that got TERM may be about to end.
    assert!(!report.reusable);
    witness.gone().await;

    let witness = Witness::new();
    let mut settings = each_job(&witness, work);
    settings.process.timeout = Duration::from_millis(100);
    settings.process.kill_grace = Duration::from_secs(5);
    assert_eq!(loss(settings).await.kind, FailureKind::Timeout);
}

#[tokio::test]
async fn an_answer_is_read_even_if_the_job_floods_its_log() {
    let witness = Witness::new();
    let work = "head -c 104857600 /dev/zero >&2; answer '\"done\"'";
    assert!(matches!(
        end(each_job(&witness, work)).await,
        JobEnd::Done { .. }
    ));
}

#[tokio::test]
async fn gets_variables_of_its_pool_and_its_protocol_and_none_of_the_daemon() {
    let witness = Witness::new();
    let work = "env | grep -c -e '^TIDEGATE_POOL=pool$' -e '^TIDEGATE_PROTOCOL=1$' -e ^CARGO >&2; \
                answer '\"failed\"'";
    let end = end(each_job(&witness, work)).await;
    let JobEnd::Failed(failure) = end else {
        panic!("{end:?}");
    };
    assert_eq!(failure.stderr_tail.as_deref(), Some("2"));
}
