//! Traces: from the headers of a message, through its job, to a collector.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    time::{Duration, Instant},
};

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};

use crate::support::{
    broker::broker_url,
    collector::{Collector, SeenSpan},
    daemon::{Daemon, Signal, poll},
    queue::Queue,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const STATE: &str = "congo=t61rcWkgMzE";

/// The properties of a message with these headers.
fn traced(headers: &[(&str, &str)]) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        let value = AMQPValue::LongString((*value).into());
        table.insert((*name).into(), value);
    }
    BasicProperties::default().with_headers(table)
}

/// The pool `jobs`, which runs this shell command for each message. A failed job is retried after about
/// 50 ms.
fn pool(queue: &Queue, command: &str) -> String {
    format!(
        "[pools.jobs]\nqueue = \"{queue}\"\npoll_interval = \"50ms\"\nretry.backoff = \"50ms\"\n\
         [pools.jobs.runner]\ncommand = [\"sh\", \"-c\", '''{command}''']\n",
        queue = queue.name()
    )
}

const NOTES: &str = "echo \"${TRACEPARENT-none} ${TRACESTATE-none}\" >> told";

/// The lines that jobs have written, once there are at least `jobs` of them.
fn told(daemon: &Daemon, jobs: usize) -> Vec<String> {
    let path = daemon.dir().join("told");
    let lines = poll(|| {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        (lines.len() >= jobs).then_some(lines)
    });
    lines.unwrap_or_else(|| panic!("{}", daemon.said()))
}

fn spans(collector: &Collector, daemon: &Daemon, count: usize) -> Vec<SeenSpan> {
    let seen = poll(|| Some(collector.spans()).filter(|spans| spans.len() >= count));
    seen.unwrap_or_else(|| panic!("{:#?}\n{}", collector.spans(), daemon.said()))
}

#[test]
fn without_a_collector_a_job_gets_the_trace_of_its_message_on_every_attempt() {
    let queue = Queue::new();
    let command = format!("{NOTES}; [ $TIDEGATE_ATTEMPT = 2 ]");
    let daemon = Daemon::start(&broker_url(), &pool(&queue, &command));
    let headers = [("traceparent", SAMPLED), ("tracestate", STATE)];
    queue.publish_to("", "one", traced(&headers));
    let own = format!("{SAMPLED} {STATE}");
    assert_eq!(told(&daemon, 2), [own.clone(), own]);
    queue.publish_to("", "two", traced(&[("traceparent", "00-0-0-01")]));
    assert_eq!(told(&daemon, 4)[2..], ["none none"; 2]);
}

#[test]
fn a_dead_letter_keeps_the_trace_of_its_message() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &pool(&queue, "exit 65"));
    let headers = [("traceparent", SAMPLED), ("tracestate", STATE)];
    queue.publish_to("", "one", traced(&headers));
    daemon.wait_for_pool("jobs", |pool| pool["jobs"]["dead"] == 1);
    let letter = queue.take_from(".dead").unwrap();
    let headers = letter.properties.headers().clone().unwrap();
    for (name, value) in [("traceparent", SAMPLED), ("tracestate", STATE)] {
        let kept = headers.inner().get(name);
        assert_eq!(
            kept,
            Some(&AMQPValue::LongString(value.into())),
            "{headers:?}"
        );
    }
}

#[test]
fn a_warm_job_gets_the_trace_of_its_message() {
    let queue = Queue::new();
    let runner = "printf '%s\\n' '{\"ready\": true, \"protocol\": 1}'; \
                  while read -r job; do printf '%s\\n' \"$job\" >> told; \
                  printf '%s\\n' '{\"id\": \"one\", \"outcome\": \"done\"}'; done";
    let daemon = Daemon::start(
        &broker_url(),
        &format!("{}kind = \"warm\"\n", pool(&queue, runner)),
    );
    let headers = [("traceparent", SAMPLED), ("tracestate", STATE)];
    queue.publish_to("", "one", traced(&headers));
    let job: serde_json::Value = serde_json::from_str(&told(&daemon, 1)[0]).unwrap();
    assert_eq!(job["traceparent"], SAMPLED);
    assert_eq!(job["tracestate"], STATE);
}

#[test]
#[cfg_attr(not(feature = "otlp"), ignore = "needs the feature otlp")]
fn a_collector_gets_the_spans_of_a_job_and_the_job_is_a_child_of_its_run() {
    let collector = Collector::start();
    let queue = Queue::new();
    let command = format!("{NOTES}; [ $TIDEGATE_ATTEMPT = 2 ]");
    let files = [("headers", "Authorization: Bearer s3c%41ret\n")];
    let head = format!(
        "otlp.endpoint = \"{}\"\notlp.headers_file = \"headers\"\notlp.service_name = \"shop\"",
        collector.endpoint()
    );
    let daemon = Daemon::start_with_files(&files, &broker_url(), &head, &pool(&queue, &command));
    let headers = [("traceparent", SAMPLED), ("tracestate", STATE)];
    queue.publish_to("", "one", traced(&headers));
    let seen = spans(&collector, &daemon, 6);
    let request = collector.head();
    assert!(request.starts_with("post /v1/traces "), "{request}");
    assert!(
        request.contains("authorization: bearer s3c%41ret"),
        "{request}"
    );

    let of = |operation: &str| -> Vec<SeenSpan> {
        let mut found: Vec<_> = (seen.iter())
            .filter(|span| span.operation() == operation)
            .cloned()
            .collect();
        found.sort_by_key(|span| span.span.start_time_unix_nano);
        found
    };
    let [receives, processes, settles] = ["receive", "process", "settle"].map(of);
    assert_eq!(
        [receives.len(), processes.len(), settles.len()],
        [2, 2, 2],
        "{seen:#?}"
    );
    for span in &seen {
        assert_eq!(span.trace_id(), TRACE);
        assert_eq!(span.service, "shop");
        assert_eq!(span.span.trace_state, STATE);
        for (key, value) in [
            ("messaging.system", "rabbitmq"),
            ("messaging.destination.name", queue.name()),
            ("messaging.rabbitmq.destination.routing_key", queue.name()),
            ("messaging.message.id", "one"),
            ("messaging.message.body.size", "3"),
            ("tidegate.pool", "jobs"),
        ] {
            assert_eq!(span.attribute(key), value, "{key} in {span:#?}");
        }
    }
    let told = told(&daemon, 2);
    for (attempt, process) in processes.iter().enumerate() {
        // Each attempt belongs to the publisher's span, and each job to its attempt.
        assert_eq!(receives[attempt].parent(), SPAN);
        assert_eq!(process.parent(), SPAN);
        assert_eq!(settles[attempt].parent(), process.id());
        let own = format!("00-{TRACE}-{}-01 {STATE}", process.id());
        assert_eq!(told[attempt], own);
        assert_eq!(
            process.attribute("tidegate.attempt"),
            (attempt + 1).to_string()
        );
        assert_eq!(process.span.name, format!("process {}", queue.name()));
        assert_eq!(process.span.kind, 5, "a consumer");
        assert_eq!(receives[attempt].span.kind, 3, "a client");
    }
    assert_eq!(processes[0].error().as_deref(), Some("failed"));
    assert_eq!(processes[0].attribute("error.type"), "failed");
    assert_eq!(processes[1].error(), None);
    assert_eq!(processes[1].attribute("error.type"), "");
    assert_eq!(processes[1].attribute("tidegate.outcome"), "done");
    let settled = settles
        .iter()
        .map(|span| span.attribute("messaging.operation.name"));
    assert_eq!(settled.collect::<Vec<_>>(), ["retry", "ack"]);
    assert_eq!(settles[1].span.name, format!("settle {}", queue.name()));
    let said = daemon.said();
    assert!(!said.contains("s3c%41ret"), "{said}");
    // Counted after the collector's answer, which the daemon may get after this test has the spans.
    let sent = "tidegate_otlp_requests_total{outcome=\"sent\"} ";
    let counted = poll(|| daemon.get("/metrics").1.contains(sent).then_some(()));
    assert!(counted.is_some(), "{}", daemon.get("/metrics").1);
}

#[test]
#[cfg_attr(not(feature = "otlp"), ignore = "needs the feature otlp")]
fn a_message_without_a_trace_begins_one_as_often_as_the_configuration_says() {
    let collector = Collector::start();
    let queue = Queue::new();
    let head = format!("otlp.endpoint = \"{}\"", collector.endpoint());
    let daemon = Daemon::start_with(&broker_url(), &head, &pool(&queue, NOTES));
    queue.publish("one");
    let told_first = told(&daemon, 1).remove(0);
    // At its end the daemon sends the remaining spans.
    daemon.signal(Signal::SIGTERM);
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0), "{said}");
    let seen: BTreeMap<_, _> = (collector.spans().into_iter())
        .map(|span| (span.operation(), span))
        .collect();
    assert_eq!(seen.len(), 3, "{seen:#?}\n{said}");
    let (receive, process) = (&seen["receive"], &seen["process"]);
    assert_eq!(receive.parent(), "");
    assert_eq!(process.parent(), receive.id());
    assert_eq!(seen["settle"].parent(), process.id());
    let own = format!("00-{}-{}-01 none", process.trace_id(), process.id());
    assert_eq!(told_first, own);

    let head = format!("{head}\notlp.sample = 0");
    let daemon = Daemon::start_with(&broker_url(), &head, &pool(&queue, NOTES));
    queue.publish("two");
    let unsampled = told(&daemon, 1).remove(0);
    assert!(unsampled.ends_with("-00 none"), "{unsampled}");
    queue.publish_to("", "three", traced(&[("traceparent", SAMPLED)]));
    let sampled = told(&daemon, 2).remove(1);
    assert!(sampled.starts_with(&format!("00-{TRACE}-")), "{sampled}");
    daemon.signal(Signal::SIGTERM);
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        collector.spans().len(),
        6,
        "no spans of the trace that was not sampled"
    );
}

#[test]
#[cfg_attr(not(feature = "otlp"), ignore = "needs the feature otlp")]
fn an_unreachable_collector_causes_one_warning_and_affects_no_job() {
    // A port without a listener.
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let queue = Queue::new();
    let head = format!("otlp.endpoint = \"http://{nobody}\"");
    let daemon = Daemon::start_with(&broker_url(), &head, &pool(&queue, NOTES));
    queue.publish("one");
    daemon.heard("the warning", |line| line["level"] == "WARN");
    queue.publish("two");
    told(&daemon, 2);
    let failed = poll(|| {
        let (_, metrics) = daemon.get("/metrics");
        let line = metrics.lines().find_map(|line| {
            line.strip_prefix("tidegate_otlp_requests_total{outcome=\"failed\"} ")
        });
        line.and_then(|number| number.parse::<u32>().ok())
            .filter(|failed| *failed > 3)
    });
    assert!(failed.is_some(), "{}", daemon.said());
    let ending = Instant::now();
    daemon.signal(Signal::SIGTERM);
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(ending.elapsed() < Duration::from_secs(10), "{said}");
    let warnings = said
        .matches("could not send spans to the collector")
        .count();
    assert_eq!(warnings, 1, "{said}");
}

#[test]
fn check_says_what_is_wrong_with_the_table() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("headers"), "Bearer s3c%41ret\n").unwrap();
    let text = "[otlp]\nendpoint = \"localhost:4318\"\nheaders_file = \"headers\"\nsample = 2\n\
                [pools.jobs.runner]\ncommand = [\"true\"]\n";
    std::fs::write(dir.path().join("tidegate.toml"), text).unwrap();
    let check = crate::support::daemon::tidegate(dir.path())
        .arg("check")
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(78));
    let said = String::from_utf8(check.stdout).unwrap();
    for part in [
        "otlp.endpoint",
        "http:// or https://",
        "line 1 is not a header",
        "a number from 0 to 1",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains("s3c%41ret"), "{said}");
}

#[test]
#[cfg(not(feature = "otlp"))]
fn a_build_without_the_exporter_refuses_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[otlp]\nendpoint = \"http://localhost:4318\"\n\
                [pools.jobs.runner]\ncommand = [\"true\"]\n";
    std::fs::write(dir.path().join("tidegate.toml"), text).unwrap();
    for command in ["check", "run"] {
        let ended = crate::support::daemon::tidegate(dir.path())
            .arg(command)
            .output()
            .unwrap();
        assert_eq!(ended.status.code(), Some(78));
        let said = [ended.stdout, ended.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("built without the feature otlp"), "{said}");
    }
}
