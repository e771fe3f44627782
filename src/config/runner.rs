//! The `runner` table of a pool.

use std::{path::PathBuf, time::Duration};

use super::{
    ExecSettings, RunnerSettings, WarmSettings,
    command::{warn_of_own_variable, warn_of_shell_words},
    container::ContainerKeys,
    daemon::Inputs,
    deadlines::JobKeys,
    env_file::env_file,
    limits::limits,
    policy::MOST_WORKERS,
    problem::Problem,
    schema::{
        Choice, FilePath, Given, Key, Secret, Size, Span, Spelling, Table, Text, Texts, Whole,
        quoted,
    },
};

const COMMAND: &str = "[\"python3\", \"thumb.py\"]";

/// What a pool's jobs run on, and the keys of it that the pool has bounds for.
pub(super) struct RunnerKeys {
    pub(super) runner: RunnerSettings,
    pub(super) job: JobKeys,
    pub(super) prestart: Key<Option<u32>>,
}

/// Reads what a pool's jobs run on.
pub(super) fn runner(pool: &mut Table<'_, '_>, inputs: &Inputs<'_>) -> RunnerKeys {
    let default = ExecSettings::new([""]);
    let mut table = pool.table("runner", "What its jobs run on.");
    let kind = table.key(
        "kind",
        "`exec`: a process for each job, with the body on its standard input. `warm`: processes that stay, and are \
         handed job after job as lines of JSON (docs/warm-protocol.md). `container`: a container for each job.",
        KIND,
        Named::Exec,
    );
    if !kind.is_sound() {
        table.ignore_the_rest();
    }
    let doc = "Program and arguments. No shell, and never anything of a message in it. Of `container`: what follows \
               the image's entry point; the image's own when absent.";
    let command = match kind.is_sound() && kind.value != Named::Container {
        true => table.required("command", doc, PROGRAM, Vec::new(), COMMAND),
        false => table.key("command", doc, PROGRAM, Vec::new()),
    };
    let names_no_program = command.value.first().is_none_or(String::is_empty);
    if command.given == Given::Well && names_no_program {
        table.refuse(&command, format!("write the program first: {COMMAND}"));
    }
    warn_of_shell_words(&mut table, &kind, &command);
    let timeout = table.key(
        "timeout",
        "How long a job may run. Then TERM to its process group, or to its container. With `kill_grace`, or a \
         container's `stop_timeout`, less than the pool's \
         `ack_deadline`.",
        Span::from(Duration::from_millis(1)),
        default.timeout,
    );
    let kill_grace = table.key(
        "kill_grace",
        "Time between TERM and KILL. `container` has `stop_timeout` instead.",
        Span::from(Duration::ZERO),
        default.kill_grace,
    );
    if kind.is_sound() && kind.value == Named::Container && kill_grace.is_given() {
        table.refuse(
            &kill_grace,
            "write stop_timeout, which is what \"container\" has",
        );
    }
    let working_dir = table.optional(
        "working_dir",
        "Directory that a job starts in. When absent the daemon's own or, of `container`, the image's. It is entered as \
         `user`.",
        FilePath,
        "\"/srv/thumbnails\"",
    );
    let is_inside = |path: &PathBuf| path.is_absolute() && path.to_str().is_some();
    if kind.value == Named::Container
        && working_dir
            .value
            .as_ref()
            .is_some_and(|path| !is_inside(path))
    {
        table.refuse(
            &working_dir,
            "write an absolute path: it is one in the container",
        );
    }
    let env_pass = table.key(
        "env_pass",
        "Variables of the daemon's environment that a job is given too, besides PATH, HOME, LANG and TZ. A container \
         is given these alone.",
        Texts {
            wants: "an array of names",
            check: variable_name,
        },
        default.env_pass,
    );
    let mut variables = env_file(&mut table, inputs);
    let warm = WarmKeys::read(&mut table, &kind);
    let container = ContainerKeys::read(&mut table, &kind);
    let limits = limits(&mut table, &kind);
    variables.extend(env(&mut table));
    let process = ExecSettings {
        command: command.value,
        timeout: timeout.value,
        kill_grace: kill_grace.value,
        env: variables,
        env_pass: env_pass.value,
        working_dir: working_dir.value,
        limits,
    };
    let prestart = warm.prestart.clone();
    let grace = match kind.value {
        Named::Container => container.grace(),
        Named::Exec | Named::Warm => kill_grace,
    };
    let runner = match kind.value {
        Named::Exec => RunnerSettings::Exec(process),
        Named::Warm => RunnerSettings::Warm(warm.settings(process)),
        Named::Container => RunnerSettings::Container(container.settings(process)),
    };
    RunnerKeys {
        runner,
        job: JobKeys { timeout, grace },
        prestart,
    }
}

/// The keys of `warm` alone. All are optional, so that the reference page, whose runner is another, can show them.
struct WarmKeys {
    start_timeout: Option<Duration>,
    max_jobs: Option<u32>,
    max_age: Option<Duration>,
    idle_timeout: Option<Duration>,
    max_memory: Option<u64>,
    prestart: Key<Option<u32>>,
}

impl WarmKeys {
    fn read(table: &mut Table<'_, '_>, kind: &Key<Named>) -> Self {
        let time = || Span::from(Duration::from_millis(1));
        let start_timeout = table.optional(
            "start_timeout",
            "Of `warm`: how long a process may take to say that it is ready. When absent, 30s.",
            time(),
            "\"30s\"",
        );
        let max_jobs = table.optional(
            "max_jobs",
            "Of `warm`: jobs after which a process is replaced, or up to a quarter earlier, so that those which \
             started together do not go together. When absent, no such limit; nor with the other limits.",
            Whole(1..=1_000_000_000),
            "1000",
        );
        let max_age = table.optional(
            "max_age",
            "Of `warm`: age at which a process is replaced, or up to a quarter earlier. Never in the middle of a job.",
            time(),
            "\"1h\"",
        );
        let idle_timeout = table.optional(
            "idle_timeout",
            "Of `warm`: how long a process may wait for a job before it is ended. Those of `prestart` wait on.",
            time(),
            "\"10m\"",
        );
        let max_memory = table.optional(
            "max_memory",
            "Of `warm`: resident memory beyond which a process is replaced. Looked at between jobs.",
            Size,
            "\"256MiB\"",
        );
        let prestart = table.optional(
            "prestart",
            "Of `warm`: processes to bring up before a job asks for them, at most one for each worker that waits. \
             When absent, none.",
            Whole(0..=MOST_WORKERS),
            "2",
        );
        only_for(table, kind, &[Named::Warm], &start_timeout);
        only_for(table, kind, &[Named::Warm], &max_jobs);
        only_for(table, kind, &[Named::Warm], &max_age);
        only_for(table, kind, &[Named::Warm], &idle_timeout);
        only_for(table, kind, &[Named::Warm], &max_memory);
        only_for(table, kind, &[Named::Warm], &prestart);
        Self {
            start_timeout: start_timeout.value,
            max_jobs: max_jobs.value,
            max_age: max_age.value,
            idle_timeout: idle_timeout.value,
            max_memory: max_memory.value,
            prestart,
        }
    }

    fn settings(self, process: ExecSettings) -> WarmSettings {
        let default = WarmSettings::new([""]);
        WarmSettings {
            process,
            start_timeout: self.start_timeout.unwrap_or(default.start_timeout),
            max_jobs: self.max_jobs,
            max_age: self.max_age,
            idle_timeout: self.idle_timeout,
            max_memory: self.max_memory,
            prestart: self.prestart.value.unwrap_or(default.prestart),
        }
    }
}

/// Refuses a key where the pool's kind is none of those that have it: a limit that would not hold is worse than none.
pub(super) fn only_for<T>(
    table: &mut Table<'_, '_>,
    kind: &Key<Named>,
    of: &[Named],
    key: &Key<T>,
) {
    if !kind.is_sound() || of.contains(&kind.value) || !key.is_given() {
        return;
    }
    let those: Vec<_> = of.iter().map(|kind| quoted(kind.word())).collect();
    let (those, this) = (those.join(" or "), kind.value.word());
    table.refuse(
        key,
        format!("remove it, or write kind = {those}: it means nothing to \"{this}\""),
    );
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
        warn_of_own_variable(&mut table, &name, &entry);
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

/// The kinds of runner that a file can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    Exec,
    Warm,
    Container,
}

impl Named {
    fn word(self) -> &'static str {
        let word = KINDS.iter().find(|(_, kind)| *kind == self);
        word.map_or("", |(word, _)| word)
    }
}

const KINDS: [(&str, Named); 3] = [
    ("exec", Named::Exec),
    ("warm", Named::Warm),
    ("container", Named::Container),
];

const KIND: Choice<Named> = Choice(&KINDS);

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
