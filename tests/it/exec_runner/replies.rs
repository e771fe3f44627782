//! Standard output that is a reply.

use tidegate::runner::{OutputUse, Reply};

use super::*;
use crate::support::logged::Logged;

/// Runs a script whose standard output has this use.
async fn run_with(output: OutputUse, text: &str) -> (Option<Reply>, Logged) {
    let logged = Logged::default();
    let _capturing = logged.capture();
    let mut witness = Witness::new();
    let control = JobControl {
        output,
        ..JobControl::default()
    };
    let end = run(script(&witness, text), Message::default(), control).await;
    witness.gone().await;
    match end {
        JobEnd::Done { reply } => (reply, logged),
        end => panic!("{end:?}"),
    }
}

#[tokio::test]
async fn an_answer_is_standard_output_byte_for_byte_and_is_not_logged() {
    let limit = OutputUse::Reply { limit: 100 };
    let text = r"echo because >&2; printf '\377\000 answer\n\n'";
    let (reply, logged) = run_with(limit, text).await;
    let reply = reply.expect("an answer");
    assert_eq!(reply.body, &b"\xff\0 answer\n\n"[..]);
    assert_eq!(
        reply.content_type.as_deref(),
        Some("application/octet-stream")
    );
    assert_eq!(logged.lines("stdout"), [""; 0]);
    assert_eq!(logged.lines("stderr"), ["because"]);
}

#[tokio::test]
async fn a_job_that_writes_nothing_has_an_empty_answer() {
    let (reply, _) = run_with(OutputUse::Reply { limit: 100 }, ":").await;
    assert_eq!(reply.expect("an answer").body.len(), 0);
}

#[tokio::test]
async fn only_the_start_of_an_answer_that_is_too_long_is_kept() {
    let (reply, logged) = run_with(
        OutputUse::Reply { limit: 100 },
        "head -c 50000000 /dev/zero",
    )
    .await;
    assert_eq!(reply.expect("an answer").body.len(), 101);
    assert_eq!((logged.lines("stdout"), logged.dropped()), (vec![], vec![]));
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_is_neither_kept_nor_logged() {
    let text = "head -c 5000000 /dev/zero; echo secret";
    let (reply, logged) = run_with(OutputUse::Dropped, text).await;
    assert_eq!(reply, None);
    assert_eq!((logged.lines("stdout"), logged.dropped()), (vec![], vec![]));
}
