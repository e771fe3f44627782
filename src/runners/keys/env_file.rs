//! `env_file`: variables for jobs from a separate file.
//!
//! systemd, `docker run` and `docker compose` read such files, and each reads some lines differently. This module
//! accepts only lines that all three read in the same way. It refuses other lines: a password that silently differs is
//! worse than an error.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::config::{
    inputs::{ConfigInputs, why},
    problem::{Place, Problem},
    schema::{FilePath, Key, Table, shown_text},
};

/// Reads the file that the key names. Also returns the key. A later line overrides an earlier one.
pub(super) fn env_file(
    runner: &mut Table<'_, '_>,
    inputs: &ConfigInputs<'_>,
) -> (Key<Option<PathBuf>>, BTreeMap<String, String>) {
    let key = runner.optional(
        "env_file",
        "File of variables for the jobs: lines of NAME=value, and # comments. A value is used without the spaces \
        around it, and must not be in quotes. `env` overrides it. Read together with the configuration, at the start \
        and on HUP.",
        FilePath,
        "\"/etc/tidegate/thumbnails.env\"",
    );
    let Some(path) = &key.value else {
        return (key, BTreeMap::new());
    };
    let bytes = match (inputs.read_file)(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let found = format!("{} ({})", shown_text(&path.to_string_lossy()), why(&error));
            let fix = "write the path of a file that can be read";
            runner.problem(Problem::new(
                key.place.clone(),
                key.path.clone(),
                found,
                fix,
            ));
            return (key, BTreeMap::new());
        }
    };
    let mut variables = BTreeMap::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        match variable(line) {
            Ok(Some((name, value))) => {
                variables.insert(name.to_owned(), value.to_owned());
            }
            Ok(None) => {}
            Err(wrong) => {
                let place = line_of(path, number + 1, wrong.column);
                runner.problem(Problem::new(
                    place,
                    key.path.clone(),
                    wrong.found,
                    wrong.fix,
                ));
            }
        }
    }
    (key, variables)
}

fn line_of(path: &Path, line: usize, column: usize) -> Place {
    Place::Line {
        file: path.to_string_lossy().into_owned(),
        line,
        column,
    }
}

/// The problem of a line. Never contains any of its text, which may be a secret or a part of one.
#[derive(Debug, PartialEq, Eq)]
struct LineProblem {
    column: usize,
    found: &'static str,
    fix: &'static str,
}

fn variable(line: &[u8]) -> Result<Option<(&str, &str)>, LineProblem> {
    let wrong = |column, found, fix| Err(LineProblem { column, found, fix });
    let Ok(line) = str::from_utf8(line) else {
        return wrong(1, "bytes that are not UTF-8", "write the file as UTF-8");
    };
    let text = line.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let start = 1 + line.chars().take_while(|c| c.is_whitespace()).count();
    let Some((name, value)) = text.split_once('=') else {
        return wrong(start, "a line without =", "write NAME=value, in one line");
    };
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if !is_name(name) {
        return wrong(
            start,
            "something before = that is not a variable's name",
            "write NAME=value, with letters, digits and _ in the name, and no `export`",
        );
    }
    let value = value.trim_start();
    let column = start + text.chars().count() - value.chars().count();
    if value.contains('\0') {
        return wrong(column, "a NUL", "write it without the NUL");
    }
    if value.starts_with(['"', '\'']) {
        return wrong(
            column,
            "a value in quotes",
            "write it without quotes, or into `env`: some readers make the quotes a part of the value",
        );
    }
    if value.ends_with('\\') {
        return wrong(
            column,
            "a value that ends with a backslash",
            "write it in one line, or into `env`",
        );
    }
    Ok(Some((name, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_all_readers_of_such_files_accept() {
        let table = [
            ("A=1", Some(("A", "1"))),
            ("  A_b2 =", None),
            ("A=", Some(("A", ""))),
            ("A= b = c # d \r", Some(("A", "b = c # d"))),
            ("A={\"json\": true}", Some(("A", "{\"json\": true}"))),
            ("\t_A=ä", Some(("_A", "ä"))),
        ];
        for (line, expected) in table {
            assert_eq!(
                variable(line.as_bytes()).ok().flatten(),
                expected,
                "{line:?}"
            );
        }
        for line in ["", "  \r", "# A=1", "  #"] {
            assert_eq!(variable(line.as_bytes()), Ok(None), "{line:?}");
        }
    }

    #[test]
    fn refuses_other_lines_and_does_not_quote_them() {
        let table: [(&[u8], usize, &str); 9] = [
            (b"hunter2", 1, "a line without ="),
            (b"  hunter2", 3, "a line without ="),
            (
                b"; A=1",
                1,
                "something before = that is not a variable's name",
            ),
            (
                b"export A=1",
                1,
                "something before = that is not a variable's name",
            ),
            (b"A=\"hunter2\"", 3, "a value in quotes"),
            (b" A= 'hunter2", 5, "a value in quotes"),
            (b"A=hunter2\\", 3, "a value that ends with a backslash"),
            (b"A=\xff", 1, "bytes that are not UTF-8"),
            (b"A=a\0b", 3, "a NUL"),
        ];
        for (line, column, found) in table {
            let wrong = variable(line).expect_err("wrong");
            assert_eq!((wrong.column, wrong.found), (column, found), "{line:?}");
        }
    }
}
