//! Pools whose programs consume the queue themselves.

use std::time::Duration;

use super::given;
use crate::decide::DrainAfter;
use crate::runners::{
    ConsumerSettings, ExecSettings, RunnerSettings,
    consumer::{self, StopSignal},
};

#[test]
fn a_consumer_has_its_own_way_to_end() {
    let text = r#"
[pools.a.runner]
kind = "consumer"
command = ["celery", "worker"]
stop_signal = "QUIT"
stop_timeout = "1h"
nice = 3
env = { BROKER = "amqp://" }
"#;
    let mut process = ExecSettings::new(["celery", "worker"]);
    process.limits.nice = Some(3);
    process.env = [("BROKER".to_owned(), "amqp://".to_owned())].into();
    let expected = consumer::ConsumerSettings {
        process,
        stop_signal: StopSignal::Quit,
        stop_timeout: Some(Duration::from_secs(3600)),
    };
    let settings = given(text).loaded().settings;
    assert_eq!(settings.pools[0].runner, RunnerSettings::from(expected));
    assert!(settings.pools[0].runner.consumes());

    let text = "pools.a.runner = { kind = \"consumer\", command = [\"a\"] }\n";
    let settings = given(text).loaded().settings;
    let expected = RunnerSettings::from(ConsumerSettings::new(["a"]));
    assert_eq!(settings.pools[0].runner, expected);
    let quiet = DrainAfter::After(Duration::from_secs(15));
    assert_eq!(settings.pools[0].pool.drain_after, quiet);
}

#[test]
fn keys_without_an_effect_on_programs_that_consume_are_refused_with_the_reason() {
    const RUNNER: &str = "runner = { kind = \"consumer\", command = [\"a\"] }";
    for (line, key, reason) in [
        ("prefetch = 5", "prefetch", "with a prefetch of their own"),
        ("preempt = true", "preempt", "never stops a message"),
        (
            "ack_deadline = \"5m\"",
            "ack_deadline",
            "settle their messages",
        ),
        ("reply = true", "reply", "answer messages themselves"),
        ("share = true", "share", "daemons cannot tell each other"),
        (
            "retry.max_attempts = 3",
            "retry.max_attempts",
            "settle their messages",
        ),
        (
            "retry.dead_letter = \"queue\"",
            "retry.dead_letter",
            "settle their messages",
        ),
        (
            "retry.breaker.min_jobs = 3",
            "retry.breaker.min_jobs",
            "is not seen",
        ),
        (
            "policy = { kind = \"target_wait\", target = \"5s\" }",
            "policy.kind",
            "write backlog, steps or fixed",
        ),
    ] {
        let lines = given(&format!("[pools.a]\n{line}\n{RUNNER}\n")).lines();
        let [problem] = &lines[..] else {
            panic!("{lines:#?}");
        };
        assert!(
            problem.contains(&format!("pools.a.{key}: found ")),
            "{problem}"
        );
        assert!(problem.contains(reason), "{problem}");
    }
}

#[test]
fn a_job_of_a_consumer_has_no_timeout_and_no_grace() {
    let of = |line: &str| {
        let runner = format!("[pools.a.runner]\nkind = \"consumer\"\ncommand = [\"a\"]\n{line}\n");
        given(&runner).lines().remove(0)
    };
    let timeout = of("timeout = \"5s\"");
    assert!(
        timeout.contains("it has no effect for \"consumer\""),
        "{timeout}"
    );
    let grace = of("kill_grace = \"5s\"");
    assert!(
        grace.contains("write stop_timeout: \"consumer\" has this key instead"),
        "{grace}"
    );
    let signal = of("stop_signal = \"KILL\"");
    assert!(
        signal.contains("write \"TERM\", \"INT\", \"QUIT\""),
        "{signal}"
    );
}
