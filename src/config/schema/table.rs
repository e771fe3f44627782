//! A table of the configuration, from the file and the variables at once.

use std::{borrow::Cow, fmt, path::PathBuf};

use toml::de::{DeTable, DeValue};

use super::{
    super::problem::{Place, Problem},
    described::{Described, DescribedKey, Shape, Written},
    document::Document,
    found::{Item, ValuePosition, shown, type_name},
    key::{Key, KeyPresence},
    kinds::KeyKind,
    variables::{Spelling, fold},
};

/// The content of one table: its part of the file, and the variables that set keys in it.
pub(super) struct TableScope<'v> {
    pub(super) path: String,
    pub(super) place: Place,
    pub(super) file: Option<&'v DeTable<'v>>,
    /// Indexes of the document's variables whose paths start with this table's.
    pub(super) variables: Vec<usize>,
    /// Levels of this table's path.
    pub(super) depth: usize,
}

/// A table from which keys are read.
pub(crate) struct Table<'d, 'v> {
    document: &'d mut Document<'v>,
    scope: TableScope<'v>,
}

impl<'d, 'v> Table<'d, 'v> {
    pub(super) fn new(document: &'d mut Document<'v>, scope: TableScope<'v>) -> Self {
        Self { document, scope }
    }

    /// The place of the table.
    pub(crate) fn place(&self) -> &Place {
        &self.scope.place
    }

    /// The table's own name, with all tables around it.
    pub(crate) fn path(&self) -> &str {
        &self.scope.path
    }

    /// A key with `default` when absent.
    pub(crate) fn key<K: KeyKind>(
        &mut self,
        name: &'static str,
        doc: impl Into<Cow<'static, str>>,
        kind: K,
        default: K::Value,
    ) -> Key<K::Value> {
        let written = Written::Default(kind.toml(&default));
        self.ask(name, doc, &kind, written)
            .map(default, |value| value)
    }

    /// A key whose default depends on other keys or on the machine: `doc` says how. `example` is for the reference page.
    pub(crate) fn derived<K: KeyKind>(
        &mut self,
        name: &'static str,
        doc: impl Into<Cow<'static, str>>,
        kind: K,
        default: K::Value,
        example: &str,
    ) -> Key<K::Value> {
        let written = Written::Example(example.to_owned());
        self.ask(name, doc, &kind, written)
            .map(default, |value| value)
    }

    /// An optional key. `example` is for the reference page.
    pub(crate) fn optional<K: KeyKind>(
        &mut self,
        name: &'static str,
        doc: impl Into<Cow<'static, str>>,
        kind: K,
        example: &str,
    ) -> Key<Option<K::Value>> {
        let written = Written::Example(example.to_owned());
        self.ask(name, doc, &kind, written).map(None, Some)
    }

    /// A required key. If it is missing, the value is `stand_in`.
    pub(crate) fn required<K: KeyKind>(
        &mut self,
        name: &'static str,
        doc: impl Into<Cow<'static, str>>,
        kind: K,
        stand_in: K::Value,
        example: &str,
    ) -> Key<K::Value> {
        let written = Written::Required(example.to_owned());
        let key = self.ask(name, doc, &kind, written);
        if key.given == KeyPresence::Absent {
            self.missing(key.path.clone(), format!("write {name} = {example}"));
        }
        key.map(stand_in, |value| value)
    }

    /// A table within this one.
    pub(crate) fn table(&mut self, name: &str, doc: &'static str) -> Table<'_, 'v> {
        self.inner(name, doc, false)
    }

    /// A table within this one whose presence has a meaning: see [`is_given`](Self::is_given).
    pub(crate) fn optional_table(&mut self, name: &str, doc: &'static str) -> Table<'_, 'v> {
        self.inner(name, doc, true)
    }

    /// Whether the table was given, even if only its header.
    pub(crate) fn is_given(&self) -> bool {
        self.scope.file.is_some() || !self.scope.variables.is_empty()
    }

    fn inner(&mut self, name: &str, doc: &'static str, optional: bool) -> Table<'_, 'v> {
        let scope = self.inner_scope(name, |segment| fold(segment) == fold(name));
        self.document.opened.insert(scope.path.clone());
        self.document.described.push(Described::Section {
            path: scope.path.clone(),
            doc,
            optional,
        });
        Table::new(self.document, scope)
    }

    /// The names in this table's part of the file, in the order of the file, and then the names that only variables
    /// have. For tables whose keys the user chooses.
    pub(crate) fn names(&mut self, spelling: Spelling) -> Vec<String> {
        let mut in_file: Vec<_> = self.scope.file.into_iter().flatten().collect();
        in_file.sort_by_key(|(name, _)| name.span().start);
        let mut names: Vec<String> = in_file
            .iter()
            .map(|(name, _)| name.get_ref().to_string())
            .collect();
        let from_file = names.len();
        for index in self.scope.variables.clone() {
            let below = &self.document.variables[index].path[self.scope.depth..];
            let segment = below[0];
            if segment.is_empty() || !spelling.fits_depth(below.len()) {
                continue;
            }
            let matching = names[..from_file]
                .iter()
                .filter(|name| spelling.matches(segment, name))
                .count();
            match matching {
                0 => {
                    let name = spelling.name_of(segment);
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
                1 => {}
                _ => self.ambiguous(index, &names[..from_file], spelling),
            }
        }
        names
    }

    /// A value whose key the user chooses: an entry of a map.
    pub(crate) fn entry<K: KeyKind>(&mut self, name: &str, kind: &K) -> Key<Option<K::Value>> {
        self.look_up(name, kind, |segment| segment == name)
            .map(None, Some)
    }

    /// The place of a key of this table or of a table within it. `None` if the key was not given, or was not read yet.
    pub(in crate::config) fn given_at(&self, key: &str) -> Option<&Place> {
        self.document
            .places
            .get(&format!("{}.{key}", self.scope.path))
    }

    /// Describes a table whose keys the user chooses, for the reference page.
    pub(crate) fn describe_entries(&mut self, doc: &'static str, example: (&'static str, &str)) {
        self.document.described.push(Described::Key(DescribedKey {
            table: self.scope.path.clone(),
            name: example.0,
            doc: doc.into(),
            wants: String::new(),
            value: Written::Example(example.1.to_owned()),
            shape: Shape::Other,
        }));
    }

    /// Adds text to the doc of a key that was read already.
    pub(crate) fn describe_further(&mut self, key: &str, more: &str) {
        let described = self
            .document
            .described
            .iter_mut()
            .find_map(|entry| match entry {
                Described::Key(one) if one.table == self.scope.path && one.name == key => {
                    Some(&mut one.doc)
                }
                _ => None,
            });
        if let Some(doc) = described {
            let doc = doc.to_mut();
            doc.push(' ');
            doc.push_str(more);
        }
    }

    /// Reports that a required key of this table is missing.
    pub(crate) fn missing(&mut self, key: impl Into<String>, fix: impl Into<String>) {
        let place = self.scope.place.clone();
        let fix = match place {
            // Most likely a typing mistake in the variable's name created this table.
            Place::Variable { .. } => format!("{}, or name a table that the file has", fix.into()),
            _ => fix.into(),
        };
        let problem = Problem::new(place, key, "nothing", fix);
        self.document.is_missing(problem);
    }

    /// Reports that a valid key conflicts with other keys.
    pub(crate) fn refuse<T>(&mut self, key: &Key<T>, fix: impl Into<String>) {
        self.problem(Problem::new(
            key.place.clone(),
            key.path.clone(),
            key.found.clone(),
            fix,
        ));
    }

    /// Reports a warning: a key is valid, but together with other keys most likely a mistake.
    pub(crate) fn warn_of<T>(&mut self, key: &Key<T>, fix: impl Into<String>) {
        self.warn(Problem::new(
            key.place.clone(),
            key.path.clone(),
            key.found.clone(),
            fix,
        ));
    }

    /// Records that the file which a key names holds a secret.
    pub(crate) fn holds_secret(&mut self, key: &Key<Option<PathBuf>>) {
        if let Some(path) = &key.value {
            self.document.secrets.push((key.path.clone(), path.clone()));
        }
    }

    /// Registers what to do instead of a key that a user may expect here.
    pub(crate) fn elsewhere(&mut self, name: &str, fix: &'static str) {
        let path = join(&self.scope.path, name);
        self.document.elsewhere.insert(path, fix);
    }

    /// Does not report unknown keys of this table, because a more useful problem is already reported.
    pub(crate) fn ignore_the_rest(&mut self) {
        self.document.ignored.insert(self.scope.path.clone());
    }

    /// Reports a problem.
    pub(crate) fn problem(&mut self, problem: Problem) {
        self.document.problems.push(problem);
    }

    /// Reports a warning.
    pub(crate) fn warn(&mut self, warning: Problem) {
        self.document.warnings.push(warning);
    }

    fn ask<K: KeyKind>(
        &mut self,
        name: &'static str,
        doc: impl Into<Cow<'static, str>>,
        kind: &K,
        value: Written,
    ) -> Key<Option<K::Value>> {
        self.document.described.push(Described::Key(DescribedKey {
            table: self.scope.path.clone(),
            name,
            doc: doc.into(),
            wants: kind.wants(),
            value,
            shape: kind.shape(),
        }));
        self.look_up(name, kind, |segment| fold(segment) == name)
    }

    /// A variable overrides the file, because it is set closer to the start of the daemon.
    fn look_up<K: KeyKind>(
        &mut self,
        name: &str,
        kind: &K,
        is_name: impl Fn(&str) -> bool,
    ) -> Key<Option<K::Value>> {
        let path = join(&self.scope.path, name);
        self.document.asked.insert(path.clone());
        let in_file = self.scope.file.and_then(|table| table.get(name));
        match self.take_variable(is_name) {
            Some(index) => self.read_variable(path, kind, index),
            None => match in_file {
                Some(item) if has_parse_error(item) => Key {
                    value: None,
                    path,
                    place: self.scope.place.clone(),
                    given: KeyPresence::Invalid,
                    found: "nothing".to_owned(),
                },
                Some(item) => self.read_item(path, kind, item, None),
                None => Key {
                    value: None,
                    path,
                    place: self.scope.place.clone(),
                    given: KeyPresence::Absent,
                    found: "nothing".to_owned(),
                },
            },
        }
    }

    fn read_variable<K: KeyKind>(
        &mut self,
        path: String,
        kind: &K,
        index: usize,
    ) -> Key<Option<K::Value>> {
        let variable = &self.document.variables[index];
        let place = Place::Variable {
            variable: variable.name.clone(),
        };
        let text = variable.text;
        // A string needs no quotes in a variable. All other values are written as in the file. A text that is not TOML
        // is read as a string, and the kind of value refuses it with its own message.
        let as_toml = match K::IS_TEXT {
            true => None,
            false => DeValue::parse(text).ok(),
        };
        let item =
            as_toml.unwrap_or_else(|| Item::new(0..text.len(), DeValue::String(text.into())));
        self.read_item(path, kind, &item, Some(place))
    }

    fn read_item<K: KeyKind>(
        &mut self,
        path: String,
        kind: &K,
        item: &Item<'_>,
        variable: Option<Place>,
    ) -> Key<Option<K::Value>> {
        let mut problems = Vec::new();
        let document = &*self.document;
        let place_of = |span| match &variable {
            Some(place) => place.clone(),
            None => document.place_of(span),
        };
        let value = kind.read(
            item,
            &mut ValuePosition {
                key: &path,
                place_of: &place_of,
                secret: K::IS_SECRET,
                problems: &mut problems,
            },
        );
        let place = place_of(item.span());
        let given = match problems.is_empty() {
            true => KeyPresence::Valid,
            false => KeyPresence::Invalid,
        };
        self.document.problems.append(&mut problems);
        self.document.places.insert(path.clone(), place.clone());
        Key {
            // A value with a problem is not used, even if it could be read.
            value: value.filter(|_| given == KeyPresence::Valid),
            path,
            place,
            given,
            found: match K::IS_SECRET {
                true => "a value".to_owned(),
                false => shown(item.get_ref()),
            },
        }
    }

    /// The last variable that sets exactly this key. All such variables are marked as used, because `..__URL` and
    /// `..__url` are two spellings of one key.
    fn take_variable(&mut self, is_name: impl Fn(&str) -> bool) -> Option<usize> {
        let depth = self.scope.depth;
        let mut taken = None;
        for &index in &self.scope.variables {
            let path = &self.document.variables[index].path;
            if path.len() == depth + 1 && is_name(path[depth]) {
                self.document.used[index] = true;
                taken = Some(index);
            }
        }
        taken
    }

    fn inner_scope(&mut self, name: &str, is_name: impl Fn(&str) -> bool) -> TableScope<'v> {
        let path = join(&self.scope.path, name);
        let depth = self.scope.depth + 1;
        let variables: Vec<usize> = self
            .scope
            .variables
            .iter()
            .copied()
            .filter(|&index| {
                let path = &self.document.variables[index].path;
                path.len() > depth && is_name(path[depth - 1])
            })
            .collect();
        let mut place = self.scope.place.clone();
        let mut file = None;
        if let Some((key, item)) = self.scope.file.and_then(|t| t.get_key_value(name)) {
            place = self.document.place_of(key.span());
            match item.get_ref() {
                DeValue::Table(table) => file = Some(table),
                _ if has_parse_error(item) => {}
                // Most likely an array of tables, from a header with one bracket too many.
                other => {
                    let fix = format!("write a table: [{path}]");
                    let place = self.document.place_of(item.span());
                    self.problem(Problem::new(place, path.clone(), type_name(other), fix));
                }
            }
        } else if let Some(&index) = variables.first() {
            place = Place::Variable {
                variable: self.document.variables[index].name.clone(),
            };
        }
        TableScope {
            path,
            place,
            file,
            variables,
            depth,
        }
    }

    fn ambiguous(&mut self, index: usize, names: &[String], spelling: Spelling) {
        self.document.used[index] = true;
        let variable = &self.document.variables[index];
        let segment = variable.path[self.scope.depth];
        let candidates: Vec<_> = names
            .iter()
            .filter(|name| spelling.matches(segment, name))
            .map(String::as_str)
            .collect();
        let problem = Problem::new(
            Place::Variable {
                variable: variable.name.clone(),
            },
            join(&self.scope.path, &fold(segment)),
            format!("a name that fits {}", candidates.join(" and ")),
            "set it in the file, or rename one of them",
        );
        self.problem(problem);
    }
}

impl fmt::Debug for Table<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("path", &self.scope.path)
            .finish_non_exhaustive()
    }
}

/// Whether the parser inserted this instead of a value that it could not read. That problem is already reported.
fn has_parse_error(item: &Item<'_>) -> bool {
    item.span() == (0..0)
}

/// A key below a table, in quotes if TOML needs them.
pub(super) fn join(table: &str, name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let name = match !name.is_empty() && name.chars().all(is_bare) {
        true => name.to_owned(),
        false => format!("{name:?}"),
    };
    match table {
        "" => name,
        table => format!("{table}.{name}"),
    }
}
