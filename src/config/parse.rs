//! From text to settings, without I/O: all inputs are arguments.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use super::{
    daemon,
    inputs::ConfigInputs,
    problem::{Place, Problem, Problems},
    schema::{self, Described, Finished},
    surroundings::Surroundings,
    whole::Settings,
};
use crate::runners::{KINDS, RunnerKind};

/// A valid configuration.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Warnings: values that are valid, but most likely a mistake.
    pub warnings: Vec<Problem>,
    origin: Place,
    places: BTreeMap<String, Place>,
    /// Files that hold secrets, with the keys that name them.
    pub(super) secrets: Vec<(String, PathBuf)>,
}

impl Loaded {
    /// The problems of this machine with these settings, besides the configuration's own problems. Leaves out keys
    /// whose values cannot be trusted: all keys if the text is not TOML, and keys that depend on a key with a problem.
    pub(super) fn lacks_beside(&self, problems: &[Problem]) -> Vec<Problem> {
        let mut lacks = self.inspect_machine().into_vec();
        lacks.extend(self.inspect_limits(None).into_vec());
        lacks.extend(self.inspect_places().into_vec());
        self.retain_beside(problems, lacks)
    }

    /// The same for the warnings about this machine.
    pub(super) fn suspicions_beside(&self, problems: &[Problem]) -> Vec<Problem> {
        self.retain_beside(problems, self.suspicions().into_vec())
    }

    fn retain_beside(&self, problems: &[Problem], mut found: Vec<Problem>) -> Vec<Problem> {
        let is_wrong = |key: &str| problems.iter().any(|problem| problem.key == key);
        let is_meant = |lack: &Problem| {
            let Some((pool, key)) = lack.key.split_once(".runner.") else {
                return !is_wrong(&lack.key);
            };
            let beside = |key: &str| is_wrong(&format!("{pool}.runner.{key}"));
            // A program's path may be relative to the working directory, and the kind decides whether a value is a
            // path.
            let is_adrift = beside("kind") || (key == "command" && beside("working_dir"));
            self.places.contains_key(&lack.key) && !is_wrong(&lack.key) && !is_adrift
        };
        if is_wrong("") {
            return Vec::new();
        }
        found.retain(|found| problems.is_empty() || is_meant(found));
        found
    }

    /// Whether the file or a variable has this key.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// Where a key was given: `pools.thumbnails.runner.command`. The file if the key was not given.
    pub fn place(&self, key: &str) -> Place {
        self.places.get(key).unwrap_or(&self.origin).clone()
    }
}

/// Reads a configuration from its text. Does no I/O of its own: `read_file` reads the files that keys name.
///
/// `origin` is the name of the file in messages. In `environment`, only the variables that set keys are used.
///
/// # Errors
/// All problems of the configuration.
pub fn parse(
    text: &str,
    origin: &str,
    environment: &[(String, String)],
    surroundings: &Surroundings,
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Loaded, Problems> {
    let (loaded, problems) = parse_all(text, origin, environment, surroundings, read_file);
    match problems.is_empty() {
        true => Ok(loaded),
        false => Err(Problems::new(problems)),
    }
}

/// Like [`parse`], but also returns the settings if there are problems. A key with a problem has its default.
pub(super) fn parse_all(
    text: &str,
    origin: &str,
    environment: &[(String, String)],
    surroundings: &Surroundings,
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> (Loaded, Vec<Problem>) {
    parse_with(&KINDS, text, origin, environment, surroundings, read_file)
}

/// The same with other kinds of runner than the built-in ones.
pub(crate) fn parse_with(
    kinds: &[&'static RunnerKind],
    text: &str,
    origin: &str,
    environment: &[(String, String)],
    surroundings: &Surroundings,
    read_file: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> (Loaded, Vec<Problem>) {
    let inputs = ConfigInputs {
        surroundings,
        read_file,
    };
    let (settings, finished) = read(text, origin, environment, &inputs, kinds);
    let loaded = Loaded {
        settings,
        warnings: Problems::new(finished.warnings).into_vec(),
        origin: Place::File {
            file: origin.into(),
        },
        places: finished.places,
        secrets: finished.secrets,
    };
    (loaded, finished.problems)
}

/// A configuration file of all keys with their docs and defaults. It is a valid configuration itself.
pub fn reference() -> String {
    schema::page(&described())
}

/// All tables and keys, in the order of [`reference()`](crate::config::reference). The pool in it is named `thumbnails`.
pub fn described() -> Vec<Described> {
    let example = "[pools.thumbnails.runner]\ncommand = [\"python3\", \"thumb.py\"]\n";
    let nothing = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let inputs = ConfigInputs {
        surroundings: &Surroundings::default(),
        read_file: &nothing,
    };
    let (_, finished) = read(example, "", &[], &inputs, &KINDS);
    finished.described
}

/// The variable of the environment that sets a key: `TIDEGATE_BROKER__URL` for `broker.url`.
pub fn variable_of(key: &str) -> String {
    schema::variable_of(key)
}

fn read(
    text: &str,
    origin: &str,
    environment: &[(String, String)],
    inputs: &ConfigInputs<'_>,
    kinds: &[&'static RunnerKind],
) -> (Settings, Finished) {
    schema::read(text, origin, environment, |root| {
        daemon::settings(root, inputs, kinds)
    })
}
