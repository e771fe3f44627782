//! From text to settings, without any I/O: what it depends on comes as arguments.

use std::{collections::BTreeMap, io, path::Path};

use super::{
    Settings, Surroundings,
    daemon::{self, Inputs},
    problem::{Place, Problem, Problems},
    schema::{Document, Finished},
};

/// A configuration without a problem.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Loaded {
    /// What it says.
    pub settings: Settings,
    /// What is no error, but hardly meant.
    pub warnings: Vec<Problem>,
    origin: Place,
    places: BTreeMap<String, Place>,
}

impl Loaded {
    /// Where a key was given: `pools.thumbnails.runner.command`. The file where it was not.
    pub fn place(&self, key: &str) -> Place {
        self.places.get(key).unwrap_or(&self.origin).clone()
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
