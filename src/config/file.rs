//! The thin layer of I/O: which file, its text, the environment around it, and the files that it names.

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    Settings,
    daemon::{self, Inputs},
    machine,
    problem::{NotFound, Place, Problem, Problems},
    schema::{Document, Finished},
};

/// Most that is read of any file. Nothing that a configuration is or names comes near.
const FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Where a configuration comes from. Kept by the daemon, so that it can read the same one again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    file: PathBuf,
}

impl Source {
    /// The file, as it was named.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl From<PathBuf> for Source {
    fn from(file: PathBuf) -> Self {
        Self { file }
    }
}

/// What the machine says about itself, for defaults. A value, so that reading a configuration stays pure.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// `$AMQP_URL`: the broker where the configuration names none.
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
    /// Those of this process.
    pub fn of_process() -> Self {
        // A relative path here is an accident, to be ignored (XDG base directory specification).
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

    /// The command line's socket, where the configuration names none.
    pub(super) fn socket(&self) -> PathBuf {
        let directory = match (&self.runtime_directory, &self.xdg_runtime_dir) {
            (Some(directory), _) => directory.clone(),
            (None, Some(directory)) => directory.join("tidegate"),
            (None, None) if self.uid == 0 => "/run/tidegate".into(),
            // Whoever listens there must make sure that the directory is its own.
            (None, None) => format!("/tmp/tidegate-{}", self.uid).into(),
        };
        directory.join("tidegate.sock")
    }

    /// Lock and recordings, where the configuration names no directory.
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

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings")
            .field("socket", &self.socket())
            .field("state_dir", &self.state_dir())
            .field("uid", &self.uid)
            .finish_non_exhaustive()
    }
}

/// A configuration without a problem.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Loaded {
    /// What it says.
    pub settings: Settings,
    /// What is no error, but hardly meant.
    pub warnings: Vec<Problem>,
    origin: Place,
    places: std::collections::BTreeMap<String, Place>,
}

impl Loaded {
    /// What this machine does not have for these settings: a program that is not there, or cannot be run. Looks at
    /// the file system, and never runs anything.
    ///
    /// Not part of loading, for a daemon starts all the same: a pool whose runners cannot start backs off until
    /// they can.
    pub fn inspect_machine(&self) -> Problems {
        Problems::new(machine::inspect(&self.settings, &|key| self.place(key)))
    }

    /// Where a key was given: `pools.thumbnails.runner.command`. The file where it was not.
    pub fn place(&self, key: &str) -> Place {
        self.places.get(key).unwrap_or(&self.origin).clone()
    }
}

/// Finds the configuration file: `explicit`, else `$TIDEGATE_CONFIG`, else `./tidegate.toml`, else
/// `/etc/tidegate/tidegate.toml`. One that is named is taken as it is, for [`load`] to say what is wrong with it.
///
/// # Errors
/// None is named and none is there.
pub fn find(explicit: Option<&Path>) -> Result<Source, NotFound> {
    let candidates = ["tidegate.toml", "/etc/tidegate/tidegate.toml"];
    find_among(
        explicit,
        env::var_os("TIDEGATE_CONFIG"),
        &candidates.map(Path::new),
    )
}

pub(super) fn find_among(
    explicit: Option<&Path>,
    variable: Option<OsString>,
    candidates: &[&Path],
) -> Result<Source, NotFound> {
    let named = explicit
        .map(Path::to_owned)
        .or_else(|| variable.filter(|path| !path.is_empty()).map(PathBuf::from));
    if let Some(file) = named {
        return Ok(file.into());
    }
    candidates
        .iter()
        .find(|path| path.is_file())
        .map(|path| path.to_path_buf().into())
        .ok_or_else(|| NotFound {
            tried: candidates.iter().map(|path| path.to_path_buf()).collect(),
        })
}

/// Reads a configuration: its file, the environment of this process, and the files that it names.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(source: &Source) -> Result<Loaded, Problems> {
    let origin = source.file.to_string_lossy();
    let refuse = |found: String, fix: &str| {
        let place = Place::File {
            file: origin.as_ref().into(),
        };
        Problems::new(vec![Problem::new(place, "", found, fix)])
    };
    let bytes = read_file(&source.file)
        .map_err(|error| refuse(why(&error), "name a configuration file that can be read"))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let found = format!(
            "a byte that is not UTF-8 at offset {}",
            error.utf8_error().valid_up_to()
        );
        refuse(found, "write the file as UTF-8")
    })?;
    let (environment, unreadable) = environment();
    match parse(
        &text,
        &origin,
        &environment,
        &Surroundings::of_process(),
        &read_file,
    ) {
        result if unreadable.is_empty() => result,
        Ok(_) => Err(Problems::new(unreadable)),
        Err(problems) => {
            let mut problems = problems.into_vec();
            problems.extend(unreadable);
            Err(Problems::new(problems))
        }
    }
}

/// Reads a configuration from its text. Does no I/O of its own: `read_file` stands for the files that keys name.
///
/// `origin` is what messages call the file. Of `environment`, the variables that stand for keys are used.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(
    text: &str,
    origin: &str,
    environment: &[(String, String)],
    surroundings: &Surroundings,
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Loaded, Problems> {
    let (settings, finished) = read(text, origin, environment, surroundings, read_file);
    match finished.problems.is_empty() {
        true => Ok(Loaded {
            settings,
            warnings: Problems::new(finished.warnings).into_vec(),
            origin: Place::File {
                file: origin.into(),
            },
            places: finished.places,
        }),
        false => Err(Problems::new(finished.problems)),
    }
}

/// A configuration file of all keys with their docs and defaults. Itself a good configuration.
pub fn reference() -> String {
    let example = "[pools.thumbnails.runner]\ncommand = [\"python3\", \"thumb.py\"]\n";
    let nothing = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let (_, finished) = read(example, "", &[], &Surroundings::default(), &nothing);
    finished.reference
}

fn read(
    text: &str,
    origin: &str,
    environment: &[(String, String)],
    surroundings: &Surroundings,
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> (Settings, Finished) {
    let inputs = Inputs {
        surroundings,
        read_file,
    };
    Document::read(text, origin, environment, |root| {
        daemon::settings(root, &inputs)
    })
}

/// What stood in the way of reading a file.
pub(super) fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "a file that may not be read".to_owned(),
        io::ErrorKind::IsADirectory => "a directory".to_owned(),
        kind => kind.to_string(),
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The environment's text, and the variables of ours that are none.
fn environment() -> (Vec<(String, String)>, Vec<Problem>) {
    let mut variables = Vec::new();
    let mut problems = Vec::new();
    for (name, value) in env::vars_os() {
        let Ok(name) = name.into_string() else {
            continue;
        };
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) if name.starts_with("TIDEGATE_") && name.contains("__") => {
                let place = Place::Variable { variable: name };
                problems.push(Problem::new(
                    place,
                    "",
                    "bytes that are not UTF-8",
                    "write it as UTF-8",
                ));
            }
            Err(_) => {}
        }
    }
    (variables, problems)
}
