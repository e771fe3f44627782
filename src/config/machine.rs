//! What a configuration needs of the machine that it is to run on: programs, directories and sockets.

use std::{
    env,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

use super::{
    EngineAddress, ExecSettings, Loaded, RunnerSettings, Settings, places,
    problem::{Place, Problem, Problems},
    schema::quoted,
    scripts,
};

/// Where a program is looked for without any PATH.
const FALLBACK_PATH: &str = "/bin:/usr/bin";

impl Loaded {
    /// What this machine does not have for these settings: a program that is not there, or cannot be run. Looks at
    /// the file system, and never runs anything.
    ///
    /// Not part of loading, for a daemon starts all the same: a pool whose runners cannot start backs off until
    /// they can.
    pub fn inspect_machine(&self) -> Problems {
        Problems::new(inspect(&self.settings, &|key| self.place(key)))
    }

    /// What the daemon cannot write to or listen on here, so that it would not start: its state directory, its socket,
    /// its address, its events file. Makes nothing.
    pub fn inspect_places(&self) -> Problems {
        Problems::new(places::unusable(&self.settings, &|key| self.place(key)))
    }

    /// What is no error on this machine, but hardly meant: a script that is not there, a secret that everybody may read.
    pub fn suspicions(&self) -> Problems {
        let place_of = |key: &str| self.place(key);
        let mut found = places::exposed(&self.secrets, &place_of);
        for config in &self.settings.pools {
            let exec = config.runner.process();
            if let Some(script) = exec.and_then(scripts::missing_script) {
                let key = format!("pools.{}.runner.command", config.pool.name);
                let found_there = format!("{script:?}, which is not there");
                let fix =
                    "write the script's whole path, or set working_dir: as it is, each job fails";
                found.push(Problem::new(self.place(&key), key, found_there, fix));
            }
        }
        Problems::new(found)
    }
}

/// What is missing here. `place_of` tells where a key was given.
fn inspect(settings: &Settings, place_of: &dyn Fn(&str) -> Place) -> Vec<Problem> {
    let mut problems = Vec::new();
    for config in &settings.pools {
        let mut refuse = |key: &str, found: String, fix: &str| {
            let key = format!("pools.{}.runner.{key}", config.pool.name);
            problems.push(Problem::new(place_of(&key), key, found, fix));
        };
        // The socket alone: what an engine has it says itself, and an image may come later.
        if let RunnerSettings::Container(container) = &config.runner
            && let Some(EngineAddress::Unix(socket)) = &container.engine
            && !socket.exists()
        {
            let found = format!("unix://{}, where no socket is", socket.display());
            refuse("engine", found, "start the engine, or write where it is");
        }
        let Some(exec) = config.runner.process() else {
            continue;
        };
        if let Some(directory) = exec.working_dir.as_deref().filter(|path| !path.is_dir()) {
            let found = format!("{:?}, where no directory is", directory.to_string_lossy());
            refuse("working_dir", found, "create it, or write another");
            // Where the job would start is not there, so a program beside it cannot be either.
            continue;
        }
        if let Err(what) = find_program(exec) {
            let program = exec.command.first().map_or("", String::as_str);
            let fix = match one_word(exec) {
                Some(words) => format!("write an array of words: {words}"),
                None => what.fix().to_owned(),
            };
            refuse("command", format!("{program:?}, {}", what.found()), &fix);
        }
    }
    problems
}

/// A command whose words are all in one, as they most likely were meant.
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
            Self::Absent => "which is not there",
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

/// Looks the program up as the kernel and the C library will when the job starts: with a slash from the job's own
/// directory, without one in the job's own PATH.
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
