//! The facts of a message as environment variables of its job's process.

use std::borrow::Cow;

use super::header_json::{headers_to_json, is_whole_in_json};
use crate::{runner::Job, settle::lacks_headers};

/// Bytes that the job's own variables may take together. This is below the kernel's limits (128 KiB for one string, 2
/// MiB for all), so that no message can prevent the start of a process.
const BUDGET: usize = 64 * 1024;

/// Whether the message's headers are part of the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runners) enum WithHeaders {
    Yes,
    No,
}

/// The job's own variables, up to [`BUDGET`] bytes. If a variable does not fit, it is left out, and
/// `TIDEGATE_TRUNCATED` is set.
pub(in crate::runners) fn job_variables(
    job: &Job,
    headers: WithHeaders,
) -> Vec<(&'static str, Cow<'_, str>)> {
    let message = job.message();
    let properties = &message.properties;
    let mut budget = Budget {
        left: BUDGET,
        truncated: false,
        variables: Vec::with_capacity(20),
    };
    budget.add("TIDEGATE_POOL", without_nul(job.pool().as_str()));
    budget.add("TIDEGATE_QUEUE", without_nul(job.queue().as_str()));
    budget.add("TIDEGATE_JOB_ID", without_nul(job.id().as_str()));
    budget.add("TIDEGATE_ATTEMPT", job.attempt().to_string().into());
    budget.add(
        "TIDEGATE_REDELIVERED",
        if message.redelivered { "true" } else { "false" }.into(),
    );
    budget.add("TIDEGATE_EXCHANGE", no_nul(job.exchange()));
    budget.add("TIDEGATE_ROUTING_KEY", no_nul(job.routing_key()));
    budget.text("TIDEGATE_TYPE", &properties.kind);
    budget.text("TIDEGATE_APP_ID", &properties.app_id);
    budget.text("TIDEGATE_MESSAGE_ID", &properties.message_id);
    budget.text("TIDEGATE_CORRELATION_ID", &properties.correlation_id);
    budget.text("TIDEGATE_REPLY_TO", &properties.reply_to);
    budget.number("TIDEGATE_PRIORITY", properties.priority);
    budget.number("TIDEGATE_TIMESTAMP", properties.timestamp);
    budget.text("TIDEGATE_CONTENT_TYPE", &properties.content_type);
    budget.text("TIDEGATE_CONTENT_ENCODING", &properties.content_encoding);
    if let Some(context) = job.trace_context() {
        budget.add("TRACEPARENT", context.traceparent().into());
        if let Some(state) = context.tracestate() {
            budget.add("TRACESTATE", state.into());
        }
    }
    // Last, because a sender can make the headers as large as they like.
    match headers {
        WithHeaders::Yes if job.headers().is_empty() => budget.add("TIDEGATE_HEADERS", "{}".into()),
        WithHeaders::Yes => {
            // JSON has an escape for NUL, so its text holds none.
            let json = headers_to_json(job.headers()).to_string();
            budget.add("TIDEGATE_HEADERS", json.into());
            budget.truncated |= !is_whole_in_json(job.headers());
        }
        WithHeaders::No => budget.truncated = true,
    }
    // Headers that an earlier copy of the message left out are missing here too.
    budget.truncated |= lacks_headers(message);
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
    /// Adds a property. The variable is empty if the message does not have it.
    fn text(&mut self, name: &'static str, property: &'a Option<String>) {
        self.add(name, without_nul(property.as_deref().unwrap_or_default()));
    }

    fn number(&mut self, name: &'static str, property: Option<impl ToString>) {
        let text = property.map(|number| number.to_string());
        self.add(name, text.unwrap_or_default().into());
    }

    fn add(&mut self, name: &'static str, value: Cow<'a, str>) {
        // Counted like the kernel: `name=value` and a NUL.
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

fn no_nul(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => without_nul(text),
        Cow::Owned(text) => without_nul(&text).into_owned().into(),
    }
}

/// The strings of an environment end at their first NUL, so a NUL cannot be part of a value.
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
    fn the_job_gets_all_of_its_message_except_the_body() {
        let told = variables(Message {
            routing_key: "key\nof two lines".into(),
            redelivered: true,
            properties: Properties {
                message_id: Some("id\0".into()),
                content_type: Some("text/plain".into()),
                correlation_id: Some("corr".into()),
                content_encoding: Some("gzip".into()),
                kind: Some("thumbnail".into()),
                app_id: Some("shop".into()),
                reply_to: Some("answers".into()),
                priority: Some(7),
                timestamp: Some(1_764_000_000),
                ..Properties::default()
            },
            exchange: "orders".into(),
            ..with_header(1)
        });
        let expected = [
            ("TIDEGATE_POOL", "p"),
            ("TIDEGATE_QUEUE", "q"),
            ("TIDEGATE_JOB_ID", "id\u{fffd}"),
            ("TIDEGATE_ATTEMPT", "3"),
            ("TIDEGATE_REDELIVERED", "true"),
            ("TIDEGATE_EXCHANGE", "orders"),
            ("TIDEGATE_ROUTING_KEY", "key\nof two lines"),
            ("TIDEGATE_TYPE", "thumbnail"),
            ("TIDEGATE_APP_ID", "shop"),
            ("TIDEGATE_MESSAGE_ID", "id\u{fffd}"),
            ("TIDEGATE_CORRELATION_ID", "corr"),
            ("TIDEGATE_REPLY_TO", "answers"),
            ("TIDEGATE_PRIORITY", "7"),
            ("TIDEGATE_TIMESTAMP", "1764000000"),
            ("TIDEGATE_CONTENT_TYPE", "text/plain"),
            ("TIDEGATE_CONTENT_ENCODING", "gzip"),
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
    fn sets_every_variable_if_the_message_has_no_value_for_it() {
        let told = variables(Message::default());
        assert_eq!(told["TIDEGATE_JOB_ID"], "made-up");
        assert_eq!(told["TIDEGATE_REDELIVERED"], "false");
        for name in [
            "EXCHANGE",
            "ROUTING_KEY",
            "TYPE",
            "APP_ID",
            "MESSAGE_ID",
            "CORRELATION_ID",
            "REPLY_TO",
            "PRIORITY",
            "TIMESTAMP",
            "CONTENT_TYPE",
            "CONTENT_ENCODING",
        ] {
            assert_eq!(told[&*format!("TIDEGATE_{name}")], "");
        }
        assert_eq!(told["TIDEGATE_HEADERS"], "{}");
        assert!(!told.contains_key("TIDEGATE_TRUNCATED"));
    }

    #[test]
    fn for_a_copy_it_reports_where_the_message_was_first_published() {
        let copy = |exchange: &str| Message {
            exchange: exchange.into(),
            routing_key: "thumbnails".into(),
            headers: Headers::from([
                ("x-tidegate-original-exchange".to_owned(), "orders".into()),
                (
                    "x-tidegate-original-routing-key".to_owned(),
                    "eu.new".into(),
                ),
            ]),
            ..Message::default()
        };
        let told = variables(copy(""));
        assert_eq!(told["TIDEGATE_EXCHANGE"], "orders");
        assert_eq!(told["TIDEGATE_ROUTING_KEY"], "eu.new");
        let told = variables(copy("elsewhere"));
        assert_eq!(told["TIDEGATE_EXCHANGE"], "elsewhere");
        assert_eq!(told["TIDEGATE_ROUTING_KEY"], "thumbnails");
    }

    /// The documentation page for users.
    #[test]
    fn every_variable_is_documented() {
        let page = include_str!("../../../docs/jobs.md");
        let told = variables(Message::default());
        for name in told
            .keys()
            .chain(&["TIDEGATE_TRUNCATED", "TIDEGATE_RUN_ID"])
        {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn omits_variables_that_do_not_fit_and_names_them() {
        let told = variables(with_header("x".repeat(130 * 1024)));
        assert!(!told.contains_key("TIDEGATE_HEADERS"));
        assert_eq!(told["TIDEGATE_TRUNCATED"], "1");
        assert_eq!(told["TIDEGATE_JOB_ID"], "made-up");

        // A NUL becomes longer when it is replaced: the replaced value counts.
        let told = variables(Message {
            routing_key: "\0".repeat(BUDGET / 2),
            ..with_header(1)
        });
        assert!(!told.contains_key("TIDEGATE_ROUTING_KEY"));
        assert_eq!(told["TIDEGATE_HEADERS"], r#"{"h":1}"#);
        assert_eq!(told["TIDEGATE_TRUNCATED"], "1");
    }

    #[test]
    fn the_job_is_told_which_headers_a_copy_dropped() {
        let dropped = HeaderValue::List(vec![HeaderValue::from("h")]);
        let told = variables(Message {
            headers: Headers::from([("x-tidegate-dropped-headers".to_owned(), dropped)]),
            ..Message::default()
        });
        assert_eq!(told["TIDEGATE_TRUNCATED"], "1");
    }

    #[test]
    fn the_job_is_told_that_deeply_nested_headers_were_cut() {
        let nested = |levels| (0..levels).fold(1.into(), |inner, _| HeaderValue::List(vec![inner]));
        assert!(!variables(with_header(nested(15))).contains_key("TIDEGATE_TRUNCATED"));
        let told = variables(with_header(nested(16)));
        assert_eq!(told["TIDEGATE_TRUNCATED"], "1");
        assert!(told["TIDEGATE_HEADERS"].contains("null"));
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
}
