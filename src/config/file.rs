//! The thin layer of I/O: which file, its text, the environment around it, and the files that it names.

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
    let (loaded, problems) = load_all(source)?;
    match problems.is_empty() {
        true => Ok(loaded),
        false => Err(Problems::new(problems)),
    }
}

/// Where the command line finds the supervisor of a configuration, also of a bad one: what it says, as far as that can be
/// read, and all that is wrong with it.
pub fn socket_of(source: &Source) -> (Option<PathBuf>, Option<Problems>) {
    match load_all(source) {
        Ok((loaded, problems)) => {
            let socket = Some(loaded.settings.http.socket);
            (
                socket,
                (!problems.is_empty()).then(|| Problems::new(problems)),
            )
        }
        Err(problems) => (None, Some(problems)),
    }
}

/// Reads a configuration as [`load`] does, and looks at once at what this machine cannot give it: a program that is not
/// there, limits beyond our rights. Changes nothing.
///
/// The configuration comes back unless something is wrong with it itself.
pub fn examine(source: &Source) -> (Option<Loaded>, Problems) {
    let (loaded, mut problems) = match load_all(source) {
        Ok(all) => all,
        Err(problems) => return (None, problems),
    };
    let is_good = problems.is_empty();
    let lacks = loaded.lacks_beside(&problems);
    problems.extend(lacks);
    (Some(loaded).filter(|_| is_good), Problems::new(problems))
}

/// What a configuration comes to, with its problems.
///
/// # Errors
/// There is no text to read.
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
