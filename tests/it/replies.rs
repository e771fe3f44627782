//! The built daemon and a plain client that asks for replies.

use lapin::{message::Delivery, types::AMQPValue};

use crate::support::{broker::broker_url, daemon::Daemon, queue::Queue};

fn pool(queue: &Queue, more: &str, runner: &str) -> String {
    format!(
        "[pools.work]\nqueue = \"{}\"\npoll_interval = \"100ms\"\n{more}\n\
         [pools.work.runner]\n{runner}\n",
        queue.name()
    )
}

fn header(answer: &Delivery, name: &str) -> String {
    let headers = answer.properties.headers().as_ref().unwrap();
    match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn replies_with_the_output_of_a_process_and_does_not_log_it() {
    let queue = Queue::new();
    let script = r#"body=$(cat); echo heard >&2
        case $body in
            refuse) echo never >&2; exit 65 ;;
            flood) head -c 100000 /dev/zero ;;
            *) printf "%s?" "$body" ;;
        esac"#;
    let runner = format!("command = [\"/bin/sh\", \"-c\", '''{script}''']");
    let more = "reply = true\nreply_max = \"1KiB\"";
    let daemon = Daemon::start(&broker_url(), &pool(&queue, more, &runner));

    let done = queue.ask("s3cret");
    assert_eq!(done.data, b"s3cret?");
    assert_eq!(header(&done, "x-tidegate-outcome"), "done");
    let correlation_id = done.properties.correlation_id().clone();
    assert_eq!(correlation_id.unwrap().as_str(), "s3cret");
    for (body, reason) in [("refuse", "rejected"), ("flood", "reply-too-large")] {
        let failed = queue.ask(body);
        assert_eq!(failed.data, b"");
        assert_eq!(header(&failed, "x-tidegate-outcome"), "failed");
        assert_eq!(header(&failed, "x-tidegate-reason"), reason);
    }
    // The reply of a job without a caller is not logged either. The job's id is logged, so it differs from the body.
    queue.publish("unasked");
    daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == 3);
    let pool = daemon.wait_for_pool("work", |pool| pool["jobs"]["dead"] == 1);
    let expected = serde_json::json!({"done": 1, "failed": 2, "refused": 0, "undeliverable": 0});
    assert_eq!(pool["replies"], expected);
    let (_, metrics) = daemon.get("/metrics");
    for (outcome, count) in [("done", 1), ("failed", 1), ("too_large", 1), ("refused", 0)] {
        let line =
            format!("tidegate_replies_total{{pool=\"work\",outcome=\"{outcome}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line} in:\n{metrics}");
    }
    daemon.heard("its standard error", |line| line["line"] == "heard");
    daemon.heard("that an answer was too long", |line| {
        line["reply_max"] == 1024 && line["suppressed"].is_null() && line["level"] == "WARN"
    });
    let said = daemon.said();
    assert!(
        !said.contains("s3cret") && !said.contains("unasked?"),
        "{said}"
    );
}

#[test]
fn replies_with_the_output_of_a_process_only_if_configured() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &pool(&queue, "", "command = [\"/bin/cat\"]"));
    queue.publish("once");
    daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == 1);
    daemon.heard("its output", |line| line["line"] == "once");
}

#[test]
fn logs_refused_replies_with_a_hint() {
    let queue = Queue::new();
    let runner = "command = [\"/bin/cat\"]";
    let daemon = Daemon::start(&broker_url(), &pool(&queue, "reply = true", runner));
    let wanted = format!("amq.gen-\n{}", "x".repeat(200));
    for body in ["first", "second"] {
        queue.ask_to(&wanted, body);
    }
    daemon.wait_for_pool("work", |pool| pool["replies"]["refused"] == 2);
    let line = daemon.heard("a refusal", |line| {
        line["reason"] == "reply_allow does not have it"
    });
    let named = line["messaging.destination.name"].as_str().unwrap();
    assert_eq!(named, format!("{wanted:?}"));
    let hint = line["hint"].as_str().unwrap();
    assert!(hint.contains("reply_allow = [\"amq.gen-*\"]"), "{line}");
    // The first line of its kind reports no suppressed lines. The second line is suppressed.
    assert!(line["suppressed"].is_null(), "{line}");
    assert_eq!(daemon.said().matches("reply_allow does not").count(), 1);
}

#[test]
fn replies_with_the_reply_of_a_warm_runner() {
    let queue = Queue::new();
    let script = "import tidegate\n\
                  def handle(job):\n    \
                      if job['body'] == 'refuse': raise tidegate.Reject('never')\n    \
                      return {'said': job['body']}\n\
                  tidegate.serve(handle)\n";
    let shims = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shims/python/src");
    let runner = format!(
        "kind = \"warm\"\ncommand = [\"python3\", \"-c\", \"\"\"{script}\"\"\"]\n\
         env = {{ PYTHONPATH = \"{shims}\" }}"
    );
    let daemon = Daemon::start(&broker_url(), &pool(&queue, "", &runner));
    let done = queue.ask("question");
    assert_eq!(done.data, br#"{"said": "question"}"#);
    let content_type = done.properties.content_type().clone();
    assert_eq!(content_type.unwrap().as_str(), "application/json");
    let failed = queue.ask("refuse");
    assert_eq!(header(&failed, "x-tidegate-outcome"), "failed");
    assert_eq!(
        header(&failed, "x-tidegate-error"),
        "refused by the job: never"
    );
    daemon.wait_for_pool("work", |pool| pool["jobs"]["dead"] == 1);
}
