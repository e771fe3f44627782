//! Browsing a queue: what it shows, and what it leaves behind.

use tidegate::queue::{Browser, QueueErrorKind, QueueKind};

use super::bench::{Bench, text, within};

/// The bodies that a browser finds, passed over one by one.
async fn rest(look: &mut Box<dyn Browser>) -> Vec<String> {
    let mut bodies = Vec::new();
    while let Some(letter) = within("a message", look.next()).await.expect("a message") {
        bodies.push(text(&letter));
    }
    bodies
}

async fn filled(bench: &mut Bench) -> tidegate::decide::QueueName {
    let queue = bench.queue(bench.kind).await;
    for body in ["a", "b", "c", "d"] {
        bench.send(&queue, body).await;
    }
    bench.until_ready(&queue, 4).await;
    queue
}

pub(super) async fn browsing_leaves_the_queue_unchanged(mut bench: Bench) {
    let queue = filled(&mut bench).await;
    let mut short_look = bench.browse(&queue).await;
    let passed_over = short_look.next().await.expect("a message").expect("a");
    assert_eq!(text(&passed_over), "a");
    drop(passed_over);
    within("the end", short_look.close())
        .await
        .expect("a close");
    bench.until_ready(&queue, 4).await;
    for _ in 0..2 {
        let mut look = bench.browse(&queue).await;
        assert_eq!(rest(&mut look).await, ["a", "b", "c", "d"]);
        within("the end", look.close()).await.expect("a close");
        bench.until_ready(&queue, 4).await;
    }
    bench.until_consumers(&queue, 0).await;
}

pub(super) async fn browsing_thousands_gives_all_back_at_once_and_in_order(mut bench: Bench) {
    const MANY: usize = 3000;
    // A quorum queue keeps the order of only 32 messages.
    let queue = bench.queue(QueueKind::Classic).await;
    let bodies: Vec<String> = (0..MANY).map(|n| n.to_string()).collect();
    for body in &bodies {
        bench.send(&queue, body.clone()).await;
    }
    bench.until_ready(&queue, MANY as u64).await;
    for _ in 0..2 {
        let mut look = bench.browse(&queue).await;
        assert!(rest(&mut look).await == bodies, "not in order");
        within("the end", look.close()).await.expect("a close");
        // RabbitMQ 4 confirms the close before the messages are back in the queue.
        bench.until_ready(&queue, MANY as u64).await;
    }
}

pub(super) async fn messages_settled_while_browsing_are_gone_and_the_rest_keeps_its_order(
    mut bench: Bench,
) {
    let queue = filled(&mut bench).await;
    let mut look = bench.browse(&queue).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(look.next().await.expect("a message").expect("one of four"));
    }
    let last = held.pop().expect("d");
    drop(held.remove(0));
    held.remove(0).ack().await.expect("an ack of b");
    last.ack().await.expect("an ack of d");
    look.close().await.expect("a close");
    // The delivery that is still held went back with the rest, and can no longer be settled.
    let c = held.remove(0);
    assert!(c.ack().await.is_err(), "c was settled after the look");
    bench.until_ready(&queue, 2).await;
    let mut look = bench.browse(&queue).await;
    assert_eq!(rest(&mut look).await, ["a", "c"]);
}

pub(super) async fn browsing_does_not_see_what_others_hold(mut bench: Bench) {
    let queue = filled(&mut bench).await;
    let mut first = bench.browse(&queue).await;
    let _held = first.next().await.expect("a message").expect("a");
    let mut second = bench.browse(&queue).await;
    assert_eq!(rest(&mut second).await, ["b", "c", "d"]);
    bench.until_ready(&queue, 0).await;
}

pub(super) async fn a_dropped_browser_returns_all_its_messages(mut bench: Bench) {
    let queue = filled(&mut bench).await;
    let mut look = bench.browse(&queue).await;
    assert_eq!(rest(&mut look).await.len(), 4);
    drop(look);
    bench.until_ready(&queue, 4).await;
    let mut look = bench.browse(&queue).await;
    let first = look.next().await.expect("a message").expect("a");
    assert!(first.message().redelivered);
    assert_eq!(text(&first), "a");
}

pub(super) async fn browsing_a_missing_queue_is_not_found_and_affects_nothing_else(
    mut bench: Bench,
) {
    let queue = filled(&mut bench).await;
    let missing = bench.name();
    let mut look = bench.browse(&missing).await;
    let error = look.next().await.expect_err("no such queue");
    assert_eq!(error.kind, QueueErrorKind::NotFound);
    drop(look);
    assert_eq!(bench.probe(&queue).await.ready, 4);
}
