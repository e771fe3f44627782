//! Checks whether the program of a command exists and can be run.

use std::{
    env,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

use super::ExecSettings;
use crate::config::{problem::Refuse, schema::quoted};

/// The directories in which a program is searched if no PATH is set.
const FALLBACK_PATH: &str = "/bin:/usr/bin";

/// Reports a directory or a program that does not exist.
pub(crate) fn inspect(exec: &ExecSettings, refuse: &mut Refuse<'_>) {
    if let Some(directory) = exec.working_dir.as_deref().filter(|path| !path.is_dir()) {
        let found = format!(
            "{:?}, which is not a directory",
            directory.to_string_lossy()
        );
        refuse(
            "working_dir",
            found,
            "create it, or write another directory".to_owned(),
        );
        // A program relative to a missing directory is missing too. One problem is enough.
        return;
    }
    if let Err(what) = find_program(exec) {
        let program = exec.command.first().map_or("", String::as_str);
        let fix = match one_word(exec) {
            Some(words) => format!("write an array of words: {words}"),
            None => what.fix().to_owned(),
        };
        refuse("command", format!("{program:?}, {}", what.found()), fix);
    }
}

/// Whether the program of a command can be run.
pub(super) fn is_there(exec: &ExecSettings) -> bool {
    find_program(exec).is_ok()
}

/// The command as an array of words, if it is one string with several words.
fn one_word(exec: &ExecSettings) -> Option<String> {
    let [line] = exec.command.as_slice() else {
        return None;
    };
    let words: Vec<_> = line.split_whitespace().map(quoted).collect();
    (words.len() > 1).then(|| format!("[{}]", words.join(", ")))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unusable {
    Absent,
    OutsidePath,
    WithoutPermission,
}

impl Unusable {
    fn found(self) -> &'static str {
        match self {
            Self::Absent => "which does not exist",
            Self::OutsidePath => "which is not in PATH",
            Self::WithoutPermission => "which is not executable",
        }
    }

    fn fix(self) -> &'static str {
        match self {
            Self::Absent => "write the path of a program",
            Self::OutsidePath => "install it, or write its full path",
            Self::WithoutPermission => "write a program, or make it executable (chmod +x)",
        }
    }
}

/// Searches the program as the kernel and the C library do when the job starts. A name with a slash is relative to the
/// job's directory. A name without a slash is searched in the job's PATH.
fn find_program(exec: &ExecSettings) -> Result<PathBuf, Unusable> {
    let Some(program) = exec.command.first() else {
        return Err(Unusable::Absent);
    };
    let base = exec.working_dir.clone().unwrap_or_default();
    if program.contains('/') {
        let path = base.join(program);
        return match is_executable(&path) {
            true => Ok(path),
            false if path.exists() => Err(Unusable::WithoutPermission),
            false => Err(Unusable::Absent),
        };
    }
    let search = match exec.env.get("PATH") {
        Some(path) => path.into(),
        None => env::var_os("PATH").unwrap_or_else(|| FALLBACK_PATH.into()),
    };
    let candidates: Vec<_> = env::split_paths(OsStr::from_bytes(search.as_bytes()))
        .map(|directory| base.join(directory).join(program))
        .collect();
    match candidates.iter().find(|path| is_executable(path)) {
        Some(path) => Ok(path.clone()),
        None if candidates.iter().any(|path| path.is_file()) => Err(Unusable::WithoutPermission),
        None => Err(Unusable::OutsidePath),
    }
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}
