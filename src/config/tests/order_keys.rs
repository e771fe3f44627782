//! Pools whose jobs have keys.

use super::{given, pool_lines};
use crate::config::{KeySettings, KeySource};

/// The settings of the key of a pool with these lines.
fn key(lines: &str) -> Option<KeySettings> {
    let text = format!("[pools.a]\n{lines}\nrunner.command = [\"a\"]\n");
    given(&text).loaded().settings.pools[0].pool.key.clone()
}

fn warnings(lines: &str) -> Vec<String> {
    let text = format!("[pools.a]\n{lines}\nrunner.command = [\"a\"]\n");
    let warnings = given(&text).loaded().warnings;
    warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_pool_has_no_key_unless_it_says_so() {
    assert_eq!(key(""), None);
    assert_eq!(
        key("key = \"header:tenant\""),
        Some(KeySettings::header("tenant"))
    );
    let settings = KeySettings::new(KeySource::CorrelationId)
        .per_key(3)
        .window(70);
    let lines = "key = \"correlation_id\"\nper_key = 3\nkey_window = 70";
    assert_eq!(key(lines), Some(settings));
}

#[test]
fn a_key_that_is_none_is_refused_with_its_place() {
    for (line, problem) in [
        (
            "key = \"tenant\"",
            "2:7: pools.thumbnails.key: found \"tenant\", write \"header:NAME\", \"routing_key\", \"correlation_id\" or \"type\"",
        ),
        (
            "key = \"header:\"",
            "2:7: pools.thumbnails.key: found \"header:\", write the name of a header after \"header:\"",
        ),
        (
            "key = 7",
            "2:7: pools.thumbnails.key: found 7, write \"header:NAME\", \"routing_key\", \"correlation_id\" or \"type\" in \
             quotes",
        ),
        (
            "key = \"type\"\nper_key = 0",
            "3:11: pools.thumbnails.per_key: found 0, write a whole number from 1 to 1000000",
        ),
        (
            "key = \"type\"\nkey_window = 65536",
            "3:14: pools.thumbnails.key_window: found 65536, write a whole number from 1 to 65535",
        ),
        (
            "per_key = 2",
            "2:11: pools.thumbnails.per_key: found 2, remove it, or write key too: key = \"header:tenant\"",
        ),
        (
            "key_window = 2",
            "2:14: pools.thumbnails.key_window: found 2, remove it, or write key too: key = \"header:tenant\"",
        ),
        (
            "key = \"type\"\nprefetch = 5",
            "3:12: pools.thumbnails.prefetch: found 5, remove it: with key a worker takes one message at a time, and the pool \
             takes key_window of them",
        ),
    ] {
        assert_eq!(pool_lines(line), [format!("tidegate.toml:{problem}")]);
    }
    // One mistake is one problem.
    assert_eq!(pool_lines("key = \"tenant\"\nper_key = 2").len(), 1);
}

#[test]
fn what_breaks_the_order_or_holds_workers_back_is_a_warning() {
    let shared = warnings("key = \"type\"\nshare = true");
    let [shared] = &shared[..] else {
        panic!("{shared:#?}");
    };
    assert!(
        shared.contains("2:7: pools.a.key: found \"type\", write share = false"),
        "{shared}"
    );
    let small = warnings(
        "key = \"type\"\nkey_window = 9\npolicy = { kind = \"fixed\", workers = 1, max = 10 }",
    );
    let [small] = &small[..] else {
        panic!("{small:#?}");
    };
    assert!(
        small.contains("pools.a.key_window: found 9, write at least policy.max, which is 10"),
        "{small}"
    );
    let limit = |limit| {
        warnings(&format!(
            "key = \"type\"\ndeclare = \"quorum\"\narguments.x-delivery-limit = {limit}"
        ))
    };
    assert_eq!(limit(2), [""; 0]);
    assert!(limit(1)[0].contains("write 2 or more"), "{:?}", limit(1));
}

#[test]
fn a_key_has_no_effect_on_programs_that_consume_the_queue_themselves() {
    let text = "[pools.a]\nkey = \"type\"\nrunner = { kind = \"consumer\", command = [\"a\"] }\n";
    let lines = given(text).lines();
    assert_eq!(
        lines,
        [
            "tidegate.toml:2:7: pools.a.key: found this key, remove it: it has no effect on programs of kind = \"consumer\", because \
          they take messages themselves"
        ]
    );
}
