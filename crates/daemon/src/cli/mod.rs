//! The command line: its arguments, and its output.
//!
//! Data goes to standard output and everything else to standard error. Owns exit codes and the form of an error;
//! what commands do is done elsewhere.

mod args;
mod broker;
mod check;
mod client;
mod complete;
mod dead;
mod declared;
mod drain;
mod dry_run;
mod explain;
mod finding;
mod hints;
mod init;
mod jobs;
mod load;
mod loading;
mod man;
mod management;
mod policy;
mod publish;
mod record;
mod runtime;
mod simulate;
mod status;
mod steer;
mod supervisor;
mod table;
mod takeover;
mod top;
mod traffic;
mod tune;
mod watch;

use std::{io, process::ExitCode};

use anyhow::Context;
use clap::Parser;

use self::{
    args::{Cli, Command, RunArgs},
    loading::{load, refused},
    runtime::block_on,
};
use crate::{
    app::{self, Ending, PreparedDaemon},
    demo,
    guard::{self, Role},
    output::{self, CommandFailure, Exit},
    reference,
    telemetry::{
        logs::{self, LogsError, Verbosity},
        otlp::{self, Otlp},
        stderr,
    },
};
use tidegate::{
    config::{LogFormat, Problems},
    host::launcher,
};

/// Runs the program: reads its arguments, carries out the command, and prints errors.
pub fn main() -> ExitCode {
    launcher::init();
    complete::answer_shell();
    let code = match Cli::try_parse() {
        Ok(cli) => done(&cli),
        // Help and version too: they are errors to clap, and end well.
        Err(error) if !error.use_stderr() => {
            let _ = error.print();
            Exit::Ok.into()
        }
        Err(error) => {
            // A daemon does not wait for its reader, even if the arguments are wrong.
            if std::env::args_os().any(|word| word == "run") {
                never_wait();
            }
            output::tell(hints::of(&error).as_bytes());
            Exit::Usage.into()
        }
    };
    logs::finish();
    code
}

fn done(cli: &Cli) -> ExitCode {
    match dispatch(cli) {
        Ok(code) => code,
        Err(failure) if failure.is_broken_pipe() => Exit::Ok.into(),
        Err(failure) => {
            if matches!(cli.command, Command::Run(_)) {
                never_wait();
            }
            failure.print();
            failure.exit.into()
        }
    }
}

/// From now on no output of this process on standard error waits for its reader.
fn never_wait() {
    // Without a second thread the message may have to wait, but it is printed.
    let _ = stderr::start();
}

fn dispatch(cli: &Cli) -> Result<ExitCode, CommandFailure> {
    let exit = match &cli.command {
        Command::Run(args) => {
            guard::conceal();
            if !args.no_guard
                && let Role::Done(code) = guard::take_role()?
            {
                return Ok(code);
            }
            never_wait();
            run(cli, args)?
        }
        Command::Check(args) => check::check(cli, args)?,
        Command::Demo => demo()?,
        Command::Init(args) => init::init(cli, args)?,
        Command::Publish(args) => {
            init_logs(LogFormat::Human, Verbosity::Quiet, None)?;
            block_on(publish::publish(cli, args))??
        }
        Command::Load(args) => {
            init_logs(LogFormat::Human, Verbosity::Quiet, None)?;
            block_on(load::load(cli, args))??
        }
        Command::Simulate(args) => simulate::simulate(cli, args)?,
        Command::Tune(args) => tune::tune(cli, args)?,
        Command::Status(args) if args.watch => block_on(watch::watch(cli, args))??,
        Command::Status(args) => block_on(status::status(cli, args))??,
        Command::Top(args) => block_on(top::top(cli, args))??,
        Command::Record(args) => block_on(record::record(cli, args))??,
        Command::Explain(args) => block_on(explain::explain(cli, args))??,
        Command::Pause(args) => block_on(steer::pause(cli, args))??,
        Command::Resume(args) => block_on(steer::resume(cli, args))??,
        Command::Drain(args) => block_on(drain::drain(cli, args))??,
        Command::Flush(args) => block_on(steer::flush(cli, args))??,
        Command::Scale(args) => block_on(steer::scale(cli, args))??,
        Command::Policy(args) => block_on(policy::policy(cli, args))??,
        Command::Jobs(args) => block_on(jobs::jobs(cli, args))??,
        Command::Reload(args) => block_on(steer::reload(cli, args))??,
        Command::Dead(args) => block_on(dead::dead(cli, args))??,
        Command::Completions { shell } => {
            let script = complete::script(*shell).context("make the completions");
            let script = script.map_err(|error| CommandFailure::new(Exit::Unexpected, error))?;
            output::write(&script)?;
            Exit::Ok
        }
        Command::Docs { directory } => {
            let what = || format!("write the reference pages to {}", directory.display());
            let written = reference::write(directory).with_context(what);
            written.map_err(|error| CommandFailure::new(Exit::Unexpected, error))?;
            Exit::Ok
        }
        Command::Man { directory } => man::man(directory)?,
    };
    Ok(exit.into())
}

fn run(cli: &Cli, args: &RunArgs) -> Result<Exit, CommandFailure> {
    let (source, loaded) = load(cli)?;
    let not_built: Problems = otlp::inspect(&loaded).into_iter().collect();
    if !not_built.is_empty() {
        return Err(refused(&source, &not_built));
    }
    let problems = loaded.inspect_limits(guard::pid());
    if !problems.is_empty() {
        return Err(refused(&source, &problems));
    }
    let format = args
        .log_format
        .map_or(loaded.settings.log.format, Into::into);
    // Before the threads of the runtime: the subscriber is made of it.
    let otlp = loaded.settings.otlp.as_ref().map(Otlp::start).transpose();
    let otlp = otlp.map_err(|error| CommandFailure::new(Exit::Unexpected, error))?;
    init_logs(format, Verbosity::Normal, otlp.as_ref())?;
    let options = app::Options {
        loaded,
        source,
        otlp,
    };
    let run = async {
        let prepared = PreparedDaemon::new(options)?;
        let predecessor = match args.takeover {
            true => Some(takeover::ask(&prepared.settings().http).await?),
            false => None,
        };
        Ok::<_, CommandFailure>(prepared.run(predecessor).await?)
    };
    match block_on(run)?? {
        Ending::Clean => Ok(Exit::Ok),
        Ending::GivenBack(_) => Ok(Exit::GivenBack),
    }
}

fn demo() -> Result<Exit, CommandFailure> {
    init_logs(LogFormat::Human, Verbosity::Quiet, None)?;
    block_on(demo::run())?
}

fn init_logs(
    format: LogFormat,
    verbosity: Verbosity,
    otlp: Option<&Otlp>,
) -> Result<(), CommandFailure> {
    logs::init(format, verbosity, otlp).map_err(|error| {
        let hint = "write off, error, warn, info, debug or trace, or a list with targets of their own: \
                    info,tidegate::run=debug";
        match error {
            LogsError::Filter { .. } | LogsError::Word { .. } => {
                CommandFailure::new(Exit::BadConfiguration, error).hint(hint)
            }
            error => CommandFailure::new(Exit::Unexpected, error),
        }
    })
}

impl From<guard::GuardError> for CommandFailure {
    fn from(error: guard::GuardError) -> Self {
        Self::new(Exit::Unexpected, error).hint(
            "--no-guard runs without one; then a supervisor that is killed leaves its jobs running",
        )
    }
}

impl From<app::AppError> for CommandFailure {
    fn from(error: app::AppError) -> Self {
        use app::AppError as E;

        use crate::http::socket::InstanceError;
        use tidegate::host::instance::LockError;
        if let E::StartObstacles(obstacles) = &error {
            let keys = obstacles.keys().join(", ");
            let hint = format!(
                "give each of [http] {keys} a value of this supervisor's own, in a place that can be written to"
            );
            return Self::new(Exit::Unexpected, error).hint(hint);
        }
        let (exit, hint) = match &error {
            E::Instance(
                InstanceError::Running { .. } | InstanceError::Lock(LockError::Held { .. }),
            ) => (
                Exit::Unexpected,
                Some(
                    "one is running already; give this one a [http] state_dir and socket of its own",
                ),
            ),
            E::Instance(InstanceError::Lock(_)) => (
                Exit::Unexpected,
                Some("name a directory that can be written to in [http] state_dir"),
            ),
            E::Instance(InstanceError::Listen { .. } | InstanceError::Directory { .. }) => (
                Exit::Unexpected,
                Some("name a place that can be written to in [http] socket"),
            ),
            E::Instance(InstanceError::Untrusted { .. }) => (
                Exit::BadConfiguration,
                Some("name another place in [http] socket"),
            ),
            E::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => (
                Exit::Unexpected,
                Some("something listens there already; name another address in [http] listen"),
            ),
            E::Token { .. } => (
                Exit::BadConfiguration,
                Some("see [http] token_file and read_token_file"),
            ),
            E::Events(_) => (Exit::BadConfiguration, Some("see events_file")),
            E::Cgroup(_) => (
                Exit::Unexpected,
                Some("under systemd, the unit needs Delegate=yes; see what `tidegate check` says"),
            ),
            E::Launch(_) => (Exit::BadConfiguration, Some("see [broker]")),
            _ => (Exit::Unexpected, None),
        };
        let failure = Self::new(exit, error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
