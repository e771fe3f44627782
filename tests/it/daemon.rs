//! The built daemon on a real broker: configured by a file, controlled by signals, observed from outside.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::Stdio,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::{sys::signal, unistd::Pid};
use serde_json::Value;
use tempfile::TempDir;
use tidegate::host::instance::InstanceLock;

use crate::support::{
    broker::broker_url,
    daemon::{Daemon, Signal, poll, tidegate},
    queue::Queue,
};

/// A pool named `work` whose jobs append their bodies to `done` in the daemon's folder.
fn signing(queue: &Queue) -> String {
    // One write per line, so that parallel jobs do not mix their lines.
    pool(queue, r#"echo "$(cat)" >> done"#)
}

/// A pool named `work` whose jobs report their start, and then run longer than any test.
fn endless(queue: &Queue, grace: &str) -> String {
    let pool = pool(queue, "echo >> started; exec sleep 600");
    format!("{pool}kill_grace = \"1s\"\n").replace(
        "[pools.work]",
        &format!("[pools.work]\nshutdown_grace = \"{grace}\""),
    )
}

fn pool(queue: &Queue, script: &str) -> String {
    format!(
        "[pools.work]\nqueue = \"{}\"\npoll_interval = \"100ms\"\ndrain_after = \"500ms\"\n\
         [pools.work.policy]\nkind = \"backlog\"\njobs_per_worker = 2\nmax = 5\n\
         [pools.work.runner]\ncommand = [\"/bin/sh\", \"-c\", '{script}']\n",
        queue.name()
    )
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn wait_for_file(daemon: &Daemon, name: &str) {
    let path = daemon.dir().join(name);
    poll(|| path.exists().then_some(()))
        .unwrap_or_else(|| panic!("{name} was never there:\n{}", daemon.said()));
}

/// An address without a listener.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn starts_workers_finishes_the_jobs_and_drains_to_zero() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &signing(&queue));
    let jobs: BTreeSet<String> = (0..20).map(|n| format!("job-{n}")).collect();
    for job in &jobs {
        queue.publish(job);
    }
    let pool = daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == 20);
    assert_eq!(pool["queue"], queue.name());
    let done: BTreeSet<String> = lines(&daemon.dir().join("done")).into_iter().collect();
    assert_eq!(done, jobs);
    let pool = daemon.wait_for_pool("work", |pool| pool["workers"]["live"] == 0);
    assert_eq!(pool["state"], "idle");
    assert_eq!(pool["runners"], serde_json::json!({"idle": 0, "busy": 0}));

    daemon.signal(Signal::SIGTERM);
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn shows_and_explains_its_pools_over_the_socket() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &signing(&queue));
    daemon.wait_for_pool("work", |pool| !pool["depth"]["age_ms"].is_null());

    let (code, table, err) = daemon.run(&["status"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(table.starts_with("POOL"), "{table}");
    assert!(table.lines().nth(1).unwrap().starts_with("work"), "{table}");

    let (code, text, _) = daemon.run(&["explain", "work"]);
    assert_eq!(code, Some(0));
    assert!(
        text.starts_with("work is idle\nexpected 0 (by empty)"),
        "{text}"
    );

    let (_, json, _) = daemon.run(&["explain", "work", "--format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["name"], "work");
    assert_eq!(json["decision"]["expected"], 0);

    let (code, _, err) = daemon.run(&["explain", "play"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("no pool named play"), "{err}");
}

#[test]
fn answers_health_metrics_and_api_over_http() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &signing(&queue));
    poll(|| (daemon.get("/readyz").0 == 200).then_some(()))
        .unwrap_or_else(|| panic!("never ready: {:?}", daemon.get("/readyz")));
    queue.publish("one");
    daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == 1);
    daemon.wait_for_pool("work", |pool| {
        pool["workers"]["live"] == 0 && pool["workers"]["draining"] == 0
    });

    assert_eq!(daemon.get("/healthz").0, 200);
    let (status, pools) = daemon.get("/api/v1/pools");
    assert_eq!(status, 200);
    let pools: Vec<Value> = serde_json::from_str(&pools).unwrap();
    assert_eq!(pools[0]["name"], "work");
    assert_eq!(daemon.get("/api/v1/pools/work").0, 200);
    assert_eq!(daemon.get("/api/v1/pools/work/explain").0, 200);
    for path in [
        "/api/v1/pools/play",
        "/api/v1/pools/play/explain",
        "/nowhere",
    ] {
        let (status, body) = daemon.get(path);
        assert_eq!(status, 404, "{path}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(body["error"].is_string(), "{path}: {body}");
    }
    let (status, _) = daemon.get_with("/healthz", &[("Host", "evil.example")]);
    assert_eq!(status, 403);

    let (status, metrics) = daemon.get("/metrics");
    assert_eq!(status, 200);
    for name in [
        "tidegate_queue_depth_messages",
        "tidegate_queue_depth_age_seconds",
        "tidegate_demand_jobs",
        "tidegate_expected_workers",
        "tidegate_workers",
        "tidegate_runners",
        "tidegate_workers_started_total",
        "tidegate_workers_stopped_total",
        "tidegate_runners_started_total",
        "tidegate_runners_stopped_total",
        "tidegate_reconciles_total",
        "tidegate_reconcile_duration_seconds",
        "tidegate_jobs_total",
        "tidegate_job_duration_seconds",
        "tidegate_job_wait_seconds",
        "tidegate_settlements_total",
        "tidegate_replies_total",
        "tidegate_dead_letters",
        "tidegate_pool_restarts_total",
        "tidegate_pool_state",
        "tidegate_pool_stuck",
        "tidegate_pool_stuck_seconds",
        "tidegate_broker_connected",
        "tidegate_broker_reconnects_total",
        "tidegate_build_info",
    ] {
        assert!(
            metrics.contains(&format!("# TYPE {name} ")),
            "{name} in:\n{metrics}"
        );
    }
    let done = "tidegate_jobs_total{pool=\"work\",outcome=\"done\"} 1";
    assert!(metrics.contains(done), "{metrics}");
}

/// The value of a series in the answer of `/metrics`.
fn value_of(metrics: &str, series: &str) -> f64 {
    let value = metrics.lines().find_map(|line| line.strip_prefix(series));
    let value = value.unwrap_or_else(|| panic!("no {series} in:\n{metrics}"));
    value.trim().parse().unwrap()
}

#[test]
fn the_wait_of_a_job_is_measured_from_when_its_message_says_that_it_was_published() {
    let queue = Queue::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    // An hour ago, three hours ago, and by a clock that is ahead of ours.
    for (body, hours) in [("one", -1), ("three", -3), ("later", 1)] {
        queue.publish_at(body, now + hours * 3_600_000);
    }
    queue.publish("without a time");
    let pools = format!(
        "[pools.work]\nqueue = \"{}\"\n[pools.work.runner]\ncommand = [\"/bin/true\"]\n",
        queue.name()
    );
    let daemon = Daemon::start(&broker_url(), &pools);
    daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == 4);
    let (_, metrics) = daemon.get("/metrics");
    let wait = |part: &str| {
        let series = format!("tidegate_job_wait_seconds{part}{{pool=\"work\"}}");
        value_of(&metrics, &series)
    };
    assert_eq!(wait("_count"), 2.0, "{metrics}");
    // Four hours, and the time that the test took: the test itself ends within minutes.
    let waited = wait("_sum") - 4.0 * 3600.0;
    assert!((0.0..600.0).contains(&waited), "{waited}");
}

#[test]
fn waits_for_a_broker_that_is_not_there_and_says_so_once() {
    let url = format!("amqp://guest:s3cret@{}/%2f", nobody());
    let daemon = Daemon::start(&url, "[pools.work.runner]\ncommand = [\"/bin/cat\"]\n");
    daemon.heard("a warning", |line| line["level"] == "WARN");
    let (status, body) = daemon.get("/readyz");
    assert_eq!(status, 503);
    assert!(body.contains("not connected to the broker"), "{body}");
    assert_eq!(daemon.get("/healthz").0, 200);
    daemon.wait_for_pool("work", |pool| pool["state"] == "disconnected");

    daemon.signal(Signal::SIGTERM);
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("s3cret"), "{said}");
    assert_eq!(said.matches("\"WARN\"").count(), 1, "{said}");
}

#[test]
fn keeps_trying_if_the_password_is_refused_and_never_shows_it() {
    let mut url: url::Url = broker_url().parse().unwrap();
    url.set_password(Some("wr0ng-s3cret")).unwrap();
    let daemon = Daemon::start(
        url.as_str(),
        "[pools.work.runner]\ncommand = [\"/bin/cat\"]\n",
    );
    daemon.heard("a warning", |line| line["level"] == "WARN");
    let (status, body) = daemon.get("/readyz");
    assert_eq!(status, 503);
    let (_, json, _) = daemon.run(&["status", "--format", "json"]);
    let (_, table, _) = daemon.run(&["status"]);
    daemon.signal(Signal::SIGUSR1);
    daemon.wait_for_message("state of a pool");

    daemon.signal(Signal::SIGTERM);
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0), "{said}");
    for text in [said, body, json, table] {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn waits_for_a_queue_that_is_not_there_yet() {
    let queue = Queue::undeclared();
    let daemon = Daemon::start(&broker_url(), &signing(&queue));
    daemon.wait_for_pool("work", |pool| pool["state"] == "waiting");
    let (status, body) = daemon.get("/readyz");
    assert_eq!(status, 503);
    assert!(body.contains(queue.name()), "{body}");
    queue.declare();
    queue.publish("late");
    daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == 1);
}

#[test]
fn gives_jobs_back_at_the_deadline_of_a_drain_and_says_so() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &endless(&queue, "500ms"));
    queue.publish("endless");
    wait_for_file(&daemon, "started");
    daemon.signal(Signal::SIGTERM);
    let (code, said) = daemon.end();
    assert_eq!(code, Some(75), "{said}");
    assert_eq!(queue.take().as_deref(), Some(&b"endless"[..]), "{said}");
}

#[test]
fn finishes_what_runs_before_it_ends() {
    let queue = Queue::new();
    let pool = pool(
        &queue,
        "echo >> started; until test -e go; do sleep 0.02; done; cat >> done",
    );
    let daemon = Daemon::start(&broker_url(), &pool);
    queue.publish("slow");
    wait_for_file(&daemon, "started");
    daemon.signal(Signal::SIGINT);
    daemon.wait_for_message("draining");
    let done = daemon.dir().join("done");
    fs::write(daemon.dir().join("go"), "").unwrap();
    let folder = daemon.dir().to_owned();
    let done = poll(|| {
        fs::read_to_string(&done)
            .ok()
            .filter(|text| !text.is_empty())
    });
    assert_eq!(done.as_deref(), Some("slow"), "in {}", folder.display());
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn stops_at_once_at_a_second_interrupt() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &endless(&queue, "10m"));
    queue.publish("endless");
    wait_for_file(&daemon, "started");
    daemon.signal(Signal::SIGINT);
    daemon.wait_for_message("draining");
    daemon.signal(Signal::SIGINT);
    let (code, said) = daemon.end();
    assert_eq!(code, Some(75), "{said}");
    assert_eq!(queue.take().as_deref(), Some(&b"endless"[..]), "{said}");
}

#[test]
fn stops_at_once_at_quit() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &endless(&queue, "10m"));
    queue.publish("endless");
    wait_for_file(&daemon, "started");
    daemon.signal(Signal::SIGQUIT);
    let (code, said) = daemon.end();
    assert_eq!(code, Some(75), "{said}");
    assert_eq!(queue.take().as_deref(), Some(&b"endless"[..]), "{said}");
}

#[test]
fn takes_a_new_configuration_over_at_a_hangup() {
    let (first, second) = (Queue::new(), Queue::new());
    let daemon = Daemon::start(&broker_url(), &signing(&first));
    let both = format!(
        "{}{}",
        signing(&first),
        signing(&second).replace("pools.work", "pools.more")
    );
    daemon.configure(&broker_url(), "events_file = \"events.jsonl\"", &both);
    daemon.signal(Signal::SIGHUP);
    let warning = daemon.wait_for("a restart", |line| line["level"] == "WARN");
    assert_eq!(warning["key"], "events_file");
    let took = daemon.wait_for_message("applied the configuration");
    assert_eq!(took["added"], "more");
    assert!(took["changed"].is_null() && took["removed"].is_null());
    second.publish("hello");
    daemon.wait_for_pool("more", |pool| pool["jobs"]["done"] == 1);
    let gauge = "tidegate_expected_workers{pool=\"more\"}";
    let (_, metrics) = daemon.get("/metrics");
    assert!(metrics.contains(gauge), "{metrics}");

    daemon.configure(&broker_url(), "", &signing(&first));
    daemon.signal(Signal::SIGHUP);
    let took = daemon.wait_for_message("applied the configuration");
    assert_eq!(took["removed"], "more");
    assert_eq!(daemon.pool("more"), Value::Null);
    // Its counters stay. Gauges that described it while it existed do not.
    let metrics = poll(|| {
        let (_, metrics) = daemon.get("/metrics");
        (!metrics.contains(gauge)).then_some(metrics)
    });
    let metrics = metrics.expect("its gauges go");
    let lines = metrics
        .lines()
        .filter(|line| line.contains("pool=\"more\""));
    let mut left: Vec<&str> = lines.filter_map(|line| line.split('{').next()).collect();
    left.dedup();
    for gauge in [
        "tidegate_workers",
        "tidegate_runners",
        "tidegate_breaker_open",
    ] {
        assert!(!left.contains(&gauge), "{metrics}");
    }
    assert!(left.contains(&"tidegate_jobs_total"), "{metrics}");
}

#[test]
fn refuses_a_bad_configuration_whole_and_keeps_the_old_one() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &signing(&queue));
    let bad = format!(
        "{}[pools.more]\nprefetch = 0\ncolour = 1\n[pools.more.runner]\ncommand = [\"/bin/cat\"]\n",
        signing(&queue).replace("max = 5", "max = 0")
    );
    daemon.configure(&broker_url(), "", &bad);
    daemon.signal(Signal::SIGHUP);
    for key in ["pools.more.prefetch", "pools.more.colour"] {
        daemon.wait_for(key, |line| line["key"] == key);
    }
    daemon.wait_for_message("refused the configuration; the old one stays");
    assert_eq!(daemon.pool("more"), Value::Null);
    queue.publish("still here");
    daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == 1);
}

#[test]
fn logs_its_state_when_asked() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &signing(&queue));
    daemon.signal(Signal::SIGUSR1);
    let line = daemon.wait_for_message("state of a pool");
    assert_eq!(line["pool"], "work");
}

#[test]
fn writes_metric_events_to_its_file_and_follows_a_rotation() {
    let queue = Queue::new();
    let head = "events_file = \"events.jsonl\"";
    let daemon = Daemon::start_with(&broker_url(), head, &signing(&queue));
    let (file, old) = (
        daemon.dir().join("events.jsonl"),
        daemon.dir().join("events.jsonl.1"),
    );
    queue.publish("one");
    let stopped = |path: &Path, job: &str| {
        let events = lines(path)
            .into_iter()
            .filter_map(|line| serde_json::from_str(&line).ok());
        let mut events = events.filter(|event: &Value| event["event"] == "runner_stop");
        events.find(|event| event["job_id"] == job)
    };
    let event = poll(|| stopped(&file, "one")).expect("an event of the job's end");
    assert_eq!(event["pool"], "work");
    assert_eq!(event["status"], "done");
    assert!(
        event["timestamp"].as_str().unwrap().ends_with('Z'),
        "{event}"
    );
    let names: BTreeSet<String> = lines(&file)
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].to_string())
        .collect();
    for name in ["runner_installed", "runner_start", "reconciliation"] {
        assert!(
            names.contains(&format!("\"{name}\"")),
            "{name} in {names:?}"
        );
    }

    fs::rename(&file, &old).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_message("applied the configuration");
    queue.publish("two");
    poll(|| stopped(&file, "two")).expect("the event in the new file");
    assert_eq!(stopped(&old, "two"), None);
}

#[test]
fn is_the_only_one_on_its_state_directory() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &signing(&queue));
    let (code, _, err) = daemon.run(&["run"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(
        err.contains("error: failed to start a second supervisor"),
        "{err}"
    );
    // The first daemon is not affected.
    daemon.wait_for_pool("work", |pool| pool["state"] == "idle");
}

#[test]
fn waits_for_the_end_of_a_supervisor_that_is_ending() {
    let queue = Queue::new();
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("state");
    let first = InstanceLock::take(&state).unwrap();
    let mut daemon = Daemon::start_soon(dir, &broker_url(), &signing(&queue));
    daemon.wait_for_message("another supervisor is running: waiting until it ends");
    drop(first);
    daemon.wait_until_started();
    queue.publish("one");
    daemon.wait_for_pool("work", |pool| pool["jobs"]["done"] == 1);
}

#[test]
fn starts_again_after_an_earlier_daemon_was_killed() {
    let queue = Queue::new();
    let daemon = Daemon::start(&broker_url(), &signing(&queue));
    daemon.signal(Signal::SIGKILL);
    poll(|| (daemon.run(&["status"]).0 == Some(69)).then_some(())).expect("it is dead");
    assert!(daemon.socket().exists());
    let mut second = tidegate(daemon.dir()).arg("run").spawn().unwrap();
    let status = poll(|| (daemon.run(&["status"]).0 == Some(0)).then_some(()));
    let _ = second.kill();
    let _ = second.wait();
    assert_eq!(status, Some(()));
}

#[test]
fn checks_the_broker_without_touching_it() {
    let (there, missing) = (Queue::new(), Queue::undeclared());
    there.publish("stays");
    let dir = tempfile::TempDir::new().unwrap();
    let check = |url: &str| {
        let text = format!(
            "[broker]\nurl = \"{url}\"\n{}{}",
            signing(&there),
            signing(&missing).replace("pools.work", "pools.more")
        );
        fs::write(dir.path().join("tidegate.toml"), text).unwrap();
        let mut command = tidegate(dir.path());
        let output = command.args(["check", "--broker"]).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, out, err) = check(&broker_url());
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains(": RabbitMQ "), "{out}");
    let ready = format!("queue {} is there, with 1 message ready", there.name());
    assert!(out.contains(&ready), "{out}");
    let waits = format!(
        "warning: pool more: queue {} does not exist",
        missing.name()
    );
    assert!(out.contains(&waits), "{out}");
    assert!(
        out.contains("not seen: the node's consumer timeout"),
        "{out}"
    );
    assert!(out.ends_with("tidegate.toml: ok, 2 pools\n"), "{out}");
    assert_eq!(there.take().as_deref(), Some(&b"stays"[..]));

    let (code, _, err) = check(&format!("amqp://guest:s3cret@{}/%2f", nobody()));
    assert_eq!(code, Some(69), "{err}");
    assert!(
        err.starts_with("error: failed to reach the broker amqp://guest:***@"),
        "{err}"
    );

    let mut url: url::Url = broker_url().parse().unwrap();
    url.set_password(Some("wr0ng-s3cret")).unwrap();
    let (code, _, err) = check(url.as_str());
    assert_eq!(code, Some(69), "{err}");
    assert!(!err.contains("s3cret"), "{err}");
}

#[test]
fn deletes_the_demos_queue_when_interrupted() {
    let dir = tempfile::TempDir::new().unwrap();
    let demo = tidegate(dir.path())
        .arg("demo")
        .env("AMQP_URL", broker_url())
        .env("TMPDIR", dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut demo = demo;
    let mut out = BufReader::new(demo.stdout.take().unwrap()).lines();
    let lines = out.by_ref().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.contains("burst")).collect();
    let queue = head
        .iter()
        .find_map(|line| line.strip_prefix("queue "))
        .unwrap();
    let queue = queue.split(',').next().unwrap();
    assert!(Queue::exists(queue));
    signal::kill(Pid::from_raw(demo.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    // Reads until the daemon ends, so that it does not write to a closed pipe.
    let rest: Vec<String> = out.map_while(Result::ok).collect();
    let output = demo.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(
        err.contains("failed to finish the demo: it was interrupted"),
        "{err}{rest:?}"
    );
    assert!(!Queue::exists(queue));
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        0,
        "its ledger is gone"
    );
}

#[test]
fn requires_the_token_of_clients_that_may_be_on_another_machine() {
    let queue = Queue::new();
    let head = "http.listen = \"0.0.0.0:0\"\nhttp.token_file = \"token\"";
    let daemon = Daemon::start_with_files(
        &[("token", "s3cret\n")],
        &broker_url(),
        head,
        &signing(&queue),
    );
    let host = ("Host", "127.0.0.1");
    for path in ["/healthz", "/metrics"] {
        assert_eq!(daemon.get_with(path, &[host]).0, 200, "{path}");
    }
    let (status, body) = daemon.get_with("/api/v1/pools", &[host]);
    assert_eq!(status, 401, "{body}");
    let wrong = ("Authorization", "Bearer guess");
    assert_eq!(daemon.get_with("/api/v1/pools", &[host, wrong]).0, 401);
    let right = ("Authorization", "Bearer s3cret");
    assert_eq!(daemon.get_with("/api/v1/pools", &[host, right]).0, 200);
    // The command line uses the socket, and needs no token.
    assert_eq!(daemon.run(&["status"]).0, Some(0));
    assert!(!daemon.said().contains("s3cret"), "{}", daemon.said());
}
