//! The view of a job inside its container, and the view of the job from outside.

use std::collections::BTreeMap;

use tidegate::{
    config::Cores,
    queue::{Message, TRACEPARENT, TRACESTATE},
    runner::{JobControl, JobEnd, OutputUse},
    runners::container::{ContainerManager, Mount},
};

use super::{failure, folder, message, run, try_run, witnessed};
use crate::needs::Need;
use crate::support::{engine::engine, logged::Logged, witness::Witness};

trials! {
    tasks(Need::Engine): [
        a_job_has_the_variables_of_its_message_image_and_pool,
        a_job_has_the_trace_of_its_message_or_none,
        applies_the_limits_of_the_pool,
        logs_both_streams_line_by_line_down_to_the_last_one_of_a_job_that_ends_at_once,
        reads_all_output_and_logs_no_more_than_the_limit,
        survives_a_job_that_does_not_read_its_input,
        a_job_can_read_and_write_more_than_any_pipe_holds_at_the_same_time,
        runs_the_images_own_command_where_the_pool_names_none,
        replies_with_standard_output_if_the_message_asks_for_a_reply,
        names_pool_job_and_supervisor_on_its_container,
    ],
}

async fn a_job_has_the_variables_of_its_message_image_and_pool() {
    let engine = engine();
    let image = engine.variant(
        "env",
        &["ENV OF_IMAGE=1", "ENV SIZE=1", "ENV TIDEGATE_POOL=1"],
    );
    let witness = Witness::new();
    let mut settings = engine.script("env -0 >/folder/env");
    settings.image = image;
    settings.mounts = vec![folder(&witness)];
    settings.env = [("SIZE".to_owned(), "256\nwide".to_owned())].into();
    // One variable of the test's environment, and no other.
    settings.env_pass = vec![
        "CARGO_MANIFEST_DIR".to_owned(),
        "NO_SUCH_VARIABLE".to_owned(),
    ];
    let message = message();
    let end = run(settings, message.clone()).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    let text = std::fs::read_to_string(witness.folder().join("env")).expect("a file");
    let seen: BTreeMap<_, _> = text
        .split_terminator('\0')
        .filter_map(|variable| variable.split_once('='))
        .collect();
    assert_eq!(seen["OF_IMAGE"], "1");
    assert_eq!(seen["SIZE"], "256\nwide");
    assert_eq!(seen["TIDEGATE_POOL"], "pool");
    assert_eq!(seen["TIDEGATE_ATTEMPT"], "2");
    assert_eq!(seen["TIDEGATE_HEADERS"], "{}");
    assert_eq!(seen["TIDEGATE_ROUTING_KEY"], "");
    assert_eq!(seen["TIDEGATE_TYPE"], "");
    assert_eq!(
        Some(seen["TIDEGATE_JOB_ID"]),
        message.properties.message_id.as_deref()
    );
    assert_eq!(seen["CARGO_MANIFEST_DIR"], env!("CARGO_MANIFEST_DIR"));
    assert!(!seen.contains_key("CARGO_PKG_NAME"), "{seen:?}");
}

async fn a_job_has_the_trace_of_its_message_or_none() {
    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let engine = engine();
    let witness = Witness::new();
    let mut settings =
        engine.script("echo \"${TRACEPARENT-none} ${TRACESTATE-none}\" >>/folder/told");
    settings.mounts = vec![folder(&witness)];
    let mut traced = message();
    traced.headers = [
        (TRACEPARENT.to_owned(), SAMPLED.into()),
        (TRACESTATE.to_owned(), "congo=t61rcWkgMzE".into()),
    ]
    .into();
    let mut malformed = message();
    malformed.headers = [(TRACEPARENT.to_owned(), "00-0-0-01".into())].into();
    for message in [traced, malformed, message()] {
        let end = run(settings.clone(), message).await;
        assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    }
    let told = std::fs::read_to_string(witness.folder().join("told")).expect("a file");
    let lines: Vec<_> = told.lines().collect();
    let own = format!("{SAMPLED} congo=t61rcWkgMzE");
    assert_eq!(lines, [own.as_str(), "none none", "none none"]);
}

async fn applies_the_limits_of_the_pool() {
    let engine = engine();
    let witness = Witness::new();
    let script = "pwd; id -u; id -g; cat /proc/self/mounts | grep ' /read '; ls /sys/class/net | tr '\\n' ' '; echo; \
                  touch /read/x 2>/dev/null || echo refused";
    let mut settings = engine.script(&format!("({script}) >/folder/seen"));
    let path = witness.folder().to_str().expect("a UTF-8 path");
    settings.mounts = vec![
        folder(&witness),
        Mount::parse(&format!("{path}:/read:ro")).expect("a mount"),
    ];
    settings.user = Some("1234".to_owned());
    settings.group = Some("2345".to_owned());
    settings.working_dir = Some("/tmp".into());
    settings.memory_max = Some(64 << 20);
    settings.cpu_max = Some(Cores::from_thousandths(500));
    settings.pids_max = Some(50);
    open_to_all(&witness);
    let end = run(settings, message()).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    let text = std::fs::read_to_string(witness.folder().join("seen")).expect("a file");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..3], ["/tmp", "1234", "2345"]);
    assert!(lines[3].contains(" ro,"), "{text}");
    assert_eq!(lines[4].trim(), "lo");
    assert_eq!(lines[5], "refused");
}

fn open_to_all(witness: &Witness) {
    use std::os::unix::fs::PermissionsExt;
    let all = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(witness.folder(), all).expect("our folder");
}

async fn logs_both_streams_line_by_line_down_to_the_last_one_of_a_job_that_ends_at_once() {
    let engine = engine();
    for _ in 0..5 {
        let logged = Logged::default();
        let capture = logged.capture();
        let end = run(
            engine.script("printf 'one\\ntwo \\033[31m\\nlast'; printf 'wrong\\n' >&2"),
            message(),
        )
        .await;
        drop(capture);
        assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
        assert_eq!(logged.lines("stdout"), ["one", "two \\u{1b}[31m", "last"]);
        assert_eq!(logged.lines("stderr"), ["wrong"]);
    }
}

async fn reads_all_output_and_logs_no_more_than_the_limit() {
    let engine = engine();
    let logged = Logged::default();
    let capture = logged.capture();
    let script = "head -c 20000000 /dev/zero | tr '\\0' x; echo; echo why >&2; exit 3";
    let failure = failure(run(engine.script(script), message()).await);
    drop(capture);
    assert_eq!(failure.message, "exit code 3");
    assert_eq!(failure.stderr_tail.as_deref(), Some("why"));
    let lines = logged.lines("stdout");
    assert_eq!(
        lines.iter().map(String::len).collect::<Vec<_>>(),
        [16 * 1024]
    );
    assert_eq!(logged.dropped(), [20_000_001 - 16 * 1024]);
}

async fn survives_a_job_that_does_not_read_its_input() {
    let engine = engine();
    let message = Message {
        body: vec![b'x'; 16 * 1024 * 1024].into(),
        ..message()
    };
    let end = run(engine.script("exit 0"), message).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
}

async fn a_job_can_read_and_write_more_than_any_pipe_holds_at_the_same_time() {
    let engine = engine();
    let message = Message {
        body: vec![b'x'; 8 * 1024 * 1024].into(),
        ..message()
    };
    let end = run(engine.script("cat; cat /dev/null >&2"), message).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
}

async fn runs_the_images_own_command_where_the_pool_names_none() {
    let engine = engine();
    let image = engine.variant("cmd", &["CMD [\"sh\", \"-c\", \"cat >/folder/body\"]"]);
    let witness = Witness::new();
    let mut settings = engine.settings(&image);
    settings.mounts = vec![folder(&witness)];
    let message = Message {
        body: "whole".into(),
        ..message()
    };
    let end = run(settings, message).await;
    assert!(matches!(end, JobEnd::Done { .. }), "{end:?}");
    let body = std::fs::read(witness.folder().join("body")).expect("a file");
    assert_eq!(body, b"whole");
}

async fn replies_with_standard_output_if_the_message_asks_for_a_reply() {
    let engine = engine();
    let manager = ContainerManager::new(engine.script("printf answer; echo why >&2"));
    let control = JobControl {
        output: OutputUse::Reply { limit: 100 },
        ..JobControl::default()
    };
    let end = try_run(&manager, message(), control)
        .await
        .expect("it starts");
    let JobEnd::Done { reply: Some(reply) } = end else {
        panic!("{end:?}");
    };
    assert_eq!(reply.body, "answer");
}

async fn names_pool_job_and_supervisor_on_its_container() {
    let engine = engine();
    let mut witness = Witness::new();
    let message = message();
    let settings = witnessed(engine, &witness, "echo started >&9; sleep 1000");
    let running = tokio::spawn(run(settings, message.clone()));
    witness.line().await;
    let container = super::container_of(engine, &message).await;
    let labels = container.labels.expect("labels");
    assert_eq!(labels["tidegate.pool"], "pool");
    assert_eq!(labels["tidegate.supervisor"].len(), 32);
    let name = &container.names.expect("a name")[0];
    assert!(name.starts_with("/tidegate-pool-"), "{name}");
    running.abort();
    witness.gone().await;
}
