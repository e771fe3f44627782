//! What was given and nothing asked for: slips of the pen, mostly.

use toml::de::{DeTable, DeValue};

use super::{
    super::problem::{Place, Problem},
    document::Document,
    table::join,
    variables::fold,
};

/// How alike two names are before one may have been meant for the other (Jaro-Winkler: 1 is the same).
const ALIKE: f64 = 0.85;

/// Notes each key and variable that no reader asked for.
pub(super) fn report(document: &mut Document<'_>) {
    let mut problems = Vec::new();
    in_table(document, document.root(), "", &mut problems);
    in_variables(document, &mut problems);
    document.problems.append(&mut problems);
}

fn in_table(document: &Document<'_>, table: &DeTable<'_>, path: &str, problems: &mut Vec<Problem>) {
    for (name, item) in table {
        let full = join(path, name.get_ref());
        if document.asked.contains(&full) {
            continue;
        }
        match item.get_ref() {
            DeValue::Table(inner) if document.opened.contains(&full) => {
                in_table(document, inner, &full, problems);
            }
            // A table that is no table is a problem of its own already.
            _ if document.opened.contains(&full) || document.ignored.contains(path) => {}
            _ => {
                let fix = match meant(document, path, name.get_ref()) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => "remove it".to_owned(),
                };
                let place = document.place_of(name.span());
                problems.push(Problem::new(place, full, "an unknown key", fix));
            }
        }
    }
}

/// The known key of this table that is most like `name`; else the known key of that very name in a table around or
/// within this one, for a key that stands below the wrong header.
fn meant<'d>(document: &'d Document<'_>, table: &str, name: &str) -> Option<&'d str> {
    let known = || {
        document
            .asked
            .iter()
            .chain(&document.opened)
            .map(String::as_str)
    };
    let siblings = known().filter_map(|path| match split(path) {
        (parent, last) if parent == table => Some((path, last)),
        _ => None,
    });
    nearest(name, siblings).or_else(|| {
        known().find(|path| {
            let (parent, last) = split(path);
            let related = is_within(parent, table) || is_within(table, parent);
            last == fold(name) && related
        })
    })
}

fn in_variables(document: &Document<'_>, problems: &mut Vec<Problem>) {
    let unused = document.variables.iter().zip(&document.used);
    for (variable, _) in unused.filter(|(_, used)| !**used) {
        let path = variable
            .path
            .iter()
            .fold(String::new(), |path, name| join(&path, &fold(name)));
        let is_ignored = document
            .ignored
            .iter()
            .any(|table| is_within(&fold(&path), &fold(table)));
        if is_ignored {
            continue;
        }
        let known = document
            .asked
            .iter()
            .map(|path| (path.as_str(), path.as_str()));
        let (found, fix) = if document
            .opened
            .iter()
            .any(|table| fold(table) == fold(&path))
        {
            let fix = format!("name one of its keys: {}__...", variable.name);
            ("a whole table", fix)
        } else if let Some(meant) = nearest(&path, known) {
            let levels: Vec<_> = meant.split('.').map(fold).collect();
            let name = levels.join("__").to_ascii_uppercase();
            let lead = if levels.len() == 1 {
                "TIDEGATE__"
            } else {
                "TIDEGATE_"
            };
            ("an unknown key", format!("did you mean {lead}{name}?"))
        } else {
            ("an unknown key", "unset it".to_owned())
        };
        let place = Place::Variable {
            variable: variable.name.clone(),
        };
        problems.push(Problem::new(place, path, found, fix));
    }
}

/// Of `candidates`, the one whose name is most like this one, if any is at all.
pub(in crate::config) fn nearest<'c>(
    name: &str,
    candidates: impl Iterator<Item = (&'c str, &'c str)>,
) -> Option<&'c str> {
    let name = fold(name);
    candidates
        .map(|(path, candidate)| (path, strsim::jaro_winkler(&name, &fold(candidate))))
        .filter(|(_, likeness)| *likeness >= ALIKE)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(path, _)| path)
}

/// Whether a path is that of this table or of something in it.
fn is_within(path: &str, table: &str) -> bool {
    let below = path.strip_prefix(table);
    table.is_empty() || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}
