//! Warnings: words in a command that only a shell would understand, and variables in `env` that no job sees.

use crate::{
    config::schema::{Key, KeyPresence, Table, quoted},
    runners::process::scripts::base_name,
};

/// Programs that read a command line themselves.
const SHELLS: [&str; 7] = ["sh", "bash", "dash", "zsh", "ksh", "fish", "busybox"];

/// Words that have a meaning only for a shell.
const OPERATORS: [&str; 14] = [
    "|", "||", "|&", "&", "&&", ";", "<", ">", ">>", "2>", "2>>", "2>&1", "&>", ">&2",
];

/// Warns of words that only a shell would understand.
pub(super) fn warn_about_shell_words(table: &mut Table<'_, '_>, command: &Key<Vec<String>>) {
    if command.given != KeyPresence::Valid {
        return;
    }
    let Some((word, what)) = shell_word(&command.value) else {
        return;
    };
    let fix = match what {
        ShellSyntax::Operator => format!(
            "write [\"sh\", \"-c\", \"...\"] if {} is meant for a shell: no shell reads this, so the program receives \
            it as an argument",
            quoted(word)
        ),
        ShellSyntax::Expansion => format!(
            "write the value of {}, or [\"sh\", \"-c\", \"...\"]: no shell reads this, so the program receives it \
            unchanged",
            quoted(word)
        ),
    };
    table.warn_of(command, fix);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ShellSyntax {
    Operator,
    Expansion,
}

fn shell_word(command: &[String]) -> Option<(&str, ShellSyntax)> {
    let is_shell = |word: &String| SHELLS.contains(&base_name(word));
    if command.iter().any(is_shell) {
        return None;
    }
    command.iter().find_map(|word| {
        if OPERATORS.contains(&word.as_str()) {
            Some((word.as_str(), ShellSyntax::Operator))
        } else if is_expanded(word) {
            Some((word.as_str(), ShellSyntax::Expansion))
        } else {
            None
        }
    })
}

/// Whether it begins with a home directory or a variable.
fn is_expanded(word: &str) -> bool {
    if word == "~" || word.starts_with("~/") {
        return true;
    }
    let Some(rest) = word.strip_prefix('$') else {
        return false;
    };
    let (name, rest) = match rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        Some(parts) => parts,
        None => rest.split_at(rest.find('/').unwrap_or(rest.len())),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(is_name)
        && (rest.is_empty() || rest.starts_with('/'))
}

/// Warns of a variable that tidegate sets for each job.
pub(super) fn warn_about_own_variable<T>(table: &mut Table<'_, '_>, name: &str, entry: &Key<T>) {
    if name.starts_with("TIDEGATE_") && entry.is_sound() {
        table.warn_of(
            entry,
            "write another name: tidegate sets the variables that begin with TIDEGATE_ and overrides this one",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinguishes_the_error_text_of_a_shell_from_that_of_a_program() {
        for (command, found) in [
            (vec!["a", "b|c", "--x>y", "$", "$1", "a~", "{}", "-f"], None),
            (vec!["awk", "{print $1}"], None),
            (vec!["perl", "-e", "$x = 1"], None),
            (vec!["sh", "-c", "a | b"], None),
            (vec!["nice", "/bin/bash", "-c", "a", "|", "b"], None),
            (vec!["a", "|", "b"], Some(("|", ShellSyntax::Operator))),
            (vec!["a", "&&", "b"], Some(("&&", ShellSyntax::Operator))),
            (vec!["a", ">", "/tmp/x"], Some((">", ShellSyntax::Operator))),
            (vec!["~/bin/a"], Some(("~/bin/a", ShellSyntax::Expansion))),
            (vec!["a", "~"], Some(("~", ShellSyntax::Expansion))),
            (
                vec!["a", "$HOME/x"],
                Some(("$HOME/x", ShellSyntax::Expansion)),
            ),
            (
                vec!["a", "${SIZE}"],
                Some(("${SIZE}", ShellSyntax::Expansion)),
            ),
        ] {
            let words: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(shell_word(&words), found, "{command:?}");
        }
    }
}
