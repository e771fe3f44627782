//! Order, prefetch, settlement, and ends of a consumer.

use tidegate::queue::{HeaderValue, QueueErrorKind, QueueKind};

use super::bench::{Bench, is_at_its_end, is_quiet, next, text};

pub(super) async fn delivers_in_the_order_of_publishing(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    for n in 0..20 {
        bench.send(&queue, n.to_string()).await;
    }
    let mut consumer = bench.consume(&queue, 3).await;
    for n in 0..20 {
        let delivery = next(&mut consumer).await;
        assert_eq!(text(&delivery), n.to_string());
        assert!(!delivery.message().redelivered);
        delivery.ack().await.expect("an ack");
    }
    bench.until_ready(&queue, 0).await;
}

pub(super) async fn never_hands_out_more_than_the_prefetch(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    for n in 0..5 {
        bench.send(&queue, n.to_string()).await;
    }
    let mut consumer = bench.consume(&queue, 2).await;
    let first = next(&mut consumer).await;
    let _second = next(&mut consumer).await;
    bench.until_ready(&queue, 3).await;
    assert!(is_quiet(&mut consumer).await);
    first.ack().await.expect("an ack");
    assert_eq!(text(&next(&mut consumer).await), "2");
}

pub(super) async fn a_requeued_message_returns_to_the_head_marked_as_redelivered(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    bench.send(&queue, "a").await;
    // A quorum queue of RabbitMQ 3 appends returned messages at its end.
    let at_the_head = bench.kind == QueueKind::Classic;
    if at_the_head {
        bench.send(&queue, "b").await;
    }
    let mut consumer = bench.consume(&queue, 1).await;
    next(&mut consumer)
        .await
        .requeue()
        .await
        .expect("a requeue");
    let again = next(&mut consumer).await;
    assert_eq!(text(&again), "a");
    assert!(again.message().redelivered);
    let is_counted = again.message().headers.contains_key("x-delivery-count");
    assert_eq!(is_counted, bench.kind == QueueKind::Quorum);
    again.ack().await.expect("an ack");
    if !at_the_head {
        bench.send(&queue, "b").await;
    }
    let after = next(&mut consumer).await;
    assert_eq!(
        (text(&after), after.message().redelivered),
        ("b".to_owned(), false)
    );
}

pub(super) async fn requeued_messages_keep_their_order(mut bench: Bench) {
    // A quorum queue of RabbitMQ 3 appends returned messages at its end.
    let queue = bench.queue(QueueKind::Classic).await;
    for n in 0..4 {
        bench.send(&queue, n.to_string()).await;
    }
    let mut consumer = bench.consume(&queue, 3).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(next(&mut consumer).await);
    }
    consumer.cancel().await.expect("a cancel");
    for delivery in held {
        delivery.requeue().await.expect("a requeue");
    }
    bench.until_ready(&queue, 4).await;
    let mut other = bench.consume(&queue, 4).await;
    for n in 0..4 {
        assert_eq!(text(&next(&mut other).await), n.to_string());
    }
}

pub(super) async fn counts_the_returns_of_a_quorum_queue(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Quorum).await;
    bench.send(&queue, "a").await;
    let mut consumer = bench.consume(&queue, 1).await;
    for count in 0..3 {
        let delivery = next(&mut consumer).await;
        let seen = delivery.message().headers.get("x-delivery-count").cloned();
        let expected = (count > 0).then_some(HeaderValue::I64(count));
        assert_eq!(seen, expected);
        assert_eq!(delivery.message().redelivered, count > 0);
        delivery.requeue().await.expect("a requeue");
    }
}

pub(super) async fn gives_a_dropped_delivery_back(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    bench.send(&queue, "a").await;
    let mut consumer = bench.consume(&queue, 1).await;
    drop(next(&mut consumer).await);
    let again = next(&mut consumer).await;
    assert!(again.message().redelivered);
}

pub(super) async fn gives_back_what_a_dropped_consumer_held(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    for body in ["a", "b", "c"] {
        bench.send(&queue, body).await;
    }
    let mut consumer = bench.consume(&queue, 2).await;
    let held = next(&mut consumer).await;
    bench.until_ready(&queue, 1).await;
    drop(consumer);
    bench.until_ready(&queue, 3).await;
    held.ack().await.expect_err("its channel is closed");
    let mut other = bench.consume(&queue, 3).await;
    let seen = [
        next(&mut other).await,
        next(&mut other).await,
        next(&mut other).await,
    ];
    assert_eq!(seen.map(|delivery| text(&delivery)), ["a", "b", "c"]);
}

pub(super) async fn gives_back_what_a_closed_consumer_held(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    bench.send(&queue, "a").await;
    let mut consumer = bench.consume(&queue, 1).await;
    let held = next(&mut consumer).await;
    consumer.close().await;
    bench.until_ready(&queue, 1).await;
    bench.until_consumers(&queue, 0).await;
    held.requeue().await.expect_err("its channel is closed");
    bench.until_ready(&queue, 1).await;
}

pub(super) async fn a_cancelled_consumer_hands_over_what_it_had_buffered_and_then_ends(
    mut bench: Bench,
) {
    let queue = bench.queue(bench.kind).await;
    for n in 0..3 {
        bench.send(&queue, n.to_string()).await;
    }
    let mut consumer = bench.consume(&queue, 3).await;
    bench.until_ready(&queue, 0).await;
    consumer.cancel().await.expect("a cancel");
    for n in 0..3 {
        let delivery = next(&mut consumer).await;
        assert_eq!(text(&delivery), n.to_string());
        delivery
            .ack()
            .await
            .expect("a cancelled consumer still settles");
    }
    assert!(is_at_its_end(&mut consumer).await);
    assert!(is_at_its_end(&mut consumer).await, "the end stays the end");
    consumer
        .cancel()
        .await
        .expect("a second cancel does nothing");
    consumer.close().await;
    bench.until_ready(&queue, 0).await;
}

pub(super) async fn a_cancelled_consumer_is_sent_nothing_more(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    let mut consumer = bench.consume(&queue, 3).await;
    consumer.cancel().await.expect("a cancel");
    bench.send(&queue, "a").await;
    assert!(is_at_its_end(&mut consumer).await);
    bench.until_ready(&queue, 1).await;
    bench.until_consumers(&queue, 0).await;
}

pub(super) async fn a_deleted_queue_ends_its_consumers_without_an_error(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    let mut consumer = bench.consume(&queue, 1).await;
    bench.driver.delete(&queue).await.expect("a delete");
    assert!(is_at_its_end(&mut consumer).await);
    assert!(is_at_its_end(&mut consumer).await, "the end stays the end");
}

pub(super) async fn a_delivery_from_a_deleted_queue_is_settled_without_an_error(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    for body in ["a", "b", "c"] {
        bench.send(&queue, body).await;
    }
    let mut consumer = bench.consume(&queue, 3).await;
    let held = [
        next(&mut consumer).await,
        next(&mut consumer).await,
        next(&mut consumer).await,
    ];
    bench.driver.delete(&queue).await.expect("a delete");
    assert!(is_at_its_end(&mut consumer).await);
    let [a, b, c] = held;
    a.ack().await.expect("the channel is still there");
    b.requeue().await.expect("the channel is still there");
    c.reject().await.expect("the channel is still there");
}

pub(super) async fn two_consumers_share_the_messages(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    let mut first = bench.consume(&queue, 1).await;
    let mut second = bench.consume(&queue, 1).await;
    for body in ["a", "b"] {
        bench.send(&queue, body).await;
    }
    let (one, other) = (next(&mut first).await, next(&mut second).await);
    let mut seen = [text(&one), text(&other)];
    seen.sort();
    assert_eq!(seen, ["a", "b"]);
}

pub(super) async fn settling_after_the_consumer_closed_is_a_lost_settlement(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    for body in ["a", "b", "c"] {
        bench.send(&queue, body).await;
    }
    let mut consumer = bench.consume(&queue, 3).await;
    let held = [
        next(&mut consumer).await,
        next(&mut consumer).await,
        next(&mut consumer).await,
    ];
    consumer.close().await;
    let [a, b, c] = held;
    a.ack().await.expect_err("lost");
    b.requeue().await.expect_err("lost");
    c.reject().await.expect_err("lost");
    bench.until_ready(&queue, 3).await;
}

pub(super) async fn a_consumer_that_is_closed_leaves_what_others_hold_and_gives_its_own_back(
    mut bench: Bench,
) {
    let queue = bench.queue(bench.kind).await;
    let mut staying = bench.consume(&queue, 3).await;
    for body in ["a", "b", "c"] {
        bench.send(&queue, body).await;
    }
    let held = next(&mut staying).await;
    bench.until_ready(&queue, 0).await;
    let mut closing = bench.consume(&queue, 3).await;
    for body in ["d", "e", "f"] {
        bench.send(&queue, body).await;
    }
    let handed_out = next(&mut closing).await;
    bench.until_ready(&queue, 0).await;
    closing.close().await;
    bench.until_ready(&queue, 3).await;
    bench.until_consumers(&queue, 1).await;
    handed_out
        .ack()
        .await
        .expect_err("it went back with its consumer");
    held.ack().await.expect("nothing has happened to it");
    let mut seen = Vec::new();
    for _ in 0..5 {
        let delivery = next(&mut staying).await;
        seen.push(text(&delivery));
        delivery.ack().await.expect("an ack");
    }
    seen.sort();
    assert_eq!(seen, ["b", "c", "d", "e", "f"]);
}

pub(super) async fn a_consumer_that_is_refused_leaves_what_others_hold(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    bench.send(&queue, "a").await;
    let mut consumer = bench.consume(&queue, 1).await;
    let held = next(&mut consumer).await;
    bench.driver.delete(&queue).await.expect("a delete");
    assert!(is_at_its_end(&mut consumer).await);
    let refused = bench.try_consume(&queue, 1).await.map(|_| ());
    let error = refused.expect_err("there is no such queue");
    assert_eq!(error.kind, QueueErrorKind::NotFound);
    held.ack().await.expect("the channel is still there");
}
