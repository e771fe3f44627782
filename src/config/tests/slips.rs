//! Probable mistakes in a configuration, and the messages about them.

use super::{POOL, given};

fn pool_lines(text: &str) -> Vec<String> {
    given(&format!("[pools.thumbnails]\n{text}\n{POOL}")).lines()
}

fn warnings(text: &str) -> Vec<String> {
    let warnings = given(text).loaded().warnings;
    warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_variable_with_one_underscore_too_few_gets_the_right_name_as_a_hint() {
    for (variable, key, right) in [
        ("TIDEGATE_BROKER_URL", "broker.url", "TIDEGATE_BROKER__URL"),
        (
            "TIDEGATE_BROKER_URL_FILE",
            "broker.url_file",
            "TIDEGATE_BROKER__URL_FILE",
        ),
        (
            "TIDEGATE_HTTP_LISTEN",
            "http.listen",
            "TIDEGATE_HTTP__LISTEN",
        ),
        (
            "TIDEGATE_HTTP_LISTN",
            "http.listen",
            "TIDEGATE_HTTP__LISTEN",
        ),
        (
            "TIDEGATE_EVENTS_FILE",
            "events_file",
            "TIDEGATE__EVENTS_FILE",
        ),
        (
            "TIDEGATE_POOLS_THUMBNAILS_POLICY_MAX",
            "pools.thumbnails.policy.max",
            "TIDEGATE_POOLS__THUMBNAILS__POLICY__MAX",
        ),
    ] {
        let warnings = given(POOL).variable(variable, "s3cret").loaded().warnings;
        let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        let expected = format!(
            "{variable}: {key}: found a variable that is ignored, write {right}, with two underscores between levels"
        );
        assert_eq!(warnings, [expected]);
    }
    // Variables that jobs receive, and other variables of ours.
    for variable in [
        "CONFIG",
        "LOG",
        "GUARD_PID",
        "RUN_ID",
        "POOL",
        "QUEUE",
        "JOB_ID",
        "ATTEMPT",
        "REDELIVERED",
        "ROUTING_KEY",
        "EXCHANGE",
        "CONTENT_TYPE",
        "CONTENT_ENCODING",
        "CORRELATION_ID",
        "REPLY_TO",
        "PRIORITY",
        "TIMESTAMP",
        "TYPE",
        "APP_ID",
        "HEADERS",
        "TRUNCATED",
    ] {
        let variable = format!("TIDEGATE_{variable}");
        let warnings = given(POOL).variable(&variable, "x").loaded().warnings;
        assert_eq!(warnings, [], "{variable}");
    }
}

#[test]
fn a_file_of_another_language_is_one_problem() {
    for (text, expected) in [
        (
            "# mine\nbroker:\n  url: amqp://guest:s3cret@host\npools:\n  - a\n",
            "tidegate.toml:2:1: found YAML, write it as TOML: `tidegate check --reference` prints every key",
        ),
        (
            "{\n  \"broker\": {\"url\": \"amqp://guest:s3cret@host\"}\n}\n",
            "tidegate.toml:1:1: found JSON, write it as TOML: `tidegate check --reference` prints every key",
        ),
    ] {
        assert_eq!(given(text).lines(), [expected]);
    }
}

#[test]
fn a_key_that_is_set_twice_is_reported_with_the_line_of_the_first() {
    for (text, expected) in [
        (
            "[pools.a.runner]\ncommand = [\"a\"]\n[pools.a.runner]\ntimeout = \"1s\"\n",
            "tidegate.toml:3:10: pools.a.runner: found a second [pools.a.runner], the first is in line 1, write all of \
            its keys below one of the two",
        ),
        (
            "[pools.a.runner]\ncommand = [\"a\"]\ntimeout = \"1s\"\ntimeout = \"2s\"\n",
            "tidegate.toml:4:1: pools.a.runner.timeout: found a second value, the first is in line 3, remove one of them",
        ),
    ] {
        assert_eq!(given(text).lines(), [expected]);
    }
}

#[test]
fn a_key_in_the_wrong_table_is_recognized() {
    for (text, meant) in [
        ("ulr = \"amqp://host\"\n", "broker.url"),
        (
            "[http]\nlisten = \"off\"\nurl = \"amqp://host\"\n",
            "broker.url",
        ),
        ("[broker]\nlisten = \"off\"\n", "http.listen"),
        ("[broker.tls]\nulr = \"amqp://host\"\n", "broker.url"),
    ] {
        let lines = given(&format!("{text}{}", POOL)).lines();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        let fix = format!("found an unknown key, did you mean {meant}?");
        assert!(lines[0].ends_with(&fix), "{lines:#?}");
    }
    for (line, meant) in [
        ("up_step = 3", "pools.thumbnails.scaling.up_step"),
        ("policy.up_step = 3", "pools.thumbnails.scaling.up_step"),
        ("policy.upstep = 3", "pools.thumbnails.scaling.up_step"),
        (
            "scaling.max_attempts = 3",
            "pools.thumbnails.retry.max_attempts",
        ),
    ] {
        let lines = pool_lines(line);
        assert_eq!(lines.len(), 1, "{lines:#?}");
        let fix = format!("found an unknown key, did you mean {meant}?");
        assert!(lines[0].ends_with(&fix), "{lines:#?}");
    }
    // Nobody meant the other pool's.
    let two =
        "pools.a.runner.command = [\"a\"]\npools.b.quue = 3\npools.b.runner.command = [\"b\"]\n";
    let lines = given(two).lines();
    assert!(
        lines[0].ends_with("did you mean pools.b.queue?"),
        "{lines:#?}"
    );
    let level = given(&format!("[log]\nlevel = \"debug\"\n{POOL}")).lines();
    assert_eq!(
        level,
        [
            "tidegate.toml:2:1: log.level: found an unknown key, remove it, and set TIDEGATE_LOG=debug in the environment, \
             or another level"
        ]
    );
}

#[test]
fn parameters_of_the_url_without_effect_are_reported() {
    for (query, fix) in [
        (
            "heartbeat=10&frame_max=0&channel_max=9&connection_timeout=5",
            None,
        ),
        (
            "hartbeat=10",
            Some(
                "found the parameter \"hartbeat\", did you mean heartbeat? This parameter is ignored",
            ),
        ),
        (
            "timeout=5",
            Some(
                "found the parameter \"timeout\", remove it: this parameter is ignored; there are auth_mechanism, \
                 channel_max, connection_timeout, frame_max, heartbeat",
            ),
        ),
    ] {
        let text = format!("broker.url = \"amqp://guest:guest@host/%2f?{query}\"\n{POOL}");
        let warnings = warnings(&text);
        let expected = fix.map(|fix| format!("tidegate.toml:1:14: broker.url: {fix}"));
        assert_eq!(warnings, Vec::from_iter(expected));
    }
    for (query, fix) in [
        (
            "frame_max=4294967295",
            "write frame_max=NUMBER, from 4096 to 1048576",
        ),
        (
            "frame_max=100",
            "write frame_max=NUMBER, from 4096 to 1048576",
        ),
        (
            "auth_mechanism=none",
            "write auth_mechanism=WORD, one of amqplain, anonymous, external, plain, rabbit-cr-demo",
        ),
    ] {
        let text = format!("broker.url = \"amqp://guest:guest@host/%2f?{query}\"\n{POOL}");
        let lines = given(&text).lines();
        assert!(lines.len() == 1 && lines[0].ends_with(fix), "{lines:#?}");
    }
}

#[test]
fn more_workers_than_max_are_reported() {
    let policy = |max: &str| {
        warnings(&format!(
            "[pools.a.policy]\nkind = \"fixed\"\nworkers = 20\n{max}\n[pools.a.runner]\ncommand = [\"a\"]\n"
        ))
    };
    assert_eq!(policy(""), [""; 0]);
    assert_eq!(policy("max = 20"), [""; 0]);
    assert_eq!(
        policy("max = 5"),
        [
            "tidegate.toml:3:11: pools.a.policy.workers: found 20, write at most max, which is 5, or raise max: there \
            are never more workers"
        ]
    );
}

#[test]
fn shell_syntax_in_a_command_is_reported() {
    for (command, fix) in [
        (
            "[\"thumb\", \"|\", \"tee\"]",
            Some("if \"|\" is meant for a shell"),
        ),
        (
            "[\"~/bin/thumb\"]",
            Some("write the value of \"~/bin/thumb\""),
        ),
        (
            "[\"thumb\", \"$HOME\"]",
            Some("write the value of \"$HOME\""),
        ),
        ("[\"sh\", \"-c\", \"a | b > $C\"]", None),
    ] {
        let warnings = warnings(&format!("[pools.a.runner]\ncommand = {command}\n"));
        assert_eq!(warnings.len(), usize::from(fix.is_some()), "{warnings:#?}");
        let is_told = |warning: &String| {
            warning
                .starts_with("tidegate.toml:2:11: pools.a.runner.command: found an array, write ")
                && warning.contains(fix.unwrap_or_default())
        };
        assert!(warnings.iter().all(is_told), "{warnings:#?}");
    }
}

#[test]
fn a_variable_that_a_job_sets_is_reported_without_its_value() {
    let text = "[pools.a.runner]\ncommand = [\"a\"]\nenv = { TIDEGATE_JOB_ID = \"s3cret\", SIZE = \"1\" }\n";
    assert_eq!(
        warnings(text),
        [
            "tidegate.toml:3:27: pools.a.runner.env.TIDEGATE_JOB_ID: found a value, write another name: tidegate sets \
            the variables that begin with TIDEGATE_ and overrides this one"
        ]
    );
}
