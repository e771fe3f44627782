//! The inputs of a configuration besides its text: values of this machine, and the files that keys name.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    problem::{Place, Problem},
    schema::{Key, Table, shown_text},
    surroundings::Surroundings,
    url::BrokerUrl,
};

/// The inputs of a configuration besides its text.
pub(crate) struct ConfigInputs<'i> {
    pub(crate) surroundings: &'i Surroundings,
    pub(crate) read_file: &'i dyn Fn(&Path) -> io::Result<Vec<u8>>,
}

/// The text of the file that a key names. `None` if the key names no file, or if the file cannot be read, which is
/// reported. Bytes that are not UTF-8 become replacement characters, because a certificate may contain any bytes.
pub(crate) fn read_text(
    table: &mut Table<'_, '_>,
    key: &Key<Option<PathBuf>>,
    inputs: &ConfigInputs<'_>,
) -> Option<String> {
    let path = key.value.as_deref()?;
    match (inputs.read_file)(path) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => {
            let found = format!("{} ({})", shown_text(&path.to_string_lossy()), why(&error));
            let fix = "write the path of a file that can be read";
            table.problem(Problem::new(
                key.place.clone(),
                key.path.clone(),
                found,
                fix,
            ));
            None
        }
    }
}

/// The key that is used, of several for the same thing: its index, or `None` if none is given. A variable overrides the
/// file. Refuses two at the same time.
pub(crate) fn chosen(table: &mut Table<'_, '_>, keys: &[Key<()>]) -> Option<usize> {
    let is_variable = |key: &Key<()>| matches!(key.place, Place::Variable { .. });
    let given = || keys.iter().enumerate().filter(|(_, key)| key.is_given());
    let by_variable = given().any(|(_, key)| is_variable(key));
    let mut level = given().filter(|(_, key)| is_variable(key) == by_variable);
    let (index, used) = level.next()?;
    let name = used.path.rsplit('.').next().unwrap_or_default();
    for (_, other) in level {
        table.refuse(other, format!("remove it, or remove {name}"));
    }
    Some(index)
}

/// Whether the file that a key names is used, and not the URL of another key. Refuses both at the same time.
pub(crate) fn takes_file(
    table: &mut Table<'_, '_>,
    url: &Key<Option<BrokerUrl>>,
    url_file: &Key<Option<PathBuf>>,
) -> bool {
    let takes_file = chosen(table, &[url.bare(), url_file.bare()]) == Some(1);
    if takes_file {
        table.holds_secret(url_file);
    }
    takes_file
}

/// The reason why a file could not be read.
pub(crate) fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "a file that may not be read".to_owned(),
        io::ErrorKind::IsADirectory => "a directory".to_owned(),
        kind => kind.to_string(),
    }
}
