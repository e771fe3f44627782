//! Hints for a person who types no command, or a word that is not a command.

use clap::{
    Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// Names that other programs use for our commands, each with its hint.
const WORDS: &[(&[&str], &str)] = &[
    (
        &[
            "start", "up", "serve", "server", "daemon", "worker", "workers", "work", "consume",
        ],
        "`tidegate run` runs the supervisor with its pools, in the foreground",
    ),
    (
        &["stop", "down", "shutdown", "quit", "exit"],
        "Ctrl-C, or the signal TERM, ends `tidegate run` when its jobs have ended; `tidegate drain --all` empties the \
         pools and lets it run",
    ),
    (
        &[
            "ps", "ls", "list", "pools", "pool", "queue", "queues", "info", "state", "stats",
            "show", "get",
        ],
        "`tidegate status` shows the pools, and `tidegate jobs` what runs now",
    ),
    (
        &["logs", "log", "tail", "journal"],
        "the supervisor logs to its standard error; under systemd, `journalctl -u tidegate` shows it",
    ),
    (
        &["validate", "verify", "lint", "test", "doctor", "configtest"],
        "`tidegate check` prints all problems of the configuration; `--broker` looks at the broker too",
    ),
    (
        &["config", "configuration", "keys", "reference", "settings"],
        "`tidegate check --reference` prints every key with its default",
    ),
    (
        &["schema", "jsonschema"],
        "`tidegate check --schema` prints the JSON schema of the configuration, for editors",
    ),
    (
        &["metrics", "prometheus", "health"],
        "`/metrics`, `/healthz` and `/readyz` are at the address of [http] listen; `tidegate status` shows the pools",
    ),
    (
        &["watch", "monitor", "dashboard", "ui", "htop"],
        "`tidegate top` shows the pools live; the dashboard is at the address of [http] listen",
    ),
    (
        &["restart", "hup", "refresh"],
        "`tidegate reload` has the supervisor read its configuration again",
    ),
    (
        &["unpause", "continue", "unfreeze", "enable", "undrain"],
        "`tidegate resume POOL` lets a pool take messages again",
    ),
    (
        &["freeze", "hold", "disable"],
        "`tidegate pause POOL` stops a pool from taking messages",
    ),
    (
        &["new", "create", "setup", "generate"],
        "`tidegate init --queue QUEUE -- COMMAND` writes a first configuration",
    ),
    (
        &["send", "push", "enqueue", "add", "produce"],
        "`tidegate publish QUEUE FILE` publishes a message",
    ),
    (
        &["bench", "benchmark", "stress", "loadtest"],
        "`tidegate load --queue QUEUE --count N` sends a load and measures it",
    ),
    (
        &["kill", "cancel", "abort"],
        "`tidegate jobs stop ID` stops a running job; `tidegate jobs` shows the ids",
    ),
    (
        &[
            "retry",
            "requeue",
            "purge",
            "failed",
            "dlq",
            "deadletters",
            "dead-letters",
        ],
        "`tidegate dead list POOL` shows the dead letters; `dead retry` and `dead purge` put them back or delete them",
    ),
    (
        &["why", "describe", "inspect"],
        "`tidegate explain POOL` says why the pool has its size",
    ),
    (
        &["autoscale", "resize", "set"],
        "`tidegate scale POOL N` pins the workers of a pool; `tidegate policy set POOL KEY=VALUE` changes its policy",
    ),
    (
        &["completion", "autocomplete"],
        "`tidegate completions SHELL` prints shell completions",
    ),
    (&["version"], "`tidegate --version` prints the version"),
];

/// The message for arguments that clap could not read.
pub(super) fn of(error: &Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand && is_of_program(error) {
        return FIRST_STEPS.to_owned();
    }
    let Some((word, hint)) = unknown_command(error).and_then(|word| Some((word, hint_for(word)?)))
    else {
        return error.render().ansi().to_string();
    };
    let style = clap::builder::styling::Style::new().bold();
    let (red, cyan) = (
        style.fg_color(Some(anstyle::AnsiColor::Red.into())),
        style.fg_color(Some(anstyle::AnsiColor::Cyan.into())),
    );
    format!(
        "{red}error:{red:#} there is no command `{}`\n{cyan}hint:{cyan:#} {hint}\n",
        tidegate::escape::Escaped(word)
    )
}

/// The word in the position of a command.
fn unknown_command(error: &Error) -> Option<&str> {
    if error.kind() != ErrorKind::InvalidSubcommand || !is_of_program(error) {
        return None;
    }
    match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) => Some(word),
        _ => None,
    }
}

/// Whether the error is about the program's own commands, and not about those of `dead` or `policy`.
fn is_of_program(error: &Error) -> bool {
    let usage = error.render().to_string();
    let usage = usage.lines().find(|line| line.starts_with("Usage: "));
    usage.is_none_or(|usage| usage.starts_with("Usage: tidegate [OPTIONS] "))
}

fn hint_for(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    let mut words = WORDS.iter();
    words
        .find(|(words, _)| words.contains(&word.as_str()))
        .map(|(_, hint)| *hint)
}

/// The output of `tidegate` without arguments.
const FIRST_STEPS: &str = "\
A worker pool that grows and shrinks with a RabbitMQ queue.

Usage: tidegate [OPTIONS] <COMMAND>

First steps:
  tidegate demo                                           see a pool grow and shrink
  tidegate init --queue thumbnails -- python3 thumb.py    write a first configuration
  tidegate check --broker                                 check the configuration and the broker
  tidegate run                                            run the supervisor with its pools

While it runs:
  tidegate status    tidegate top    tidegate explain POOL    tidegate jobs

`tidegate --help` has all commands, and `tidegate COMMAND --help` examples of each.
";

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::args::Cli;

    fn said(args: &[&str]) -> String {
        let words = ["tidegate"].iter().chain(args);
        let error = Cli::try_parse_from(words).expect_err("no such command");
        anstream::adapter::strip_str(&of(&error)).to_string()
    }

    #[test]
    fn common_wrong_commands_get_a_hint() {
        for (word, command) in [
            ("start", "tidegate run"),
            ("stop", "TERM"),
            ("ps", "tidegate status"),
            ("logs", "journalctl"),
            ("worker", "tidegate run"),
            ("validate", "tidegate check"),
            ("LIST", "tidegate status"),
        ] {
            let text = said(&[word]);
            assert!(text.starts_with(&format!("error: there is no command `{word}`\nhint: ")));
            assert!(text.contains(command), "{text}");
            assert_eq!(said(&["-c", "a.toml", word]), text);
        }
    }

    #[test]
    fn no_word_with_a_hint_is_a_command_and_every_hint_names_one_that_there_is() {
        let program = Cli::command();
        let is_command = |word: &str| program.find_subcommand(word).is_some();
        let mut seen = std::collections::BTreeSet::new();
        for (words, hint) in WORDS {
            for word in *words {
                assert!(!is_command(word), "{word}");
                assert!(seen.insert(word), "{word} has two hints");
            }
            for part in hint.split("`tidegate ").skip(1) {
                let command = part.split([' ', '`']).next().unwrap();
                assert!(
                    command.starts_with("--") || is_command(command),
                    "{command}"
                );
            }
        }
    }

    #[test]
    fn other_mistakes_keep_the_parser_s_words() {
        assert!(
            said(&["statsu"]).contains("'status'"),
            "{}",
            said(&["statsu"])
        );
        let nested = said(&["dead", "ls", "p"]);
        assert!(nested.contains("unrecognized subcommand 'ls'"), "{nested}");
        assert!(said(&["explain"]).contains("<POOL>"));
        assert!(said(&["dead"]).contains("purge"));
    }

    #[test]
    fn the_program_without_arguments_shows_the_first_steps() {
        let text = said(&[]);
        assert_eq!(text, FIRST_STEPS);
        assert!(text.lines().count() < 20);
    }
}
