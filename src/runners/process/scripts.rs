//! Finds commands whose interpreter is given a script that does not exist.

use super::{ExecSettings, program};
use crate::config::problem::Refuse;

/// Programs whose first argument is a script, and the options with which they run something else.
const INTERPRETERS: [(&str, &[&str]); 9] = [
    ("python", &["-c", "-m"]),
    ("ruby", &["-e", "-S"]),
    ("perl", &["-e", "-E", "-x", "-S"]),
    ("php", &["-r", "-B", "-R", "-S", "-F", "-f"]),
    ("bash", &["-c", "-s"]),
    ("dash", &["-c", "-s"]),
    ("zsh", &["-c", "-s"]),
    ("ksh", &["-c", "-s"]),
    ("sh", &["-c", "-s"]),
];

/// Interpreters that also find scripts in other ways. For these, a word counts as a script only if it has a known
/// extension.
const FINDERS: [&str; 4] = ["node", "deno", "bun", "lua"];

/// Programs that start another program.
const WRAPPERS: [&str; 8] = [
    "env", "nice", "ionice", "nohup", "setsid", "stdbuf", "timeout", "exec",
];

const EXTENSIONS: [&str; 12] = [
    "py", "rb", "pl", "php", "sh", "bash", "js", "mjs", "cjs", "ts", "lua", "R",
];

/// Reports a command that names a missing script.
pub(crate) fn suspect(exec: &ExecSettings, refuse: &mut Refuse<'_>) {
    if let Some(script) = missing_script(exec) {
        let fix =
            "write the script's full path, or set working_dir: without the script each job fails";
        let found = format!("{script:?}, which does not exist");
        refuse("command", found, fix.to_owned());
    }
}

/// The missing script, as the command names it.
fn missing_script(exec: &ExecSettings) -> Option<&str> {
    let script = script(&exec.command, program::is_there(exec))?;
    let base = exec.working_dir.clone().unwrap_or_default();
    (!base.join(script).exists()).then_some(script)
}

/// The word of a command that looks like a script. A program that is not there may be the misspelled name of an
/// interpreter.
fn script(command: &[String], program_is_there: bool) -> Option<&str> {
    let mut words = command.iter().map(String::as_str);
    let program = words.find(|word| !is_before_a_program(word))?;
    let name = base_name(program).trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let interpreter = INTERPRETERS.iter().find(|(known, _)| *known == name);
    let otherwise = interpreter.map_or(&["-e", "-p", "--eval", "--print"][..], |(_, options)| {
        *options
    });
    for word in words {
        if otherwise.contains(&word) {
            return None;
        }
        // An option. If its value is the next word, that word is taken for the script.
        if word.starts_with('-') || word.contains('=') {
            continue;
        }
        let has_extension = word
            .rsplit_once('.')
            .is_some_and(|(_, extension)| EXTENSIONS.contains(&extension));
        let is_script = match interpreter {
            Some(_) => has_extension || !word.contains(char::is_whitespace),
            None => has_extension && (FINDERS.contains(&name) || !program_is_there),
        };
        // A word of `deno run a.ts`.
        if !is_script && FINDERS.contains(&name) && !has_extension {
            continue;
        }
        return is_script.then_some(word);
    }
    None
}

/// Whether the program comes after this word: the word is a wrapper, one of its options, or the value of such an
/// option.
fn is_before_a_program(word: &str) -> bool {
    let is_amount = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    WRAPPERS.contains(&base_name(word))
        || word.starts_with('-')
        || word.contains('=')
        || (!is_amount.is_empty() && is_amount.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

/// The name of a program without its folder.
pub(crate) fn base_name(program: &str) -> &str {
    program.rsplit_once('/').map_or(program, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_script_that_an_interpreter_runs() {
        for (command, expected) in [
            ("python3 thumb.py", Some("thumb.py")),
            ("/usr/bin/python3.11 -u thumb.py --size 3", Some("thumb.py")),
            ("python3 -m thumbs run.py", None),
            ("python3 -c pass", None),
            ("php artisan queue:work", Some("artisan")),
            ("sh -eu ./run", Some("./run")),
            ("sh -c ./run", None),
            ("env LANG=C nice -n 10 ruby a.rb", Some("a.rb")),
            ("timeout 5m bash x", Some("x")),
            ("node worker.js", Some("worker.js")),
            ("node worker", None),
            ("node -e 3 worker.js", None),
            ("deno run --allow-net worker.ts", Some("worker.ts")),
            ("convert a.py b.py", None),
            ("cat", None),
            ("env", None),
        ] {
            let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
            assert_eq!(script(&words, true), expected, "{command}");
        }
        for (command, expected) in [
            ("pyhton3 -u thumb.py", Some("thumb.py")),
            ("pyhton3 thumb", None),
        ] {
            let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
            assert_eq!(script(&words, false), expected, "{command}");
        }
    }
}
