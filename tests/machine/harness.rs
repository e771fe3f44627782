//! A test harness like libtest's. Its tests find out at run time whether the machine has what they need. If not, they
//! are reported as ignored, with the reason.

use std::{collections::HashMap, env, process::ExitCode, sync::Mutex};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::needs::Need;

/// All tests of this binary. Each module registers its own.
#[derive(Default)]
pub(crate) struct Trials(Vec<Trial>);

impl Trials {
    /// Adds a test that runs on the calling thread.
    pub(crate) fn plain(&mut self, module: &str, name: &str, need: Need, test: fn()) {
        let trial = Trial::ignorable_test(full_name(module, name), move || run(need, test));
        self.0.push(trial);
    }

    /// Adds an async test with a runtime of its own.
    pub(crate) fn tasks<F>(&mut self, module: &str, name: &str, need: Need, test: fn() -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        let on_runtime = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(test());
        };
        let trial = Trial::ignorable_test(full_name(module, name), move || run(need, on_runtime));
        self.0.push(trial);
    }

    /// Runs the tests that the command line selects. As in libtest, one matching filter is enough.
    pub(crate) fn run(mut self) -> ExitCode {
        let (filters, mut rest) = split(env::args().collect());
        if let [only] = &filters[..] {
            rest.push(only.clone());
        }
        let arguments = Arguments::from_iter(rest);
        if filters.len() > 1 {
            self.0.retain(|trial| {
                let matches = |filter: &String| match arguments.exact {
                    true => trial.name() == filter,
                    false => trial.name().contains(filter),
                };
                filters.iter().any(matches)
            });
        }
        libtest_mimic::run(&arguments, self.0).exit_code()
    }
}

/// A test's name without the name of the binary.
fn full_name(module: &str, name: &str) -> String {
    let (_, module) = module.split_once("::").expect("a module of this binary");
    format!("{module}::{name}")
}

fn run(need: Need, test: impl FnOnce()) -> Result<Completion, Failed> {
    if let Some(why) = lack(need) {
        return Ok(Completion::ignored_with(why));
    }
    test();
    Ok(Completion::Completed)
}

/// The missing part of this need, or `None`. Checked once per need.
fn lack(need: Need) -> Option<String> {
    static KNOWN: Mutex<Option<HashMap<Need, Option<String>>>> = Mutex::new(None);
    let mut known = KNOWN
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let known = known.get_or_insert_default();
    known.entry(need).or_insert_with(|| need.lack()).clone()
}

/// Splits the words of a command line into filters and others.
fn split(words: Vec<String>) -> (Vec<String>, Vec<String>) {
    const WITH_VALUE: [&str; 6] = [
        "--skip",
        "--test-threads",
        "--logfile",
        "--color",
        "--format",
        "-Z",
    ];
    let (mut filters, mut rest) = (Vec::new(), Vec::new());
    for word in words {
        let is_value = rest
            .last()
            .is_some_and(|before: &String| WITH_VALUE.contains(&before.as_str()));
        match rest.is_empty() || is_value || word.starts_with('-') {
            true => rest.push(word),
            false => filters.push(word),
        }
    }
    (filters, rest)
}
