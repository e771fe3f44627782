//! Shell completions. The shell asks this program at each TAB, so pools are completed by their names: those of the
//! running supervisor, else those of the configuration.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Command, CommandFactory};
use clap_complete::{
    CompleteEnv, Shell,
    engine::{ArgValueCandidates, CompletionCandidate},
    env::Shells,
};
use tokio::time;

use super::{args::Cli, client, supervisor};
use tidegate::{api::v1, config};

/// The variable by which the shell's script asks for completions. It names the shell.
const VARIABLE: &str = "TIDEGATE_COMPLETE";

/// A person waits at a TAB.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Answers the shell, if a shell asks. Prints the completions and ends the process.
pub(super) fn answer_shell() {
    CompleteEnv::with_factory(command)
        .var(VARIABLE)
        .bin("tidegate")
        .complete();
}

/// The script that makes a shell ask this program.
pub(super) fn script(shell: Shell) -> io::Result<Vec<u8>> {
    let shells = Shells::builtins();
    let name = shell.to_string();
    let completer = shells
        .completer(&name)
        .ok_or_else(|| io::Error::other(format!("no completions for {name}")))?;
    let mut text = Vec::new();
    completer.write_registration(VARIABLE, "tidegate", "tidegate", "tidegate", &mut text)?;
    if shell == Shell::Zsh {
        // A file in $fpath runs at the first TAB, and must answer it.
        text.extend_from_slice(
            b"[ \"$funcstack[1]\" = \"_tidegate\" ] && _clap_dynamic_completer_tidegate \"$@\"\n",
        );
    }
    Ok(text)
}

fn command() -> Command {
    with_pools(Cli::command())
}

/// Adds the names of the pools to each argument that takes one.
fn with_pools(command: Command) -> Command {
    // The name of a pool that is made.
    if command.get_name() == "init" {
        return command;
    }
    // `mut_arg` would change the order of the arguments.
    let command = command.mut_args(|argument| match argument.get_id().as_str() {
        "pool" | "pools" => argument.add(ArgValueCandidates::new(pools)),
        _ => argument,
    });
    command.mut_subcommands(with_pools)
}

/// The names of the pools.
fn pools() -> Vec<CompletionCandidate> {
    let words = Words::of(std::env::args_os());
    let names = running(&words).or_else(|| configured(&words));
    let names = names.unwrap_or_default().into_iter();
    names
        .filter(|name| !name.chars().any(char::is_control))
        .map(CompletionCandidate::new)
        .collect()
}

/// Those of the supervisor, if one runs.
fn running(words: &Words) -> Option<Vec<String>> {
    let (supervisor, _) = supervisor::look_for(words.config.as_deref(), words.socket.as_deref());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let pools: Vec<v1::Pool> = runtime
        .block_on(async {
            let asked = client::get(&supervisor, "/api/v1/pools", "read the pools");
            time::timeout(TIMEOUT, asked).await
        })
        .ok()?
        .ok()?;
    Some(
        pools
            .iter()
            .map(|pool| pool.status.name.to_string())
            .collect(),
    )
}

/// Those of the configuration, if it is valid.
fn configured(words: &Words) -> Option<Vec<String>> {
    let source = config::find(words.config.as_deref()).ok()?;
    let loaded = config::load(&source).ok()?;
    let pools = loaded.settings.pools.iter();
    Some(pools.map(|config| config.pool.name.to_string()).collect())
}

/// The configuration and socket that the completed command line names. The line may be incomplete, so clap cannot parse
/// it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Words {
    config: Option<PathBuf>,
    socket: Option<PathBuf>,
}

impl Words {
    /// `words` are those of this process: the shell's line stands behind `--`.
    fn of(words: impl Iterator<Item = OsString>) -> Self {
        let mut found = Self::default();
        let mut words = words.skip_while(|word| word != "--").skip(1);
        while let Some(word) = words.next() {
            let (name, value) = match split(&word) {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_os_str(), None),
            };
            let place = match name.to_str() {
                Some("-c" | "--config") => &mut found.config,
                Some("--socket") => &mut found.socket,
                _ => continue,
            };
            let value = value.or_else(|| words.next());
            *place = value
                .map(PathBuf::from)
                .filter(|path| path != Path::new(""));
        }
        found
    }
}

/// `--config=FILE` in two.
fn split(word: &OsStr) -> Option<(&OsStr, &OsStr)> {
    let (name, value) = word.to_str()?.split_once('=')?;
    Some((name.as_ref(), value.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_socket_from_the_command_line() {
        let words = |line: &str| Words::of(line.split(' ').map(OsString::from));
        let found = |config: Option<&str>, socket: Option<&str>| Words {
            config: config.map(PathBuf::from),
            socket: socket.map(PathBuf::from),
        };
        for (line, wanted) in [
            ("tidegate -- tidegate explain ", found(None, None)),
            ("tidegate -c no -- tidegate explain", found(None, None)),
            ("t -- t -c a.toml explain ", found(Some("a.toml"), None)),
            (
                "t -- t explain --config=a.toml ",
                found(Some("a.toml"), None),
            ),
            (
                "t -- t explain --socket s.sock",
                found(None, Some("s.sock")),
            ),
            ("t -- t explain --config", found(None, None)),
        ] {
            assert_eq!(words(line), wanted, "{line}");
        }
    }

    #[test]
    fn every_argument_that_takes_a_pool_is_completed() {
        fn count(command: &Command) -> usize {
            let here = command.get_arguments();
            let here = here.filter(|argument| argument.get::<ArgValueCandidates>().is_some());
            here.count() + command.get_subcommands().map(count).sum::<usize>()
        }
        fn wanted(command: &Command) -> usize {
            let here = command.get_arguments();
            let here = here.filter(|argument| {
                let names = argument.get_value_names().unwrap_or_default();
                names.iter().any(|name| name == "POOL")
            });
            let is_other = command.get_name() == "init";
            let here = if is_other { 0 } else { here.count() };
            here + command.get_subcommands().map(wanted).sum::<usize>()
        }
        let mut command = command();
        command.build();
        assert!(count(&command) > 10);
        assert_eq!(count(&command), wanted(&command));
    }
}
