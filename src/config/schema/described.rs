//! The keys and tables that were read from a configuration.

use std::borrow::Cow;

/// A key or table that was read: a line of the reference page.
#[derive(Debug, Clone)]
pub(super) enum Described {
    Section {
        path: String,
        doc: &'static str,
        /// Whether the page must leave the table out, because its presence has a meaning.
        optional: bool,
    },
    Key {
        table: String,
        name: &'static str,
        doc: Cow<'static, str>,
        wants: String,
        /// The default as TOML; for a key without a default, an example.
        value: Written,
    },
}

/// How the reference page writes a key.
#[derive(Debug, Clone)]
pub(super) enum Written {
    Default(String),
    Example(String),
    Required(String),
}
