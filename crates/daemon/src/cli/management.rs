//! What a queue's arguments and policies mean for its pool. Pure: facts in, findings out.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::finding::Severity;
use tidegate::{
    adapters::amqp::QueueFacts,
    config::{CONSUMERS_PER_CHANNEL, DeadLetter, PoolSettings, lowest_delivery_limit},
    decide::QueueName,
    text::short_duration,
};

/// A queue, in the form of the API.
#[derive(Debug, Default, Deserialize)]
pub(in crate::cli) struct QueueDetails {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    auto_delete: bool,
    #[serde(default)]
    durable: Option<bool>,
    #[serde(default)]
    arguments: Map<String, Value>,
    #[serde(default)]
    policy: Option<String>,
    #[serde(default)]
    operator_policy: Option<String>,
    /// The combined effect of its policies. An empty list if there are none.
    #[serde(default)]
    effective_policy_definition: Value,
}

/// The permissions of a user in a vhost: a pattern of names for each kind.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Permissions {
    configure: String,
    write: String,
    read: String,
}

/// A limit of a queue, and its origin.
struct QueueLimit {
    value: u64,
    by: String,
}

impl QueueDetails {
    /// The argument `x-<name>`, or the value of a policy. If both are set, the lower one, which is also the broker's
    /// rule.
    fn limit(&self, name: &str) -> Option<QueueLimit> {
        let argument = self.arguments.get(&format!("x-{name}"));
        let argument = argument.and_then(Value::as_u64).map(|value| QueueLimit {
            value,
            by: format!("its argument x-{name}"),
        });
        let policy = self.effective_policy_definition.get(name);
        let policy = policy.and_then(Value::as_u64).map(|value| QueueLimit {
            value,
            by: self.policies(),
        });
        argument
            .into_iter()
            .chain(policy)
            .min_by_key(|limit| limit.value)
    }

    /// How the queue loses messages by itself. Either origin can set an overflow other than `drop-head`.
    pub(in crate::cli) fn losses(&self) -> Vec<String> {
        let mut facts = QueueFacts::default();
        for name in ["max-length", "max-length-bytes", "message-ttl", "expires"] {
            if let Some(limit) = self.limit(name) {
                let value = limit.value.to_string();
                facts.arguments.insert(format!("x-{name}"), value);
            }
        }
        let policy = |name: &str| self.effective_policy_definition.get(name);
        for name in ["overflow", "dead-letter-exchange"] {
            let argument = self.arguments.get(&format!("x-{name}"));
            if let Some(value) = argument.or(policy(name)).and_then(Value::as_str) {
                facts
                    .arguments
                    .insert(format!("x-{name}"), value.to_owned());
            }
        }
        facts.is_transient = self.durable == Some(false);
        facts.losses()
    }

    fn policies(&self) -> String {
        match (&self.policy, &self.operator_policy) {
            (Some(policy), Some(operator)) => format!("the policies {policy} and {operator}"),
            (Some(policy), None) | (None, Some(policy)) => format!("the policy {policy}"),
            (None, None) => "a policy".to_owned(),
        }
    }

    fn has_dead_letter_exchange(&self) -> bool {
        self.arguments.contains_key("x-dead-letter-exchange")
            || self
                .effective_policy_definition
                .get("dead-letter-exchange")
                .is_some()
    }
}

/// Who takes the messages of a pool's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Taker {
    /// Our workers.
    Workers,
    /// Programs that consume the queue themselves. Deadlines, returns and dead letters are theirs.
    Programs,
}

/// The type of a queue, and what does not fit its pool.
pub(in crate::cli) fn of_queue(
    pool: &PoolSettings,
    taker: Taker,
    details: &QueueDetails,
) -> Vec<(Severity, String)> {
    let queue = &pool.queue;
    let mut found = Vec::new();
    let mut say = |severity, what: String| found.push((severity, what));
    let kind = details.kind.as_deref().unwrap_or("unknown");
    let (severity, what) = of_kind(queue, kind);
    say(severity, what);

    if taker == Taker::Workers
        && let Some(QueueLimit { value, by }) = details.limit("consumer-timeout")
    {
        let timeout = Duration::from_millis(value);
        let (shown, deadline) = (short_duration(timeout), short_duration(pool.ack_deadline));
        if timeout < pool.ack_deadline {
            say(
                Severity::Error,
                format!(
                    "queue {queue} has a consumer timeout of {shown} by {by}, below the pool's ack_deadline of \
                     {deadline}: the broker cuts the channel under a running job. Write ack_deadline = \"{shown}\" \
                     or less, or raise the timeout"
                ),
            );
        } else {
            say(
                Severity::Ok,
                format!("its consumer timeout is {shown} by {by}, ack_deadline {deadline}"),
            );
        }
    }
    if details.auto_delete {
        say(
            Severity::Error,
            format!(
                "queue {queue} is auto-delete: it goes, with its messages, when the pool has no worker. Declare it \
                 without"
            ),
        );
    }
    if let Some(QueueLimit { value, by }) = details.limit("expires") {
        say(
            Severity::Warning,
            format!(
                "queue {queue} expires by {by}: it goes, with its messages, after {} without a consumer, which a \
                 drained, paused or faulted pool is",
                short_duration(Duration::from_millis(value))
            ),
        );
    }
    let single = details.arguments.get("x-single-active-consumer");
    let several = pool.policy.max > 1 && pool.key.is_none();
    if single.and_then(Value::as_bool) == Some(true) && several {
        let (severity, what) = of_single_active_consumer(queue);
        say(severity, what);
    }
    if taker == Taker::Workers
        && pool.retry.dead_letter == DeadLetter::Broker
        && !details.has_dead_letter_exchange()
    {
        say(
            Severity::Error,
            format!(
                "queue {queue} has no dead-letter exchange: with dead_letter = \"broker\" dead letters are lost. Give \
                 it one, or write dead_letter = \"queue\""
            ),
        );
    }
    if taker == Taker::Workers
        && let Some(QueueLimit { value, by }) = details.limit("delivery-limit")
    {
        // A give-back is a copy, and a message that was returned is replaced with a fresh copy. So a message has the
        // returns of one connection loss only, at most one for each channel.
        let lowest = lowest_delivery_limit(pool.policy.max, pool.key.as_ref());
        match i64::try_from(value).unwrap_or(i64::MAX) {
            limit if (0..lowest).contains(&limit) => say(
                Severity::Warning,
                format!(
                    "queue {queue} has a delivery limit of {value} by {by}: the broker may count one death, or one lost \
                     connection, as a return for each {CONSUMERS_PER_CHANNEL} workers, and drops or dead-letters what is \
                     returned more often. Raise it to {lowest} or more"
                ),
            ),
            _ => say(
                Severity::Ok,
                format!(
                    "its delivery limit is {value} by {by}: giving messages back does not count towards it"
                ),
            ),
        }
    }
    found
}

/// What an existing queue means for the pool's dead letters.
pub(in crate::cli) fn of_dead_queue(
    queue: &QueueName,
    losses: &[String],
) -> Option<(Severity, String)> {
    if losses.is_empty() {
        return None;
    }
    let what = format!(
        "queue {queue} is used for dead letters as it is, and loses some: it {}. Declare it without, or delete it \
         when it is empty, and the pool declares its own",
        losses.join("; it ")
    );
    Some((Severity::Warning, what))
}

/// What a queue's type means for its pool.
pub(in crate::cli) fn of_kind(queue: &QueueName, kind: &str) -> (Severity, String) {
    match kind {
        "stream" => (
            Severity::Error,
            format!(
                "queue {queue} is a stream, which gives each message to every worker and keeps it: a pool wants a \
                 classic or a quorum queue"
            ),
        ),
        _ => (Severity::Ok, format!("queue {queue} is of type {kind}")),
    }
}

/// What a single active consumer means for a pool of several workers.
pub(in crate::cli) fn of_single_active_consumer(queue: &QueueName) -> (Severity, String) {
    (
        Severity::Warning,
        format!(
            "queue {queue} has a single active consumer: one worker is given all jobs and the others wait, and all of \
             them where it is another's. Write policy.max = 1 or key, or declare it without x-single-active-consumer"
        ),
    )
}

/// What the user's permissions allow. Only clear cases are reported, because the broker matches the patterns.
pub(in crate::cli) fn of_permissions(permissions: &Permissions) -> (Severity, String) {
    let Permissions {
        configure,
        write,
        read,
    } = permissions;
    let may_not = |pattern: &str| matches!(pattern, "" | "^$");
    for (pattern, what) in [
        (
            read,
            "read: it may not consume, or read dead and retry queues",
        ),
        (
            write,
            "write: it may not publish retries and dead letters through the default exchange (amq.default)",
        ),
        (
            configure,
            "configure: it may not declare the .retry and .dead queues",
        ),
    ] {
        if may_not(pattern) {
            return (
                Severity::Error,
                format!("the broker's user has no permission to {what}"),
            );
        }
    }
    (
        Severity::Ok,
        format!(
            "the broker's user may configure \"{configure}\", write \"{write}\", read \"{read}\"; it needs the pools' \
             queues, their .retry and .dead queues, and amq.default"
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use tidegate::decide::Policy;

    fn details(json: Value) -> QueueDetails {
        serde_json::from_value(json).unwrap()
    }

    /// The problems, one line each.
    fn problems(pool: &PoolSettings, json: Value) -> Vec<String> {
        problems_of(pool, Taker::Workers, json)
    }

    fn problems_of(pool: &PoolSettings, taker: Taker, json: Value) -> Vec<String> {
        of_queue(pool, taker, &details(json))
            .into_iter()
            .filter(|(severity, _)| *severity != Severity::Ok)
            .map(|(severity, what)| format!("{}: {what}", severity.as_str()))
            .collect()
    }

    fn pool() -> PoolSettings {
        PoolSettings::new("jobs")
    }

    #[test]
    fn an_ordinary_queue_is_not_a_problem() {
        for json in [
            json!({"type": "classic", "auto_delete": false, "arguments": {}, "effective_policy_definition": []}),
            json!({"type": "quorum", "arguments": {"x-delivery-limit": 20, "x-consumer-timeout": 1_800_000},
                   "effective_policy_definition": {}}),
            json!({}),
        ] {
            assert_eq!(problems(&pool(), json), [""; 0]);
        }
    }

    #[test]
    fn of_a_queue_of_programs_only_what_concerns_programs_is_reported() {
        let json = json!({"type": "quorum", "auto_delete": true, "arguments": {
            "x-consumer-timeout": 60_000, "x-delivery-limit": 0, "x-expires": 60_000, "x-single-active-consumer": true
        }});
        let problems = |taker| problems_of(&pool(), taker, json.clone());
        assert_eq!(problems(Taker::Workers).len(), 5);
        let [gone, expired, single] = &problems(Taker::Programs)[..] else {
            panic!("{:?}", problems(Taker::Programs));
        };
        assert!(gone.contains("auto-delete"), "{gone}");
        assert!(expired.contains("expires"), "{expired}");
        assert!(single.contains("single active consumer"), "{single}");
    }

    #[test]
    fn a_consumer_timeout_below_the_deadline_names_both_and_where_it_comes_from() {
        for (json, by) in [
            (
                json!({"arguments": {"x-consumer-timeout": 60_000}}),
                "its argument x-consumer-timeout",
            ),
            (
                json!({"policy": "short", "effective_policy_definition": {"consumer-timeout": 60_000}}),
                "the policy short",
            ),
            (
                json!({"policy": "short", "operator_policy": "all", "arguments": {"x-consumer-timeout": 900_000},
                       "effective_policy_definition": {"consumer-timeout": 60_000}}),
                "the policies short and all",
            ),
        ] {
            let problems = problems(&pool(), json);
            assert_eq!(problems.len(), 1, "{problems:?}");
            let begin = format!(
                "error: queue jobs has a consumer timeout of 1m by {by}, below the pool's ack_deadline of 30m"
            );
            assert!(problems[0].starts_with(&begin), "{}", problems[0]);
        }
        let patient = PoolSettings {
            ack_deadline: Duration::from_secs(60),
            ..pool()
        };
        let json = json!({"arguments": {"x-consumer-timeout": 60_000}});
        assert_eq!(problems(&patient, json), [""; 0]);
    }

    #[test]
    fn queues_that_expire_or_take_one_consumer_are_reported() {
        let json = json!({
            "auto_delete": true,
            "arguments": {"x-single-active-consumer": true, "x-delivery-limit": 0},
            "policy": "brief",
            "effective_policy_definition": {"expires": 5000},
        });
        let told = problems(&pool(), json.clone());
        let expected = [
            "error: queue jobs is auto-delete",
            "warning: queue jobs expires by the policy brief",
            "warning: queue jobs has a single active consumer",
            "warning: queue jobs has a delivery limit of 0",
        ];
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{told}");
        }
        let alone = PoolSettings {
            policy: Policy::fixed(1).max(1),
            ..pool()
        };
        assert_eq!(problems(&alone, json).len(), 3);
    }

    #[test]
    fn a_harmless_delivery_limit_is_mentioned_and_is_not_a_problem() {
        for limit in [1, 20] {
            let json = json!({"arguments": {"x-delivery-limit": limit}});
            assert_eq!(problems(&pool(), json.clone()), [""; 0]);
            let told = of_queue(&pool(), Taker::Workers, &details(json));
            let expected =
                format!("its delivery limit is {limit} by its argument x-delivery-limit");
            assert!(
                told.iter().any(|(_, what)| what.starts_with(&expected)),
                "{told:?}"
            );
        }
    }

    #[test]
    fn a_delivery_limit_is_low_if_the_workers_need_more_channels() {
        let json = json!({"arguments": {"x-delivery-limit": 2}});
        for (max, warnings) in [(200, 0), (201, 1)] {
            let pool = PoolSettings {
                policy: Policy::fixed(1).max(max),
                ..pool()
            };
            let said = problems(&pool, json.clone());
            assert_eq!(said.len(), warnings, "{said:?}");
            assert!(
                said.iter()
                    .all(|said| said.contains("Raise it to 3 or more"))
            );
        }
    }

    #[test]
    fn a_stream_is_refused() {
        let told = problems(&pool(), json!({"type": "stream"}));
        assert!(
            told[0].starts_with("error: queue jobs is a stream"),
            "{told:?}"
        );
    }

    #[test]
    fn dead_lettering_by_the_broker_needs_an_exchange() {
        let mut pool = pool();
        pool.retry.dead_letter = DeadLetter::Broker;
        assert!(problems(&pool, json!({}))[0].contains("no dead-letter exchange"));
        for json in [
            json!({"arguments": {"x-dead-letter-exchange": ""}}),
            json!({"effective_policy_definition": {"dead-letter-exchange": "dlx"}}),
        ] {
            assert_eq!(problems(&pool, json), [""; 0]);
        }
    }

    #[test]
    fn a_permission_that_is_not_there_is_an_error() {
        let permissions = |configure: &str, write: &str, read: &str| Permissions {
            configure: configure.to_owned(),
            write: write.to_owned(),
            read: read.to_owned(),
        };
        for (given, severity) in [
            (permissions(".*", ".*", ".*"), Severity::Ok),
            (
                permissions("^jobs", "^(jobs|amq\\.default)", "^jobs"),
                Severity::Ok,
            ),
            (permissions("", ".*", ".*"), Severity::Error),
            (permissions(".*", "^$", ".*"), Severity::Error),
            (permissions(".*", ".*", ""), Severity::Error),
        ] {
            assert_eq!(of_permissions(&given).0, severity, "{given:?}");
        }
    }
}
