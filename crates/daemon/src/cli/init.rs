//! `tidegate init`: a first configuration, for a queue and a command.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::args::{Cli, init::InitArgs};
use crate::{
    output::{self, CommandFailure, Exit},
    reference,
};
use tidegate::{config, escape::Escaped};

/// The default file: the first one that `run` looks for.
const FILE: &str = "tidegate.toml";

/// The schema for editors, beside the configuration.
const SCHEMA: &str = "tidegate.schema.json";

/// Characters of a pool's name.
const NAME_LENGTH: usize = 64;

pub(super) fn init(cli: &Cli, args: &InitArgs) -> Result<Exit, CommandFailure> {
    let file = cli.config.clone().unwrap_or_else(|| PathBuf::from(FILE));
    write_new(&file, &text(args), args.url.is_some()).map_err(|error| {
        let is_there = error.kind() == io::ErrorKind::AlreadyExists;
        let context = format!("write {}", file.display());
        let failure = CommandFailure::new(Exit::Unexpected, anyhow::Error::new(error).context(context));
        match is_there {
            true => failure
                .hint("the file is already there and was not changed; `--config OTHER.toml` writes another one"),
            false => failure,
        }
    })?;
    let schema = match args.no_schema {
        true => None,
        false => write_schema(&file),
    };
    let problems = config::examine(&file.clone().into()).problems;
    for problem in &problems {
        output::warn(&problem.to_string());
    }
    let file = Escaped(&file.display().to_string()).to_string();
    let wrote = match schema {
        Some(schema) => format!(
            "wrote {file}, and {} for editors",
            Escaped(&schema.display().to_string())
        ),
        None => format!("wrote {file}"),
    };
    let next = match problems.is_empty() {
        true => format!("{wrote}; next: `tidegate check --broker`, then `tidegate run`\n"),
        false => {
            format!("{wrote}; correct the problems above, then `tidegate check --broker`\n")
        }
    };
    output::write(next.as_bytes())?;
    Ok(Exit::Ok)
}

/// Writes a new file. A file that may contain a password is readable only by its owner.
fn write_new(file: &Path, text: &str, is_secret: bool) -> io::Result<()> {
    let mut open = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(if is_secret { 0o600 } else { 0o644 })
        .open(file)?;
    open.write_all(text.as_bytes())
}

/// Writes the schema that the configuration names, unless it is there. Returns its path if it was written. Editors can
/// do without it, so a failure is a warning.
fn write_schema(file: &Path) -> Option<PathBuf> {
    let schema = file.with_file_name(SCHEMA);
    match write_new(&schema, &reference::schema(), false) {
        Ok(()) => Some(schema),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
        Err(error) => {
            output::warn(&format!("could not write {}: {error}", schema.display()));
            None
        }
    }
}

fn text(args: &InitArgs) -> String {
    // Editors take it from the first line: https://taplo.tamasfe.dev/configuration/directives.html
    let schema = match args.no_schema {
        true => String::new(),
        false => format!("#:schema ./{SCHEMA}\n"),
    };
    let queue = quoted(&args.queue);
    let pool = args.pool.clone().unwrap_or_else(|| name(&args.queue));
    let pool = match pool.chars().all(is_bare) && !pool.is_empty() {
        true => pool,
        false => quoted(&pool),
    };
    let url = match &args.url {
        Some(url) => format!("url = {}", quoted(url)),
        None => "# url = \"amqp://guest:guest@localhost:5672/%2f\"".to_owned(),
    };
    let command: Vec<String> = args.command.iter().map(|word| quoted(word)).collect();
    let command = command.join(", ");
    format!(
        r#"{schema}# tidegate's configuration. `tidegate check --reference` prints every key with its default,
# `tidegate check --broker` says what is wrong with this file and with the broker for it.

[broker]
# AMQP_URL when absent. To keep a password out of this file: url_file = "/run/secrets/amqp-url".
{url}

[http]
# Health (/healthz, /readyz), metrics (/metrics) and the API. "off" for none.
listen = "127.0.0.1:8672"

[pools.{pool}]
queue = {queue}
# Who declares the queue: "no": another program; "classic" or "quorum": the pool.
declare = "no"
# How long the queue is empty before all workers drain: "0s" at once, or "never".
drain_after = "5s"
# How long running jobs have to finish when the daemon is stopped. Then they are given back to the queue.
shutdown_grace = "30s"
# Answers messages with a `reply_to` by the command's standard output. `tidegate load --verify` needs it.
# reply = true

[pools.{pool}.policy]
# One worker for each 10 jobs that wait or run, rounded up.
kind = "backlog"
jobs_per_worker = 10
max = 10

[pools.{pool}.runner]
# A process for each job, the message's body on its standard input. Exit code 0: done; 65: never try again;
# 75: later; anything else: failed, and tried again.
kind = "exec"
command = [{command}]
# The longest that a job may run.
timeout = "5m"

[pools.{pool}.retry]
# Then the message goes to the queue <queue>.dead: see `tidegate dead list`.
max_attempts = 5
backoff = "1s"
"#
    )
}

/// A pool's name for a queue of this name: its letters, digits, dashes and underscores.
fn name(queue: &str) -> String {
    let name: String = queue
        .chars()
        .map(|c| if is_bare(c) { c } else { '-' })
        .take(NAME_LENGTH)
        .collect();
    let name = name.trim_matches('-');
    match name.is_empty() {
        true => "jobs".to_owned(),
        false => name.to_owned(),
    }
}

/// The characters that TOML allows in a key without quotes.
fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use tidegate::config::Surroundings;

    use super::*;

    fn args(queue: &str, command: &[&str]) -> InitArgs {
        InitArgs {
            queue: queue.to_owned(),
            pool: None,
            url: None,
            no_schema: false,
            command: command.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    #[test]
    fn it_writes_a_valid_configuration_with_that_queue_and_command() {
        for (queue, pool) in [
            ("thumbnails", "thumbnails"),
            ("img.resize", "img-resize"),
            ("a \"b\"\\c\n\u{7f}", "a--b--c"),
            ("été", "t"),
            ("...", "jobs"),
        ] {
            let command = ["/bin/sh", "-c", "cat > \"$0\"\t\\ \u{1}"];
            let text = text(&args(queue, &command));
            let none = Surroundings::default();
            let read = |_: &Path| Err(io::ErrorKind::NotFound.into());
            let loaded = config::parse(&text, "tidegate.toml", &[], &none, &read)
                .unwrap_or_else(|problems| panic!("{problems:?} in:\n{text}"));
            let [written] = &loaded.settings.pools[..] else {
                panic!("one pool: {:?}", loaded.settings.pools);
            };
            assert_eq!(written.pool.queue.as_str(), queue);
            assert_eq!(written.pool.name.as_str(), pool);
            assert_eq!(written.runner.kind(), "exec");
            assert!(
                text.starts_with("#:schema ./tidegate.schema.json\n"),
                "{text}"
            );
            let exec = written.runner.process().unwrap();
            assert_eq!(exec.command, command);
        }
    }
}
