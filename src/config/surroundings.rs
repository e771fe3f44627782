//! Values of this machine, for the defaults of a configuration.

use std::{env, fmt, path::PathBuf};

/// Values of this machine, for defaults. Passed as a value, so that reading a configuration stays pure.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `$AMQP_URL`: the broker, if the configuration names none.
    pub amqp_url: Option<String>,
    /// `$RUNTIME_DIRECTORY`, from systemd.
    pub runtime_directory: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// `$STATE_DIRECTORY`, from systemd.
    pub state_directory: Option<PathBuf>,
    /// `$XDG_STATE_HOME`.
    pub xdg_state_home: Option<PathBuf>,
    /// `$HOME`.
    pub home: Option<PathBuf>,
    /// Our user's id.
    pub uid: u32,
}

impl Surroundings {
    /// The values of this process.
    pub fn of_process() -> Self {
        // A relative path here is a mistake, and is ignored (XDG base directory specification).
        let path = |name| {
            let path = PathBuf::from(env::var_os(name)?);
            Some(path).filter(|path| path.is_absolute())
        };
        // systemd separates several directories with colons; the first is ours.
        let first = |name| {
            let value = env::var_os(name)?;
            env::split_paths(&value)
                .next()
                .filter(|path| path.is_absolute())
        };
        Self {
            amqp_url: env::var_os("AMQP_URL").map(|url| url.to_string_lossy().into_owned()),
            runtime_directory: first("RUNTIME_DIRECTORY"),
            xdg_runtime_dir: path("XDG_RUNTIME_DIR"),
            state_directory: first("STATE_DIRECTORY"),
            xdg_state_home: path("XDG_STATE_HOME"),
            home: path("HOME"),
            uid: nix::unistd::Uid::effective().as_raw(),
        }
    }

    /// The command line's socket, if the configuration names none.
    pub fn socket(&self) -> PathBuf {
        let directory = match (&self.runtime_directory, &self.xdg_runtime_dir) {
            (Some(directory), _) => directory.clone(),
            (None, Some(directory)) => directory.join("tidegate"),
            (None, None) if self.uid == 0 => "/run/tidegate".into(),
            // The program that listens there must check that it owns the directory.
            (None, None) => format!("/tmp/tidegate-{}", self.uid).into(),
        };
        directory.join("tidegate.sock")
    }

    /// Where a supervisor may listen whose configuration names no socket, ours first. Its environment may differ from
    /// ours: systemd gives it a runtime directory, and `sudo` or cron take the session's away.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let uid = self.uid;
        let others = [
            "/run/tidegate".to_owned(),
            format!("/run/user/{uid}/tidegate"),
            format!("/tmp/tidegate-{uid}"),
        ];
        let mut sockets = vec![self.socket()];
        for directory in others {
            let socket = PathBuf::from(directory).join("tidegate.sock");
            if !sockets.contains(&socket) {
                sockets.push(socket);
            }
        }
        sockets
    }

    /// Lock and recordings, if the configuration names no directory.
    pub(super) fn state_dir(&self) -> PathBuf {
        match (&self.state_directory, &self.xdg_state_home, &self.home) {
            (Some(directory), _, _) => directory.clone(),
            (None, Some(directory), _) => directory.join("tidegate"),
            (None, None, Some(home)) => home.join(".local/state/tidegate"),
            (None, None, None) if self.uid == 0 => "/var/lib/tidegate".into(),
            (None, None, None) => format!("/tmp/tidegate-{}", self.uid).into(),
        }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("socket", &self.socket())
            .field("state_dir", &self.state_dir())
            .field("uid", &self.uid)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_is_searched_at_our_own_socket_path_first_and_then_at_the_others() {
        let around = |runtime: Option<&str>, xdg: Option<&str>, uid| {
            let around = Surroundings {
                runtime_directory: runtime.map(PathBuf::from),
                xdg_runtime_dir: xdg.map(PathBuf::from),
                uid,
                ..Surroundings::default()
            };
            let sockets = around.sockets().into_iter();
            sockets
                .map(|socket| socket.parent().unwrap().display().to_string())
                .collect::<Vec<_>>()
        };
        let (system, tmp) = ("/run/tidegate", "/tmp/tidegate-7");
        assert_eq!(
            around(None, Some("/run/user/7"), 7),
            ["/run/user/7/tidegate", system, tmp]
        );
        assert_eq!(around(None, None, 7), [tmp, system, "/run/user/7/tidegate"]);
        assert_eq!(
            around(None, None, 0),
            [system, "/run/user/0/tidegate", "/tmp/tidegate-0"]
        );
        assert_eq!(around(Some("/a"), Some("/b"), 7)[..2], ["/a", system]);
    }
}
