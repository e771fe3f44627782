//! Looks through a queue: what they show, and what they leave behind.

use tidegate::queue::{Browser, QueueErrorKind, QueueKind};

use super::bench::{Bench, text, within};

/// The bodies that a look finds, passed over one by one.
async fn rest(look: &mut Box<dyn Browser>) -> Vec<String> {
    let mut bodies = Vec::new();
    while let Some(letter) = within("a message", look.next()).await.expect("a message") {
        bodies.push(text(&letter));
    }
    bodies
}

async fn filled(bench: &mut Bench, kind: QueueKind) -> tidegate::decide::QueueName {
    let queue = bench.queue(kind).await;
    for body in ["a", "b", "c", "d"] {
        bench.send(&queue, body).await;
    }
    bench.until_ready(&queue, 4).await;
    queue
}

pub(super) async fn a_look_leaves_the_queue_as_it_was(mut bench: Bench) {
    for kind in [QueueKind::Classic, QueueKind::Quorum] {
        let queue = filled(&mut bench, kind).await;
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
            assert_eq!(rest(&mut look).await, ["a", "b", "c", "d"], "{kind:?}");
            within("the end", look.close()).await.expect("a close");
            if kind == QueueKind::Classic {
                // At once: whoever looks next must not find it half empty.
                assert_eq!(bench.probe(&queue).await.ready, 4);
            }
            bench.until_ready(&queue, 4).await;
        }
        assert_eq!(bench.probe(&queue).await.consumers, 0);
    }
}

pub(super) async fn a_long_look_gives_thousands_back_at_once_and_in_order(mut bench: Bench) {
    const MANY: usize = 3000;
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
        assert_eq!(bench.probe(&queue).await.ready, MANY as u64);
    }
}

pub(super) async fn what_a_look_settles_is_gone_and_the_rest_keeps_its_order(mut bench: Bench) {
    let queue = filled(&mut bench, QueueKind::Classic).await;
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
    // What is still in our hands went back with the rest, and cannot be settled any more.
    let c = held.remove(0);
    assert!(c.ack().await.is_err(), "c was settled after the look");
    assert_eq!(bench.probe(&queue).await.ready, 2);
    let mut look = bench.browse(&queue).await;
    assert_eq!(rest(&mut look).await, ["a", "c"]);
}

pub(super) async fn a_look_does_not_see_what_others_hold(mut bench: Bench) {
    let queue = filled(&mut bench, QueueKind::Classic).await;
    let mut first = bench.browse(&queue).await;
    let _held = first.next().await.expect("a message").expect("a");
    let mut second = bench.browse(&queue).await;
    assert_eq!(rest(&mut second).await, ["b", "c", "d"]);
    assert_eq!(bench.probe(&queue).await.ready, 0);
}

pub(super) async fn a_look_that_is_dropped_gives_everything_back(mut bench: Bench) {
    let queue = filled(&mut bench, QueueKind::Classic).await;
    let mut look = bench.browse(&queue).await;
    assert_eq!(rest(&mut look).await.len(), 4);
    drop(look);
    bench.until_ready(&queue, 4).await;
    let mut look = bench.browse(&queue).await;
    let first = look.next().await.expect("a message").expect("a");
    assert!(first.message().redelivered);
    assert_eq!(text(&first), "a");
}

pub(super) async fn a_look_at_a_missing_queue_is_not_found_and_harms_nothing_else(
    mut bench: Bench,
) {
    let queue = filled(&mut bench, QueueKind::Classic).await;
    let missing = bench.name();
    let mut look = bench.browse(&missing).await;
    let error = look.next().await.expect_err("no such queue");
    assert_eq!(error.kind, QueueErrorKind::NotFound);
    drop(look);
    assert_eq!(bench.probe(&queue).await.ready, 4);
}
