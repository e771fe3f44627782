//! Environment variables that set keys: `TIDEGATE_BROKER__URL`.

const PREFIX: &str = "TIDEGATE_";
const BETWEEN_LEVELS: &str = "__";

/// A variable that sets a key.
#[derive(Debug)]
pub(super) struct Variable<'v> {
    pub(super) name: String,
    /// Levels of the key, as they are spelled in the name.
    pub(super) path: Vec<&'v str>,
    pub(super) text: &'v str,
}

/// The variables that set keys. Variables without two underscores are not checked: jobs have their own `TIDEGATE_*`
/// variables, and a supervisor may run as a job. A key outside all tables is `TIDEGATE__EVENTS_FILE`.
pub(super) fn variables(environment: &[(String, String)]) -> Vec<Variable<'_>> {
    environment
        .iter()
        .filter_map(|(name, text)| {
            let path = name.strip_prefix(PREFIX)?;
            let path = match path.strip_prefix('_') {
                Some(path) => path,
                None if path.contains(BETWEEN_LEVELS) => path,
                None => return None,
            };
            Some(Variable {
                name: name.as_str().into(),
                path: path.split(BETWEEN_LEVELS).collect(),
                text,
            })
        })
        .collect()
}

/// Variables with our prefix that set no key, because they have no level. Most are the variables of a job, but some may
/// be mistakes.
pub(super) fn without_levels(environment: &[(String, String)]) -> Vec<&str> {
    let names = environment.iter().map(|(name, _)| name.as_str());
    names
        .filter(|name| {
            let path = name.strip_prefix(PREFIX);
            path.is_some_and(|path| !path.starts_with('_') && !path.contains(BETWEEN_LEVELS))
        })
        .collect()
}

/// The variable that sets a key.
pub(crate) fn variable_of(key: &str) -> String {
    let levels: Vec<_> = key.split('.').map(fold).collect();
    let name = levels.join(BETWEEN_LEVELS).to_ascii_uppercase();
    match levels.len() {
        1 => format!("{PREFIX}_{name}"),
        _ => format!("{PREFIX}{name}"),
    }
}

/// The name without the prefix, in the spelling of [`fold`].
pub(super) fn below_prefix(name: &str) -> String {
    fold(name.strip_prefix(PREFIX).unwrap_or(name))
}

/// The common spelling of a variable's name and a key: a variable has no lower case and no hyphens.
pub(super) fn fold(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// How a name that the user chose is spelled in a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// In upper or lower case, and with `_` for `-`.
    Folded,
    /// Unchanged.
    Exact,
}

impl Spelling {
    /// A folded name is the name of a table, so a key follows it. An exact name is a key itself.
    pub(super) fn fits_depth(self, levels: usize) -> bool {
        match self {
            Self::Folded => levels > 1,
            Self::Exact => levels == 1,
        }
    }

    pub(super) fn matches(self, segment: &str, name: &str) -> bool {
        match self {
            Self::Folded => fold(segment) == fold(name),
            Self::Exact => segment == name,
        }
    }

    pub(super) fn name_of(self, segment: &str) -> String {
        match self {
            Self::Folded => segment.to_ascii_lowercase(),
            Self::Exact => segment.to_owned(),
        }
    }
}
