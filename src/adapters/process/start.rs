//! Starting a pool's command; and why it could not be started, in words that say what to mend.

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
use tokio::process::Command;

use super::{
    child::{Pipes, Process},
    environment::Environment,
};
use crate::{config::ExecSettings, runner::StartError};

/// A pool's command, found and ready to be started.
#[derive(Debug)]
pub(in crate::adapters) struct Launch<'a> {
    settings: &'a ExecSettings,
    environment: &'a Environment,
    program: &'a str,
    file: Cow<'a, Path>,
}

impl<'a> Launch<'a> {
    /// Looks for the command's program.
    pub(in crate::adapters) fn new(
        settings: &'a ExecSettings,
        environment: &'a Environment,
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
            program,
            file: locate(program, environment.path()),
        })
    }

    /// Starts it, with these variables besides the pool's.
    pub(in crate::adapters) fn spawn<'v>(
        &self,
        variables: impl IntoIterator<Item = (&'static str, Cow<'v, str>)>,
    ) -> io::Result<(Process, Pipes)> {
        let mut command = Command::new(self.file.as_os_str());
        command
            .arg0(self.program)
            .args(&self.settings.command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(folder) = &self.settings.working_dir {
            command.current_dir(folder);
        }
        self.environment.apply(&mut command);
        for (name, value) in variables {
            command.env(name, value.as_ref());
        }
        Process::spawn(&mut command)
    }

    /// Says why it could not be started.
    pub(in crate::adapters) fn error(&self, error: io::Error) -> StartError {
        let folder = self.settings.working_dir.as_deref();
        start_error(self.program, &self.file, folder, error)
    }
}

/// The program's file, found as a shell would: a name without a slash is looked for along `path`.
///
/// The search is ours because the standard library gives up the fast way to spawn (`posix_spawn`) where it has
/// to search a `PATH` that is not its own. What is not found stays a name, and the system says what is wrong.
fn locate<'a>(program: &'a str, path: Option<&OsStr>) -> Cow<'a, Path> {
    if !program.contains('/')
        && let Some(path) = path
    {
        for folder in path.as_bytes().split(|byte| *byte == b':') {
            let folder = Path::new(OsStr::from_bytes(folder));
            // A relative one depends on a folder that is not ours yet; finding such a one is left to the system.
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

/// Explains `error`, which starting `file` (as `program` in the pool's command) in `working_dir` met.
fn start_error(
    program: &str,
    file: &Path,
    working_dir: Option<&Path>,
    error: io::Error,
) -> StartError {
    let cause = explain(file, working_dir, &error);
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
    error: &io::Error,
) -> Option<Cow<'static, str>> {
    // The system's answer is the same for the folder and for the program.
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
        Errno::EACCES if is_executable(&on_disk) => match interpreter(&on_disk) {
            Some(interpreter) => {
                format!("its interpreter {} may not be run", interpreter.display()).into()
            }
            None => "may not be run by this user, from this place".into(),
        },
        Errno::EACCES => "is not executable".into(),
        Errno::ENOEXEC => {
            "is no program that this system can run (a script without a `#!` line?)".into()
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

/// What the file's `#!` line names, where it has one.
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
    fn explains_what_the_system_lacks() {
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
            let told = start_error("true", Path::new("/bin/true"), None, error);
            assert_eq!(told.what, expected);
            assert!(told.source.is_some());
        }
    }

    #[test]
    fn looks_along_the_path_for_a_name_only() {
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
        // What a relative folder holds is known only where the job starts.
        assert_eq!(found("sh", "folder:/bin"), Path::new("sh"));
        assert_eq!(found("sh", ":/bin"), Path::new("sh"));
        // A folder of that name is not it.
        assert_eq!(found("bin", "/usr:/"), Path::new("bin"));
        assert_eq!(locate("sh", None), Path::new("sh"));
    }
}
