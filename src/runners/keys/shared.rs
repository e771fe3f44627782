//! The keys that kinds share: the command, its timeout, its directory and its variables.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{
    command::{warn_about_own_variable, warn_about_shell_words},
    env_file::env_file,
    limits::{LimitKeys, limits},
};
use crate::{
    config::{
        inputs::ConfigInputs,
        problem::Problem,
        schema::{FilePath, Key, KeyPresence, Secret, Span, Spelling, Table, Text, Texts},
    },
    runners::{
        facts::{CommandUse, Known},
        process::ExecSettings,
    },
};

const COMMAND: &str = "[\"python3\", \"thumb.py\"]";

/// The values of the shared keys. Keys that the pool's kind does not take have their defaults, or are refused.
pub(crate) struct SharedKeys {
    pub(crate) command: Key<Vec<String>>,
    pub(crate) timeout: Key<Duration>,
    pub(crate) kill_grace: Key<Duration>,
    pub(crate) working_dir: Key<Option<PathBuf>>,
    pub(crate) env_pass: Key<Vec<String>>,
    /// `env_file` and `env` together.
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) limits: LimitKeys,
}

impl SharedKeys {
    /// The settings with which a process is started.
    pub(crate) fn process(self) -> ExecSettings {
        ExecSettings {
            command: self.command.value,
            timeout: self.timeout.value,
            kill_grace: self.kill_grace.value,
            env: self.env,
            env_pass: self.env_pass.value,
            working_dir: self.working_dir.value,
            limits: self.limits.values,
        }
    }

    /// The keys that limit a job's time, for kinds that take `kill_grace`.
    pub(crate) fn job(&self) -> JobKeys {
        JobKeys {
            timeout: self.timeout.clone(),
            grace: self.kill_grace.clone(),
        }
    }
}

/// The keys that limit a job's time.
pub(crate) struct JobKeys {
    pub(crate) timeout: Key<Duration>,
    /// `kill_grace`, or the key that the kind has instead.
    pub(crate) grace: Key<Duration>,
}

/// Reads the shared keys. `own` reads the own keys of the kinds, which are in the middle of the reference page.
pub(super) fn shared(
    table: &mut Table<'_, '_>,
    known: &Known<'_>,
    inputs: &ConfigInputs<'_>,
    own: impl FnOnce(&mut Table<'_, '_>),
) -> SharedKeys {
    let default = ExecSettings::new([""]);
    let command = command(table, known);
    let timeout = table.key(
        "timeout",
        known.doc(
            "timeout",
            "How long a job may run. After that its process group gets TERM. Together with `kill_grace`, less than the \
            pool's `ack_deadline`.",
        ),
        Span::from(Duration::from_millis(1)),
        default.timeout,
    );
    let kill_grace = table.key(
        "kill_grace",
        known.doc("kill_grace", "Time between TERM and KILL."),
        Span::from(Duration::ZERO),
        default.kill_grace,
    );
    let working_dir = table.optional(
        "working_dir",
        known.doc(
            "working_dir",
            "Directory that a job starts in. `user` must be able to enter it. When absent, the daemon's own.",
        ),
        FilePath,
        "\"/srv/thumbnails\"",
    );
    let env_pass = table.key(
        "env_pass",
        known.doc(
            "env_pass",
            "Variables of the daemon's environment that a job receives, besides PATH, HOME, LANG and TZ.",
        ),
        Texts {
            wants: "an array of names",
            check: variable_name,
        },
        default.env_pass,
    );
    let (from_file, mut variables) = env_file(table, inputs);
    known.refuse_shared(table, "timeout", &timeout);
    known.refuse_shared(table, "kill_grace", &kill_grace);
    known.refuse_shared(table, "working_dir", &working_dir);
    known.refuse_shared(table, "env_pass", &env_pass);
    known.refuse_shared(table, "env_file", &from_file);
    own(table);
    let limits = limits(table, known);
    variables.extend(env(table, known));
    SharedKeys {
        command,
        timeout,
        kill_grace,
        working_dir,
        env_pass,
        env: variables,
        limits,
    }
}

fn command(table: &mut Table<'_, '_>, known: &Known<'_>) -> Key<Vec<String>> {
    let doc = known.doc(
        "command",
        "Program and arguments. No shell reads it, and no part of a message is ever in it.",
    );
    let takes = known.chosen.filter(|chosen| chosen.takes("command"));
    let is_program = takes.is_some_and(|chosen| chosen.command == CommandUse::Program);
    let command = match is_program {
        true => table.required("command", doc, PROGRAM, Vec::new(), COMMAND),
        false => table.key("command", doc, PROGRAM, Vec::new()),
    };
    let names_no_program = command.value.first().is_none_or(String::is_empty);
    if command.given == KeyPresence::Valid && names_no_program {
        table.refuse(&command, format!("write the program first: {COMMAND}"));
    }
    if is_program {
        warn_about_shell_words(table, &command);
    }
    known.refuse_shared(table, "command", &command);
    command
}

fn env(runner: &mut Table<'_, '_>, known: &Known<'_>) -> BTreeMap<String, String> {
    let mut table = runner.table("env", "Variables for the jobs, besides each job's own.");
    table.describe_entries("Any name.", ("THUMBNAIL_SIZE", "\"256\""));
    let mut env = BTreeMap::new();
    for name in table.names(Spelling::Exact) {
        let entry = table.entry(&name, &VALUE);
        if let Err(fix) = variable_name(&name) {
            let found = format!("the name {name:?}");
            table.problem(Problem::new(
                entry.place.clone(),
                entry.path.clone(),
                found,
                fix,
            ));
        }
        warn_about_own_variable(&mut table, &name, &entry);
        known.refuse_shared(&mut table, "env", &entry);
        if let Some(value) = entry.value {
            env.insert(name, value);
        }
    }
    env
}

fn variable_name(name: &str) -> Result<(), String> {
    match name.is_empty() || name.contains(['=', '\0']) {
        true => Err("write a variable's name, without = in it".to_owned()),
        false => Ok(()),
    }
}

const PROGRAM: Texts = Texts {
    wants: "an array of strings",
    check: |text| match text.contains('\0') {
        true => Err("write it without the NUL".to_owned()),
        false => Ok(()),
    },
};

const VALUE: Secret<Text<String>> = Secret(Text {
    wants: "a string",
    parse: |text| match text.contains('\0') {
        true => Err("write it without the NUL".to_owned()),
        false => Ok(text.to_owned()),
    },
    show: String::clone,
});
