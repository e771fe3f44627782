//! Operators' orders over a restart of the daemon.

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use crate::support::daemon::{Daemon, Signal};

/// An address without a broker.
const NOWHERE: &str = "amqp://guest:guest@127.0.0.1:9/%2f";

const POOL: &str = "[pools.p]\n[pools.p.runner]\ncommand = [\"true\"]\n";

/// A directory for a daemon, with this as the orders of an earlier run.
fn ordered(orders: &serde_json::Value) -> TempDir {
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::write(state.join("orders.json"), orders.to_string()).unwrap();
    dir
}

#[test]
fn a_daemon_restores_stored_orders_and_drops_those_that_no_longer_apply() {
    let pause = json!({"intake": {"what": "paused", "by": "root over the socket", "since": "2026-01-02T03:04:05Z"}});
    let over = json!({"intake": {
        "what": "paused", "by": "root", "since": "2026-01-02T03:04:05Z", "until": "2026-01-02T03:05:05Z"
    }});
    let scaling =
        json!({"up_step": 100, "down_window": {"secs": 10, "nanos": 0}, "down_step": 100});
    let policy =
        |jobs: u32| json!({"kind": "backlog", "jobs_per_worker": jobs, "min_active": 1, "max": 50});
    let set = json!({"policy": {
        "what": {
            "policy": policy(2), "scaling": scaling, "keys": {"policy.jobs_per_worker": "2"},
            "over": {"policy": policy(7), "scaling": scaling}
        },
        "by": "root", "since": "2026-01-02T03:04:05Z"
    }});
    let orders = json!({"version": 1, "pools": {"p": pause, "q": set, "r": over, "gone": pause}});
    let pools = ["p", "q", "r"].map(|pool| POOL.replace("pools.p", &format!("pools.{pool}")));
    let mut daemon = Daemon::start_soon(ordered(&orders), NOWHERE, &pools.concat());
    daemon.wait_until_started();
    daemon.heard("dropped", |line| line["message"] == "dropped the policy that was set by hand: the pool's policy or scaling has changed in the configuration");
    let dropped = daemon.heard("gone", |line| {
        line["pool"] == "gone" && line["level"] == "WARN"
    });
    let names = dropped["orders"].as_str().unwrap();
    assert!(
        names.starts_with("paused by root over the socket"),
        "{dropped}"
    );
    let paused = daemon.pool("p");
    assert_eq!(
        (&paused["state"], &paused["intake"]),
        (&json!("paused"), &json!("paused"))
    );
    assert_eq!(paused["orders"], pause);
    let (_, out, _) = daemon.run(&["explain", "p"]);
    assert!(
        out.contains("\n  paused by root over the socket since 2026-01-02T03:04:05Z\n"),
        "{out}"
    );
    for pool in ["q", "r"] {
        let pool = daemon.pool(pool);
        assert_eq!(
            (&pool["intake"], &pool["orders"]),
            (&json!("open"), &json!(null)),
            "{pool}"
        );
    }
    // Orders that no longer apply are no longer stored either.
    let file = daemon.dir().join("state/orders.json");
    let stored = crate::support::daemon::poll(|| {
        let stored: serde_json::Value = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
        (stored["pools"].as_object()?.len() == 1).then_some(stored)
    });
    assert_eq!(stored, Some(json!({"version": 1, "pools": {"p": pause}})));
    daemon.signal(Signal::SIGTERM);
    let (code, said) = daemon.end();
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn orders_of_an_unknown_version_are_renamed_and_kept() {
    let orders = json!({"version": 9, "pools": {}});
    let mut daemon = Daemon::start_soon(ordered(&orders), NOWHERE, POOL);
    daemon.wait_until_started();
    let said = daemon.heard("could not", |line| {
        line["message"]
            == "could not read the operators' orders: every pool runs as it is configured"
    });
    let error = said["error"].as_str();
    assert_eq!(
        error,
        Some("it is of version 9, and this program knows version 1"),
        "{said}"
    );
    let aside = fs::read_to_string(daemon.dir().join("state/orders.json.aside")).unwrap();
    assert_eq!(aside, orders.to_string());
}
