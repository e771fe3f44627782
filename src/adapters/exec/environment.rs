//! The environment of a job's process: what the pool lists, and what the message says.

use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
};

use tokio::process::Command;

use super::header_json::headers_to_json;
use crate::{config::ExecSettings, runner::Job};

/// Variables of the supervisor that every job is given.
const ALWAYS_PASSED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// Bytes that the job's own variables may take together. Below the kernel's 128 KiB for a single string, and far
/// below its 2 MiB for them all, so that no message can keep a process from starting.
const BUDGET: usize = 64 * 1024;

/// Whether the message's headers are part of the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WithHeaders {
    Yes,
    No,
}

/// The part of the environment that is the same for all jobs of a pool.
#[derive(Debug)]
pub(super) struct Environment {
    variables: Vec<(OsString, OsString)>,
}

impl Environment {
    /// Reads the supervisor's environment, once.
    pub(super) fn new(settings: &ExecSettings) -> Self {
        Self::with(settings, |name| std::env::var_os(name))
    }

    fn with(settings: &ExecSettings, ours: impl Fn(&str) -> Option<OsString>) -> Self {
        let passed = ALWAYS_PASSED
            .into_iter()
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

    /// `PATH` as the job sees it.
    pub(super) fn path(&self) -> Option<&OsStr> {
        // What comes later wins, as it does in the process.
        let mut paths = self
            .variables
            .iter()
            .rev()
            .filter(|(name, _)| name == "PATH");
        paths.next().map(|(_, value)| value.as_os_str())
    }

    /// Makes this, and nothing else, the environment of `command`.
    pub(super) fn apply(&self, command: &mut Command, job: &Job, headers: WithHeaders) {
        command.env_clear();
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        for (name, value) in job_variables(job, headers) {
            command.env(name, value.as_ref());
        }
    }
}

/// The job's own variables, within their budget: what does not fit is left out, and said to be.
fn job_variables(job: &Job, headers: WithHeaders) -> Vec<(&'static str, Cow<'_, str>)> {
    let message = job.message();
    let properties = &message.properties;
    let mut budget = Budget {
        left: BUDGET,
        truncated: false,
        variables: Vec::with_capacity(10),
    };
    budget.add("TIDEGATE_POOL", without_nul(job.pool().as_str()));
    budget.add("TIDEGATE_QUEUE", without_nul(job.queue().as_str()));
    budget.add("TIDEGATE_JOB_ID", without_nul(job.id().as_str()));
    budget.add("TIDEGATE_ATTEMPT", job.attempt().to_string().into());
    budget.add(
        "TIDEGATE_REDELIVERED",
        if message.redelivered { "true" } else { "false" }.into(),
    );
    budget.add("TIDEGATE_ROUTING_KEY", without_nul(&message.routing_key));
    budget.add(
        "TIDEGATE_CONTENT_TYPE",
        without_nul(properties.content_type.as_deref().unwrap_or_default()),
    );
    budget.add(
        "TIDEGATE_CORRELATION_ID",
        without_nul(properties.correlation_id.as_deref().unwrap_or_default()),
    );
    // Last, because it is the one that a sender can make as large as they like.
    match headers {
        WithHeaders::Yes if job.headers().is_empty() => budget.add("TIDEGATE_HEADERS", "{}".into()),
        // JSON has an escape for NUL, so its text holds none.
        WithHeaders::Yes => budget.add(
            "TIDEGATE_HEADERS",
            headers_to_json(job.headers()).to_string().into(),
        ),
        WithHeaders::No => budget.truncated = true,
    }
    if budget.truncated {
        budget.variables.push(("TIDEGATE_TRUNCATED", "1".into()));
    }
    budget.variables
}

struct Budget<'a> {
    left: usize,
    truncated: bool,
    variables: Vec<(&'static str, Cow<'a, str>)>,
}

impl<'a> Budget<'a> {
    fn add(&mut self, name: &'static str, value: Cow<'a, str>) {
        // As the kernel counts: `name=value` and a NUL.
        let size = name.len() + value.len() + 2;
        match self.left.checked_sub(size) {
            Some(left) => {
                self.left = left;
                self.variables.push((name, value));
            }
            None => self.truncated = true,
        }
    }
}

/// An environment's strings end at their first NUL, so it cannot be part of one.
fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}").into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{
        decide::JobId,
        queue::{HeaderValue, Headers, Message, Properties},
    };

    fn job(message: Message) -> Job {
        Job::new("p".into(), "q".into(), Arc::new(message), 3, || {
            JobId::from("made-up")
        })
    }

    fn variables(message: Message) -> BTreeMap<&'static str, String> {
        job_variables(&job(message), WithHeaders::Yes)
            .into_iter()
            .map(|(name, value)| (name, value.into_owned()))
            .collect()
    }

    fn with_header(value: impl Into<HeaderValue>) -> Message {
        Message {
            headers: Headers::from([("h".to_owned(), value.into())]),
            ..Message::default()
        }
    }

    #[test]
    fn tells_the_job_all_of_its_message_but_the_body() {
        let told = variables(Message {
            routing_key: "key\nof two lines".into(),
            redelivered: true,
            properties: Properties {
                message_id: Some("id\0".into()),
                content_type: Some("text/plain".into()),
                correlation_id: Some("corr".into()),
                ..Properties::default()
            },
            ..with_header(1)
        });
        let expected = [
            ("TIDEGATE_POOL", "p"),
            ("TIDEGATE_QUEUE", "q"),
            ("TIDEGATE_JOB_ID", "id\u{fffd}"),
            ("TIDEGATE_ATTEMPT", "3"),
            ("TIDEGATE_REDELIVERED", "true"),
            ("TIDEGATE_ROUTING_KEY", "key\nof two lines"),
            ("TIDEGATE_CONTENT_TYPE", "text/plain"),
            ("TIDEGATE_CORRELATION_ID", "corr"),
            ("TIDEGATE_HEADERS", r#"{"h":1}"#),
        ];
        assert_eq!(
            told,
            expected
                .map(|(name, value)| (name, value.to_owned()))
                .into()
        );
    }

    #[test]
    fn sets_every_variable_where_the_message_says_nothing() {
        let told = variables(Message::default());
        assert_eq!(told["TIDEGATE_JOB_ID"], "made-up");
        assert_eq!(told["TIDEGATE_REDELIVERED"], "false");
        assert_eq!(told["TIDEGATE_CONTENT_TYPE"], "");
        assert_eq!(told["TIDEGATE_CORRELATION_ID"], "");
        assert_eq!(told["TIDEGATE_HEADERS"], "{}");
        assert!(!told.contains_key("TIDEGATE_TRUNCATED"));
    }

    #[test]
    fn leaves_out_what_does_not_fit_and_says_so() {
        let told = variables(with_header("x".repeat(130 * 1024)));
        assert!(!told.contains_key("TIDEGATE_HEADERS"));
        assert_eq!(told["TIDEGATE_TRUNCATED"], "1");
        assert_eq!(told["TIDEGATE_JOB_ID"], "made-up");

        // NULs grow when they are replaced: it is what the process is given that counts.
        let told = variables(Message {
            routing_key: "\0".repeat(BUDGET / 2),
            ..with_header(1)
        });
        assert!(!told.contains_key("TIDEGATE_ROUTING_KEY"));
        assert_eq!(told["TIDEGATE_HEADERS"], r#"{"h":1}"#);
        assert_eq!(told["TIDEGATE_TRUNCATED"], "1");
    }

    #[test]
    fn stays_within_the_budget_to_the_byte() {
        let size_of = |told: &BTreeMap<&str, String>| -> usize {
            told.iter()
                .map(|(name, value)| name.len() + value.len() + 2)
                .sum()
        };
        let room = BUDGET - size_of(&variables(with_header("")));
        let full = variables(with_header("x".repeat(room)));
        assert_eq!(size_of(&full), BUDGET);
        assert!(!full.contains_key("TIDEGATE_TRUNCATED"));
        let over = variables(with_header("x".repeat(room + 1)));
        assert!(over.contains_key("TIDEGATE_TRUNCATED"));
    }

    #[test]
    fn passes_only_what_is_listed_and_lets_the_pool_have_the_last_word() {
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
}
