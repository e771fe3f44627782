//! Starting a pool's command, and error texts for failed starts that say how to fix them.

use std::{
    borrow::Cow,
    ffi::OsStr,
    fs,
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
};

use nix::errno::Errno;
use tokio::{
    process::{ChildStdin, Command},
    time::timeout,
};

use tidegate_core::text::duration;

use super::{
    ExecSettings, KILL_TIMEOUT,
    child::{Pipes, Process},
    environment::Environment,
};
use crate::{
    host::{
        cgroup::{self, Leaf},
        children::{self, Run},
        launcher::{self, LAUNCH_TIMEOUT, LaunchFailure, LaunchPlan, PreparedLaunch},
        limits::{CgroupUse, Limits},
    },
    runner::StartError,
};

/// A pool's command, found and ready to be started.
#[derive(Debug)]
pub(in crate::runners) struct Launch<'a> {
    settings: &'a ExecSettings,
    environment: &'a Environment,
    stays: ProcessReuse,
    program: &'a str,
    file: Cow<'a, Path>,
}

/// Whether a process serves more than one job. Then its start may take more time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runners) enum ProcessReuse {
    Yes,
    No,
}

/// A process was not started.
#[derive(Debug)]
pub(in crate::runners) enum SpawnError {
    /// The system refused to start the command.
    System(io::Error),
    /// A step before the start of the command failed.
    Before {
        what: String,
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl SpawnError {
    /// Whether arguments and environment together are too large.
    pub(in crate::runners) fn is_too_large(&self) -> bool {
        match self {
            Self::System(error) => error.raw_os_error() == Some(Errno::E2BIG as i32),
            Self::Before { .. } => false,
        }
    }
}

impl From<LaunchFailure> for SpawnError {
    fn from(failure: LaunchFailure) -> Self {
        match failure {
            LaunchFailure::Program(error) => Self::System(error),
            LaunchFailure::Launcher { what, source } => Self::Before {
                what,
                source: source.map(Into::into),
            },
        }
    }
}

impl<'a> Launch<'a> {
    /// Searches the command's program.
    pub(in crate::runners) fn new(
        settings: &'a ExecSettings,
        environment: &'a Environment,
        stays: ProcessReuse,
    ) -> Result<Self, StartError> {
        let Some(program) = settings.command.first() else {
            return Err(StartError {
                what: "the pool's command is empty".to_owned(),
                source: None,
            });
        };
        Ok(Self {
            settings,
            environment,
            stays,
            program,
            file: locate(program, environment.path()),
        })
    }

    /// Starts the command with the pool's variables and these. If it has limits, a launcher starts it.
    ///
    /// # Cancel-safety
    /// Cancel-safe: when dropped, no process keeps running.
    pub(in crate::runners) async fn spawn<'v>(
        &self,
        variables: impl IntoIterator<Item = (&'static str, Cow<'v, str>)>,
    ) -> Result<(Process, Pipes), SpawnError> {
        let run = children::new_run();
        let leaf = self.leaf(run)?;
        if leaf.is_none() && !self.settings.limits.changes_process() {
            let mut command = self.command(self.file.as_os_str(), variables);
            command.stdin(Stdio::piped());
            if let Some(folder) = &self.settings.working_dir {
                command.current_dir(folder);
            }
            return Process::spawn(&mut command, run, None, None).map_err(SpawnError::System);
        }
        let plan = LaunchPlan::new(
            &self.settings.limits,
            leaf.as_ref().map(Leaf::procs),
            self.settings.working_dir.clone(),
            self.file.as_os_str().to_owned(),
        );
        let launching = PreparedLaunch::new(&plan)?;
        let mut command = self.command(launching.program.as_os_str(), variables);
        let (name, value) = launcher::mark();
        command.env(name, value).stdin(launching.stdin);
        let spawned = self.spawn_launcher(command, run, launching.pipe.into(), leaf);
        let (process, pipes) = spawned?;
        match timeout(LAUNCH_TIMEOUT, launcher::heard(launching.report)).await {
            Ok(Ok(())) => Ok((process, pipes)),
            Ok(Err(failure)) => {
                reap_launcher(process).await;
                Err(failure.into())
            }
            Err(_) => Err(SpawnError::Before {
                what: format!(
                    "its launcher did not start it within {}",
                    duration(LAUNCH_TIMEOUT)
                ),
                source: None,
            }),
        }
    }

    fn spawn_launcher(
        &self,
        mut command: Command,
        run: Run,
        stdin: std::os::fd::OwnedFd,
        leaf: Option<Leaf>,
    ) -> Result<(Process, Pipes), SpawnError> {
        let not_started = |error: io::Error| match error.kind() {
            // A missing file or permission is a problem of the launcher's own file. Any other error (no memory, too
            // many processes) would also happen to the command.
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => SpawnError::Before {
                what: "its launcher cannot be started".to_owned(),
                source: Some(error.into()),
            },
            _ => SpawnError::System(error),
        };
        let stdin = ChildStdin::from_std(stdin.into()).map_err(SpawnError::System)?;
        // The command is dropped here, together with the launcher's end of the socket. An open copy would keep our end
        // open.
        Process::spawn(&mut command, run, Some(stdin), leaf).map_err(not_started)
    }

    fn command<'v>(
        &self,
        program: &OsStr,
        variables: impl IntoIterator<Item = (&'static str, Cow<'v, str>)>,
    ) -> Command {
        let mut command = Command::new(program);
        command
            .arg0(self.program)
            .args(&self.settings.command[1..])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.environment.apply(&mut command);
        for (name, value) in variables {
            command.env(name, value.as_ref());
        }
        command
    }

    /// The cgroup for this run, if it needs one.
    fn leaf(&self, run: Run) -> Result<Option<Leaf>, SpawnError> {
        let limits = &self.settings.limits;
        let refused = |what: &str, source: Option<Box<dyn std::error::Error + Send + Sync>>| {
            let what = what.to_owned();
            SpawnError::Before { what, source }
        };
        let groups = match (cgroup::groups(), limits.wants_cgroup()) {
            (Some(groups), true) => groups,
            (Some(groups), false) if is_worth_it(limits, self.stays) => groups,
            (_, false) => return Ok(None),
            (None, true) => {
                let what = "its limits need a cgroup, and none is available";
                return Err(refused(what, None));
            }
        };
        match groups.leaf(run, limits) {
            Ok(leaf) => Ok(Some(leaf)),
            Err(error) => Err(refused("its cgroup cannot be created", Some(error.into()))),
        }
    }

    /// The error of a failed start, with its cause in words.
    pub(in crate::runners) fn error(&self, error: SpawnError) -> StartError {
        let folder = self.settings.working_dir.as_deref();
        let user = self.settings.limits.user.as_deref();
        match error {
            SpawnError::System(error) => start_error(self.program, &self.file, folder, user, error),
            SpawnError::Before { what, source } => StartError {
                what: format!("{}: {what}", self.program),
                source,
            },
        }
    }
}

/// Whether a run gets a cgroup without being configured: if a launcher is needed anyway, or if one start serves many
/// jobs.
fn is_worth_it(limits: &Limits, stays: ProcessReuse) -> bool {
    match limits.cgroup {
        CgroupUse::Auto => stays == ProcessReuse::Yes || limits.changes_process(),
        CgroupUse::Always => true,
        CgroupUse::Never => false,
    }
}

/// Reaps a launcher that has failed and will end at once.
async fn reap_launcher(mut process: Process) {
    let _ = timeout(KILL_TIMEOUT, process.exited()).await;
    process.finish();
}

/// The program's file, found as a shell finds it: a name without a slash is searched in `path`.
///
/// We search ourselves, because the standard library does not use the faster `posix_spawn` if it must search a `PATH`
/// that is not its own. If nothing is found, the name is returned unchanged, and the system reports the error.
fn locate<'a>(program: &'a str, path: Option<&OsStr>) -> Cow<'a, Path> {
    if !program.contains('/')
        && let Some(path) = path
    {
        for folder in path.as_bytes().split(|byte| *byte == b':') {
            let folder = Path::new(OsStr::from_bytes(folder));
            // A relative path depends on a folder that is not our working directory yet, so the system searches it.
            if !folder.is_absolute() {
                break;
            }
            let file = folder.join(program);
            if is_executable(&file) {
                return file.into();
            }
        }
    }
    Path::new(program).into()
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Explains `error`, the error of starting `file` in `working_dir`. `program` is the name in the pool's command. `user`
/// is the user of the process, if it is not ours.
fn start_error(
    program: &str,
    file: &Path,
    working_dir: Option<&Path>,
    user: Option<&str>,
    error: io::Error,
) -> StartError {
    let cause = explain(file, working_dir, user, &error);
    StartError {
        what: match cause {
            Some(cause) => format!("{program}: {cause}"),
            None => program.to_owned(),
        },
        source: Some(error.into()),
    }
}

fn explain(
    file: &Path,
    working_dir: Option<&Path>,
    user: Option<&str>,
    error: &io::Error,
) -> Option<Cow<'static, str>> {
    // The system reports the same error for the directory and for the program.
    if let Some(folder) = working_dir {
        let shown = folder.display();
        match fs::metadata(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Some(format!("its working directory {shown} does not exist").into());
            }
            Err(_) => {
                return Some(format!("its working directory {shown} cannot be reached").into());
            }
            Ok(found) if !found.is_dir() => {
                return Some(format!("its working directory {shown} is not a directory").into());
            }
            Ok(_) => {}
        }
    }
    let on_disk = working_dir.map_or_else(|| file.to_owned(), |folder| folder.join(file));
    Some(match error.raw_os_error().map(Errno::from_raw)? {
        Errno::ENOENT if !file.as_os_str().as_bytes().contains(&b'/') => {
            "no such program in PATH".into()
        }
        Errno::ENOENT if on_disk.exists() => match interpreter(&on_disk) {
            Some(interpreter) => {
                format!("its interpreter {} does not exist", interpreter.display()).into()
            }
            None => "the loader that it was linked for does not exist".into(),
        },
        Errno::ENOENT => "no such file".into(),
        Errno::ENOTDIR => "a part of its path is not a directory".into(),
        Errno::EACCES if on_disk.is_dir() => "is a directory".into(),
        Errno::EACCES if is_executable(&on_disk) => match (user, interpreter(&on_disk)) {
            (Some(user), _) => format!("may not be run by the user {user}").into(),
            (None, Some(interpreter)) => {
                format!("its interpreter {} may not be run", interpreter.display()).into()
            }
            (None, None) => "may not be run by this user from this directory".into(),
        },
        Errno::EACCES => "is not executable".into(),
        Errno::ENOEXEC => {
            "is not a program that this system can run (a script without a `#!` line?)".into()
        }
        Errno::ETXTBSY => "is being written to".into(),
        Errno::ELOOP => "too many symbolic links".into(),
        Errno::EAGAIN => "the limit of processes is reached".into(),
        Errno::ENOMEM => "not enough memory".into(),
        Errno::EMFILE | Errno::ENFILE => "the limit of open files is reached".into(),
        Errno::E2BIG => "its arguments and environment are too large".into(),
        _ => return None,
    })
}

/// The interpreter in the file's `#!` line, if it has such a line.
fn interpreter(file: &Path) -> Option<PathBuf> {
    let mut start = [0; 256];
    let length = fs::File::open(file).ok()?.read(&mut start).ok()?;
    let line = start[..length]
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let name = line.trim_ascii().split(u8::is_ascii_whitespace).next()?;
    Some(PathBuf::from(OsStr::from_bytes(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explains_what_is_missing_on_the_system() {
        let table = [
            (Errno::EAGAIN, "true: the limit of processes is reached"),
            (Errno::ENOMEM, "true: not enough memory"),
            (Errno::EMFILE, "true: the limit of open files is reached"),
            (Errno::ENFILE, "true: the limit of open files is reached"),
            (
                Errno::E2BIG,
                "true: its arguments and environment are too large",
            ),
            (Errno::ETXTBSY, "true: is being written to"),
            (Errno::EIO, "true"),
        ];
        for (errno, expected) in table {
            let error = io::Error::from_raw_os_error(errno as i32);
            let told = start_error("true", Path::new("/bin/true"), None, None, error);
            assert_eq!(told.what, expected);
            assert!(told.source.is_some());
        }
    }

    #[test]
    fn searches_the_path_only_for_a_bare_name() {
        let found = |program, path: &str| locate(program, Some(OsStr::new(path))).into_owned();
        assert_eq!(
            found("sh", "/no/such/folder:/bin:/usr/bin"),
            Path::new("/bin/sh")
        );
        assert_eq!(found("./sh", "/bin"), Path::new("./sh"));
        assert_eq!(
            found("no-such-program-at-all", "/bin"),
            Path::new("no-such-program-at-all")
        );
        // The content of a relative folder is known only when the job starts.
        assert_eq!(found("sh", "folder:/bin"), Path::new("sh"));
        assert_eq!(found("sh", ":/bin"), Path::new("sh"));
        // A folder of that name is not it.
        assert_eq!(found("bin", "/usr:/"), Path::new("bin"));
        assert_eq!(locate("sh", None), Path::new("sh"));
    }
}
