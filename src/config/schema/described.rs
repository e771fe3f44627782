//! The keys and tables that were read from a configuration.

use std::borrow::Cow;

/// A table or a key of the configuration, as [`described`](crate::config::described) lists them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Described {
    /// A table. Its keys follow somewhere after it.
    Section {
        /// The table's path: `pools.thumbnails.retry`.
        path: String,
        /// Its purpose.
        doc: &'static str,
        /// Whether its presence has a meaning, even if it is empty.
        optional: bool,
    },
    /// A key.
    Key(DescribedKey),
}

/// A key of the configuration.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DescribedKey {
    /// Path of its table; empty outside all tables.
    pub table: String,
    /// Its name. For a table whose keys are the user's own, an example.
    pub name: &'static str,
    /// Its meaning.
    pub doc: Cow<'static, str>,
    /// A description of its values. Empty for an example of a user's own key.
    pub wants: String,
    /// Its default as TOML, or an example.
    pub value: Written,
    /// Its values, for a program.
    pub shape: Shape,
}

impl Described {
    /// The key, if it is one of the table at `path`.
    pub fn key_of(&self, path: &str) -> Option<&DescribedKey> {
        match self {
            Self::Key(key) if key.table == path => Some(key),
            _ => None,
        }
    }
}

/// How a key is written.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Written {
    /// Its default.
    Default(String),
    /// An example: it has no default, or one that depends on other keys or on the machine.
    Example(String),
    /// An example of a required key.
    Required(String),
}

/// The values that a key takes, as TOML has types.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shape {
    /// A whole number within bounds.
    Whole {
        /// The smallest.
        least: i128,
        /// The largest.
        most: i128,
    },
    /// `true` or `false`.
    Flag,
    /// One of a few words.
    Words(Vec<String>),
    /// A string.
    Text,
    /// An array of strings.
    Texts,
    /// A form of its own.
    Other,
}
