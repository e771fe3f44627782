//! A job's three pipes, and its output in the log.

use tidegate::{
    queue::{Message, Properties},
    runner::JobEnd,
};

use super::{MIB, run_script};
use crate::support::logged::Logged;

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
async fn keeps_reading_if_a_job_writes_100_mib() {
    let logged = Logged::default();
    let guard = logged.capture();
    let end = run_script(
        "yes 'a line of output' | head -c 104857600",
        Message::default(),
    )
    .await;
    drop(guard);
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    // The overhead of each line in the log counts too: 256 bytes, plus the line's 16.
    let lines = logged.lines("stdout");
    assert_eq!(lines.len(), MIB / (256 + 16));
    let shown: usize = lines.iter().map(|line| line.len() + 1).sum();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_pipes_of_many_jobs_apart() {
    let jobs = (1..=100_usize).map(|number| {
        let message = Message {
            body: vec![b'x'; number * 4096].into(),
            ..Message::default()
        };
        tokio::spawn(async move {
            let text = format!("[ $(tee /dev/stderr | wc -c) = {} ]", number * 4096);
            run_script(&text, message).await
        })
    });
    for job in jobs.collect::<Vec<_>>() {
        let end = job.await.expect("no panic");
        assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    }
}
