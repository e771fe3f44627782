//! `scripts/with-broker`: what a command under it can rely on, and what is left when it has ended.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{ExitStatus, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
};

use crate::needs::Need;
use crate::support::witness::{Witness, soon};

trials! {
    tasks(Need::Nothing): [
        the_command_gets_amqp_url_and_its_exit_code_is_returned,
        the_broker_of_amqp_url_is_used_if_it_has_the_wanted_version,
        the_broker_of_amqp_url_is_not_used_if_its_version_differs_or_is_unknown,
        an_unknown_version_prints_the_usage,
        a_missing_command_prints_the_usage,
        a_command_that_does_not_exist_starts_no_broker,
    ],
    tasks(Need::PrivateNode): [
        a_private_node_serves_the_command_and_leaves_nothing_behind,
    ],
}

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

/// Whether a broker at `address` greets an AMQP client.
async fn greets(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return false;
    };
    let mut frame_kind = [0];
    stream.write_all(b"AMQP\0\0\x09\x01").await.is_ok()
        && soon(stream.read_exact(&mut frame_kind)).await.is_ok()
        && frame_kind == [1]
}

/// The version in the greeting of a broker.
async fn version_at(address: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a broker");
    stream.write_all(b"AMQP\0\0\x09\x01").await.expect("a peer");
    let mut seen = Vec::new();
    loop {
        soon(stream.read_buf(&mut seen)).await.expect("a greeting");
        let text = String::from_utf8_lossy(&seen).into_owned();
        if let Some((version, _)) = text
            .split_once("\x07versionS\0\0\0")
            .and_then(|(_, rest)| rest.get(1..)?.split_once('\0'))
        {
            return version.to_owned();
        }
    }
}

/// A server that sends the greeting of this RabbitMQ version, and nothing more. Returns its URL.
async fn broker_that_says(version: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let table = format!(
                "\x07productS\0\0\0\x08RabbitMQ\x07versionS\0\0\0{}{version}",
                char::from(version.len() as u8)
            );
            let mut frame = b"\x01\0\0\0\0\x01\0\0\x0a\0\x0a\0\x09".to_vec();
            frame.extend((table.len() as u32).to_be_bytes());
            frame.extend(table.as_bytes());
            frame.extend(b"\0\0\0\x05PLAIN\0\0\0\x05en_US\xce");
            // A client may close the connection early.
            let _ = stream.write_all(&frame).await;
        }
    });
    format!("amqp://guest:guest@{address}/%2f")
}

/// A run for a version on a machine with this URL. Its installed server and the one in a folder do not start.
fn with_version(scratch: &Path, version: &str, url: &str) -> Command {
    let bin = scratch.join("bin");
    let server = scratch.join(format!(
        "cache/tidegate/rabbitmq-{version}/usr/lib/rabbitmq/bin/rabbitmq-server"
    ));
    for file in [bin.join("docker"), server] {
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(&file, "#!/bin/sh\nexit 1\n").expect("a script");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a script");
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = with_broker();
    command
        .env("AMQP_URL", url)
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("XDG_CACHE_HOME", scratch.join("cache"))
        .args(["--version", version, "sh", "-c", "printf %s \"$AMQP_URL\""]);
    command
}

/// The processes with `folder` in their environment. A daemon of the node would have closed the witness's descriptor,
/// but its environment would still contain the folder.
fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().expect("a UTF-8 path");
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

/// The version that these tests must run on, if one is set.
fn wanted_version() -> Option<String> {
    std::env::var("TIDEGATE_TEST_RABBITMQ_VERSION").ok()
}

async fn the_command_gets_amqp_url_and_its_exit_code_is_returned() {
    let url = "amqp://somebody:secret@broker.example:5673/%2fjobs";
    let mut command = with_broker();
    command.env("AMQP_URL", url);
    command.args(["sh", "-c", "printf %s \"$AMQP_URL\"; exit 75"]);

    let (status, stdout, stderr) = output(&mut command).await;

    assert_eq!(status.code(), Some(75));
    assert_eq!(stdout, url);
    assert_eq!(stderr, "with-broker: using AMQP_URL\n");
}

async fn the_broker_of_amqp_url_is_used_if_it_has_the_wanted_version() {
    let scratch = TempDir::new().expect("a folder");
    for (version, found) in [("4", "4.0.5"), ("3", "3.13.7"), ("3", "3.8.35")] {
        let url = broker_that_says(found).await;

        let (status, stdout, stderr) =
            output(&mut with_version(scratch.path(), version, &url)).await;

        assert_eq!((status.code(), stdout), (Some(0), url), "{stderr}");
        assert!(
            stderr.ends_with("with-broker: using AMQP_URL\n"),
            "{stderr}"
        );
    }
}

async fn the_broker_of_amqp_url_is_not_used_if_its_version_differs_or_is_unknown() {
    let scratch = TempDir::new().expect("a folder");
    let other = broker_that_says("3.10.8").await;
    let unseen = "amqps://broker.example:5671/%2f".to_owned();
    for (url, why) in [
        (other, "not using AMQP_URL: it is RabbitMQ 3, not 4"),
        (unseen, "not using AMQP_URL: its version cannot be seen"),
    ] {
        // The script may find another broker or none.
        let (_, stdout, stderr) = output(&mut with_version(scratch.path(), "4", &url)).await;

        assert_ne!(stdout, url);
        assert!(stderr.contains(why), "{stderr}");
    }
}

async fn an_unknown_version_prints_the_usage() {
    for arguments in [
        ["--version", "true"],
        ["--version", "5"],
        ["--version=", "true"],
    ] {
        let (status, _, stderr) = output(with_broker().args(arguments)).await;

        assert_eq!(status.code(), Some(2), "{arguments:?}");
        assert!(stderr.starts_with("usage: "), "{stderr}");
    }
}

async fn a_missing_command_prints_the_usage() {
    let (status, stdout, stderr) = output(&mut with_broker()).await;

    assert_eq!(status.code(), Some(2));
    assert_eq!(stdout, "");
    assert!(stderr.starts_with("usage: "), "{stderr}");
}

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

async fn a_private_node_serves_the_command_and_leaves_nothing_behind() {
    let mut witness = Witness::new();
    let scratch = witness.folder().join("scratch");
    fs::create_dir(&scratch).expect("a folder");
    let mounts = fs::read_to_string("/proc/mounts").expect("mounts");
    // The node inherits descriptor 8, so the witness sees when its last process ends.
    let mut command = Command::new("bash");
    command
        .args(["-c", "exec 8>\"$0\" && exec \"$@\""])
        .arg(witness.folder().join("witness"))
        .arg(with_broker().as_std().get_program())
        .args(wanted_version().map(|version| format!("--version={version}")))
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
    if let Some(version) = wanted_version() {
        let found = version_at(&address).await;
        assert!(found.starts_with(&format!("{version}.")), "{found}");
    }
    assert_eq!(fs::read_dir(&scratch).expect("a folder").count(), 1);
    // No other process sees what is mounted for a node in a system of its own.
    assert_eq!(fs::read_to_string("/proc/mounts").expect("mounts"), mounts);

    // Sent only to the script, as a service manager does. The command must get it, and the node must outlive the
    // command.
    let pid = child.id().expect("a running script");
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).expect("a running script");
    let status = soon(child.wait()).await.expect("a script that ends");

    assert_eq!(status.code(), Some(75));
    assert!(!greets(&address).await, "{address}");
    assert_eq!(fs::read_dir(&scratch).expect("a folder").count(), 0);
    witness.gone().await;
    assert_eq!(processes_of(&scratch), Vec::<String>::new());
}
