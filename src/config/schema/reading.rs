//! All steps of a document: parsing, reading, reporting unknown keys, and collecting the results.

use std::{collections::BTreeMap, path::PathBuf};

use toml::de::DeTable;

use super::{
    super::problem::{Place, Problem},
    described::Described,
    document::Document,
    table::Table,
    unknown, variables,
};

/// The results of reading a document.
pub(crate) struct Finished {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
    /// The place of each key that was given.
    pub(crate) places: BTreeMap<String, Place>,
    /// Files that hold secrets, with the keys that name them.
    pub(crate) secrets: Vec<(String, PathBuf)>,
    /// All tables and keys that were asked for.
    pub(crate) described: Vec<Described>,
}

/// Reads a document with `read`, and returns its result.
pub(crate) fn read<T>(
    text: &str,
    file: &str,
    environment: &[(String, String)],
    read: impl FnOnce(&mut Table<'_, '_>) -> T,
) -> (T, Finished) {
    let (root, errors) = DeTable::parse_recoverable(text);
    let variables = variables::variables(environment);
    let mut document = Document::new(text, &root, file, variables);
    let syntax = document.not_toml(&errors);
    let value = read(&mut document.root_table());
    unknown::report(&mut document);
    unknown::report_ignored(&mut document, &variables::without_levels(environment));
    document.judge(syntax);
    let finished = Finished {
        described: document.described,
        problems: document.problems,
        warnings: document.warnings,
        places: document.places,
        secrets: document.secrets,
    };
    (value, finished)
}
