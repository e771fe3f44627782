//! Problems of a configuration: the place, the key, what was found, and what to write instead.
//!
//! Nothing here stops at the first problem, and nothing here shows a credential: the code that makes a problem supplies
//! the text to show.

use std::{fmt, path::PathBuf};

use serde::Serialize;
use thiserror::Error;
use tidegate_core::text::counted;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Place {
    /// The whole file, for a problem such as a missing table.
    File {
        /// The file, as the user named it.
        file: String,
    },
    /// A position in the file.
    Line {
        /// The file, as the user named it.
        file: String,
        /// Line: 1 is the first.
        line: usize,
        /// Column in characters: 1 is the first.
        column: usize,
    },
    /// An environment variable.
    Variable {
        /// Its name.
        variable: String,
    },
    /// An argument of a command.
    Argument {
        /// The argument, as it was written.
        argument: String,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file } => f.write_str(file),
            Self::Line { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Variable { variable } => f.write_str(variable),
            Self::Argument { argument } => write!(f, "{}", crate::escape::Escaped(argument)),
        }
    }
}

/// One problem of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Problem {
    /// The place.
    #[serde(flatten)]
    pub place: Place,
    /// The key with all its tables: `pools.thumbnails.policy.max`. Empty if the text is not TOML.
    pub key: String,
    /// The text that was found, without credentials and with control characters escaped.
    pub found: String,
    /// What to write instead, as an instruction to the reader.
    pub fix: String,
}

impl Problem {
    /// A problem at a key, with the text that was found and what to write instead.
    pub fn new(
        place: Place,
        key: impl Into<String>,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            place,
            key: key.into(),
            found: found.into(),
            fix: fix.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "found {}, {}", self.found, self.fix)
    }
}

/// All problems of a configuration: first in the order of the file, then of the variables.
///
/// `Display` writes one problem per line and, last, their number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Error)]
#[serde(transparent)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| (&a.place, &a.key).cmp(&(&b.place, &b.key)));
        Self(problems)
    }

    /// Each problem.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// The number of problems.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no problem. Never true in an error.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The problems themselves.
    pub fn into_vec(self) -> Vec<Problem> {
        self.0
    }
}

impl FromIterator<Problem> for Problems {
    fn from_iter<I: IntoIterator<Item = Problem>>(problems: I) -> Self {
        Self::new(problems.into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
        }
        f.write_str(&counted(self.0.len(), "problem"))
    }
}

/// Reports a problem with a key of a table: the key, what was found, what to write instead.
pub(crate) type Refuse<'r> = dyn FnMut(&str, String, String) + 'r;

/// No configuration file was found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("failed to find a configuration file: none of {} exists", list(.tried))]
#[non_exhaustive]
pub struct NotFound {
    /// The paths that were tried, in order.
    pub tried: Vec<PathBuf>,
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}
