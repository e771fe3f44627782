//! Access to the socket of the command line.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
};

use crate::{needs::Need, support::daemon::Daemon};

trials! {
    plain(Need::All(&[Need::Root, Need::Interpreter("python3")])): [
        the_socket_accepts_its_own_user_and_refuses_another_user,
    ],
}

const NOWHERE: &str = "amqp://guest:guest@127.0.0.1:9/%2f";

/// Not root, and not the daemon's user.
const NOBODY: u32 = 65534;

/// Sends a request, and prints the answer or the error.
const ASK: &str = r#"
import socket, sys
try:
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(10)
    peer.connect(sys.argv[1])
    peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    print(peer.recv(12).decode() or "nothing")
except PermissionError:
    print("no permission")
except (BrokenPipeError, ConnectionResetError):
    print("nothing")
"#;

fn asked_by(user: u32, socket: &Path) -> String {
    let ran = Command::new("python3")
        .args(["-c", ASK])
        .arg(socket)
        .current_dir("/")
        .uid(user)
        .gid(user)
        .output()
        .unwrap();
    let err = String::from_utf8(ran.stderr).unwrap();
    assert!(ran.status.success(), "{err}");
    String::from_utf8(ran.stdout).unwrap().trim().to_owned()
}

fn the_socket_accepts_its_own_user_and_refuses_another_user() {
    let pool = "[pools.p]\n[pools.p.runner]\ncommand = [\"true\"]\n";
    let daemon = Daemon::start(NOWHERE, pool);
    let socket = daemon.socket();
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The directories above it are open, so that only the socket itself can refuse.
    for directory in socket.ancestors().skip(1) {
        if directory.starts_with(daemon.dir()) {
            fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
        }
    }
    assert_eq!(asked_by(NOBODY, &socket), "no permission");
    // The socket's mode is open too. The supervisor still checks the peer's user.
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    assert_eq!(asked_by(NOBODY, &socket), "nothing");
    let refused = daemon.heard("the other user", |line| {
        line["message"] == "refused a connection of another user to the socket"
    });
    assert_eq!(refused["uid"], NOBODY, "{refused}");
    assert_eq!(asked_by(0, &socket), "HTTP/1.1 200");
}
