//! The document that is read, and the results of the reading.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::PathBuf,
};

use toml::{Spanned, de::DeTable};

use super::{
    super::problem::{Place, Problem},
    described::Described,
    syntax::{DuplicateKey, ForeignSyntax, SyntaxError},
    table::{Table, TableScope},
    variables::Variable,
};

/// A file's text and the environment variables, read together.
pub(crate) struct Document<'v> {
    file: String,
    root: &'v Spanned<DeTable<'v>>,
    /// Lines that are not TOML. Other problems in these lines only follow from that.
    broken_lines: Vec<usize>,
    /// Lines whose keys may be in another table than it seems, because of a broken line before them.
    adrift: Vec<Range<usize>>,
    /// Whether the text seems to be in another language.
    is_foreign: bool,
    line_starts: Vec<usize>,
    text: &'v str,
    pub(super) variables: Vec<Variable<'v>>,
    /// Which of `variables` were read for a key.
    pub(super) used: Vec<bool>,
    pub(super) problems: Vec<Problem>,
    /// Problems that say "this is missing". They are not reliable if the text of the file is broken.
    missing: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    pub(super) described: Vec<Described>,
    /// Full keys that were read.
    pub(super) asked: BTreeSet<String>,
    /// Tables that were opened.
    pub(super) opened: BTreeSet<String>,
    /// Tables whose unknown keys are not reported, because a more useful problem is reported already.
    pub(super) ignored: BTreeSet<String>,
    /// Full keys that do not belong in the file, and what to do instead.
    pub(super) elsewhere: BTreeMap<String, &'static str>,
    pub(super) places: BTreeMap<String, Place>,
    /// Files that hold secrets, with the keys that name them.
    pub(super) secrets: Vec<(String, PathBuf)>,
}

impl<'v> Document<'v> {
    /// A document of this text. `root` was parsed from it.
    pub(super) fn new(
        text: &'v str,
        root: &'v Spanned<DeTable<'v>>,
        file: &str,
        variables: Vec<Variable<'v>>,
    ) -> Self {
        Self {
            file: file.into(),
            root,
            broken_lines: Vec::new(),
            adrift: Vec::new(),
            is_foreign: false,
            line_starts: std::iter::once(0)
                .chain(text.match_indices('\n').map(|(at, _)| at + 1))
                .collect(),
            text,
            used: vec![false; variables.len()],
            variables,
            problems: Vec::new(),
            missing: Vec::new(),
            warnings: Vec::new(),
            described: Vec::new(),
            asked: BTreeSet::new(),
            opened: BTreeSet::new(),
            ignored: BTreeSet::new(),
            elsewhere: BTreeMap::new(),
            places: BTreeMap::new(),
            secrets: Vec::new(),
        }
    }

    /// The table that holds all others.
    pub(super) fn root_table(&mut self) -> Table<'_, 'v> {
        let scope = TableScope {
            path: String::new(),
            place: Place::File {
                file: self.file.clone(),
            },
            file: Some(self.root.get_ref()),
            variables: (0..self.variables.len()).collect(),
            depth: 0,
        };
        Table::new(self, scope)
    }

    /// The file's own table.
    pub(super) fn root(&self) -> &'v DeTable<'v> {
        self.root.get_ref()
    }

    /// Where this piece of the file's text is.
    pub(super) fn place_of(&self, span: Range<usize>) -> Place {
        let start = span.start.min(self.text.len());
        let line = self.line_starts.partition_point(|&at| at <= start);
        let line_start = self.line_starts[line - 1];
        let before = self.text.get(line_start..start).unwrap_or_default();
        Place::Line {
            file: self.file.clone(),
            line,
            column: before.chars().count() + 1,
        }
    }

    /// Reports a required key that is missing.
    pub(super) fn is_missing(&mut self, problem: Problem) {
        self.missing.push(problem);
    }

    /// The parser's errors, only the first of each line: the others follow from it. So do all that come after an array,
    /// a table in braces or a text that does not end.
    pub(super) fn not_toml(&mut self, errors: &[toml::de::Error]) -> Vec<Problem> {
        if !errors.is_empty()
            && let Some((foreign, at)) = ForeignSyntax::of(self.text)
        {
            self.is_foreign = true;
            let fix = "write it as TOML: `tidegate check --reference` prints every key";
            return vec![Problem::new(self.place_of(at..at), "", foreign.name(), fix)];
        }
        let mut problems = Vec::new();
        // The parser's stages have each their own errors.
        let mut errors: Vec<_> = errors.iter().collect();
        errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
        for error in errors {
            let place = self.place_of(error.span().unwrap_or(0..0));
            if let Place::Line { line, .. } = place {
                if self.broken_lines.contains(&line) {
                    continue;
                }
                self.broken_lines.push(line);
                if error.message().starts_with("duplicate key")
                    && let Some(twice) = DuplicateKey::at(self.text, line)
                {
                    problems.push(given_twice(place, twice));
                    continue;
                }
            }
            let error = SyntaxError::of(error, self.text);
            if error.is_within_brackets && !problems.is_empty() {
                break;
            }
            if let Place::Line { line, .. } = place {
                let end = match error.is_within_brackets {
                    true => usize::MAX,
                    false if error.is_of_a_header => self.next_table(line),
                    false => line,
                };
                self.adrift.push(line..end);
            }
            problems.push(Problem::new(place, "", error.found, error.fix));
            if error.is_within_brackets {
                break;
            }
        }
        problems
    }

    /// The first line after this one that begins a table. Lines start at 1.
    fn next_table(&self, line: usize) -> usize {
        let mut lines = self.text.lines().enumerate().skip(line);
        let next = lines.find(|(_, text)| text.trim_start().starts_with('['));
        next.map_or(usize::MAX, |(before, _)| before + 1)
    }

    /// Decides which problems to keep besides those of the syntax.
    pub(super) fn judge(&mut self, syntax: Vec<Problem>) {
        if syntax.is_empty() {
            self.problems.append(&mut self.missing);
        } else if self.is_foreign {
            // The text is another language, so problems with its values mean nothing.
            self.problems = syntax;
        } else {
            let (broken, adrift) = (&self.broken_lines, &self.adrift);
            let is_known = |line: &usize| {
                !broken.contains(line) && !adrift.iter().any(|lines| lines.contains(line))
            };
            self.problems.retain(|problem| match &problem.place {
                Place::Line { line, .. } => is_known(line),
                _ => true,
            });
            self.problems.extend(syntax);
        }
    }
}

fn given_twice(place: Place, twice: DuplicateKey) -> Problem {
    let first = match twice.first {
        Some(line) => format!(", the first is in line {line}"),
        None => String::new(),
    };
    let (found, fix) = match twice.is_table {
        true => (
            format!("a second [{}]{first}", twice.key),
            "write all of its keys below one of the two",
        ),
        false => (format!("a second value{first}"), "remove one of them"),
    };
    Problem::new(place, twice.key, found, fix)
}
