//! The forms in which a change of a policy comes: arguments, TOML, JSON. Each becomes keys with their values as TOML.

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::super::{
    problem::{Place, Problem},
    schema::quoted,
};

/// A change of a pool's `policy` and `scaling`.
#[derive(Debug, Clone, PartialEq)]
pub enum PolicyEdit {
    /// Keys and their values, each as `jobs_per_worker=2` or `scaling.up_step=5`. A text needs no quotes.
    Arguments(Vec<String>),
    /// TOML with the keys of `policy`, or with tables `policy` and `scaling`. A given table replaces the whole old
    /// table: a key that it does not have gets its default.
    Toml {
        /// The text.
        text: String,
        /// The name of the text in messages.
        origin: String,
    },
    /// The same keys as JSON. Other keys stay unchanged.
    Json(Value),
}

impl PolicyEdit {
    /// The keys that the change has.
    pub(super) fn read(&self) -> Result<Change, Vec<Problem>> {
        let mut problems = Vec::new();
        let change = match self {
            Self::Arguments(arguments) => of_arguments(arguments, &mut problems),
            Self::Toml { text, origin } => of_toml(text, origin, &mut problems),
            Self::Json(value) => of_json(value, &mut problems),
        };
        match problems.is_empty() {
            true => Ok(change),
            false => Err(problems),
        }
    }
}

/// The keys of a change.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) entries: Vec<ChangedKey>,
    /// Tables that are replaced as a whole.
    whole: Vec<&'static str>,
}

impl Change {
    pub(super) fn replaces(&self, key: &str) -> bool {
        let table = key.split_once('.').map_or("", |(table, _)| table);
        self.whole.contains(&table)
    }
}

#[derive(Debug)]
pub(super) struct ChangedKey {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) place: Place,
}

/// The full name of a key. A key without a table belongs to `policy`.
fn full(key: &str) -> String {
    match key.split_once('.') {
        Some(("policy" | "scaling", _)) => key.to_owned(),
        _ => format!("policy.{key}"),
    }
}

fn of_arguments(arguments: &[String], problems: &mut Vec<Problem>) -> Change {
    let mut change = Change::default();
    if arguments.is_empty() {
        let place = Place::Argument {
            argument: "KEY=VALUE".to_owned(),
        };
        problems.push(Problem::new(
            place,
            "",
            "nothing",
            "write a key: jobs_per_worker=2",
        ));
    }
    for argument in arguments {
        let place = Place::Argument {
            argument: argument.clone(),
        };
        let mut refuse = |found: &str, fix: &str| {
            problems.push(Problem::new(place.clone(), "", found, fix));
        };
        let is_name = |name: &str| {
            let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            !name.is_empty()
                && name.chars().all(is_word)
                && name.split('.').all(|part| !part.is_empty())
        };
        let Some((name, text)) = argument.split_once('=') else {
            refuse(
                "an argument without =",
                "write KEY=VALUE: jobs_per_worker=2",
            );
            continue;
        };
        let (name, text) = (name.trim(), text.trim());
        if !is_name(name) {
            refuse("an invalid key", "write KEY=VALUE: jobs_per_worker=2");
            continue;
        }
        let key = full(name);
        if change.entries.iter().any(|entry| entry.key == key) {
            refuse("a second value", "remove one of them");
            continue;
        }
        // A shell removes quotes, so a text needs no quotes.
        let value = match text.contains('\n') || DeValue::parse(text).is_err() {
            true => quoted(text),
            false => text.to_owned(),
        };
        change.entries.push(ChangedKey { key, value, place });
    }
    change
}

fn of_toml(text: &str, origin: &str, problems: &mut Vec<Problem>) -> Change {
    let mut change = Change::default();
    let place_of = |at: usize| {
        let before = text.get(..at).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place::Line {
            file: origin.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    };
    let root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            // Only the parser's own message: the text that it shows could contain a credential.
            problems.push(Problem::new(
                place_of(at),
                "",
                error.message(),
                "write valid TOML",
            ));
            return change;
        }
    };
    let mut take = |key: String, item: &toml::Spanned<DeValue<'_>>, at: usize| {
        let value = text.get(item.span()).unwrap_or_default().to_owned();
        let place = place_of(at);
        change.entries.push(ChangedKey { key, value, place });
    };
    let mut whole = Vec::new();
    for (name, item) in root.get_ref() {
        let table = match (name.get_ref().as_ref(), item.get_ref()) {
            ("policy", DeValue::Table(_)) => Some("policy"),
            ("scaling", DeValue::Table(_)) => Some("scaling"),
            _ => None,
        };
        match (table, item.get_ref()) {
            (Some(table), DeValue::Table(keys)) => {
                whole.push(table);
                for (name, item) in keys {
                    take(
                        format!("{table}.{}", name.get_ref()),
                        item,
                        name.span().start,
                    );
                }
            }
            _ => {
                whole.push("policy");
                take(full(name.get_ref()), item, name.span().start);
            }
        }
    }
    change.whole = whole;
    if change.entries.is_empty() {
        let place = Place::File {
            file: origin.to_owned(),
        };
        problems.push(Problem::new(
            place,
            "",
            "nothing",
            "write a key: jobs_per_worker = 2",
        ));
    }
    change
}

fn of_json(value: &Value, problems: &mut Vec<Problem>) -> Change {
    let mut change = Change::default();
    let place = Place::File {
        file: "the request".to_owned(),
    };
    let mut refuse = |key: &str, found: &str, fix: &str| {
        problems.push(Problem::new(place.clone(), key, found, fix));
    };
    let Value::Object(keys) = value else {
        refuse(
            "",
            "a value that is not an object",
            "write an object: {\"jobs_per_worker\": 2}",
        );
        return change;
    };
    let mut flat = Vec::new();
    for (name, value) in keys {
        match (name.as_str(), value) {
            ("policy" | "scaling", Value::Object(keys)) => {
                flat.extend(
                    keys.iter()
                        .map(|(key, value)| (format!("{name}.{key}"), value)),
                );
            }
            _ => flat.push((full(name), value)),
        }
    }
    if flat.is_empty() {
        refuse("", "nothing", "write a key: {\"jobs_per_worker\": 2}");
    }
    for (key, value) in flat {
        let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        match toml_of(value) {
            Some(value) if key.chars().all(is_bare) => change.entries.push(ChangedKey {
                place: place.clone(),
                key,
                value,
            }),
            Some(_) => refuse("", "a key with invalid characters", "remove it"),
            None => refuse(
                &key,
                "null or an object",
                "write a number, a text or an array",
            ),
        }
    }
    change
}

fn toml_of(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null | Value::Object(_) => return None,
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(toml_of).collect();
            format!("[{}]", items?.join(", "))
        }
    })
}
