//! The built program as a shell uses it: help, exit codes, and where output goes.

use std::{path::Path, process::Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::daemon::tidegate;

/// The result of a command.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run_in(dir: &Path, args: &[&str]) -> Ran {
    let output = tidegate(dir).args(args).output().unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn run(args: &[&str]) -> Ran {
    run_in(TempDir::new().unwrap().path(), args)
}

fn with_config(text: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("tidegate.toml"), text).unwrap();
    dir
}

const GOOD: &str = r#"
[broker]
url = "amqp://guest:s3cret@127.0.0.1:1/%2f"

[pools.thumbnails.runner]
command = ["/bin/cat"]
"#;

const BAD: &str = r#"
[broker]
url = "http://guest:s3cret@127.0.0.1/"

[pools.thumbnails]
prefetch = 0
colour = "blue"

[pools.thumbnails.runner]
command = ["/bin/cat"]
"#;

#[test]
fn says_on_one_page_what_it_does() {
    let help = run(&["--help"]);
    assert_eq!(help.code, Some(0));
    assert_eq!(help.err, "");
    insta::assert_snapshot!(help.out);
}

#[test]
fn shows_examples_in_the_help_of_every_command() {
    for command in [
        "run",
        "check",
        "demo",
        "init",
        "publish",
        "load",
        "status",
        "explain",
        "pause",
        "resume",
        "drain",
        "flush",
        "scale",
        "policy",
        "policy show",
        "policy set",
        "policy reset",
        "jobs",
        "jobs stop",
        "reload",
        "dead",
        "dead list",
        "dead show",
        "dead retry",
        "dead purge",
        "completions",
    ] {
        let args: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = run(&args);
        assert_eq!(help.code, Some(0), "{command}");
        assert!(help.out.contains("Examples:"), "{command}: {}", help.out);
    }
}

#[test]
fn exits_with_2_for_wrong_usage() {
    for args in [
        &[][..],
        &["fly"],
        &["explain"],
        &["status", "--format", "xml"],
        &["dead", "retry", "thumbnails", "--reason", "attemps"],
    ] {
        let ran = run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.err);
        assert_eq!(ran.out, "", "{args:?}");
        assert!(ran.err.contains("Usage:") || ran.err.contains("error:"));
    }
}

#[test]
fn prints_its_version() {
    let ran = run(&["--version"]);
    let version = format!("tidegate {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((ran.code, ran.out), (Some(0), version));
}

#[test]
fn accepts_a_valid_configuration() {
    let dir = with_config(GOOD);
    let ran = run_in(dir.path(), &["check"]);
    assert_eq!(ran.out, "tidegate.toml: ok, 1 pool\n");
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

#[test]
fn prints_every_problem_with_its_place_and_no_credential() {
    let dir = with_config(BAD);
    let ran = run_in(dir.path(), &["check"]);
    assert_eq!(ran.code, Some(78));
    insta::assert_snapshot!(format!("{}---\n{}", ran.out, ran.err));
    assert!(!ran.out.contains("s3cret") && !ran.err.contains("s3cret"));
}

#[test]
fn prints_problems_for_programs() {
    let dir = with_config(BAD);
    let ran = run_in(dir.path(), &["check", "--format", "json"]);
    assert_eq!(ran.code, Some(78));
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["ok"], false);
    let problems = report["problems"].as_array().unwrap();
    let prefetch = problems
        .iter()
        .find(|problem| problem["key"] == "pools.thumbnails.prefetch")
        .unwrap();
    assert_eq!(prefetch["line"], 6);
    for key in ["file", "column", "found", "fix"] {
        assert!(!prefetch[key].is_null(), "{key} in {prefetch}");
    }
}

#[test]
fn finds_a_command_that_does_not_exist() {
    let dir = with_config("[pools.a.runner]\ncommand = [\"./no-such-program\"]\n");
    let ran = run_in(dir.path(), &["check"]);
    assert_eq!(ran.code, Some(78));
    let line = "tidegate.toml:2:11: pools.a.runner.command: found \"./no-such-program\"";
    assert!(ran.out.starts_with(line), "{}", ran.out);
}

#[test]
fn exits_with_78_if_there_is_no_configuration() {
    for command in ["check", "run"] {
        let ran = run(&[command]);
        assert_eq!(ran.code, Some(78), "{command}");
        assert!(
            ran.err
                .starts_with("error: failed to find a configuration file")
        );
        assert!(ran.err.contains("\nhint: `tidegate init "), "{}", ran.err);
        let ran = run(&[command, "--config", "nowhere.toml"]);
        assert_eq!(ran.code, Some(78), "{command}");
    }
}

#[test]
fn does_not_run_a_bad_configuration() {
    let dir = with_config(BAD);
    let ran = run_in(dir.path(), &["run"]);
    assert_eq!(ran.code, Some(78));
    assert_eq!(ran.out, "");
    assert!(ran.err.contains("pools.thumbnails.colour"), "{}", ran.err);
    assert!(!ran.err.contains("s3cret"));
}

#[test]
fn does_not_run_with_an_invalid_log_filter() {
    let dir = with_config(GOOD);
    let ran = tidegate(dir.path())
        .arg("run")
        .env("TIDEGATE_LOG", "tidegate=loud")
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(78));
    let err = String::from_utf8(ran.stderr).unwrap();
    assert!(
        err.starts_with("error: failed to read the log filter in TIDEGATE_LOG\n"),
        "{err}"
    );
}

#[test]
fn exits_with_69_if_no_supervisor_runs() {
    for args in [&["status"][..], &["explain", "thumbnails"]] {
        let args: Vec<&str> = args
            .iter()
            .chain(&["--socket", "./none.sock"])
            .copied()
            .collect();
        let ran = run(&args);
        assert_eq!(ran.code, Some(69), "{args:?}: {}", ran.err);
        assert_eq!(ran.out, "");
        assert!(
            ran.err
                .starts_with("error: failed to reach the supervisor at ./none.sock\n")
        );
        assert!(ran.err.contains("\nhint: start one with `tidegate run`"));
    }
}

#[test]
fn reports_wrong_commands_on_dead_letters() {
    let dir = with_config(GOOD);
    for (args, code, said) in [
        (
            &["list", "mails"][..],
            2,
            "error: failed to find the pool \"mails\"\nhint: the configuration has thumbnails\n",
        ),
        (
            &["purge", "thumbnails", "--queue", "thumbnails.retry.1000"],
            2,
            "error: failed to take thumbnails.retry.1000 for a queue of dead letters: pool thumbnails works on it\n",
        ),
        (
            &["retry", "thumbnails", "a", "--limit", "3"],
            2,
            "error: the argument '[ID]...' cannot be used with '--limit <N>'",
        ),
        (
            &["list", "thumbnails", "--limit", "0"],
            2,
            "error: invalid value '0'",
        ),
        (
            &["list", "thumbnails"],
            69,
            "error: failed to reach the broker amqp://guest:***@127.0.0.1:1/%2f\n",
        ),
    ] {
        let args: Vec<&str> = ["dead"].iter().chain(args).copied().collect();
        let ran = run_in(dir.path(), &args);
        assert_eq!(ran.code, Some(code), "{args:?}: {}", ran.err);
        assert!(ran.err.starts_with(said), "{args:?}: {}", ran.err);
        assert_eq!(ran.out, "", "{args:?}");
    }
}

#[test]
fn looks_for_the_supervisor_where_the_configuration_says() {
    let dir = with_config(&format!("http.socket = \"/nowhere/a.sock\"\n{GOOD}"));
    let ran = run_in(dir.path(), &["status"]);
    assert_eq!(ran.code, Some(69));
    assert!(ran.err.contains("/nowhere/a.sock"), "{}", ran.err);
    let ran = run_in(dir.path(), &["status", "--socket", "/nowhere/b.sock"]);
    assert!(ran.err.contains("/nowhere/b.sock"), "{}", ran.err);
}

#[test]
fn ends_silently_when_its_reader_goes_away() {
    let dir = TempDir::new().unwrap();
    let mut child = tidegate(dir.path())
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn shows_a_demo_without_a_broker_and_says_so_first() {
    let ran = run(&["demo"]);
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.out, ran.err);
    let first = ran.out.lines().next().unwrap();
    assert!(first.contains("in-memory"), "{first}");
    assert!(
        ran.out.contains("every job ran, none was lost"),
        "{}",
        ran.out
    );
    assert_eq!(ran.err, "");
}

#[test]
fn says_that_the_demo_s_broker_is_not_there() {
    let dir = TempDir::new().unwrap();
    let ran = tidegate(dir.path())
        .arg("demo")
        .env("AMQP_URL", "amqp://guest:s3cret@127.0.0.1:1/%2f")
        .output()
        .unwrap();
    assert_eq!(ran.status.code(), Some(69));
    let err = String::from_utf8(ran.stderr).unwrap();
    assert!(
        err.contains("error: failed to reach the broker amqp://guest:***@127.0.0.1:1/%2f"),
        "{err}"
    );
    assert!(!err.contains("s3cret"));
}

#[test]
fn prints_every_key_as_a_configuration() {
    let dir = TempDir::new().expect("a folder");
    let ran = run_in(dir.path(), &["check", "--reference"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert_eq!(ran.out, tidegate::config::reference());
}

#[test]
fn refuses_a_word_for_the_log_that_is_not_a_level() {
    let dir = TempDir::new().unwrap();
    let config = "[pools.work.runner]\ncommand = [\"/bin/true\"]\n";
    std::fs::write(dir.path().join("tidegate.toml"), config).unwrap();
    let ran = tidegate(dir.path())
        .arg("run")
        .env("TIDEGATE_LOG", "loud")
        .output()
        .unwrap();
    let err = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(78), "{err}");
    let wanted = "error: failed to read the log filter in TIDEGATE_LOG: \"loud\" is not a level\n\
                  hint: write off, error, warn, info, debug or trace, or a list with targets of their own: \
                  info,tidegate::run=debug\n";
    assert_eq!(err, wanted);
}

#[test]
fn check_refuses_a_log_filter_that_run_refuses() {
    let dir = TempDir::new().unwrap();
    let config = "[pools.work.runner]\ncommand = [\"/bin/true\"]\n";
    std::fs::write(dir.path().join("tidegate.toml"), config).unwrap();
    let ran = tidegate(dir.path())
        .arg("check")
        .env("TIDEGATE_LOG", "loud")
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8(ran.stdout).unwrap(),
        String::from_utf8(ran.stderr).unwrap(),
    );
    assert_eq!(ran.status.code(), Some(78), "{out}{err}");
    assert!(
        out.contains("TIDEGATE_LOG") && out.contains("loud"),
        "{out}"
    );
}
