//! Which supervisor a command asks: the one on the command line, else the configuration's, else the first that answers
//! at the paths on which a supervisor may listen.

use std::{
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
};

use super::args::{Cli, SocketArgs};
use crate::output::{self, CommandFailure};
use tidegate::{
    config::{self, Problems, Source, Surroundings},
    text::counted,
};

/// The configuration of the supervisor that runs as a system service. It usually names no socket: systemd gives the
/// supervisor a directory.
const SYSTEM: &str = "/etc/tidegate/tidegate.toml";

/// A supervisor, as a command reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteSupervisor {
    /// Never empty.
    tried: Vec<PathBuf>,
    chosen: usize,
}

impl RemoteSupervisor {
    /// The supervisor at one socket.
    pub(super) fn at(socket: PathBuf) -> Self {
        Self {
            tried: vec![socket],
            chosen: 0,
        }
    }

    /// The first of these that answers; if none does, the first.
    fn among(sockets: Vec<PathBuf>, answers: impl Fn(&Path) -> bool) -> Self {
        let chosen = sockets.iter().position(|socket| answers(socket));
        Self {
            chosen: chosen.unwrap_or(0),
            tried: sockets,
        }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.tried[self.chosen]
    }

    /// All sockets that were tried, for a message.
    pub(super) fn tried(&self) -> &[PathBuf] {
        &self.tried
    }

    fn is_first(&self) -> bool {
        self.chosen == 0
    }
}

/// Finds the supervisor. Warns on standard error if it may not be the one that is meant.
pub(super) fn find(cli: &Cli, args: &SocketArgs) -> Result<RemoteSupervisor, CommandFailure> {
    let (found, warning) = look_for(cli.config.as_deref(), args.socket.as_deref());
    if let Some(warning) = warning {
        output::warn(&warning);
    }
    Ok(found)
}

/// The same, but returns the warning and does not print it.
pub(super) fn look_for(
    config: Option<&Path>,
    socket: Option<&Path>,
) -> (RemoteSupervisor, Option<String>) {
    if let Some(socket) = socket {
        return (RemoteSupervisor::at(socket.to_owned()), None);
    }
    let sockets = known_sockets();
    let Ok(source) = config::find(config) else {
        return (RemoteSupervisor::among(sockets, answers), None);
    };
    // If the file is invalid, a supervisor may still run with its old configuration.
    match config::socket_of(&source) {
        (Some(named), None) => (RemoteSupervisor::at(named), None),
        (None, None) => {
            let found = RemoteSupervisor::among(sockets, answers);
            let warning = other_supervisor_warning(&found, &source);
            (found, warning)
        }
        (named, Some(problems)) => {
            let sockets = named.into_iter().chain(sockets).collect();
            let found = RemoteSupervisor::among(sockets, answers);
            let warning = invalid_file_warning(&problems, &found, &source);
            (found, Some(warning))
        }
    }
}

/// The warning if the user has named a configuration whose own supervisor does not answer, and another one does.
fn other_supervisor_warning(found: &RemoteSupervisor, source: &Source) -> Option<String> {
    let is_meant = found.is_first() || source.file() == Path::new(SYSTEM);
    (!is_meant).then(|| {
        format!(
            "no supervisor answers at {}; asking the one at {}",
            found.tried[0].display(),
            found.socket().display()
        )
    })
}

fn invalid_file_warning(problems: &Problems, found: &RemoteSupervisor, source: &Source) -> String {
    let count = counted(problems.len(), "problem");
    format!(
        "the configuration {} has {count}, which `tidegate check` shows; asking the supervisor at {}",
        source.file().display(),
        found.socket().display()
    )
}

/// The paths on which a supervisor may listen if its configuration names no socket. Never empty: only places in /tmp
/// are left out.
fn known_sockets() -> Vec<PathBuf> {
    let mut sockets = Surroundings::of_process().sockets();
    let own = nix::unistd::Uid::effective().as_raw();
    sockets.retain(|socket| {
        let directory = socket.parent();
        let found = directory.and_then(|directory| directory.symlink_metadata().ok());
        !is_foreign(socket, found.map(|found| found.uid()), own)
    });
    sockets
}

/// Whether another user owns the directory of a socket. That user could read requests and forge answers: everybody
/// can make a directory in /tmp. `owner` owns the directory; `None` if it is missing.
fn is_foreign(socket: &Path, owner: Option<u32>, own: u32) -> bool {
    let is_in_tmp = socket.parent().and_then(Path::parent) == Some(Path::new("/tmp"));
    is_in_tmp && owner.is_some_and(|owner| owner != own)
}

/// Whether a supervisor listens there.
fn answers(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn takes_the_first_supervisor_that_answers_and_remembers_what_was_tried() {
        let known = paths(&["/a", "/b", "/c"]);
        let found = RemoteSupervisor::among(known.clone(), |path| path != Path::new("/a"));
        assert_eq!(found.socket(), Path::new("/b"));
        let none = RemoteSupervisor::among(known.clone(), |_| false);
        assert_eq!((none.socket(), none.tried()), (Path::new("/a"), &known[..]));
    }

    #[test]
    fn a_socket_in_tmp_that_another_user_has_made_is_not_used() {
        let (in_tmp, in_run) = ("/tmp/tidegate-7/tidegate.sock", "/run/user/7/a.sock");
        for (socket, owner, expected) in [
            (in_tmp, Some(8), true),
            (in_tmp, Some(7), false),
            (in_tmp, None, false),
            // Only root can make directories there.
            (in_run, Some(8), false),
        ] {
            let found = is_foreign(Path::new(socket), owner, 7);
            assert_eq!(found, expected, "{socket} of {owner:?}");
        }
    }

    #[test]
    fn says_so_if_the_supervisor_of_the_configuration_does_not_answer() {
        let known = paths(&["/a", "/b"]);
        let mine = Source::from(PathBuf::from("tidegate.toml"));
        let found = RemoteSupervisor::among(known.clone(), |path| path == Path::new("/b"));
        let warning = other_supervisor_warning(&found, &mine).unwrap();
        assert_eq!(warning, "no supervisor answers at /a; asking the one at /b");
        assert_eq!(
            other_supervisor_warning(&found, &Source::from(PathBuf::from(SYSTEM))),
            None
        );
        let first = RemoteSupervisor::among(known, |_| true);
        assert_eq!(other_supervisor_warning(&first, &mine), None);
    }
}
