//! Dry runs of a policy on a live daemon: what the new policy would do now and on the recording, beside the old one. Nothing
//! changes.

use std::fs;

use jiff::Timestamp;
use serde_json::Value;

use crate::support::{
    broker::broker_url,
    daemon::{Daemon, poll},
    queue::Queue,
};

const HEAD: &str = "http.token_file = \"token\"";

fn start(queue: &Queue, more: &str) -> Daemon {
    let pools = format!(
        "[pools.jobs]\nqueue = \"{}\"\npoll_interval = \"50ms\"\n\
         policy = {{ jobs_per_worker = 10, max = 50 }}\nrunner.command = [\"true\"]\n",
        queue.name()
    );
    let files = [("token", "s3cret")];
    Daemon::start_with_files(&files, &broker_url(), &format!("{HEAD}\n{more}"), &pools)
}

/// Records ten minutes of the pool `jobs` until now, with a burst each hundred seconds. Longer ones take a debug build too
/// long on a busy machine.
pub(crate) fn record(daemon: &Daemon) {
    let folder = daemon.dir().join("state/recordings");
    fs::create_dir_all(&folder).unwrap();
    let begin = Timestamp::now().as_second() - 600;
    let at = |second: i64| Timestamp::from_second(begin + second).unwrap();
    let bursts = (0..6).map(|n| format!("{},200\n{},0\n", at(100 * n), at(100 * n + 10)));
    let text = format!("time,arrivals\n{}", bursts.collect::<String>());
    fs::write(folder.join("jobs.csv"), text).unwrap();
}

fn json_of(daemon: &Daemon, args: &[&str]) -> Value {
    let (code, out, err) = daemon.run(&[args, &["--format", "json"]].concat());
    assert_eq!(code, Some(0), "{args:?}: {err}");
    serde_json::from_str(&out).unwrap()
}

const TRIAL: [&str; 5] = ["policy", "set", "jobs", "jobs_per_worker=1", "--dry-run"];

#[test]
fn a_dry_run_tries_both_policies_now_and_on_the_recording_and_changes_nothing() {
    let queue = Queue::new();
    let daemon = start(&queue, "");
    json_of(&daemon, &["pause", "jobs"]);
    for n in 0..30 {
        queue.publish(&format!("{n}"));
    }
    daemon.wait_for_pool("jobs", |pool| pool["depth"]["ready"] == 30);
    let tried = json_of(&daemon, &TRIAL);
    assert!(tried["recording"].is_null(), "{tried:#}");
    let why = tried["no_recording"].as_str().unwrap();
    assert!(
        why.contains("recorded") || why.contains("recording"),
        "{why}"
    );

    record(&daemon);
    let picture = daemon.dir().join("lab.svg");
    let plot = ["--plot", picture.to_str().unwrap(), "--target", "30s"];
    let tried = json_of(&daemon, &[&TRIAL[..], &plot].concat());
    assert_eq!(tried["applied"], false);
    // The pool is paused, and a policy does not open it.
    let now = &tried["now"];
    assert_eq!(
        (&now["workers"], &now["after"]["expected"]),
        (&0.into(), &0.into())
    );
    assert!(now["after"]["terms"][0]["why"].is_string(), "{now:#}");
    let recording = &tried["recording"];
    // The daemon may have written its own line by now.
    assert!(
        (1200..=1230).contains(&recording["jobs"].as_u64().unwrap()),
        "{recording:#}"
    );
    assert!((550.0..700.0).contains(&recording["seconds"].as_f64().unwrap()));
    let of = |run: &str, pointer: &str| recording[run].pointer(pointer).unwrap().as_f64().unwrap();
    assert!(
        of("after", "/wait_s/p95") < of("before", "/wait_s/p95"),
        "{recording:#}"
    );
    assert!(
        of("after", "/peak") > of("before", "/peak"),
        "{recording:#}"
    );
    assert_eq!(recording["assumed"]["service_samples"], 0);
    let picture = fs::read_to_string(picture).unwrap();
    assert!(picture.contains("<svg") && picture.contains("new"));

    let assume = ["--service", "exp:2s", "--target", "30s"];
    let (code, shown, err) = daemon.run(&[&TRIAL[..], &assume].concat());
    assert_eq!(code, Some(0), "{err}");
    assert!(shown.contains("now: 0 workers"), "{shown}");
    assert!(shown.contains("Jobs take exp:2s, as asked."), "{shown}");
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/policies.md");
    let docs = fs::read_to_string(docs).unwrap();
    assert_eq!(words_of(&shown), words_of(&docs));
    let tried = json_of(&daemon, &["policy", "reset", "jobs", "--dry-run"]);
    assert_eq!(tried["recording"]["before"], tried["recording"]["after"]);
    let shown = json_of(&daemon, &["policy", "show", "jobs"]);
    assert!(shown["by_hand"].is_null(), "{shown:#}");
    let actions = daemon.get("/api/v1/actions").1;
    assert!(!actions.contains("policy"), "{actions}");
}

/// The table of a recording and the words around it, without numbers, times and run times.
fn words_of(text: &str) -> Vec<String> {
    let (_, table) = text.split_once("on the recording: ").expect("a recording");
    let lines = table.lines().map(|line| {
        let words = line.split_whitespace();
        let words: Vec<&str> = words
            .filter(|word| !word.contains(|c: char| c.is_ascii_digit()))
            .collect();
        words.join(" ")
    });
    lines
        .take_while(|line| !line.starts_with("A runner starts"))
        .collect()
}

#[test]
fn a_pool_that_runs_measures_the_run_time_and_the_new_policy_is_foreseen_with_all_limits() {
    let queue = Queue::new();
    let daemon = start(&queue, "supervisor.max_workers = 3");
    for n in 0..12 {
        queue.publish(&format!("{n}"));
    }
    daemon.wait_for_pool("jobs", |pool| pool["jobs"]["done"] == 12);
    record(&daemon);
    // A dry run takes the measurements of the latest reconcile, which may be older than the last job.
    let mut tried = Value::Null;
    let measured = poll(|| {
        tried = json_of(&daemon, &TRIAL);
        (tried["recording"]["assumed"]["service_samples"] == 12).then_some(())
    });
    assert!(measured.is_some(), "{tried:#}");
    let assumed = &tried["recording"]["assumed"];
    assert!(
        assumed["text"].to_string().contains("all 3 workers"),
        "{assumed:#}"
    );
    for run in ["before", "after"] {
        assert!(
            tried["recording"][run]["peak"].as_u64().unwrap() <= 3,
            "{tried:#}"
        );
    }
}

#[test]
fn over_tcp_a_dry_run_needs_the_token_for_changes_because_it_costs_a_core() {
    let queue = Queue::new();
    let daemon = start(&queue, "");
    let path = "/api/v1/pools/jobs/policy?dry_run=true&recording=false";
    let ask = |token: &str| {
        let headers = [("Host", "localhost"), ("Authorization", token)];
        daemon.request("PATCH", path, &headers, r#"{"max": 7}"#)
    };
    assert_eq!(ask("Bearer guess").status, 401);
    let answer = ask("Bearer s3cret");
    assert_eq!(answer.status, 200, "{answer:?}");
    let tried: Value = serde_json::from_str(&answer.body).unwrap();
    assert!(
        tried["now"].is_object() && tried["no_recording"].is_null(),
        "{tried:#}"
    );
}
