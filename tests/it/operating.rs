//! Messages to the operator: at the start, from `check` and from `status`. And data that jobs must not see.

use std::{net::TcpListener, os::unix::net::UnixListener};

use tempfile::TempDir;

use crate::support::{
    broker::broker_url,
    daemon::{Daemon, Signal, tidegate},
    queue::Queue,
};

/// An address without a broker.
const NOWHERE: &str = "amqp://guest:guest@127.0.0.1:9/%2f";

const POOL: &str = "[pools.p]\n[pools.p.runner]\ncommand = [\"true\"]\n";

/// The output of `check` for this configuration, and its exit code.
fn check(text: &str) -> (Option<i32>, String) {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("tidegate.toml"), text).unwrap();
    let output = tidegate(dir.path()).arg("check").output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), out)
}

#[test]
fn status_reports_a_refused_configuration_and_works_without_the_file() {
    let daemon = Daemon::start(NOWHERE, POOL);
    assert_eq!(daemon.pool("p")["reload_refused"], serde_json::Value::Null);
    let (_, metrics) = daemon.get("/metrics");
    assert!(
        metrics.contains("tidegate_config_reload_success 1\n")
            && metrics.contains("tidegate_reloads_total{outcome=\"refused\"} 0\n"),
        "{metrics}"
    );

    daemon.configure(
        NOWHERE,
        "",
        &POOL.replace("[pools.p]\n", "[pools.p]\nprefetch = 0\n"),
    );
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_message("refused the configuration; the old one stays");
    let (code, out, err) = daemon.run(&["status"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("POOL "), "{out}");
    let lines: Vec<&str> = out.lines().rev().take(2).collect();
    assert!(
        lines[1].starts_with("configuration refused at 20")
            && lines[1].ends_with(", an older one runs: tidegate.toml, 1 problem"),
        "{out}"
    );
    assert!(
        lines[0].contains("pools.p.prefetch: found 0, write "),
        "{out}"
    );
    let warning = "warning: the configuration tidegate.toml has 1 problem, which `tidegate check` shows; asking";
    assert!(err.starts_with(warning), "{err}");
    let refused = daemon.pool("p")["reload_refused"].clone();
    assert_eq!(refused["problems"], 1, "{refused}");
    let (_, metrics) = daemon.get("/metrics");
    assert!(
        metrics.contains("tidegate_config_reload_success 0\n")
            && metrics.contains("tidegate_reloads_total{outcome=\"refused\"} 1\n"),
        "{metrics}"
    );

    // First a file that is not TOML, then no file.
    std::fs::write(daemon.dir().join("tidegate.toml"), "[pools.p\n= ").unwrap();
    let socket = daemon.dir().join("tidegate");
    std::fs::create_dir_all(&socket).unwrap();
    std::os::unix::fs::symlink(daemon.socket(), socket.join("tidegate.sock")).unwrap();
    assert_eq!(daemon.run(&["status"]).0, Some(0));
    std::fs::remove_file(daemon.dir().join("tidegate.toml")).unwrap();
    assert_eq!(
        daemon.run(&["status", "--config", "tidegate.toml"]).0,
        Some(0)
    );

    daemon.configure(NOWHERE, "", POOL);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_message("applied the configuration");
    let (code, out, err) = daemon.run(&["status"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(!out.contains("configuration refused"), "{out}");
}

#[test]
fn a_second_daemon_is_told_all_that_it_needs_at_once() {
    let daemon = Daemon::start(NOWHERE, POOL);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "[http]\nlisten = \"{}\"\nsocket = \"{}\"\nstate_dir = \"{}/state\"\n{POOL}",
        taken.local_addr().unwrap(),
        daemon.socket().display(),
        daemon.dir().display()
    );
    std::fs::write(daemon.dir().join("second.toml"), text).unwrap();
    let (code, _, err) = daemon.run(&["run", "--config", "second.toml"]);
    assert_eq!(code, Some(1), "{err}");
    let (error, hint) = err.split_once("\nhint: ").unwrap();
    let lines: Vec<&str> = error.lines().rev().take(3).collect();
    assert!(
        lines[2].starts_with("error: failed to start a second supervisor on "),
        "{err}"
    );
    assert!(lines[1].starts_with("  socket: failed to "), "{err}");
    assert!(lines[0].starts_with("  listen: failed to "), "{err}");
    assert!(
        hint.starts_with("give each of [http] state_dir, socket, listen "),
        "{err}"
    );
    // The first daemon is not affected.
    daemon.pool("p");
}

/// Another daemon on a machine where its user has a home that cannot be written to, and nothing is configured.
#[test]
fn a_second_daemon_without_a_home_is_told_all_that_it_needs_at_once() {
    let daemon = Daemon::start(NOWHERE, POOL);
    let text = format!("http.listen = \"{}\"\n{POOL}", daemon.listen());
    std::fs::write(daemon.dir().join("second.toml"), text).unwrap();
    let output = tidegate(daemon.dir())
        .args(["run", "--config", "second.toml"])
        .env("HOME", "/dev/null/home")
        .env_remove("XDG_RUNTIME_DIR")
        .env("RUNTIME_DIRECTORY", daemon.dir().join("run"))
        .output()
        .unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{err}");
    let (error, hint) = err.split_once("\nhint: ").unwrap();
    assert!(
        error.contains("/dev/null/home/.local/state/tidegate"),
        "{err}"
    );
    assert!(error.contains("\n  socket: failed to "), "{err}");
    assert!(error.contains("\n  listen: failed to "), "{err}");
    assert!(
        hint.starts_with("give each of [http] state_dir, socket, listen "),
        "{err}"
    );
}

#[test]
fn check_finds_paths_that_the_daemon_cannot_use() {
    let (code, out) = check(&format!("events_file = \"/nowhere/events.jsonl\"\n{POOL}"));
    assert_eq!(code, Some(78), "{out}");
    assert!(
        out.contains(
            "events_file: found \"/nowhere/events.jsonl\" (there is no directory /nowhere)"
        ),
        "{out}"
    );
    let (code, out) = check(&format!("http.state_dir = \"/dev/null/state\"\n{POOL}"));
    assert_eq!(code, Some(78), "{out}");
    assert!(out.contains("http.state_dir: found "), "{out}");
}

#[test]
fn check_finds_an_engine_that_does_not_answer() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("engine.sock");
    let _deaf = UnixListener::bind(&socket).unwrap();
    let (code, out) = check(&format!(
        "[pools.p.runner]\nkind = \"container\"\nimage = \"a\"\nengine = \"unix://{}\"\n",
        socket.display()
    ));
    assert_eq!(code, Some(78), "{out}");
    assert!(
        out.contains("pools.p.runner.engine: found no container engine answers at"),
        "{out}"
    );
}

#[test]
fn check_warns_about_a_missing_script_and_exits_with_zero() {
    let (code, out) = check("[pools.p.runner]\ncommand = [\"sh\", \"thumb.sh\"]\n");
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains("warning: tidegate.toml:2:11: pools.p.runner.command: found \"thumb.sh\", which does not exist"),
        "{out}"
    );
}

/// A job of the daemon's own user. Root may read everything, so if the test runs as root, the daemon runs without
/// that right.
#[test]
fn a_job_cannot_read_the_environment_of_the_daemon_or_its_guard() {
    let queue = Queue::new();
    let look = "guard=$(sed -n 's/^PPid:.//p' /proc/$PPID/status); \
                cat /proc/$PPID/environ && exit 65; cat /proc/$guard/environ && exit 65; \
                cat /proc/$$/environ >/dev/null || exit 65; exit 0";
    let pools = format!(
        "[pools.p]\nqueue = \"{}\"\n[pools.p.runner]\ncommand = [\"sh\", \"-c\", \"{look}\"]\n",
        queue.name()
    );
    let as_a_user = [
        "setpriv",
        "--bounding-set=-sys_ptrace,-sys_admin,-perfmon",
        "--inh-caps=-sys_ptrace",
    ];
    let way: &[&str] = match nix::unistd::Uid::effective().is_root() {
        true => &as_a_user,
        false => &[],
    };
    let daemon = Daemon::start_by(way, &broker_url(), &pools);
    daemon.wait_for_pool("p", |pool| pool["state"] == "idle");
    queue.publish("look");
    let pool = daemon.wait_for_pool("p", |pool| {
        pool["jobs"]["done"] == 1 || pool["jobs"]["dead"] == 1
    });
    assert_eq!(pool["jobs"]["done"], 1, "{}", daemon.said());
}
