//! Needs of tests that not every machine meets.

use std::{
    env, fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::unistd::Uid;

use crate::support::{broker::server_version, engine};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Need {
    /// Nothing more than any test.
    Nothing,
    /// All of these.
    All(&'static [Need]),
    /// A container engine, and busybox to make an image from.
    Engine,
    Root,
    /// Mounting a file system. Root in a container may not be allowed to.
    Mount,
    /// Making user namespaces.
    UserNamespace,
    /// A cgroup v2 hierarchy in which cgroups can be made. `scripts/with-cgroup2` provides one.
    Cgroups,
    /// A cgroup v2 hierarchy with this controller.
    Controller(&'static str),
    /// An interpreter in PATH.
    Interpreter(&'static str),
    /// A Python environment with Celery and dramatiq, which `scripts/test-consumers` makes, and a RabbitMQ server to
    /// start nodes of.
    Frameworks,
    /// Any other program in PATH.
    Program(&'static str),
    /// A RabbitMQ 4 server to start nodes of.
    RabbitMq4,
    /// A RabbitMQ server to start a node of, and a free port where `scripts/with-broker` would otherwise find a
    /// broker.
    PrivateNode,
}

impl Need {
    /// The missing part, or `None`.
    pub(crate) fn lack(self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::All(needs) => needs.iter().find_map(|need| need.lack()),
            Self::Engine => engine::lack(),
            Self::Root => unless(Uid::effective().is_root(), "it takes root"),
            Self::Mount => unless(can_mount(), "no file system can be mounted here"),
            Self::UserNamespace => unless(
                succeeds(Command::new("unshare").args(["--map-root-user", "true"])),
                "no user namespace can be made here",
            ),
            Self::Cgroups => hierarchy().err(),
            Self::Controller(name) => match hierarchy() {
                Ok(hierarchy) => unless(
                    has_controller(&hierarchy, name),
                    &format!("cgroup v2 has no {name} controller here"),
                ),
                Err(why) => Some(why),
            },
            Self::Interpreter(name) => unless(
                Command::new(name).args(["-c", ":"]).output().is_ok(),
                &format!("no {name} on the path"),
            ),
            Self::Program(name) => unless(
                Command::new(name).arg("--version").output().is_ok(),
                &format!("no {name} on the path"),
            ),
            Self::Frameworks => Self::RabbitMq4.lack().or_else(|| frameworks().err()),
            Self::RabbitMq4 => match server_version() {
                Some(version) if version.starts_with("4.") => None,
                Some(version) => Some(format!("nodes are of RabbitMQ {version}, not 4")),
                None => Some("no rabbitmq-server is installed".to_owned()),
            },
            Self::PrivateNode if TcpStream::connect("localhost:5672").is_ok() => {
                Some("a broker on localhost:5672 would be taken".to_owned())
            }
            Self::PrivateNode => unless(has_server(), "no rabbitmq-server is installed"),
        }
    }
}

/// The folder of a Python environment with Celery and dramatiq.
pub(crate) fn frameworks() -> Result<PathBuf, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/test-consumers");
    let output = Command::new(script)
        .output()
        .map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().into()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(said
                .lines()
                .last()
                .unwrap_or("it cannot be made")
                .to_owned())
        }
    }
}

fn unless(is_there: bool, why: &str) -> Option<String> {
    (!is_there).then(|| why.to_owned())
}

fn succeeds(command: &mut Command) -> bool {
    command.stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn can_mount() -> bool {
    let folder = tempfile::TempDir::new().expect("a folder");
    let mount = ["-t", "tmpfs", "-o", "size=64k", "tidegate-test"];
    succeeds(Command::new("mount").args(mount).arg(folder.path()))
        && succeeds(Command::new("umount").arg(folder.path()))
}

/// The folder in which cgroups can be made.
pub(crate) fn hierarchy() -> Result<PathBuf, String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = text
        .lines()
        .rev()
        .find(|line| line.contains(" - cgroup2 "))
        .and_then(|line| line.split(' ').nth(4))
        .map(PathBuf::from);
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let Some((mount, own)) = mount.zip(own) else {
        return Err("there is no cgroup v2 here".to_owned());
    };
    let dir = mount.join(own);
    let probe = dir.join(format!("tidegate-test-{}", std::process::id()));
    match fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)) {
        Ok(()) => Ok(dir),
        // The cgroup of another test can be used too.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(dir),
        Err(error) => Err(format!("cgroups cannot be made here: {error}")),
    }
}

/// Whether a controller is available there.
pub(crate) fn has_controller(hierarchy: &Path, name: &str) -> bool {
    let controllers = fs::read_to_string(hierarchy.join("cgroup.controllers")).unwrap();
    controllers.split_whitespace().any(|there| there == name)
}

fn has_server() -> bool {
    let on_path = env::var_os("PATH").unwrap_or_default();
    env::var_os("TIDEGATE_TEST_RABBITMQ_ROOT").is_some()
        || env::split_paths(&on_path)
            .map(|folder| folder.join("rabbitmq-server"))
            .chain([PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server")])
            .any(|server| server.exists())
}
