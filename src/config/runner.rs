//! The `runner` table of a pool.

use std::time::Duration;

use super::{
    ExecSettings, RunnerSettings,
    problem::Problem,
    schema::{FilePath, Given, Key, Secret, Span, Spelling, Table, Text, Texts},
};

const COMMAND: &str = "[\"python3\", \"thumb.py\"]";

/// Reads what a pool's jobs run on. The timeout comes back as a key, for the pool has a deadline to hold it to.
pub(super) fn runner(pool: &mut Table<'_, '_>) -> (RunnerSettings, Key<Duration>) {
    let default = ExecSettings::new([""]);
    let mut table = pool.table("runner", "What its jobs run on.");
    let kind = table.key(
        "kind",
        "`exec`: a process for each job, with the body on its standard input.",
        KIND,
        "exec".to_owned(),
    );
    if !kind.is_sound() {
        table.ignore_the_rest();
    }
    let doc = "Program and arguments. No shell, and never anything of a message in it.";
    let command = match kind.is_sound() {
        true => table.required("command", doc, PROGRAM, Vec::new(), COMMAND),
        false => table.key("command", doc, PROGRAM, Vec::new()),
    };
    let names_no_program = command.value.first().is_none_or(String::is_empty);
    if command.given == Given::Well && names_no_program {
        table.refuse(&command, format!("write the program first: {COMMAND}"));
    }
    let timeout = table.key(
        "timeout",
        "How long a job may run. Then TERM to its process group. At most the pool's `ack_deadline`.",
        Span::from(Duration::from_millis(1)),
        default.timeout,
    );
    let kill_grace = table.key(
        "kill_grace",
        "Time between TERM and KILL.",
        Span::from(Duration::ZERO),
        default.kill_grace,
    );
    let working_dir = table.optional(
        "working_dir",
        "Directory that a job starts in. The daemon's own when absent.",
        FilePath,
        "\"/srv/thumbnails\"",
    );
    let env_pass = table.key(
        "env_pass",
        "Variables of the daemon's environment that a job is given too, besides PATH, HOME, LANG and TZ.",
        Texts {
            wants: "an array of names",
            check: variable_name,
        },
        default.env_pass,
    );
    let env = env(&mut table);
    let exec = ExecSettings {
        command: command.value,
        timeout: timeout.value,
        kill_grace: kill_grace.value,
        env,
        env_pass: env_pass.value,
        working_dir: working_dir.value,
    };
    (RunnerSettings::Exec(exec), timeout)
}

fn env(runner: &mut Table<'_, '_>) -> std::collections::BTreeMap<String, String> {
    let mut table = runner.table("env", "Variables for the jobs, besides each job's own.");
    table.describe_entries("Any name.", ("THUMBNAIL_SIZE", "\"256\""));
    let mut env = std::collections::BTreeMap::new();
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

const KIND: Text<String> = Text {
    wants: "\"exec\"",
    parse: |text| match text {
        "exec" => Ok(text.to_owned()),
        "warm" | "container" => {
            Err("write \"exec\": this kind is not built in this version".to_owned())
        }
        _ => Err("write \"exec\"".to_owned()),
    },
    show: String::clone,
};

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
