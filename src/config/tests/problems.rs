//! The messages about invalid configurations. The text is a part of the product, so the tests are snapshots.

use super::{POOL, given, pool_lines};

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = r#"
[broker]
url = "http://guest:hunter2@localhost"
hots = "localhost"

[http]
listen = "8672"
token_file = "/nowhere"

[pools.thumbnails]
prefetch = 0
poll-interval = "1s"
drain_after = 5
preempt = "yes"
min_active = 3

[pools.thumbnails.policy]
kind = "backlog"
workers = 3
jobs_per_worker = -1
max = 2
min_active = 3

[pools.thumbnails.runner]
command = "python3 thumb.py"
timeout = "1h"

[pools.thumbnails.retry]
backoff = "10m"
max_attempts = 1.5

[pools.other]
queue = "thumbnails"

[pols.third]
"#;
    insta::assert_snapshot!(given(text).problems());
}

#[test]
fn problems_have_a_form_for_machines() {
    let given = given("[pools.a]\nprefetch = 0\nrunner.command = [\"true\"]\n")
        .variable("TIDEGATE_POOLS__A__KEEP_WARM", "x");
    insta::assert_snapshot!(serde_json::to_string_pretty(&given.problems()).unwrap());
}

#[test]
fn other_problems_are_reported_beside_invalid_toml() {
    let text =
        "[broker\nurl = \n[pools.a]\nprefetch = 0\nkeep_warm = = 1\nrunner.command = [\"true\"]\n";
    insta::assert_snapshot!(given(text).problems());
}

#[test]
fn a_mistake_of_syntax_is_one_problem_where_only_it_is_wrong() {
    let runner = "[pools.a.runner]\ncommand = [\"true\"]\ntimeout = \"5m\"\n";
    for (text, expected) in [
        (
            format!("[pools.a]\npolicy = {{ max = 3\n{runner}"),
            "3:1: found a table in braces that does not end before, write , between its keys, and } at its end",
        ),
        (
            format!("[pools.a]\npolicy = {{ max = \"3 }}\n{runner}"),
            "2:22: found a text that does not end, write \" at its end",
        ),
        (
            "[pools.a.runner]\ncommand = [\"true\"\ntimeout = \"5m\"\n".to_owned(),
            "3:1: found an array that does not end before, write , between its items, and ] at its end",
        ),
        (
            runner.replace("runner]", "runner"),
            "1:16: found unclosed table, write `]`",
        ),
        (
            format!("[pools.a]\nqueue =\n{runner}"),
            "2:8: found a key without a value, write its value after the =",
        ),
        (
            format!("[pools.a]\npoll_interval = 5s\n{runner}"),
            "2:17: found a value without quotes, write it in quotes",
        ),
        (
            format!("[pools.a]\npreempt = True\n{runner}"),
            "2:11: found another word, write true or false",
        ),
    ] {
        let expected = format!("tidegate.toml:{expected}");
        assert_eq!(given(&text).lines(), [expected], "{text}");
    }
}

#[test]
fn a_file_without_pools_is_refused() {
    assert_eq!(
        given("").lines(),
        [
            "tidegate.toml: pools: found nothing, write a pool: [pools.NAME], and [pools.NAME.runner] with its command"
        ]
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_value_out_of_bounds_is_refused_at_its_own_place() {
    for (line, expected) in [
        (
            "prefetch = 0",
            "2:12: pools.thumbnails.prefetch: found 0, write a whole number from 1 to 65535",
        ),
        (
            "prefetch = 65536",
            "2:12: pools.thumbnails.prefetch: found 65536, write a whole number from 1 to 65535",
        ),
        (
            "prefetch = \"1\"",
            "2:12: pools.thumbnails.prefetch: found \"1\", write a whole number from 1 to 65535",
        ),
        (
            "keep_warm = -1",
            "2:13: pools.thumbnails.keep_warm: found -1, write a whole number from 0 to 1000000",
        ),
        (
            "keep_warm = 51",
            "2:13: pools.thumbnails.keep_warm: found 51, write at most policy.max, which is 50, or raise policy.max",
        ),
        (
            "poll_interval = \"9ms\"",
            "2:17: pools.thumbnails.poll_interval: found \"9ms\", write a duration from \"10ms\" to \"28d\"",
        ),
        (
            "poll_interval = \"-5s\"",
            "2:17: pools.thumbnails.poll_interval: found \"-5s\", write a duration such as \"500ms\", \"5s\" or \"1h30m\"",
        ),
        (
            "drain_after = 5",
            "2:15: pools.thumbnails.drain_after: found 5, write it with its unit: \"5ms\", \"5s\" or \"5m\"",
        ),
        (
            "drain_after = \"0\"",
            "2:15: pools.thumbnails.drain_after: found \"0\", write it with its unit: \"0ms\", \"0s\" or \"0m\"",
        ),
        (
            "ack_deadline = \"0s\"",
            "2:16: pools.thumbnails.ack_deadline: found \"0s\", write a duration from \"1s\" to \"28d\"",
        ),
        (
            "declare = \"yes\"",
            "2:11: pools.thumbnails.declare: found \"yes\", write \"no\", \"classic\" or \"quorum\"",
        ),
        (
            "preempt = 1",
            "2:11: pools.thumbnails.preempt: found 1, write true or false, without quotes",
        ),
        (
            "queue = \"\"",
            "2:9: pools.thumbnails.queue: found \"\", write the queue's name",
        ),
        (
            "queue = \"amq.gen-1\"",
            "2:9: pools.thumbnails.queue: found \"amq.gen-1\", write another name: amq. is the broker's own prefix",
        ),
        (
            "policy.max = 0",
            "2:14: pools.thumbnails.policy.max: found 0, write a whole number from 1 to 1000000",
        ),
        (
            "policy.min_active = 51",
            "2:21: pools.thumbnails.policy.min_active: found 51, write at most max, which is 50, or raise max",
        ),
        (
            "policy.jobs_per_worker = 0",
            "2:26: pools.thumbnails.policy.jobs_per_worker: found 0, write a whole number from 1 to 1000000000",
        ),
        (
            "policy.kind = \"fixed\"",
            "2:1: pools.thumbnails.policy.workers: found nothing, write workers = 5",
        ),
        (
            "policy.kind = \"target_wait\"",
            "2:1: pools.thumbnails.policy.target: found nothing, write target = \"30s\"",
        ),
        (
            "policy = { kind = \"target_wait\", target = \"30s\", utilisation = 1.5 }",
            "2:64: pools.thumbnails.policy.utilisation: found 1.5, write a number from 0.1 to 1",
        ),
        (
            "policy.utilisation = 0.5",
            "2:22: pools.thumbnails.policy.utilisation: found 0.5, remove it, or write kind = \"target_wait\": it has no effect for \"backlog\"",
        ),
        (
            "policy.kind = \"steps\"",
            "2:1: pools.thumbnails.policy.steps: found nothing, write steps = [[1, 1], [100, 10]]",
        ),
        (
            "policy.workers = 4",
            "2:18: pools.thumbnails.policy.workers: found 4, remove it, or write kind = \"fixed\": it has no effect for \"backlog\"",
        ),
        (
            "scaling.up_step = 0",
            "2:19: pools.thumbnails.scaling.up_step: found 0, write a whole number from 1 to 1000000",
        ),
        (
            "scaling.down_step = 0",
            "2:21: pools.thumbnails.scaling.down_step: found 0, write a whole number from 1 to 1000000",
        ),
        (
            "retry.max_attempts = 0",
            "2:22: pools.thumbnails.retry.max_attempts: found 0, write a whole number from 1 to 1000000",
        ),
        (
            "retry.backoff = \"6m\"",
            "2:17: pools.thumbnails.retry.backoff: found \"6m\", write at most backoff_max, or raise backoff_max",
        ),
        (
            "retry.backoff_max = \"1ms\"",
            "2:21: pools.thumbnails.retry.backoff_max: found \"1ms\", write at least backoff, or lower backoff",
        ),
        (
            "retry.backoff = \"0s\"",
            "2:17: pools.thumbnails.retry.backoff: found \"0s\", write a duration from \"1ms\" to \"28d\"",
        ),
        (
            "ack_deadline = \"1m\"",
            "2:16: pools.thumbnails.ack_deadline: found \"1m\", write more than runner.timeout and runner.kill_grace, 5m and 10s, or lower them",
        ),
    ] {
        assert_eq!(pool_lines(line), [format!("tidegate.toml:{expected}")]);
    }
}

#[test]
fn an_entry_of_a_schedule_says_what_is_wrong_with_it() {
    for (entry, expected) in [
        (
            "cron = \"0 8 * *\", for = \"1h\", max = 5",
            "found \"0 8 * *\", write five fields",
        ),
        (
            "cron = \"0 0 30 2 *\", for = \"1h\", max = 5",
            "found \"0 0 30 2 *\", write a day that some year has: this entry never opens",
        ),
        (
            "cron = \"0 8 * * *\", time_zone = \"Mars/Olympus\", for = \"1h\", max = 5",
            "found \"Mars/Olympus\", write the name of a time zone",
        ),
        (
            "cron = \"0 8 * * *\", for = \"0s\", max = 5",
            "found \"0s\", write a duration from \"1s\" to \"366days\"",
        ),
        (
            "cron = \"0 8 * * *\", for = \"1h\"",
            "found a table, write a bound that it changes: min_active, max or keep_warm",
        ),
        (
            "cron = \"0 8 * * *\", max = 5",
            "found a table, write its cron and its for",
        ),
        (
            "cron = \"0 8 * * *\", for = \"1h\", max = 0",
            "found 0, write a whole number from 1 to 1000000",
        ),
        (
            "cron = \"0 8 * * *\", for = \"1h\", workers = 5",
            "found 5, remove workers: an entry has cron, time_zone, for, min_active, max and keep_warm",
        ),
        (
            "cron = \"0 8 * * *\", for = \"1h\", min_active = 9, max = 8",
            "write min_active of at most max, which is 8, in the entry 0 8 * * *",
        ),
        (
            "cron = \"0 8 * * *\", for = \"1h\", min_active = 51",
            "write min_active of at most max, which is 50, in the entry 0 8 * * *",
        ),
    ] {
        let lines = pool_lines(&format!("schedule = [{{ {entry} }}]"));
        let [line] = &lines[..] else {
            panic!("{entry}: {lines:?}");
        };
        assert!(line.contains("pools.thumbnails.schedule"), "{line}");
        assert!(line.contains(expected), "{line}");
    }
}

#[test]
fn a_limit_over_all_pools_must_leave_each_its_floor() {
    let lines = pool_lines("policy.min_active = 3\n[supervisor]\nmax_workers = 2");
    let [line] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert!(
        line.contains(
            "supervisor.max_workers: found 2, write at least 3, the sum of min_active of all pools"
        ),
        "{line}"
    );
}

#[test]
fn local_max_is_at_most_the_max_of_all_daemons() {
    let lines = pool_lines("share = true\nlocal_max = 51");
    let wanted = "pools.thumbnails.local_max: found 51, write at most policy.max, which is 50";
    assert!(lines[0].contains(wanted), "{lines:?}");
    let entry = "{ cron = \"0 8 * * *\", for = \"1h\", max = 80 }";
    let pool = format!("share = true\nlocal_max = 80\nschedule = [{entry}]");
    let loaded = given(&format!("[pools.thumbnails]\n{pool}\n{POOL}")).loaded();
    assert_eq!(loaded.settings.pools[0].pool.local_max, Some(80));
}

#[test]
fn local_max_needs_a_shared_queue() {
    let lines = pool_lines("local_max = 5");
    assert!(
        lines[0].contains("pools.thumbnails.local_max: found 5, remove it, or write share = true"),
        "{lines:?}"
    );
}

#[test]
fn steps_must_rise() {
    let lines = pool_lines(
        "policy = { kind = \"steps\", steps = [[1, 1], [1, 2], [5], [\"a\", 1], [9, 9]] }",
    );
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn invalid_keys_of_a_runner_are_reported_with_a_correction() {
    for (line, expected) in [
        (
            "kind = \"exce\"",
            "2:8: pools.a.runner.kind: found \"exce\", write \"exec\", \"warm\", \"container\" or \"consumer\"",
        ),
        (
            "kind = \"container\"",
            "1:10: pools.a.runner.image: found nothing, write image = \"registry.example.com/thumbnails:1\"",
        ),
        (
            "command = [\"a\"]\nimage = \"b\"",
            "3:9: pools.a.runner.image: found \"b\", remove it, or write kind = \"container\": it has no effect for \"exec\"",
        ),
        (
            "command = [\"a\"]\nstop_timeout = \"1s\"",
            "3:16: pools.a.runner.stop_timeout: found \"1s\", write kill_grace: kinds other than \"container\" or \"consumer\" have this key instead",
        ),
        (
            "kind = \"container\"\nimage = \"a\"\nkill_grace = \"1s\"",
            "4:14: pools.a.runner.kill_grace: found \"1s\", write stop_timeout: \"container\" has this key instead",
        ),
        (
            "kind = \"container\"\nimage = \"a\"\nmax_jobs = 1",
            "4:12: pools.a.runner.max_jobs: found 1, remove it, or write kind = \"warm\": it has no effect for \"container\"",
        ),
        (
            "kind = \"container\"\nimage = \"a\"\nworking_dir = \"work\"",
            "4:15: pools.a.runner.working_dir: found \"work\", write an absolute path in the container",
        ),
        (
            "kind = \"container\"\nimage = \"a\"\nmemory_max = \"1MiB\"",
            "4:14: pools.a.runner.memory_max: found \"1MiB\", write at least \"6MiB\": engines accept no less",
        ),
        (
            "kind = \"container\"\nimage = \"a\"\ngroup = \"media\"",
            "4:9: pools.a.runner.group: found \"media\", write user too: with a group alone, engines use root and not the image's user",
        ),
        (
            "kind = \"container\"\nimage = \"a\"\nnice = 3",
            "4:8: pools.a.runner.nice: found 3, remove it, or write kind = \"exec\" or \"warm\" or \"consumer\": it has no effect for \"container\"",
        ),
        (
            "kind = \"container\"\nimage = \"a\"\nrlimits.core = \"none\"",
            "4:16: pools.a.runner.rlimits.core: found \"none\", remove it, or write kind = \"exec\" or \"warm\" or \"consumer\": it has no effect for \"container\"",
        ),
        (
            "kind = \"container\"\nimage = \"a\"\npull = \"often\"",
            "4:8: pools.a.runner.pull: found \"often\", write \"missing\", \"always\" or \"never\"",
        ),
        (
            "kind = \"container\"\nimage = \"a\"\nengine = \"ssh://b\"",
            "4:10: pools.a.runner.engine: found \"ssh://b\", write \"unix:///path/to/socket\" or \"tcp://host:port\": no other protocol is built in",
        ),
        (
            "kind = \"container\"\nimage = \"a\"\nmounts = [\"images:/x\", \"./a:/b\"]",
            "4:24: pools.a.runner.mounts: found \"./a:/b\", write an absolute path, or a volume's name, before the colon",
        ),
        (
            "command = [\"a\"]\nmax_jobs = 3",
            "3:12: pools.a.runner.max_jobs: found 3, remove it, or write kind = \"warm\": it has no effect for \"exec\"",
        ),
        (
            "kind = \"warm\"\ncommand = [\"a\"]\nmax_jobs = 0",
            "4:12: pools.a.runner.max_jobs: found 0, write a whole number from 1 to 1000000000",
        ),
        (
            "kind = \"warm\"\ncommand = [\"a\"]\nmax_memory = \"256MB\"",
            "4:14: pools.a.runner.max_memory: found \"256MB\", write a size such as \"512KiB\", \"256MiB\" or \"2GiB\"",
        ),
        (
            "kind = \"warm\"\ncommand = [\"a\"]\nmax_memory = 256",
            "4:14: pools.a.runner.max_memory: found 256, write a size such as \"512KiB\", \"256MiB\" or \"2GiB\"",
        ),
        (
            "kind = \"warm\"\ncommand = [\"a\"]\nmax_memory = \"99999999TiB\"",
            "4:14: pools.a.runner.max_memory: found \"99999999TiB\", write a size such as \"512KiB\", \"256MiB\" or \"2GiB\"",
        ),
        (
            "kind = \"exec\"",
            "1:10: pools.a.runner.command: found nothing, write command = [\"python3\", \"thumb.py\"]",
        ),
        (
            "command = []",
            "2:11: pools.a.runner.command: found an empty array, write the program first: [\"python3\", \"thumb.py\"]",
        ),
        (
            "command = [\"\"]",
            "2:11: pools.a.runner.command: found an array, write the program first: [\"python3\", \"thumb.py\"]",
        ),
        (
            "command = \"python3 thumb.py\"",
            "2:11: pools.a.runner.command: found \"python3 thumb.py\", write an array: [\"python3\", \"thumb.py\"]",
        ),
        (
            "command = [\"a\",\n  3]",
            "3:3: pools.a.runner.command: found 3, write each item as a string, in quotes",
        ),
        (
            "command = [\"a\\u0000\"]",
            "2:12: pools.a.runner.command: found \"a\\u{0}\", write it without the NUL",
        ),
        (
            "command = [\"a\"]\ntimeout = \"0s\"",
            "3:11: pools.a.runner.timeout: found \"0s\", write a duration from \"1ms\" to \"28d\"",
        ),
        (
            "command = [\"a\"]\ntimeout = \"31m\"",
            "3:11: pools.a.runner.timeout: found \"31m\", write at most 29m40s, or raise ack_deadline and the broker's consumer timeout: ack_deadline must also cover kill_grace and 10s to settle",
        ),
        (
            "command = [\"a\"]\ntimeout = \"29m\"\nkill_grace = \"1m\"",
            "3:11: pools.a.runner.timeout: found \"29m\", write at most 28m50s, or raise ack_deadline and the broker's consumer timeout: ack_deadline must also cover kill_grace and 10s to settle",
        ),
        (
            "command = [\"a\"]\nkill_grace = \"25m\"",
            "3:14: pools.a.runner.kill_grace: found \"25m\", write at most 24m50s, or raise ack_deadline and the broker's consumer timeout",
        ),
        (
            "command = [\"a\"]\ntimeout = \"1h\"\nkill_grace = \"1h\"",
            "3:11: pools.a.runner.timeout: found \"1h\", write less, or raise ack_deadline and the broker's consumer timeout: ack_deadline must also cover kill_grace and 10s to settle",
        ),
        (
            "kind = \"warm\"\ncommand = [\"a\"]\nprestart = 51",
            "4:12: pools.a.runner.prestart: found 51, write at most policy.max, which is 50, or raise policy.max",
        ),
        (
            "command = [\"a\"]\nenv_pass = [\"A=B\"]",
            "3:13: pools.a.runner.env_pass: found \"A=B\", write a variable's name, without = in it",
        ),
        (
            "command = [\"a\"]\nenv = { KEY = 3 }",
            "3:15: pools.a.runner.env.KEY: found a whole number, write a string in quotes",
        ),
        (
            "command = [\"a\"]\nenv = { \"A=B\" = \"\" }",
            "3:17: pools.a.runner.env.\"A=B\": found the name \"A=B\", write a variable's name, without = in it",
        ),
    ] {
        let text = format!("[pools.a.runner]\n{line}\n");
        assert_eq!(given(&text).lines(), [format!("tidegate.toml:{expected}")]);
    }
}

#[test]
fn the_management_api_is_a_web_server() {
    let pool = "pools.a.runner.command = [\"a\"]";
    for (broker, expected) in [
        (
            "management_url = \"amqps://guest:s3cret@broker:15671\"",
            "2:18: broker.management_url: found amqps://guest:***@broker:15671, write http://HOST:15672, \
             https://HOST:15671, or http://USER:PASSWORD@HOST:15672",
        ),
        (
            "management_url = \"broker:15672\"",
            "2:18: broker.management_url: found <unreadable url>, write http://HOST:15672, https://HOST:15671, or http://USER:PASSWORD@HOST:15672",
        ),
        (
            "management_url = \"http://a\"\nmanagement_url_file = \"url\"",
            "3:23: broker.management_url_file: found \"url\", remove it, or remove management_url",
        ),
        (
            "management_url_file = \"url\"",
            "2:23: broker.management_url_file: found ftp://guest:***@broker/, write http://HOST:15672, https://HOST:15671, or http://USER:PASSWORD@HOST:15672",
        ),
    ] {
        let text = format!("[broker]\n{broker}\n[pools]\n{}\n", &pool["pools.".len()..]);
        let given = given(&text).file("url", "ftp://guest:s3cret@broker\n");
        assert_eq!(given.lines(), [format!("tidegate.toml:{expected}")]);
    }
    let text = format!("broker.management_url_file = \"url\"\n{pool}\n");
    let loaded = given(&text).file("url", "http://a:b@c\n").loaded();
    let url = loaded
        .settings
        .management
        .map(|url| url.expose().to_owned());
    assert_eq!(url.as_deref(), Some("http://a:b@c"));
}

#[test]
fn a_misspelt_key_gets_a_suggestion() {
    for (line, meant) in [
        ("poll-interval = \"1s\"", "pools.thumbnails.poll_interval"),
        ("prefech = 1", "pools.thumbnails.prefetch"),
        ("Queue = \"q\"", "pools.thumbnails.queue"),
        ("runer.command = [\"a\"]", "pools.thumbnails.runner"),
        ("max = 3", "pools.thumbnails.policy.max"),
        ("timeout = \"1s\"", "pools.thumbnails.runner.timeout"),
    ] {
        let lines = pool_lines(line);
        assert_eq!(lines.len(), 1);
        assert!(
            lines[0].ends_with(&format!("found an unknown key, did you mean {meant}?")),
            "{lines:?}"
        );
    }
    assert!(pool_lines("zzz = 1")[0].ends_with("found an unknown key, remove it"));
}

#[test]
fn a_value_where_a_table_is_expected_is_one_problem() {
    assert_eq!(
        pool_lines("policy = 3"),
        [
            "tidegate.toml:2:10: pools.thumbnails.policy: found a whole number, write a table: [pools.thumbnails.policy]"
        ]
    );
    assert_eq!(
        given(&format!("[[broker]]\n{POOL}")).lines(),
        ["tidegate.toml:1:1: broker: found an array, write a table: [broker]"]
    );
}

#[test]
fn the_urls_of_a_cluster_are_one_list_of_its_nodes() {
    let lines = |broker: &str| given(&format!("[broker]\n{broker}\n{POOL}")).lines();
    assert_eq!(
        lines("url = \"amqp://a\"\nurls = [\"amqp://b\"]"),
        ["tidegate.toml:3:8: broker.urls: found a value, remove it, or remove url"]
    );
    assert_eq!(
        lines("urls = \"amqp://u:hunter2@a\""),
        [
            "tidegate.toml:2:8: broker.urls: found a string, write an array of URLs: [\"amqp://...\", \"amqp://...\"]"
        ]
    );
    assert_eq!(
        lines("urls = []"),
        ["tidegate.toml:2:8: broker.urls: found an empty array, write a URL in it, or remove it"]
    );
    assert_eq!(
        lines("urls = [\"amqp://a/x\", \"http://u:hunter2@b\", 3]").len(),
        2
    );
    assert_eq!(
        lines("urls = [\"amqp://u:hunter2@a/x\", \"amqp://u:hunter2@b/y\"]"),
        [
            "tidegate.toml:2:8: broker.urls: found amqp://u:***@b/y, write the vhost of the first URL: all are nodes of one cluster"
        ]
    );
    assert_eq!(
        lines("urls = [\"amqp://a\", \"amqp://b/%2f\", \"amqp://a\"]"),
        ["tidegate.toml:2:8: broker.urls: found amqp://a, remove it: it is there twice"]
    );
    let pointed = given(&format!("broker.url_file = \"/url\"\n{POOL}"));
    assert_eq!(
        pointed
            .file("/url", "amqp://a/x\nhttp://u:hunter2@b\n")
            .lines(),
        [
            "tidegate.toml:1:19: broker.url_file: found http://u:***@b/, write amqp://..., or amqps://... for TLS"
        ]
    );
}

#[test]
fn certificates_go_with_tls_and_in_pairs() {
    let lines = |text: &str| {
        given(&format!("{text}\n{POOL}"))
            .file("ca", "")
            .file("cert", "")
            .lines()
    };
    assert_eq!(
        lines("broker.tls.ca = \"ca\""),
        [
            "tidegate.toml:1:17: broker.tls.ca: found \"ca\", remove it, or write amqps:// in broker.url"
        ]
    );
    assert_eq!(
        lines("broker = { url = \"amqps://h\", tls.cert = \"cert\" }"),
        [
            "tidegate.toml:1:42: broker.tls.cert: found \"cert\", write key too: the certificate's private key"
        ]
    );
    assert_eq!(
        lines("broker = { url = \"amqps://h\", tls.key = \"key\" }"),
        [
            "tidegate.toml:1:41: broker.tls.key: found \"key\" (no such file), write the path of a file that can be read",
            "tidegate.toml:1:41: broker.tls.key: found \"key\", write cert too: the key's certificate",
        ]
    );
}

#[test]
fn a_socket_path_must_fit_in_the_kernels_field() {
    let lines = given(&format!("http.socket = \"/{}\"\n{POOL}", "s".repeat(107))).lines();
    assert_eq!(
        lines,
        [
            "tidegate.toml:1:15: http.socket: found a path of 108 bytes, write a path of at most 107 bytes"
        ]
    );
}

#[test]
fn control_characters_of_a_value_are_escaped_and_long_ones_are_cut() {
    let lines = pool_lines(&format!("declare = \"\\u001b[31m{}\"", "x".repeat(500)));
    assert!(lines[0].contains("found \"\\u{1b}[31mxxx"), "{lines:?}");
    assert!(
        lines[0].len() < 250 && lines[0].contains("...\""),
        "{lines:?}"
    );
}

#[test]
fn a_line_that_is_not_toml_is_one_problem() {
    assert_eq!(
        pool_lines("prefetch = \"1\" 2"),
        ["tidegate.toml:2:16: found unexpected key or value, write newline, `#`"]
    );
}

#[test]
fn an_answer_needs_a_queue_and_a_length_that_can_be() {
    let lines =
        pool_lines("reply = \"yes\"\nreply_allow = [\"\", \"replies\"]\nreply_max = \"1GiB\"");
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(lines[0].contains("write true or false"), "{lines:#?}");
    assert!(lines[1].contains("write a queue's name"), "{lines:#?}");
    assert!(lines[2].contains("write at most \"128MiB\""), "{lines:#?}");
}

#[test]
fn reply_queues_that_get_no_replies_are_a_warning() {
    let warnings = |text: &str| {
        let given = given(&format!(
            "[pools.thumbnails]\nreply_allow = [\"replies\"]\n{text}"
        ));
        let warnings = given.loaded().warnings;
        warnings
            .into_iter()
            .map(|warning| warning.fix)
            .collect::<Vec<_>>()
    };
    let fix = "write reply = true too: without it this pool sends no answers";
    let warm = "runner = { kind = \"warm\", command = [\"true\"] }";
    let exec = "runner = { command = [\"true\"] }";
    assert_eq!(warnings(exec), [fix]);
    assert_eq!(warnings(&format!("reply = false\n{warm}")), [fix]);
    assert_eq!(warnings(&format!("reply = true\n{exec}")), [""; 0]);
    assert_eq!(warnings(warm), [""; 0]);
}
