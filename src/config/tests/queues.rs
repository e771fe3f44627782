//! Problems with queues and their names.

use super::{POOL, given, pool_lines};

#[test]
fn deliveries_that_may_wait_too_long_behind_others_are_a_warning() {
    for (prefetch, expected) in [
        (5, vec![]),
        (
            6,
            vec![
                "tidegate.toml:2:12: pools.a.prefetch: found 6, write at most 5, or lower runner.timeout: after jobs \
                that take their whole timeout of 5m, the last prefetched delivery is too close to ack_deadline and \
                returns to the queue",
            ],
        ),
    ] {
        let text = format!("[pools.a]\nprefetch = {prefetch}\nrunner.command = [\"a\"]\n");
        let warnings = given(&text).loaded().warnings;
        let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings, expected);
    }
}

#[test]
fn dead_letters_that_the_broker_may_drop_are_a_warning() {
    for (declare, expected) in [
        (
            "no",
            vec![
                "tidegate.toml:3:21: pools.a.retry.dead_letter: found \"broker\", make sure that the queue has a \
                 dead-letter exchange, or write \"queue\": without one, dead letters are lost",
            ],
        ),
        (
            "classic",
            vec![
                "tidegate.toml:3:21: pools.a.retry.dead_letter: found \"broker\", write arguments = { \
                 x-dead-letter-exchange = \"\", x-dead-letter-routing-key = \"a.dead\" }, or write \"queue\": without a \
                 dead-letter exchange, dead letters are lost",
            ],
        ),
        ("quorum\"\narguments.x-dead-letter-exchange = \"", vec![]),
    ] {
        let text = format!(
            "[pools.a]\ndeclare = \"{declare}\"\nretry.dead_letter = \"broker\"\nrunner.command = [\"a\"]\n"
        );
        let warnings = given(&text).loaded().warnings;
        let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings, expected);
    }
}

#[test]
fn two_pools_on_one_queue_are_both_named_with_their_lines() {
    let text = "pools.a.queue = \"jobs\"\npools.a.runner.command = [\"a\"]\n\
                pools.b.queue = \"jobs\"\npools.b.runner.command = [\"b\"]\n";
    assert_eq!(
        given(text).lines(),
        [
            "tidegate.toml:3:17: pools.b.queue: found \"jobs\", which is also the queue of pool a \
            (tidegate.toml:1:17), give b its own queue, or make one pool of a and b"
        ]
    );
}

#[test]
fn a_queue_name_must_leave_room_for_its_retry_queues() {
    // The longest is `<queue>.retry.300000`.
    let fits = "q".repeat(255 - ".retry.300000".len());
    given(&format!("[pools.thumbnails]\nqueue = \"{fits}\"\n{POOL}")).loaded();
    let lines = pool_lines(&format!("queue = \"{fits}q\""));
    assert_eq!(lines.len(), 1);
    assert!(lines[0].ends_with("write at most 242 bytes: <queue>.retry.300000 must fit in 255"));
}

/// RabbitMQ 4.0 answers by an internal error, and closes the connection.
#[test]
fn a_queue_name_that_breaks_the_broker_is_refused() {
    let room = 219 - ".retry.300000".len();
    let fits = "é".repeat(room / 2);
    given(&format!("[pools.thumbnails]\nqueue = \"{fits}\"\n{POOL}")).loaded();
    let lines = pool_lines(&format!("queue = \"{fits}é\""));
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].contains(
            "write at most 206 bytes: RabbitMQ 4.0 fails to write errors about <queue>.retry.300000"
        ),
        "{}",
        lines[0]
    );
}

#[test]
fn pool_names_have_only_the_allowed_characters() {
    let name = "x".repeat(65);
    for name in ["\"a b\"", "\"\"", "\"é\"", "\"a.b\"", &name] {
        let lines = given(&format!("[pools.{name}.runner]\ncommand = [\"a\"]\n")).lines();
        assert!(
            lines[0].contains("write 1 to 64 of the characters"),
            "{lines:?}"
        );
    }
}

#[test]
fn a_pool_on_anothers_derived_queue_is_a_warning() {
    let text = "pools.a.runner.command = [\"a\"]\n\
                pools.b.queue = \"a.dead\"\npools.b.runner.command = [\"b\"]\n\
                pools.c.queue = \"a.retry.1000\"\npools.c.runner.command = [\"c\"]\n";
    let warnings = given(text).loaded().warnings;
    let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "tidegate.toml:2:17: pools.b.queue: found \"a.dead\", in which pool a keeps its dead letters, check that \
            this is intended",
            "tidegate.toml:4:17: pools.c.queue: found \"a.retry.1000\", in which pool a keeps its retries in waiting, \
            write another queue",
        ]
    );
}
