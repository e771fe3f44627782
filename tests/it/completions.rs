//! Completions, as bash asks for them at a TAB.

use std::{path::Path, process::Command};

use tempfile::TempDir;

use crate::support::daemon::{Daemon, tidegate};

/// An address without a broker.
const NOWHERE: &str = "amqp://guest:guest@127.0.0.1:9/%2f";

/// The completions that bash offers at the end of this line.
fn offered(dir: &Path, line: &[&str]) -> Vec<String> {
    let program = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", program.parent().unwrap().display());
    let script = "source <(tidegate completions bash) || exit 1\n\
                  COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9\n\
                  $(complete -p tidegate | sed 's/.*-F \\([^ ]*\\).*/\\1/') tidegate \"${!#}\" \"${COMP_WORDS[-2]}\"\n\
                  printf '%s\\n' \"${COMPREPLY[@]}\"\n";
    let output = Command::new("bash")
        .args(["--norc", "-c", script, "bash"])
        .args(line)
        .env_clear()
        .env("PATH", path)
        .env("HOME", dir)
        .env("XDG_RUNTIME_DIR", dir)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn bash_offers_the_commands_and_their_options() {
    let dir = TempDir::new().unwrap();
    let commands = offered(dir.path(), &["tidegate", "dr"]);
    assert_eq!(commands, ["drain"]);
    let options = offered(dir.path(), &["tidegate", "status", "--wa"]);
    assert_eq!(options, ["--watch"]);
    // A command for packages is not for people.
    let commands = offered(dir.path(), &["tidegate", ""]);
    assert!(commands.contains(&"explain".to_owned()), "{commands:?}");
    assert!(!commands.contains(&"man".to_owned()), "{commands:?}");
}

#[test]
fn bash_offers_the_pools_of_the_configuration_if_no_supervisor_runs() {
    let dir = TempDir::new().unwrap();
    let text = "[pools.mails.runner]\ncommand = [\"true\"]\n[pools.thumbnails.runner]\ncommand = [\"true\"]\n";
    std::fs::write(dir.path().join("other.toml"), text).unwrap();
    for line in [
        &["tidegate", "-c", "other.toml", "explain", ""][..],
        &["tidegate", "dead", "list", "--config=other.toml", ""],
        &["tidegate", "-c", "other.toml", "pause", "--for", "30m", ""],
    ] {
        let pools = offered(dir.path(), line);
        for pool in ["mails", "thumbnails"] {
            assert!(pools.contains(&pool.to_owned()), "{line:?}: {pools:?}");
        }
    }
    let begun = offered(dir.path(), &["tidegate", "-c", "other.toml", "scale", "th"]);
    assert_eq!(begun, ["thumbnails"]);
    assert_eq!(offered(dir.path(), &["tidegate", "explain", "th"]), [""]);
}

#[test]
fn bash_offers_the_pools_that_the_supervisor_has_even_if_the_file_is_broken() {
    let daemon = Daemon::start(NOWHERE, "[pools.running.runner]\ncommand = [\"true\"]\n");
    let socket = daemon.socket();
    let line = [
        "tidegate",
        "resume",
        "--socket",
        socket.to_str().unwrap(),
        "r",
    ];
    std::fs::write(daemon.dir().join("tidegate.toml"), "[[[").unwrap();
    assert_eq!(offered(daemon.dir(), &line), ["running"]);
}

#[test]
fn every_shell_has_a_script_that_asks_the_program() {
    let dir = TempDir::new().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = tidegate(dir.path()).args(["completions", shell]).output();
        let ran = ran.unwrap();
        assert_eq!(ran.status.code(), Some(0), "{shell}");
        let script = String::from_utf8(ran.stdout).unwrap();
        assert!(script.contains("TIDEGATE_COMPLETE"), "{shell}: {script}");
    }
}
