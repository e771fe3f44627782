//! The inputs of a configuration besides its text: values of this machine, and the files that keys name.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    problem::{Place, Problem},
    schema::{Key, KeyPresence, Table, shown_text},
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

/// Whether the file that a key names is used, and not the URL of another key. Refuses both at the same time.
pub(crate) fn takes_file(
    table: &mut Table<'_, '_>,
    url: &Key<Option<BrokerUrl>>,
    url_file: &Key<Option<PathBuf>>,
) -> bool {
    let is_variable = |place: &Place| matches!(place, Place::Variable { .. });
    let both = url.given != KeyPresence::Absent && url_file.given != KeyPresence::Absent;
    if both && is_variable(&url.place) == is_variable(&url_file.place) {
        let (_, other) = url.path.rsplit_once('.').unwrap_or(("", &url.path));
        table.refuse(url_file, format!("remove it, or remove {other}"));
    }
    let takes_file = url_file.given != KeyPresence::Absent
        && (url.given == KeyPresence::Absent
            || (is_variable(&url_file.place) && !is_variable(&url.place)));
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
