//! The thin layer of I/O: finds the file, and reads its text, the environment, and the files that it names.

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    inputs::why,
    parse::{Loaded, parse_all},
    problem::{NotFound, Place, Problem, Problems},
    surroundings::Surroundings,
};

/// Largest size of a file that is read, in bytes. Valid configurations and the files that they name are far smaller.
const FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The source of a configuration. The daemon keeps it to read the same configuration again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    file: PathBuf,
}

impl Source {
    /// The file, as the user named it.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl From<PathBuf> for Source {
    fn from(file: PathBuf) -> Self {
        Self { file }
    }
}

/// Finds the configuration file: `explicit`, else `$TIDEGATE_CONFIG`, else `./tidegate.toml`, else
/// `/etc/tidegate/tidegate.toml`. A file that is named explicitly is not checked here: [`load`] reports its problems.
///
/// # Errors
/// No file is named, and none of the default files exists.
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
/// All problems of the configuration.
pub fn load(source: &Source) -> Result<Loaded, Problems> {
    let (loaded, problems) = load_all(source)?;
    match problems.is_empty() {
        true => Ok(loaded),
        false => Err(Problems::new(problems)),
    }
}

/// The socket that a configuration names for the command line, and all problems of the configuration. Without a name,
/// the socket depends on the supervisor's environment: see [`Surroundings::sockets`]. Works for an invalid
/// configuration too, if the socket's key can be read.
pub fn socket_of(source: &Source) -> (Option<PathBuf>, Option<Problems>) {
    match load_all(source) {
        Ok((loaded, problems)) => {
            let is_named = loaded.is_given("http.socket");
            (
                is_named.then_some(loaded.settings.http.socket),
                (!problems.is_empty()).then(|| Problems::new(problems)),
            )
        }
        Err(problems) => (None, Some(problems)),
    }
}

/// Reads a configuration as [`load`] does, and also reports what this machine lacks for it: a missing program, limits
/// beyond our rights. Changes nothing.
///
/// Returns the configuration unless the configuration itself is invalid.
pub fn examine(source: &Source) -> Examined {
    let (loaded, mut problems) = match load_all(source) {
        Ok(all) => all,
        Err(problems) => {
            return Examined {
                loaded: None,
                problems,
                warnings: Problems::new(Vec::new()),
            };
        }
    };
    let is_good = problems.is_empty();
    let mut warnings = match is_good {
        true => loaded.warnings.clone(),
        // They compare keys, and a key with a problem has its default.
        false => Vec::new(),
    };
    warnings.extend(loaded.suspicions_beside(&problems));
    let lacks = loaded.lacks_beside(&problems);
    problems.extend(lacks);
    Examined {
        loaded: Some(loaded).filter(|_| is_good),
        problems: Problems::new(problems),
        warnings: Problems::new(warnings),
    }
}

/// The result of [`examine`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Examined {
    /// The configuration, unless it is invalid itself.
    pub loaded: Option<Loaded>,
    /// The problems of the configuration and of this machine.
    pub problems: Problems,
    /// Valid settings that are probably mistakes.
    pub warnings: Problems,
}

/// Reads a configuration and its problems.
///
/// # Errors
/// The text cannot be read.
fn load_all(source: &Source) -> Result<(Loaded, Vec<Problem>), Problems> {
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
    let around = Surroundings::of_process();
    let (loaded, mut problems) = parse_all(&text, &origin, &environment, &around, &read_file);
    problems.extend(unreadable);
    Ok((loaded, problems))
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The environment as text, and a problem for each variable of ours that is not UTF-8.
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
