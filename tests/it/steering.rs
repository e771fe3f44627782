//! Steering a live daemon: from the command line, over its socket, and over TCP with the token.

use serde_json::{Value, json};

use crate::support::{
    broker::broker_url,
    daemon::{Answer, Daemon, Signal, poll, tidegate},
    queue::Queue,
};

const HOST: (&str, &str) = ("Host", "localhost");
const TOKEN: (&str, &str) = ("Authorization", "Bearer s3cret");
const FILES: [(&str, &str); 1] = [("token", "s3cret\n")];
const HEAD: &str = "http.token_file = \"token\"";

/// A pool named `jobs` whose jobs say that they have started, and end where there is a file `go`.
fn held(queue: &Queue) -> String {
    format!(
        "[pools.jobs]\nqueue = \"{queue}\"\npoll_interval = \"50ms\"\ndrain_after = \"0s\"\n\
         policy = {{ jobs_per_worker = 1, max = 5 }}\nretry.backoff = \"10m\"\nretry.backoff_max = \"10m\"\n\
         [pools.jobs.runner]\nkill_grace = \"1s\"\n\
         command = [\"sh\", \"-c\", \"echo $TIDEGATE_JOB_ID >> started; \
         while [ ! -e go ]; do sleep 0.05; done\"]\n",
        queue = queue.name()
    )
}

fn start(queue: &Queue) -> Daemon {
    Daemon::start_with_files(&FILES, &broker_url(), HEAD, &held(queue))
}

/// The output of a command, as JSON. The command must succeed.
fn json_of(daemon: &Daemon, args: &[&str]) -> Value {
    let args = [args, &["--format", "json"]].concat();
    let (code, out, err) = daemon.run(&args);
    assert_eq!(code, Some(0), "{args:?}: {err}");
    serde_json::from_str(&out).unwrap()
}

fn ask(daemon: &Daemon, method: &str, path: &str, body: &str) -> Answer {
    daemon.request(method, path, &[HOST, TOKEN], body)
}

fn let_go(daemon: &Daemon) {
    std::fs::write(daemon.dir().join("go"), "").unwrap();
}

#[test]
fn a_paused_pool_takes_nothing_until_it_is_resumed() {
    let queue = Queue::new();
    let daemon = start(&queue);
    let_go(&daemon);
    let steered = json_of(&daemon, &["pause", "jobs"]);
    assert_eq!(steered[0]["changed"], true, "{steered:#}");
    queue.publish("one");
    let pool = daemon.wait_for_pool("jobs", |pool| pool["depth"]["ready"] == 1);
    assert_eq!(
        (&pool["state"], &pool["intake"]),
        (&json!("paused"), &json!("paused"))
    );
    let order = &pool["orders"]["intake"];
    assert_eq!(order["by"], user(), "{pool:#}");
    assert!(
        order["since"].as_str().unwrap().starts_with("20"),
        "{pool:#}"
    );
    let (_, explained, _) = daemon.run(&["explain", "jobs"]);
    assert!(explained.contains("paused, set by hand by"), "{explained}");
    let (_, status, _) = daemon.run(&["status"]);
    assert!(status.contains("paused by"), "{status}");

    let again = json_of(&daemon, &["pause", "--all"]);
    assert_eq!(again[0]["changed"], false, "{again:#}");
    json_of(&daemon, &["resume", "jobs"]);
    daemon.wait_for_pool("jobs", |pool| pool["jobs"]["done"] == 1);
    let (code, ..) = daemon.run(&["policy", "set", "jobs", "max=0"]);
    assert_eq!(code, Some(78));
    let (_, metrics) = daemon.get("/metrics");
    for line in [
        "tidegate_steering_total{act=\"pause\",outcome=\"changed\"} 1",
        "tidegate_steering_total{act=\"pause\",outcome=\"unchanged\"} 1",
        "tidegate_steering_total{act=\"resume\",outcome=\"changed\"} 1",
        "tidegate_steering_total{act=\"policy\",outcome=\"refused\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in:\n{metrics}");
    }
}

#[test]
fn the_log_says_which_order_was_given_to_which_pool_and_by_whom() {
    let queue = Queue::new();
    let daemon = start(&queue);
    json_of(&daemon, &["scale", "jobs", "2"]);
    let answer = ask(&daemon, "POST", "/api/v1/pools/jobs/pause", "");
    assert_eq!(answer.status, 200, "{answer:?}");
    // An order that changes nothing is no event.
    json_of(&daemon, &["pause", "jobs"]);
    json_of(&daemon, &["resume", "jobs"]);
    let (user, token) = (user(), "token");
    for (act, order, by) in [
        ("scale", "pin to 2 workers", &*user),
        ("pause", "pause", token),
        ("resume", "resume", &*user),
    ] {
        let line = daemon.wait_for_message("an operator gave an order to the pool");
        assert_eq!(line["level"], "INFO", "{line:#}");
        assert_eq!(line["pool"], "jobs", "{line:#}");
        assert_eq!(line["act"], act, "{line:#}");
        assert_eq!(line["order"], order, "{line:#}");
        assert!(line["by"].as_str().unwrap().contains(by), "{line:#}");
    }
}

#[test]
fn a_pause_for_a_while_ends_by_itself() {
    let queue = Queue::new();
    let daemon = start(&queue);
    let_go(&daemon);
    let steered = json_of(&daemon, &["pause", "jobs", "--for", "1s"]);
    let order = &steered[0]["pool"]["orders"]["intake"];
    assert!(order["until"].is_string(), "{steered:#}");
    queue.publish("one");
    daemon.wait_for_pool("jobs", |pool| {
        pool["intake"] == "open" && pool["jobs"]["done"] == 1
    });
}

#[test]
fn orders_hold_over_a_reload_and_a_restart() {
    let queue = Queue::new();
    let daemon = start(&queue);
    json_of(&daemon, &["pause", "jobs"]);
    json_of(&daemon, &["scale", "jobs", "2"]);
    let reloaded = json_of(&daemon, &["reload"]);
    assert_eq!(reloaded["pools"], 1, "{reloaded:#}");
    let pool = daemon.pool("jobs");
    assert_eq!(
        (&pool["intake"], &pool["pinned"]),
        (&json!("paused"), &json!(2))
    );
    daemon.signal(Signal::SIGTERM);
    let daemon = daemon.again(&broker_url(), HEAD, &held(&queue));
    let pool = daemon.pool("jobs");
    assert_eq!(
        (&pool["intake"], &pool["pinned"]),
        (&json!("paused"), &json!(2))
    );
}

#[test]
fn a_drain_waits_until_the_pool_is_empty_and_says_so_where_it_takes_too_long() {
    let queue = Queue::new();
    let daemon = start(&queue);
    queue.publish("one");
    daemon.wait_for_pool("jobs", |pool| pool["runners"]["busy"] == 1);
    let (code, _, err) = daemon.run(&["drain", "jobs", "--timeout", "1s"]);
    assert_eq!(code, Some(75), "{err}");
    assert!(
        err.contains("1 busy") && err.contains("1 job still runs"),
        "{err}"
    );
    assert_eq!(daemon.pool("jobs")["intake"], "draining");
    queue.publish("two");
    let_go(&daemon);
    let (code, out, err) = daemon.run(&["drain", "jobs"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("jobs: empty"), "{out}");
    let pool = daemon.pool("jobs");
    assert_eq!(
        (&pool["jobs"]["done"], &pool["workers"]["live"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(daemon.run(&["resume", "jobs"]).0, Some(0));
    daemon.wait_for_pool("jobs", |pool| pool["jobs"]["done"] == 2);
}

#[test]
fn a_drain_that_gives_back_stops_what_still_runs() {
    let queue = Queue::new();
    let daemon = start(&queue);
    queue.publish("one");
    daemon.wait_for_pool("jobs", |pool| pool["runners"]["busy"] == 1);
    let (code, _, err) = daemon.run(&["drain", "jobs", "--timeout", "500ms", "--give-back"]);
    assert_eq!(code, Some(75), "{err}");
    // As it was asked for: the exit code tells it from a drain in which every job has ended by itself.
    let last = "drained at the deadline: 1 running job was stopped and given back\n";
    assert!(err.ends_with(last) && !err.contains("error:"), "{err}");
    // Another worker may get the message before its consumer is cancelled. It gives the message back too.
    daemon.wait_for_pool("jobs", |pool| {
        pool["depth"]["ready"] == 1 && pool["jobs"]["requeued"].as_u64() >= Some(1)
    });
}

#[test]
fn a_pinned_pool_has_that_many_workers_until_its_policy_decides_again() {
    let queue = Queue::new();
    let daemon = start(&queue);
    let (code, out, err) = daemon.run(&["scale", "jobs", "3"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("jobs: pinned to 3 workers"), "{out}");
    daemon.wait_for_pool("jobs", |pool| {
        pool["workers"]["live"] == 3 && pool["pinned"] == 3
    });
    let (_, out, _) = daemon.run(&["scale", "jobs", "9"]);
    assert!(
        out.contains("pinned to 9 workers, of which it may have 5"),
        "{out}"
    );
    json_of(&daemon, &["scale", "jobs", "auto"]);
    daemon.wait_for_pool("jobs", |pool| {
        pool["workers"]["live"] == 0 && pool["pinned"].is_null()
    });
}

#[test]
fn a_pool_may_be_kept_from_shrinking_alone() {
    let queue = Queue::new();
    let daemon = start(&queue);
    json_of(&daemon, &["scale", "jobs", "3"]);
    daemon.wait_for_pool("jobs", |pool| pool["workers"]["live"] == 3);
    json_of(&daemon, &["pause", "jobs", "--shrinking"]);
    let steered = json_of(&daemon, &["scale", "jobs", "auto"]);
    assert_eq!(steered["pool"]["expected"], 3, "{steered:#}");
    assert_eq!(steered["pool"]["intake"], "open");
    json_of(&daemon, &["resume", "jobs", "--shrinking"]);
    daemon.wait_for_pool("jobs", |pool| pool["workers"]["live"] == 0);
}

#[test]
fn a_policy_set_by_hand_decides_and_is_refused_whole_where_check_would() {
    let queue = Queue::new();
    let daemon = start(&queue);
    let_go(&daemon);
    json_of(&daemon, &["pause", "jobs"]);
    for n in 0..4 {
        queue.publish(&format!("{n}"));
    }
    daemon.wait_for_pool("jobs", |pool| pool["depth"]["ready"] == 4);
    let trial = json_of(
        &daemon,
        &["policy", "set", "jobs", "jobs_per_worker=2", "--dry-run"],
    );
    assert_eq!(trial["applied"], false, "{trial:#}");
    assert_eq!(
        (&trial["before"]["workers"], &trial["after"]["workers"]),
        (&json!(4), &json!(2)),
        "{trial:#}"
    );
    let shown = json_of(&daemon, &["policy", "show", "jobs"]);
    assert!(shown["by_hand"].is_null(), "{shown:#}");

    let (code, out, err) = daemon.run(&["policy", "set", "jobs", "jobs_per_worker=2"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("policy.jobs_per_worker: 1 -> 2"), "{out}");
    json_of(&daemon, &["policy", "set", "jobs", "up_step=7"]);
    let (_, shown, _) = daemon.run(&["policy", "show", "jobs"]);
    let line = |key: &str| {
        let found = shown.lines().find(|line| line.starts_with(key));
        found
            .unwrap_or_else(|| panic!("{key} in {shown}"))
            .to_owned()
    };
    assert!(
        line("jobs_per_worker = 2").contains("# set by hand"),
        "{shown}"
    );
    assert!(line("up_step = 7").contains("set by hand"), "{shown}");
    assert!(line("max = 5").contains("# file"), "{shown}");
    assert!(line("kind = \"backlog\"").contains("# default"), "{shown}");

    let (code, _, err) = daemon.run(&["policy", "set", "jobs", "max=0", "jobs_per_workers=3"]);
    assert_eq!(code, Some(78), "{err}");
    assert!(
        err.contains("policy.max") && err.contains("jobs_per_workers"),
        "{err}"
    );
    let answer = ask(
        &daemon,
        "PUT",
        "/api/v1/pools/jobs/policy",
        r#"{"kind": "fixed"}"#,
    );
    assert_eq!(answer.status, 422, "{answer:?}");
    assert_eq!(
        json_of(&daemon, &["policy", "show", "jobs"])["policy"]["jobs_per_worker"],
        2
    );

    // The file as it was leaves it; another policy in the file wins.
    json_of(&daemon, &["reload"]);
    assert_eq!(
        json_of(&daemon, &["policy", "show", "jobs"])["policy"]["jobs_per_worker"],
        2
    );
    daemon.configure(
        &broker_url(),
        HEAD,
        &held(&queue).replace("max = 5", "max = 6"),
    );
    json_of(&daemon, &["reload"]);
    let shown = json_of(&daemon, &["policy", "show", "jobs"]);
    assert_eq!(shown["policy"]["jobs_per_worker"], 1, "{shown:#}");
    assert!(shown["by_hand"].is_null(), "{shown:#}");
}

#[test]
fn a_whole_policy_over_http_replaces_the_keys_that_were_set_before() {
    let queue = Queue::new();
    let daemon = start(&queue);
    json_of(&daemon, &["policy", "set", "jobs", "max=4"]);
    let path = "/api/v1/pools/jobs/policy";
    let answer = ask(&daemon, "PUT", path, r#"{"kind": "fixed", "workers": 2}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    let shown = json_of(&daemon, &["policy", "show", "jobs"]);
    assert_eq!(
        shown["policy"],
        json!({"kind": "fixed", "workers": 2, "min_active": 1, "max": 5})
    );
    assert_eq!(shown["by_hand"]["by"], "token", "{shown:#}");
    json_of(&daemon, &["policy", "reset", "jobs"]);
    let shown = json_of(&daemon, &["policy", "show", "jobs"]);
    assert_eq!(shown["policy"]["kind"], "backlog", "{shown:#}");
}

#[test]
fn over_http_the_token_allows_orders_and_is_shown_as_their_author() {
    let queue = Queue::new();
    let daemon = start(&queue);
    let answer = ask(
        &daemon,
        "POST",
        "/api/v1/pools/jobs/pause",
        r#"{"for": "30m"}"#,
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    let steered: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        steered["pool"]["orders"]["intake"]["by"], "token",
        "{steered:#}"
    );
    let answer = ask(
        &daemon,
        "PUT",
        "/api/v1/pools/jobs/scale",
        r#"{"workers": 2}"#,
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(daemon.pool("jobs")["pinned"], 2);
    let auto = r#"{"workers": "auto"}"#;
    let answer = ask(&daemon, "PUT", "/api/v1/pools/jobs/scale", auto);
    assert_eq!(answer.status, 200, "{answer:?}");
    for (path, body, status) in [
        ("/api/v1/pools/jobs/pause", r#"{"for": "0s"}"#, 400),
        ("/api/v1/pools/jobs/pause", r#"{"fro": "1s"}"#, 400),
        ("/api/v1/pools/jobs/pause", "[]", 400),
        ("/api/v1/pools/nobody/pause", "", 404),
        ("/api/v1/pools/jobs/jobs/none/stop", "", 404),
        ("/api/v1/pools/jobs/scale", "", 405),
    ] {
        let answer = ask(&daemon, "POST", path, body);
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
    }
    for act in ["drain", "resume", "flush"] {
        let answer = ask(&daemon, "POST", &format!("/api/v1/pools/jobs/{act}"), "");
        assert_eq!(answer.status, 200, "{act}: {answer:?}");
    }
}

#[test]
fn a_change_of_a_policy_warns_where_a_group_stands_still_until_all_have_it() {
    let queue = Queue::new();
    let pool = held(&queue).replacen("poll_interval", "share = true\npoll_interval", 1);
    let daemon = Daemon::start_with_files(&FILES, &broker_url(), HEAD, &pool);
    for (args, act) in [
        (&["policy", "set", "jobs", "max=4", "--dry-run"][..], "set"),
        (&["policy", "set", "jobs", "max=4"], "set"),
        (&["policy", "reset", "jobs"], "reset"),
    ] {
        let change = json_of(&daemon, args);
        assert_eq!(change["act"], act, "{change:#}");
        let warning = change["warnings"][0].as_str().unwrap_or_default();
        assert!(
            warning.contains("no member grows while their policies differ"),
            "{change:#}"
        );
    }
    let nothing = json_of(&daemon, &["policy", "reset", "jobs"]);
    assert_eq!(nothing["warnings"], json!([]), "{nothing:#}");
}

#[test]
fn flush_stops_idle_runners() {
    let queue = Queue::new();
    let shims = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shims/python/src");
    let warm = format!(
        "[pools.jobs]\nqueue = \"{}\"\nkeep_warm = 1\npoll_interval = \"50ms\"\n\
         [pools.jobs.runner]\nkind = \"warm\"\nprestart = 1\nenv = {{ PYTHONPATH = \"{shims}\" }}\n\
         command = [\"python3\", \"-c\", \"import tidegate; tidegate.serve(lambda job: None)\"]\n",
        queue.name()
    );
    let daemon = Daemon::start_with_files(&FILES, &broker_url(), HEAD, &warm);
    daemon.wait_for_pool("jobs", |pool| pool["runners"]["idle"] == 1);
    let (code, out, err) = daemon.run(&["flush", "jobs"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("jobs: 1 idle runner stopped"), "{out}");
    json_of(&daemon, &["drain", "jobs"]);
    let steered = json_of(&daemon, &["flush", "jobs"]);
    assert_eq!(steered[0]["changed"], false, "{steered:#}");
}

#[test]
fn flush_of_busy_runners_says_how_many_jobs_it_has_told_to_stop() {
    let queue = Queue::new();
    let daemon = start(&queue);
    queue.publish("one");
    queue.publish("two");
    daemon.wait_for_pool("jobs", |pool| pool["runners"]["busy"] == 2);
    // Nothing begins them again.
    json_of(&daemon, &["pause", "jobs"]);
    let (code, out, err) = daemon.run(&["flush", "jobs", "--busy"]);
    assert_eq!(code, Some(0), "{err}");
    let said = "jobs: 2 running jobs told to stop, to be given back";
    assert!(out.contains(said), "{out}");
    daemon.wait_for_pool("jobs", |pool| pool["runners"]["busy"] == 0);
    let again = json_of(&daemon, &["flush", "jobs", "--busy"]);
    assert_eq!(
        (&again[0]["changed"], &again[0]["jobs_told"]),
        (&json!(false), &json!(0)),
        "{again:#}"
    );
    let (_, metrics) = daemon.get("/metrics");
    let counted = "tidegate_steering_total{act=\"flush\",outcome=\"changed\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn running_jobs_are_shown_and_stopped_as_the_operator_chose() {
    let queue = Queue::new();
    let daemon = start(&queue);
    assert!(daemon.run(&["jobs"]).1.contains("no job runs"));
    for (then, column, by_http) in [
        ("reject", "dead", false),
        ("retry", "retried", true),
        ("requeue", "requeued", false),
    ] {
        queue.publish("one");
        let busy = daemon.wait_for_pool("jobs", |pool| pool["runners"]["busy"] == 1);
        // The last round's worker may have been sent this message while it left, and have given it back.
        let before = busy["jobs"][column].as_u64().unwrap();
        let jobs = poll(|| {
            let jobs = json_of(&daemon, &["jobs", "jobs"]);
            jobs.as_array().filter(|jobs| jobs.len() == 1).cloned()
        });
        let job = jobs.unwrap().remove(0);
        assert_eq!(
            (&job["pool"], &job["attempt"]),
            (&json!("jobs"), &json!(1)),
            "{job:#}"
        );
        assert!(job["worker"].is_u64() && job["runner"].is_u64(), "{job:#}");
        assert!(
            job["since"].is_string() && job["deadline"].is_string(),
            "{job:#}"
        );
        let id = job["id"].as_str().unwrap();
        let (_, table, _) = daemon.run(&["jobs"]);
        assert!(table.contains(id), "{table}");
        if by_http {
            let path = format!("/api/v1/pools/jobs/jobs/{id}/stop");
            let answer = ask(&daemon, "POST", &path, &format!(r#"{{"then": "{then}"}}"#));
            assert_eq!(answer.status, 200, "{answer:?}");
        } else {
            if then == "requeue" {
                // It would be taken again at once.
                json_of(&daemon, &["pause", "jobs"]);
            }
            let stopped = json_of(&daemon, &["jobs", "stop", id, "--then", then]);
            assert_eq!(stopped, json!({"stopped": 1, "then": then}));
        }
        daemon.wait_for_pool("jobs", |pool| {
            pool["jobs"][column] == before + 1 && pool["runners"]["busy"] == 0
        });
    }
    let (code, _, err) = daemon.run(&["jobs", "stop", "nobody"]);
    assert_eq!(code, Some(1), "{err}");
    // Pool and socket may stand before `stop` too.
    let (code, _, err) = daemon.run(&["jobs", "other", "stop", "nobody"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("find a pool named other"), "{err}");
    let nowhere = daemon.dir().join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    let (code, _, err) = daemon.run(&["jobs", "--socket", nowhere, "stop", "nobody"]);
    assert_eq!(code, Some(69), "{err}");
}

#[test]
fn a_reload_reports_its_result() {
    let queue = Queue::new();
    let daemon = start(&queue);
    let more = format!(
        "{}[pools.more]\nqueue = \"{}.more\"\nrunner.command = [\"true\"]\n",
        held(&queue),
        queue.name()
    );
    daemon.configure(&broker_url(), HEAD, &more);
    let (code, out, err) = daemon.run(&["reload"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("applied, 2 pools; added more"), "{out}");
    daemon.configure(
        &broker_url(),
        HEAD,
        &held(&queue).replace("max = 5", "max = 0"),
    );
    let socket = daemon.socket();
    let socket = socket.to_str().unwrap();
    let (code, _, err) = daemon.run(&["reload", "--socket", socket]);
    assert_eq!(code, Some(78), "{err}");
    assert!(
        err.contains("policy.max") && err.contains("was refused"),
        "{err}"
    );
    let answer = ask(&daemon, "POST", "/api/v1/reload", "");
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(answer.body.contains("policy.max"), "{answer:?}");
    assert_eq!(
        json_of(&daemon, &["status", "--socket", socket])
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn every_steering_command_reports_a_missing_supervisor_and_an_unknown_pool() {
    let nowhere = tempfile::TempDir::new().unwrap();
    let queue = Queue::new();
    let daemon = start(&queue);
    for words in [
        "pause POOL",
        "resume POOL",
        "drain POOL --timeout 1s",
        "flush POOL",
        "scale POOL 1",
        "policy show POOL",
        "policy set POOL max=1",
        "jobs POOL",
        "jobs stop 1 --pool POOL",
    ] {
        let words: Vec<&str> = words
            .split(' ')
            .map(|word| if word == "POOL" { "nobody" } else { word })
            .collect();
        let (code, _, err) = daemon.run(&words);
        assert_eq!(code, Some(1), "{words:?}: {err}");
        assert!(err.contains("nobody"), "{words:?}: {err}");
        let output = tidegate(nowhere.path()).args(&words).output().unwrap();
        assert_eq!(output.status.code(), Some(69), "{words:?}: {output:?}");
    }
    for words in [
        &["pause"][..],
        &["scale", "jobs"],
        &["scale", "jobs", "many"],
        &["pause", "jobs", "--for", "soon"],
        &["pause", "jobs", "--all"],
        &["policy", "set", "jobs"],
        &["policy", "set", "jobs", "max"],
    ] {
        assert_eq!(daemon.run(words).0, Some(2), "{words:?}");
    }
}

/// The user who runs the tests, as the daemon names them.
fn user() -> String {
    let uid = nix::unistd::Uid::effective();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => format!("uid {uid}"),
    }
}

#[test]
fn a_body_that_is_too_long_is_refused() {
    let queue = Queue::new();
    let daemon = start(&queue);
    let body = format!(r#"{{"for": "{}"}}"#, "x".repeat(200 * 1024));
    let answer = ask(&daemon, "POST", "/api/v1/pools/jobs/pause", &body);
    assert_eq!(answer.status, 413, "{answer:?}");
    assert_eq!(daemon.get("/healthz").0, 200, "it answers others");
}
