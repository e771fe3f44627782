//! What the reading of a configuration has asked for.

use std::borrow::Cow;

/// What was asked for: a line of the reference page.
#[derive(Debug, Clone)]
pub(super) enum Described {
    Section {
        path: String,
        doc: &'static str,
        /// Whether the page must not have it, for it says something by being there.
        optional: bool,
    },
    Key {
        table: String,
        name: &'static str,
        doc: Cow<'static, str>,
        wants: String,
        /// The value when absent, as TOML; for a key that is simply not there, an example.
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
