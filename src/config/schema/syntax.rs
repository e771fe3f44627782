//! Problems of a text that is not TOML.

use std::collections::HashMap;

/// Another language that a text seems to be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ForeignSyntax {
    Json,
    Yaml,
}

impl ForeignSyntax {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Yaml => "YAML",
        }
    }

    /// The language of a text that is not TOML, and where its first line in that language begins. `None` if it may be
    /// TOML with a mistake in it.
    pub(super) fn of(text: &str) -> Option<(Self, usize)> {
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let (start, line) = (at + line.len() - line.trim_start().len(), line.trim());
            at += line_length(text, at);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            return match line {
                _ if line.starts_with('{') => Some((Self::Json, start)),
                "---" => Some((Self::Yaml, start)),
                _ if is_yaml_key(line) => Some((Self::Yaml, start)),
                _ => None,
            };
        }
        None
    }
}

fn line_length(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    rest.find('\n').map_or(rest.len(), |end| end + 1)
}

/// `key:`, with or without a space and a value after it.
fn is_yaml_key(line: &str) -> bool {
    let Some((key, rest)) = line.split_once(':') else {
        return false;
    };
    let key = key.trim_matches(['"', '\'']);
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    !key.is_empty() && key.chars().all(is_word) && (rest.is_empty() || rest.starts_with(' '))
}

/// A parser's error in our words. Only its message is used: the text that it is about could contain a credential.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) found: String,
    pub(super) fix: String,
    /// Whether the parser was within an array, a table in braces, or a text of several lines. It may have taken all
    /// lines after this one for a part of it.
    pub(super) is_within_brackets: bool,
    /// Whether the name of a table is wrong, so that the keys after it have no table.
    pub(super) is_of_a_header: bool,
}

impl SyntaxError {
    pub(super) fn of(error: &toml::de::Error, text: &str) -> Self {
        let message = error.message();
        let rest = text.get(error.span().map_or(0, |span| span.start)..);
        let is_at_the_end = rest.is_none_or(|rest| {
            rest.trim_start_matches([' ', '\t']).is_empty()
                || rest
                    .trim_start_matches([' ', '\t'])
                    .starts_with(['\n', '\r', '#'])
        });
        let has = |word: &str| message.contains(word);
        // The rest of the line that a text swallows may have closed an array or a table in braces.
        let start = error.span().map_or(0, |span| span.start);
        let line = text.get(..start).unwrap_or_default();
        let line = line.rsplit('\n').next().unwrap_or_default();
        let swallows = has("string") && has("invalid") && line.contains(['[', '{']);
        let (found, fix) = match message.split_once(", expected ").unwrap_or((message, "")) {
            ("string values must be quoted", _) if is_at_the_end => (
                "a key without a value",
                "write its value after the =".to_owned(),
            ),
            ("string values must be quoted", _) => {
                ("a value without quotes", "write it in quotes".to_owned())
            }
            ("invalid basic string", "`\"`") => {
                ("a text that does not end", "write \" at its end".to_owned())
            }
            ("invalid literal string", "`'`") => {
                ("a text that does not end", "write ' at its end".to_owned())
            }
            ("invalid boolean", _) => ("another word", "write true or false".to_owned()),
            _ if has("array") => (
                "an array that does not end before",
                "write , between its items, and ] at its end".to_owned(),
            ),
            _ if has("inline table") || has("key-value pairs") => (
                "a table in braces that does not end before",
                "write , between its keys, and } at its end".to_owned(),
            ),
            (found, "") => (found, "write valid TOML".to_owned()),
            (found, "nothing") => (found, "remove it".to_owned()),
            (found, expected) => (found, format!("write {expected}")),
        };
        Self {
            found: found.to_owned(),
            fix,
            is_within_brackets: swallows
                || ["array", "inline table", "key-value pairs", "multi-line"]
                    .into_iter()
                    .any(has),
            is_of_a_header: has("table") && !has("inline table"),
        }
    }
}

/// A key or table that appears a second time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DuplicateKey {
    /// The key with all its tables.
    pub(super) key: String,
    pub(super) is_table: bool,
    /// The line of the first occurrence, if it was found. Lines start at 1.
    pub(super) first: Option<usize>,
}

impl DuplicateKey {
    /// The key or table that is repeated in this line. Reads lines in a simple way, which is enough for a message.
    pub(super) fn at(text: &str, line: usize) -> Option<Self> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut table = String::new();
        for (number, text) in text.lines().enumerate().map(|(at, text)| (at + 1, text)) {
            let text = text.trim_start();
            let header = text.strip_prefix('[').filter(|rest| !rest.starts_with('['));
            let (key, is_table) = match header.and_then(|rest| rest.split_once(']')) {
                Some((path, _)) => {
                    table = plain(path);
                    (table.clone(), true)
                }
                None => match text.split_once('=') {
                    Some((key, _)) if !text.starts_with(['#', '[']) => {
                        let dot = if table.is_empty() { "" } else { "." };
                        (format!("{table}{dot}{}", plain(key)), false)
                    }
                    _ => continue,
                },
            };
            if number == line {
                let first = seen.get(&key).copied();
                return Some(Self {
                    key,
                    is_table,
                    first,
                });
            }
            seen.entry(key).or_insert(number);
        }
        None
    }
}

/// A path without spaces around its dots and without quotes.
fn plain(path: &str) -> String {
    let segments: Vec<_> = path
        .split('.')
        .map(|segment| segment.trim().trim_matches(['"', '\'']))
        .collect();
    segments.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_other_languages_by_their_first_line() {
        for (text, foreign) in [
            ("", None),
            ("# a: b\n\n", None),
            ("[pools.a]\nqueue: a\n", None),
            ("queue = \"a: b\"\n", None),
            ("broker.url = amqp://host\n", None),
            ("\n  {\"broker\": {}}", Some((ForeignSyntax::Json, 3))),
            ("---\nbroker:\n", Some((ForeignSyntax::Yaml, 0))),
            (
                "# mine\nbroker:\n  url: x\n",
                Some((ForeignSyntax::Yaml, 7)),
            ),
            ("events_file: /tmp/a\n", Some((ForeignSyntax::Yaml, 0))),
        ] {
            assert_eq!(ForeignSyntax::of(text), foreign, "{text:?}");
        }
    }

    #[test]
    fn finds_the_first_of_two() {
        let text = "a = 1\n[pools.x]\nqueue = \"q\"\n[ pools . \"x\" ]\nqueue = 3\na = 2\n";
        let twice = |key: &str, is_table, first| {
            Some(DuplicateKey {
                key: key.to_owned(),
                is_table,
                first,
            })
        };
        assert_eq!(DuplicateKey::at(text, 4), twice("pools.x", true, Some(2)));
        assert_eq!(
            DuplicateKey::at(text, 5),
            twice("pools.x.queue", false, Some(3))
        );
        assert_eq!(DuplicateKey::at(text, 6), twice("pools.x.a", false, None));
        assert_eq!(DuplicateKey::at(text, 9), None);
    }
}
