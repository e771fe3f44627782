//! The fields of a pool, in `status --format json` and in the answer of the API.

use std::{
    collections::BTreeSet,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use crate::support::{broker::broker_url, daemon::Daemon, queue::Queue};

fn keys(value: &Value) -> BTreeSet<&str> {
    let map = value.as_object().unwrap();
    map.keys().map(String::as_str).collect()
}

#[test]
fn a_pool_shows_its_measurements_and_orders_in_status_and_in_the_api() {
    let queue = Queue::new();
    let pools = format!(
        "[pools.jobs]\nqueue = \"{queue}\"\npoll_interval = \"50ms\"\n\
         policy = {{kind = \"fixed\", workers = 1}}\nrunner.command = [\"sleep\", \"0.1\"]\n\
         [pools.missing]\nqueue = \"{queue}-missing\"\nrunner.command = [\"true\"]\n",
        queue = queue.name()
    );
    let daemon = Daemon::start(&broker_url(), &pools);
    daemon.wait_for_pool("jobs", |pool| pool["depth"]["stale"] == false);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let a_minute_ago = i64::try_from(now.as_millis()).unwrap() - 60_000;
    for n in 0..100 {
        queue.publish_at(&n.to_string(), a_minute_ago);
    }
    daemon.wait_for_pool("jobs", |pool| pool["jobs"]["done"].as_u64() > Some(2));
    // The publishers' timestamps are wrong: the queue was seen empty after that time.
    let pool = daemon.wait_for_pool("jobs", |pool| pool["oldest_s"].is_f64());
    assert!(pool["oldest_s"].as_f64() < Some(60.0), "{pool:#}");
    // Quantiles are within 1 %.
    assert!(pool["wait_s"]["p50"].as_f64() >= Some(59.0), "{pool:#}");
    assert!(pool["wait_s"]["p95"].as_f64() >= Some(59.0), "{pool:#}");
    assert!(pool["service_s"]["p50"].as_f64() >= Some(0.09), "{pool:#}");
    assert!(pool["service_s"]["p95"].as_f64() >= Some(0.09), "{pool:#}");
    // Rates are known after five seconds.
    let is_positive = |rate: &Value| rate.as_f64() > Some(0.0);
    daemon.wait_for_pool("jobs", |pool| {
        is_positive(&pool["rates"]["done"]) && is_positive(&pool["rates"]["arrivals"])
    });
    assert_eq!(pool["intake"], "open");
    assert!(pool["policy"].is_string(), "{pool:#}");
    assert_eq!(pool.get("pinned"), None, "{pool:#}");
    let missing = daemon.wait_for_pool("missing", |pool| pool["state"] == "waiting");
    assert_eq!(missing.get("oldest_s"), None, "{missing:#}");
    assert_eq!(missing.get("wait_s"), None, "{missing:#}");

    assert_eq!(daemon.run(&["scale", "jobs", "2"]).0, Some(0));
    assert_eq!(daemon.run(&["pause", "jobs"]).0, Some(0));
    let pool = daemon.wait_for_pool("jobs", |pool| pool["intake"] == "paused");
    assert_eq!(pool["pinned"], 2, "{pool:#}");
    let (code, status, _) = daemon.run(&["status", "--format", "json"]);
    assert_eq!(code, Some(0));
    let status: Value = serde_json::from_str(&status).unwrap();
    let status = status.as_array().unwrap().iter();
    let told = status.clone().find(|pool| pool["name"] == "jobs").unwrap();
    assert_eq!(keys(told), keys(&pool));
}
