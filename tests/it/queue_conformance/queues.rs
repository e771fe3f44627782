//! Depth, declaring and deleting, time to live, dead letters, and the end of a driver.

use std::future::poll_fn;
use std::time::{Duration, Instant};
use tidegate::decide::QueueName;
use tidegate::queue::{Connectivity, Outgoing, QueueErrorKind, QueueKind, QueueSpec};

use super::bench::{Bench, consume, every_header, is_at_its_end, next, outgoing, text, within};

pub(super) async fn a_missing_queue_is_reported_as_not_found_and_affects_nothing_else(
    mut bench: Bench,
) {
    let queue = bench.queue(bench.kind).await;
    let missing = bench.name();
    for _ in 0..3 {
        let error = bench
            .driver
            .probe(&missing)
            .await
            .expect_err("no such queue");
        assert_eq!(error.kind, QueueErrorKind::NotFound);
        assert!(!error.is_transient());
        let error = bench
            .try_consume(&missing, 1)
            .await
            .err()
            .expect("no such queue");
        assert_eq!(error.kind, QueueErrorKind::NotFound);
        bench.until_ready(&queue, 0).await;
    }
    assert_eq!(
        *bench.driver.connectivity().borrow(),
        Connectivity::Connected
    );
}

pub(super) async fn a_depth_counts_ready_messages_and_consumers(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    for n in 0..4 {
        bench.send(&queue, n.to_string()).await;
    }
    bench.until_consumers(&queue, 0).await;
    bench.until_ready(&queue, 4).await;
    let mut first = bench.consume(&queue, 1).await;
    let second = bench.consume(&queue, 1).await;
    let _held = next(&mut first).await;
    // An unacknowledged message is not ready.
    bench.until_ready(&queue, 2).await;
    bench.until_consumers(&queue, 2).await;
    second.close().await;
    bench.until_ready(&queue, 3).await;
    bench.until_consumers(&queue, 1).await;
}

pub(super) async fn a_queues_ttl_moves_messages_to_its_dead_letter_queue(mut bench: Bench) {
    let target = bench.queue(bench.kind).await;
    let waiting = bench
        .declare(|spec| QueueSpec {
            dead_letter_to: Some(target.clone()),
            message_ttl: Some(Duration::from_millis(100)),
            ..spec
        })
        .await;
    let mut consumer = bench.consume(&target, 1).await;
    let message = Outgoing {
        headers: every_header(),
        ..outgoing(&waiting, "later")
    };
    let since = Instant::now();
    bench
        .driver
        .publish(message.clone())
        .await
        .expect("a publish");
    let delivery = next(&mut consumer).await;
    assert!(
        since.elapsed() >= Duration::from_millis(95),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(text(&delivery), "later");
    assert_eq!(delivery.message().routing_key, target.as_str());
    assert!(!delivery.message().redelivered);
    for (name, value) in message.headers {
        assert_eq!(
            delivery.message().headers.get(&name),
            Some(&value),
            "{name}"
        );
    }
}

pub(super) async fn the_shorter_of_two_ttls_counts(mut bench: Bench) {
    let target = bench.queue(bench.kind).await;
    let waiting = bench
        .declare(|spec| QueueSpec {
            dead_letter_to: Some(target.clone()),
            message_ttl: Some(Duration::from_secs(3600)),
            ..spec
        })
        .await;
    let mut consumer = bench.consume(&target, 1).await;
    let mut message = outgoing(&waiting, "soon");
    message.properties.expiration = Some("50".to_owned());
    bench.driver.publish(message).await.expect("a publish");
    let delivery = next(&mut consumer).await;
    // Otherwise it would expire in the queue that it goes to.
    assert_eq!(delivery.message().properties.expiration, None);
}

pub(super) async fn a_rejected_message_goes_to_the_dead_letter_queue(mut bench: Bench) {
    let target = bench.queue(bench.kind).await;
    let queue = bench
        .declare(|spec| QueueSpec {
            dead_letter_to: Some(target.clone()),
            ..spec
        })
        .await;
    bench.send(&queue, "bad").await;
    let mut consumer = bench.consume(&queue, 1).await;
    next(&mut consumer).await.reject().await.expect("a reject");
    let mut dead = bench.consume(&target, 1).await;
    assert_eq!(text(&next(&mut dead).await), "bad");
    bench.until_ready(&queue, 0).await;
}

pub(super) async fn a_rejected_message_without_a_dead_letter_queue_is_dropped(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    bench.send(&queue, "bad").await;
    bench.send(&queue, "good").await;
    let mut consumer = bench.consume(&queue, 1).await;
    next(&mut consumer).await.reject().await.expect("a reject");
    assert_eq!(text(&next(&mut consumer).await), "good");
    bench.until_ready(&queue, 0).await;
}

pub(super) async fn a_quorum_queue_dead_letters_at_least_once(mut bench: Bench) {
    let target = bench.queue(bench.kind).await;
    let waiting = bench
        .declare(|spec| QueueSpec {
            kind: QueueKind::Quorum,
            dead_letter_to: Some(target.clone()),
            message_ttl: Some(Duration::from_millis(50)),
            ..spec
        })
        .await;
    bench.send(&waiting, "later").await;
    let mut consumer = bench.consume(&target, 1).await;
    assert_eq!(text(&next(&mut consumer).await), "later");
}

pub(super) async fn a_queue_that_was_declared_differently_is_a_mismatch(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    bench.send(&queue, "a").await;
    let other = QueueSpec {
        name: queue.clone(),
        kind: match bench.kind {
            QueueKind::Quorum => QueueKind::Classic,
            QueueKind::Classic => QueueKind::Quorum,
        },
        dead_letter_to: Some(QueueName::from("elsewhere")),
        message_ttl: Some(Duration::from_millis(1)),
        ..QueueSpec::new("", QueueKind::Quorum)
    };
    // By a driver that has never seen the queue.
    let newcomer = bench.newcomer().await;
    let error = newcomer.declare(&other).await;
    let error = error.expect_err("it exists with other arguments");
    assert_eq!(error.kind, QueueErrorKind::Mismatch, "{error:?}");
    assert!(!error.is_transient());
    // And by one that has declared it. The queue stays unchanged.
    let same = QueueSpec {
        kind: bench.kind,
        dead_letter_to: None,
        message_ttl: None,
        ..other
    };
    newcomer.declare(&same).await.expect("it is there");
    bench.driver.declare(&same).await.expect("it is there");
    bench.until_ready(&queue, 1).await;
}

pub(super) async fn a_deleted_queue_can_be_declared_again(mut bench: Bench) {
    let newcomer = bench.newcomer().await;
    let queue = bench.queue(bench.kind).await;
    let spec = QueueSpec::new(queue.clone(), bench.kind);
    // By another client, so that the driver must notice it: at a probe, at a publish, at a consume.
    newcomer.delete(&queue).await.expect("a delete");
    bench.driver.probe(&queue).await.expect_err("it is gone");
    bench.driver.declare(&spec).await.expect("a declare");
    bench.until_ready(&queue, 0).await;

    newcomer.delete(&queue).await.expect("a delete");
    bench
        .publish_to(&queue, "lost")
        .await
        .expect_err("it is gone");
    bench.driver.declare(&spec).await.expect("a declare");
    bench.send(&queue, "found").await;

    newcomer.delete(&queue).await.expect("a delete");
    assert!(bench.try_consume(&queue, 1).await.is_err());
    bench.driver.declare(&spec).await.expect("a declare");
    bench.consume(&queue, 1).await;
}

pub(super) async fn deleting_a_missing_queue_is_not_an_error(mut bench: Bench) {
    let missing = bench.name();
    bench
        .driver
        .delete(&missing)
        .await
        .expect("nothing to delete");
}

pub(super) async fn closing_ends_consumers_and_refuses_everything_else(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    bench.send(&queue, "a").await;
    let newcomer = bench.newcomer().await;
    let mut consumer = bench.consume(&queue, 1).await;
    let held = next(&mut consumer).await;
    within("closing", bench.driver.close()).await;
    let error = match within("the end", poll_fn(|cx| consumer.poll_next(cx))).await {
        Some(Err(error)) => error,
        other => panic!("not an error: {other:?}"),
    };
    assert_eq!(error.kind, QueueErrorKind::Disconnected);
    assert!(is_at_its_end(&mut consumer).await);
    held.ack().await.expect_err("the channel is closed");
    let refused = [
        bench.driver.probe(&queue).await.err(),
        bench.publish_to(&queue, "b").await.err(),
        bench.try_consume(&queue, 1).await.err(),
    ];
    for error in refused {
        assert_eq!(error.expect("closed").kind, QueueErrorKind::Disconnected);
    }
    let connectivity = bench.driver.connectivity().borrow().clone();
    assert!(
        matches!(connectivity, Connectivity::Disconnected { .. }),
        "{connectivity:?}"
    );
    if let Some(newcomer) = newcomer.if_another_connection() {
        let mut consumer = consume(&*newcomer, &queue, 1).await.expect("a consumer");
        assert!(next(&mut consumer).await.message().redelivered);
    }
}
