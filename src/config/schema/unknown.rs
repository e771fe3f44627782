//! Keys and variables that are not part of the configuration. Most are typing mistakes.

use toml::de::{DeTable, DeValue};

use super::{
    super::problem::{Place, Problem},
    document::Document,
    table::join,
    variables::{below_prefix, fold, variable_of},
};

/// How similar two names must be before one may be a mistake for the other (Jaro-Winkler: 1 is equal).
const ALIKE: f64 = 0.85;
/// The same for keys of adjacent tables, of which there are more.
const ALIKE_NEXT_DOOR: f64 = 0.88;
/// The same for a variable that may not be meant for tidegate.
const ALIKE_VARIABLE: f64 = 0.95;

/// Reports each key and variable that was not read.
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
            // A value instead of a table is reported already.
            _ if document.opened.contains(&full) || document.ignored.contains(path) => {}
            _ => {
                let fix = match document.elsewhere.get(&full) {
                    Some(fix) => (*fix).to_owned(),
                    None => match meant(document, path, name.get_ref()) {
                        Some(meant) => format!("did you mean {meant}?"),
                        None => "remove it".to_owned(),
                    },
                };
                let place = document.place_of(name.span());
                problems.push(Problem::new(place, full, "an unknown key", fix));
            }
        }
    }
}

/// The known key that was most likely meant. First the most similar key of this table. Then, for a key below the wrong
/// header, the key with exactly this name in an adjacent table. Then the most similar key of an adjacent table.
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
    nearest(name, siblings)
        .or_else(|| {
            known().find(|path| {
                let (parent, last) = split(path);
                let related = is_within(parent, table) || is_within(table, parent);
                last == fold(name) && (related || is_adjacent_table(parent, table))
            })
        })
        .or_else(|| {
            let next_door = known().filter_map(|path| {
                let (parent, last) = split(path);
                is_adjacent_table(parent, table).then_some((path, last))
            });
            nearest_above(ALIKE_NEXT_DOOR, name, next_door)
        })
}

/// Whether two tables are one header apart: one directly in the other, or both in the same table. Two pools do not
/// count.
fn is_adjacent_table(one: &str, other: &str) -> bool {
    let up = |path: &str| match path {
        "" => None,
        path => Some(split(path).0.to_owned()),
    };
    let (above, beside) = (up(one), up(other));
    above.as_deref() == Some(other)
        || beside.as_deref() == Some(one)
        || (above == beside && above.as_deref() != Some("pools"))
}

/// For ignored variables, reports the keys for which they may have been meant.
pub(super) fn report_ignored(document: &mut Document<'_>, names: &[&str]) {
    for name in names {
        let below = below_prefix(name);
        let flat = |path: &str| fold(path).replace('.', "_");
        let similarity = |path: &String| strsim::jaro_winkler(&below, &flat(path));
        let known = document.asked.iter();
        let nearest = known.max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
        let Some(meant) = nearest.filter(|path| similarity(path) >= ALIKE_VARIABLE) else {
            continue;
        };
        let place = Place::Variable {
            variable: (*name).to_owned(),
        };
        let fix = format!(
            "write {}, with two underscores between levels",
            variable_of(meant)
        );
        let warning = Problem::new(place, meant.clone(), "a variable that is ignored", fix);
        document.warnings.push(warning);
    }
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
        } else if let Some(fix) = document.elsewhere.get(&path) {
            ("an unknown key", (*fix).to_owned())
        } else if let Some(meant) = nearest(&path, known) {
            (
                "an unknown key",
                format!("did you mean {}?", variable_of(meant)),
            )
        } else {
            ("an unknown key", "unset it".to_owned())
        };
        let place = Place::Variable {
            variable: variable.name.clone(),
        };
        problems.push(Problem::new(place, path, found, fix));
    }
}

/// The most similar name of `candidates`, if one is similar enough.
pub(crate) fn nearest<'c>(
    name: &str,
    candidates: impl Iterator<Item = (&'c str, &'c str)>,
) -> Option<&'c str> {
    nearest_above(ALIKE, name, candidates)
}

fn nearest_above<'c>(
    bound: f64,
    name: &str,
    candidates: impl Iterator<Item = (&'c str, &'c str)>,
) -> Option<&'c str> {
    let name = fold(name);
    candidates
        .map(|(path, candidate)| (path, similarity(&name, &fold(candidate))))
        .filter(|(_, similarity)| *similarity >= bound)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(path, _)| path)
}

/// How similar two names are: 1 is equal.
fn similarity(name: &str, candidate: &str) -> f64 {
    /// For a short name, Jaro-Winkler finds no similarity if two letters are swapped.
    const ONE_TYPO: f64 = 0.9;
    let is_slip = name.len() >= 3
        && name.chars().next() == candidate.chars().next()
        && strsim::osa_distance(name, candidate) == 1;
    let similarity = strsim::jaro_winkler(name, candidate);
    match is_slip {
        true => similarity.max(ONE_TYPO),
        false => similarity,
    }
}

/// Whether a path is this table's path or a path within it.
fn is_within(path: &str, table: &str) -> bool {
    let below = path.strip_prefix(table);
    table.is_empty() || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}
