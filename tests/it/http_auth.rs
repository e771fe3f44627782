//! Access over TCP, and its limits: tokens, hosts, browsers, sizes.

use crate::support::{
    broker::broker_url,
    daemon::{Answer, Daemon, tidegate},
    queue::Queue,
};

const HOST: (&str, &str) = ("Host", "localhost");
const STEER: (&str, &str) = ("Authorization", "Bearer s3cret");
const READ: (&str, &str) = ("Authorization", "Bearer l00k");
const TOKENS: [(&str, &str); 2] = [("token", "s3cret\n"), ("read", "l00k\n")];

fn pools(queue: &Queue) -> String {
    format!(
        "[pools.jobs]\nqueue = \"{queue}\"\nrunner.command = [\"true\"]\n",
        queue = queue.name()
    )
}

fn start(head: &str) -> (Daemon, Queue) {
    let queue = Queue::new();
    let daemon = Daemon::start_with_files(&TOKENS, &broker_url(), head, &pools(&queue));
    (daemon, queue)
}

fn pause(daemon: &Daemon, headers: &[(&str, &str)]) -> Answer {
    daemon.request("POST", "/api/v1/pools/jobs/pause", headers, "")
}

#[test]
fn without_a_configured_token_nobody_changes_anything_over_tcp() {
    let (daemon, _queue) = start("");
    for shown in [
        &[HOST][..],
        &[HOST, STEER],
        &[HOST, ("Authorization", "Bearer ")],
    ] {
        let answer = pause(&daemon, shown);
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(answer.body.contains("http.token_file"), "{answer:?}");
    }
    let put = daemon.request(
        "PUT",
        "/api/v1/pools/jobs/scale",
        &[HOST],
        r#"{"workers": 1}"#,
    );
    assert_eq!(put.status, 403, "{put:?}");
    let pool = daemon.pool("jobs");
    assert_ne!(pool["state"], "paused", "{pool:#}");
    assert_eq!(pool["pinned"], serde_json::Value::Null, "{pool:#}");
    assert_eq!(
        daemon.get("/api/v1/pools").0,
        200,
        "reading is open on loopback"
    );
}

#[test]
fn a_change_needs_the_token_and_a_wrong_token_is_refused() {
    let (daemon, _queue) = start("http.token_file = \"token\"\nhttp.read_token_file = \"read\"");
    let wrong = ("Authorization", "Bearer s3cre");
    for shown in [&[HOST][..], &[HOST, wrong]] {
        let answer = pause(&daemon, shown);
        assert_eq!(answer.status, 401, "{answer:?}");
        assert!(
            answer.head.contains("www-authenticate: bearer"),
            "{answer:?}"
        );
    }
    let answer = pause(&daemon, &[HOST, READ]);
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.body.contains("allows only reading"), "{answer:?}");
    assert_ne!(daemon.pool("jobs")["state"], "paused");
    let (_, metrics) = daemon.get("/metrics");
    let counted = "tidegate_steering_total{act=\"pause\",outcome=\"denied\"} 3";
    assert!(metrics.contains(counted), "{metrics}");
    let said = daemon.said();
    assert!(!said.contains("s3cret") && !said.contains("l00k"), "{said}");
}

/// Headless browsers would not notice if the header were gone.
#[test]
fn the_dashboard_may_load_nothing_from_others_and_run_nothing_inline() {
    let (daemon, _queue) = start("");
    for path in ["/", "/dashboard/app.js"] {
        let answer = daemon.request("GET", path, &[HOST], "");
        assert_eq!(answer.status, 200, "{answer:?}");
        let mut lines = answer.head.lines();
        let policy = lines.find_map(|line| line.strip_prefix("content-security-policy: "));
        let policy = policy.unwrap_or_else(|| panic!("{path}: {}", answer.head));
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"));
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}

#[test]
fn the_read_token_allows_reading_on_an_address_that_other_machines_reach() {
    let (daemon, _queue) = start("http.listen = \"0.0.0.0:0\"\nhttp.read_token_file = \"read\"");
    let host = ("Host", "127.0.0.1");
    assert_eq!(daemon.get_with("/api/v1/pools", &[host]).0, 401);
    assert_eq!(daemon.get_with("/api/v1/pools", &[host, READ]).0, 200);
    assert_eq!(daemon.get_with("/metrics", &[host]).0, 200);
    let answer = pause(&daemon, &[host, READ]);
    assert_eq!(answer.status, 403, "{answer:?}");
}

#[test]
fn a_foreign_host_and_a_page_of_another_origin_are_refused() {
    let (daemon, _queue) = start("http.token_file = \"token\"");
    let evil = ("Host", "evil.example:8672");
    assert_eq!(daemon.get_with("/api/v1/pools", &[evil]).0, 403);
    assert_eq!(pause(&daemon, &[evil, STEER]).status, 403);
    for line in [
        ("Sec-Fetch-Site", "cross-site"),
        ("Origin", "http://evil.example"),
        ("Origin", "null"),
    ] {
        assert_eq!(
            daemon.get_with("/api/v1/pools", &[HOST, line]).0,
            403,
            "{line:?}"
        );
        let answer = pause(&daemon, &[HOST, STEER, line]);
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(answer.body.contains("another origin"), "{answer:?}");
    }
    assert_ne!(daemon.pool("jobs")["state"], "paused");
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    let (daemon, _queue) = start("http.token_file = \"token\"");
    let long = "x".repeat(200 * 1024);
    let answer = daemon.request("GET", "/healthz", &[HOST, ("X-Long", &long)], "");
    assert_eq!(answer.status, 431, "{answer:?}");
    assert_eq!(daemon.get("/healthz").0, 200, "it answers others");
}

#[test]
fn check_and_run_refuse_an_address_that_others_reach_without_a_token() {
    let folder = tempfile::TempDir::new().unwrap();
    let text = "http.listen = \"0.0.0.0:0\"\n[pools.jobs]\nrunner.command = [\"true\"]\n";
    std::fs::write(folder.path().join("tidegate.toml"), text).unwrap();
    for command in ["check", "run"] {
        let output = tidegate(folder.path()).arg(command).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{command}: {output:?}");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(
            said.contains("http.listen") && said.contains("http.token_file"),
            "{said}"
        );
    }
}
