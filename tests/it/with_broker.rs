//! `scripts/with-broker`: what a command that runs under it may rely on, and what is left when it has gone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

use crate::support::witness::{Witness, soon};

fn with_broker() -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/with-broker");
    let mut command = Command::new(script);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn output(command: &mut Command) -> (ExitStatus, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = soon(command.output()).await.expect("a script that starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status, text(stdout), text(stderr))
}

/// Whether something at `address` greets an AMQP client.
async fn greets(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return false;
    };
    let mut frame_kind = [0];
    stream.write_all(b"AMQP\0\0\x09\x01").await.is_ok()
        && soon(stream.read_exact(&mut frame_kind)).await.is_ok()
        && frame_kind == [1]
}

/// The processes that have `folder` in their environment. A daemon of the node would have closed the descriptor
/// of the witness, but not forgotten its folder.
fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().expect("a path of text");
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter(|process| {
            fs::read(process.path().join("environ"))
                .is_ok_and(|text| String::from_utf8_lossy(&text).contains(folder))
        })
        .map(|process| fs::read_to_string(process.path().join("cmdline")).unwrap_or_default())
        .collect()
}

fn server_is_installed() -> bool {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&on_path)
        .map(|folder| folder.join("rabbitmq-server"))
        .chain([PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server")])
        .any(|server| server.exists())
}

#[tokio::test]
async fn the_command_has_the_url_that_was_set_and_hands_back_its_code() {
    let url = "amqp://somebody:secret@broker.example:5673/%2fjobs";
    let mut command = with_broker();
    command.env("AMQP_URL", url);
    command.args(["sh", "-c", "printf %s \"$AMQP_URL\"; exit 75"]);

    let (status, stdout, stderr) = output(&mut command).await;

    assert_eq!(status.code(), Some(75));
    assert_eq!(stdout, url);
    assert_eq!(stderr, "with-broker: using AMQP_URL\n");
}

#[tokio::test]
async fn without_a_command_the_script_says_how_it_is_used() {
    let (status, stdout, stderr) = output(&mut with_broker()).await;

    assert_eq!(status.code(), Some(2));
    assert_eq!(stdout, "");
    assert!(stderr.starts_with("usage: "), "{stderr}");
}

#[tokio::test]
async fn a_command_that_does_not_exist_starts_no_broker() {
    let mut command = with_broker();
    command
        .env_remove("AMQP_URL")
        .arg("tidegate-no-such-command");

    let (status, _, stderr) = output(&mut command).await;

    assert_eq!(status.code(), Some(127));
    assert!(stderr.contains("tidegate-no-such-command"), "{stderr}");
    assert!(!stderr.contains("using"), "{stderr}");
}

#[tokio::test]
async fn a_private_node_serves_the_command_and_leaves_nothing_behind() {
    // Elsewhere the script would take the broker that answers, or install one.
    if !server_is_installed() || greets("localhost:5672").await {
        eprintln!("skipped: no private node would be started here");
        return;
    }
    let mut witness = Witness::new();
    let scratch = witness.folder().join("scratch");
    fs::create_dir(&scratch).expect("a folder");
    // The node inherits descriptor 8, so the witness sees the last of it go.
    let mut command = Command::new("bash");
    command
        .args(["-c", "exec 8>\"$0\" && exec \"$@\""])
        .arg(witness.folder().join("witness"))
        .arg(with_broker().as_std().get_program())
        .args(["bash", "-c"])
        .arg("trap 'exit 75' TERM; echo \"$AMQP_URL\" >&8; while :; do sleep 0.1; done")
        .env_remove("AMQP_URL")
        .env("TMPDIR", &scratch)
        .kill_on_drop(true);
    let mut child = command.spawn().expect("a script that starts");

    let url = witness.line().await;
    let url = url::Url::parse(&url).expect("a URL");
    let address = format!("localhost:{}", url.port().expect("a port of its own"));
    assert!(greets(&address).await, "{address}");
    assert_eq!(fs::read_dir(&scratch).expect("a folder").count(), 1);

    // To the script alone, as a service manager does: it must reach the command, and the node outlives that.
    let pid = child.id().expect("a running script");
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).expect("a running script");
    let status = soon(child.wait()).await.expect("a script that ends");

    assert_eq!(status.code(), Some(75));
    assert!(!greets(&address).await, "{address}");
    assert_eq!(fs::read_dir(&scratch).expect("a folder").count(), 0);
    witness.gone().await;
    assert_eq!(processes_of(&scratch), Vec::<String>::new());
}
