//! The part of a process's environment that is the same for all of a pool's processes.

use std::ffi::{OsStr, OsString};

use tokio::process::Command;

use super::ExecSettings;

/// Variables of the supervisor that every process receives.
const ALWAYS_PASSED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// The variables that every process of a pool receives.
#[derive(Debug)]
pub(in crate::runners) struct Environment {
    variables: Vec<(OsString, OsString)>,
}

impl Environment {
    /// Reads the supervisor's environment, once.
    pub(in crate::runners) fn new(settings: &ExecSettings) -> Self {
        Self::with(settings, |name| std::env::var_os(name))
    }

    fn with(settings: &ExecSettings, ours: impl Fn(&str) -> Option<OsString>) -> Self {
        // Another user has another home directory. The launcher sets the variables of a login unless the pool sets
        // them.
        let is_other = settings.limits.user.is_some();
        let passed = ALWAYS_PASSED
            .into_iter()
            .filter(|name| !(is_other && *name == "HOME"))
            .chain(settings.env_pass.iter().map(String::as_str))
            .filter_map(|name| Some((name.into(), ours(name)?)));
        let listed = settings
            .env
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        Self {
            variables: passed.chain(listed).collect(),
        }
    }

    /// `PATH` as the process sees it.
    pub(in crate::runners) fn path(&self) -> Option<&OsStr> {
        // A later value overrides an earlier one, as it does in the process.
        let mut paths = self
            .variables
            .iter()
            .rev()
            .filter(|(name, _)| name == "PATH");
        paths.next().map(|(_, value)| value.as_os_str())
    }

    /// Sets the environment of `command` to exactly these variables.
    pub(in crate::runners) fn apply(&self, command: &mut Command) {
        command.env_clear();
        for (name, value) in &self.variables {
            command.env(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_only_listed_variables_and_those_of_the_pool_win() {
        let mut settings = ExecSettings::new(["true"]);
        settings.env_pass = vec!["PASSED".into(), "MISSING".into()];
        settings.env = [("PATH".to_owned(), "/opt".to_owned())].into();
        let ours = |name: &str| match name {
            "MISSING" | "TZ" => None,
            name => Some(format!("our {name}").into()),
        };
        let environment = Environment::with(&settings, ours);
        let names: Vec<_> = environment
            .variables
            .iter()
            .map(|(name, _)| name.to_string_lossy())
            .collect();
        assert_eq!(names, ["PATH", "HOME", "LANG", "PASSED", "PATH"]);
        assert_eq!(environment.path(), Some(OsStr::new("/opt")));
    }

    #[test]
    fn a_job_of_another_user_does_not_get_our_home_unless_the_pool_passes_it() {
        let names = |settings: &ExecSettings| -> Vec<_> {
            let environment = Environment::with(settings, |name| Some(name.into()));
            let names = environment.variables.into_iter().map(|(name, _)| name);
            names.collect()
        };
        let mut settings = ExecSettings::new(["true"]);
        settings.limits.user = Some("nobody".into());
        assert_eq!(names(&settings), ["PATH", "LANG", "TZ"]);
        settings.env_pass = vec!["HOME".into()];
        assert_eq!(names(&settings), ["PATH", "LANG", "TZ", "HOME"]);
    }
}
