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
        /// What it is for.
        doc: &'static str,
        /// Whether its presence has a meaning, even if it is empty.
        optional: bool,
    },
    /// A key.
    Key {
        /// Path of its table; empty outside all tables.
        table: String,
        /// Its name. For a table whose keys are the user's own, an example.
        name: &'static str,
        /// What it means.
        doc: Cow<'static, str>,
        /// What it takes, in words. Empty for an example of a user's own key.
        wants: String,
        /// Its default as TOML, or an example.
        value: Written,
        /// Its values, for a program.
        shape: Shape,
    },
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
