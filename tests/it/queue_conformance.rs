//! One suite for every implementation of the queue seam.

use std::{
    fmt::Debug,
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tidegate::{
    adapters::{amqp::AmqpDriver, memory::MemoryBroker},
    decide::QueueName,
    queue::{
        Connectivity, ConsumeRequest, Consumer, Delivery, HeaderValue, Headers, Message, Outgoing,
        Properties, QueueDriver, QueueError, QueueErrorKind, QueueKind, QueueSpec, header_size,
    },
};
use tokio::time::timeout;

use crate::support::broker::{TestQueue, broker_url, settings};

/// No test waits for this long; it turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs each test against each implementation.
macro_rules! conformance {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $name() { super::$name(super::Bench::memory()).await; })*
        }
        mod amqp {
            $(#[tokio::test] async fn $name() { super::$name(super::Bench::amqp().await).await; })*
        }
    };
}

conformance! {
    delivers_in_the_order_of_publishing,
    never_hands_out_more_than_the_prefetch,
    gives_a_requeued_message_back_at_the_head_and_marked,
    requeued_messages_keep_their_order,
    counts_the_returns_of_a_quorum_queue,
    gives_a_dropped_delivery_back,
    gives_back_what_a_dropped_consumer_held,
    gives_back_what_a_closed_consumer_held,
    a_cancelled_consumer_hands_over_what_it_had_buffered_and_then_ends,
    a_cancelled_consumer_is_sent_nothing_more,
    a_deleted_queue_ends_its_consumers_without_an_error,
    what_was_delivered_from_a_deleted_queue_is_settled_without_an_error,
    a_missing_queue_is_not_found_and_harms_nothing_else,
    a_depth_counts_ready_messages_and_consumers,
    two_consumers_share_the_messages,
    a_publish_to_no_queue_is_unroutable,
    a_publish_to_no_exchange_is_not_found,
    a_message_keeps_every_property_and_header,
    a_message_without_properties_stays_without,
    bodies_come_through_byte_for_byte,
    a_queues_ttl_moves_messages_to_its_dead_letter_queue,
    the_shorter_of_two_ttls_counts,
    a_rejected_message_goes_to_the_dead_letter_queue,
    a_rejected_message_without_a_dead_letter_queue_is_dropped,
    a_quorum_queue_dead_letters_at_least_once,
    a_queue_that_is_there_is_taken_as_it_is,
    a_deleted_queue_can_be_declared_again,
    deleting_a_missing_queue_is_no_error,
    settling_after_the_consumer_closed_is_a_lost_settlement,
    headers_up_to_the_limit_pass_and_beyond_it_are_refused,
    texts_that_amqp_cannot_express_are_refused,
    many_publish_at_once,
    closing_ends_consumers_and_refuses_everything_else,
}

async fn delivers_in_the_order_of_publishing(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
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

async fn never_hands_out_more_than_the_prefetch(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
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

async fn gives_a_requeued_message_back_at_the_head_and_marked(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
    for body in ["a", "b", "c"] {
        bench.send(&queue, body).await;
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
    assert!(!again.message().headers.contains_key("x-delivery-count"));
    again.ack().await.expect("an ack");
    let after = next(&mut consumer).await;
    assert_eq!(
        (text(&after), after.message().redelivered),
        ("b".to_owned(), false)
    );
}

async fn requeued_messages_keep_their_order(mut bench: Bench) {
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

async fn counts_the_returns_of_a_quorum_queue(mut bench: Bench) {
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

async fn gives_a_dropped_delivery_back(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
    bench.send(&queue, "a").await;
    let mut consumer = bench.consume(&queue, 1).await;
    drop(next(&mut consumer).await);
    let again = next(&mut consumer).await;
    assert!(again.message().redelivered);
}

async fn gives_back_what_a_dropped_consumer_held(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
    for body in ["a", "b", "c"] {
        bench.send(&queue, body).await;
    }
    let mut consumer = bench.consume(&queue, 2).await;
    let held = next(&mut consumer).await;
    bench.until_ready(&queue, 1).await;
    drop(consumer);
    bench.until_ready(&queue, 3).await;
    held.ack().await.expect_err("its channel is gone");
    let mut other = bench.consume(&queue, 3).await;
    let seen = [
        next(&mut other).await,
        next(&mut other).await,
        next(&mut other).await,
    ];
    assert_eq!(seen.map(|delivery| text(&delivery)), ["a", "b", "c"]);
}

async fn gives_back_what_a_closed_consumer_held(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
    bench.send(&queue, "a").await;
    let mut consumer = bench.consume(&queue, 1).await;
    let held = next(&mut consumer).await;
    consumer.close().await;
    bench.until_ready(&queue, 1).await;
    assert_eq!(bench.probe(&queue).await.consumers, 0);
    held.requeue().await.expect_err("its channel is gone");
    bench.until_ready(&queue, 1).await;
}

async fn a_cancelled_consumer_hands_over_what_it_had_buffered_and_then_ends(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
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
    consumer.cancel().await.expect("a second cancel is none");
    consumer.close().await;
    assert_eq!(bench.probe(&queue).await.ready, 0);
}

async fn a_cancelled_consumer_is_sent_nothing_more(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
    let mut consumer = bench.consume(&queue, 3).await;
    consumer.cancel().await.expect("a cancel");
    bench.send(&queue, "a").await;
    assert!(is_at_its_end(&mut consumer).await);
    bench.until_ready(&queue, 1).await;
    assert_eq!(bench.probe(&queue).await.consumers, 0);
}

async fn a_deleted_queue_ends_its_consumers_without_an_error(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
    let mut consumer = bench.consume(&queue, 1).await;
    bench.driver.delete(&queue).await.expect("a delete");
    assert!(is_at_its_end(&mut consumer).await);
    assert!(is_at_its_end(&mut consumer).await, "the end stays the end");
}

async fn what_was_delivered_from_a_deleted_queue_is_settled_without_an_error(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
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

async fn a_missing_queue_is_not_found_and_harms_nothing_else(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
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
        assert_eq!(bench.probe(&queue).await.ready, 0);
    }
    assert_eq!(
        *bench.driver.connectivity().borrow(),
        Connectivity::Connected
    );
}

async fn a_depth_counts_ready_messages_and_consumers(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
    for n in 0..4 {
        bench.send(&queue, n.to_string()).await;
    }
    assert_eq!(bench.probe(&queue).await.consumers, 0);
    bench.until_ready(&queue, 4).await;
    let mut first = bench.consume(&queue, 1).await;
    let second = bench.consume(&queue, 1).await;
    let _held = next(&mut first).await;
    // What is not acknowledged is not ready.
    bench.until_ready(&queue, 2).await;
    assert_eq!(bench.probe(&queue).await.consumers, 2);
    second.close().await;
    bench.until_ready(&queue, 3).await;
    assert_eq!(bench.probe(&queue).await.consumers, 1);
}

async fn two_consumers_share_the_messages(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
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

async fn a_publish_to_no_queue_is_unroutable(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
    let missing = bench.name();
    let error = bench
        .publish_to(&missing, "lost")
        .await
        .expect_err("no such queue");
    assert_eq!(error.kind, QueueErrorKind::Unroutable);
    // The next publish is not taken for the one that came back.
    bench.send(&queue, "found").await;
    bench.until_ready(&queue, 1).await;
}

async fn a_publish_to_no_exchange_is_not_found(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
    let message = Outgoing {
        exchange: bench.name().as_str().to_owned(),
        ..outgoing(&queue, "lost")
    };
    let error = bench
        .driver
        .publish(message)
        .await
        .expect_err("no such exchange");
    assert_eq!(error.kind, QueueErrorKind::NotFound);
    bench.send(&queue, "found").await;
    bench.until_ready(&queue, 1).await;
}

async fn a_message_keeps_every_property_and_header(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
    let sent = Outgoing {
        properties: Properties {
            content_type: Some("application/json".to_owned()),
            content_encoding: Some("gzip".to_owned()),
            delivery_mode: Some(2),
            priority: Some(7),
            correlation_id: Some("correlation \u{1f30a}\n\0".to_owned()),
            reply_to: Some("replies".to_owned()),
            expiration: Some("3600000".to_owned()),
            message_id: Some("m-1".to_owned()),
            timestamp: Some(1_764_000_000),
            kind: Some("thumbnail".to_owned()),
            user_id: Some("guest".to_owned()),
            app_id: Some("app".to_owned()),
            cluster_id: Some("cluster".to_owned()),
        },
        headers: every_header(),
        ..outgoing(&queue, "body")
    };
    bench.driver.publish(sent.clone()).await.expect("a publish");
    let mut consumer = bench.consume(&queue, 1).await;
    let delivery = next(&mut consumer).await;
    let expected = Message {
        exchange: String::new(),
        routing_key: queue.as_str().to_owned(),
        redelivered: false,
        properties: sent.properties,
        headers: sent.headers,
        body: sent.body,
    };
    assert_eq!(**delivery.message(), expected);
}

async fn a_message_without_properties_stays_without(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
    bench.send(&queue, "bare").await;
    let mut consumer = bench.consume(&queue, 1).await;
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.message().properties, Properties::default());
    assert_eq!(delivery.message().headers, Headers::new());
}

async fn bodies_come_through_byte_for_byte(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
    let large: Vec<u8> = (0..16 << 20).map(|n: u32| (n ^ (n >> 11)) as u8).collect();
    let bodies = [
        Bytes::new(),
        Bytes::from_static(b"\xff\xfe\0 not utf-8 \xc3\x28"),
        Bytes::from(large),
    ];
    let mut consumer = bench.consume(&queue, 1).await;
    for body in bodies {
        bench.send(&queue, body.clone()).await;
        let delivery = next(&mut consumer).await;
        assert!(delivery.message().body == body, "{} bytes", body.len());
        delivery.ack().await.expect("an ack");
    }
}

async fn a_queues_ttl_moves_messages_to_its_dead_letter_queue(mut bench: Bench) {
    let target = bench.queue(QueueKind::Classic).await;
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

async fn the_shorter_of_two_ttls_counts(mut bench: Bench) {
    let target = bench.queue(QueueKind::Classic).await;
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
    // Or it would expire in the queue that it goes to.
    assert_eq!(delivery.message().properties.expiration, None);
}

async fn a_rejected_message_goes_to_the_dead_letter_queue(mut bench: Bench) {
    let target = bench.queue(QueueKind::Classic).await;
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

async fn a_rejected_message_without_a_dead_letter_queue_is_dropped(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
    bench.send(&queue, "bad").await;
    bench.send(&queue, "good").await;
    let mut consumer = bench.consume(&queue, 1).await;
    next(&mut consumer).await.reject().await.expect("a reject");
    assert_eq!(text(&next(&mut consumer).await), "good");
    assert_eq!(bench.probe(&queue).await.ready, 0);
}

async fn a_quorum_queue_dead_letters_at_least_once(mut bench: Bench) {
    let target = bench.queue(QueueKind::Classic).await;
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

async fn a_queue_that_is_there_is_taken_as_it_is(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
    bench.send(&queue, "a").await;
    let other = QueueSpec {
        name: queue.clone(),
        kind: QueueKind::Quorum,
        dead_letter_to: Some(QueueName::from("elsewhere")),
        message_ttl: Some(Duration::from_millis(1)),
    };
    // By one that has never seen it.
    let newcomer = bench.newcomer().await;
    newcomer.declare(&other).await.expect("it is there");
    bench.driver.declare(&other).await.expect("it is there");
    bench.until_ready(&queue, 1).await;
}

async fn a_deleted_queue_can_be_declared_again(mut bench: Bench) {
    let newcomer = bench.newcomer().await;
    let queue = bench.queue(QueueKind::Classic).await;
    let spec = QueueSpec {
        name: queue.clone(),
        kind: QueueKind::Classic,
        dead_letter_to: None,
        message_ttl: None,
    };
    // By someone else, so that the driver has to notice: at a probe, at a publish, at a consume.
    newcomer.delete(&queue).await.expect("a delete");
    bench.driver.probe(&queue).await.expect_err("it is gone");
    bench.driver.declare(&spec).await.expect("a declare");
    assert_eq!(bench.probe(&queue).await.ready, 0);

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

async fn deleting_a_missing_queue_is_no_error(mut bench: Bench) {
    let missing = bench.name();
    bench
        .driver
        .delete(&missing)
        .await
        .expect("nothing to delete");
}

async fn settling_after_the_consumer_closed_is_a_lost_settlement(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
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

async fn headers_up_to_the_limit_pass_and_beyond_it_are_refused(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
    let limit = bench.driver.header_limit();
    let sized = |bytes: usize| {
        let mut message = outgoing(&queue, "body");
        message.properties.message_id = Some("m".to_owned());
        let mut padding = 0;
        loop {
            let value = HeaderValue::Text(Bytes::from(vec![b'x'; padding]));
            message.headers.insert("padding".to_owned(), value);
            let size = header_size(&message.properties, &message.headers);
            if size == bytes {
                return message;
            }
            padding += bytes - size;
        }
    };
    bench.driver.publish(sized(limit)).await.expect("it fits");
    let error = bench
        .driver
        .publish(sized(limit + 1))
        .await
        .expect_err("it does not fit");
    assert_eq!(error.kind, QueueErrorKind::TooLarge);
    let error = bench
        .driver
        .publish(sized(10 << 20))
        .await
        .expect_err("it does not fit");
    assert_eq!(error.kind, QueueErrorKind::TooLarge);
    assert_eq!(
        *bench.driver.connectivity().borrow(),
        Connectivity::Connected
    );
    let mut consumer = bench.consume(&queue, 1).await;
    assert_eq!(
        next(&mut consumer).await.message().headers,
        sized(limit).headers
    );
}

async fn texts_that_amqp_cannot_express_are_refused(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
    let long = "x".repeat(256);
    let longest = "x".repeat(255);
    let with_id = |id: &str| {
        let mut message = outgoing(&queue, "body");
        message.properties.message_id = Some(id.to_owned());
        message
    };
    let with_header = |name: &str| {
        let mut message = outgoing(&queue, "body");
        let inner = Headers::from([(name.to_owned(), HeaderValue::Void)]);
        message
            .headers
            .insert("table".to_owned(), HeaderValue::Table(inner));
        message
    };
    for message in [with_id(&long), with_header(&long)] {
        let error = bench.driver.publish(message).await.expect_err("too long");
        assert_eq!(error.kind, QueueErrorKind::TooLarge);
    }
    for message in [with_id(&longest), with_header(&longest)] {
        bench
            .driver
            .publish(message)
            .await
            .expect("as long as can be");
    }
    bench.until_ready(&queue, 2).await;
}

async fn many_publish_at_once(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
    let missing = bench.name();
    let mut publishes = tokio::task::JoinSet::new();
    for n in 0..200 {
        let (driver, queue, missing) = (bench.driver.clone(), queue.clone(), missing.clone());
        publishes.spawn(async move {
            // Every fourth comes back, and each must hear of its own.
            let is_lost = n % 4 == 0;
            let target = if is_lost { &missing } else { &queue };
            let published = driver.publish(outgoing(target, n.to_string())).await;
            assert_eq!(published.is_err(), is_lost, "{n}: {published:?}");
        });
    }
    while let Some(done) = publishes.join_next().await {
        done.expect("no publish is taken for another");
    }
    bench.until_ready(&queue, 150).await;
}

async fn closing_ends_consumers_and_refuses_everything_else(mut bench: Bench) {
    let queue = bench.queue(QueueKind::Classic).await;
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
    held.ack().await.expect_err("the channel is gone");
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

/// A driver under test, and the queues of the test.
struct Bench {
    driver: Arc<dyn QueueDriver>,
    queues: Vec<TestQueue>,
    names: u32,
    url: Option<String>,
}

impl Bench {
    fn memory() -> Self {
        Self {
            driver: Arc::new(MemoryBroker::new()),
            queues: Vec::new(),
            names: 0,
            url: None,
        }
    }

    async fn amqp() -> Self {
        let url = broker_url();
        Self {
            driver: connect(&url).await,
            queues: Vec::new(),
            names: 0,
            url: Some(url),
        }
    }

    /// Another driver to the same broker.
    async fn newcomer(&self) -> Newcomer {
        Newcomer {
            driver: match &self.url {
                Some(url) => connect(url).await,
                None => self.driver.clone(),
            },
            is_another_connection: self.url.is_some(),
        }
    }

    /// A name that no queue has.
    fn name(&mut self) -> QueueName {
        self.names += 1;
        match &self.url {
            Some(url) => {
                let queue = TestQueue::at(url, "conformance");
                let name = queue.name();
                self.queues.push(queue);
                name
            }
            None => QueueName::from(format!("queue-{}", self.names)),
        }
    }

    async fn queue(&mut self, kind: QueueKind) -> QueueName {
        self.declare(|spec| QueueSpec { kind, ..spec }).await
    }

    async fn declare(&mut self, adjust: impl FnOnce(QueueSpec) -> QueueSpec) -> QueueName {
        let spec = adjust(QueueSpec {
            name: self.name(),
            kind: QueueKind::Classic,
            dead_letter_to: None,
            message_ttl: None,
        });
        within("a declare", self.driver.declare(&spec))
            .await
            .expect("a declare");
        spec.name
    }

    async fn send(&self, queue: &QueueName, body: impl Into<Bytes>) {
        self.publish_to(queue, body).await.expect("a publish");
    }

    async fn publish_to(
        &self,
        queue: &QueueName,
        body: impl Into<Bytes>,
    ) -> Result<(), QueueError> {
        within("a publish", self.driver.publish(outgoing(queue, body))).await
    }

    async fn probe(&self, queue: &QueueName) -> tidegate::queue::QueueDepth {
        within("a probe", self.driver.probe(queue))
            .await
            .expect("a probe")
    }

    async fn consume(&self, queue: &QueueName, prefetch: u16) -> Box<dyn Consumer> {
        self.try_consume(queue, prefetch).await.expect("a consumer")
    }

    async fn try_consume(
        &self,
        queue: &QueueName,
        prefetch: u16,
    ) -> Result<Box<dyn Consumer>, QueueError> {
        consume(&*self.driver, queue, prefetch).await
    }

    /// A broker counts a message as ready some time after it came back.
    async fn until_ready(&self, queue: &QueueName, ready: u64) {
        let reached = async {
            while self.driver.probe(queue).await.expect("a probe").ready != ready {
                tokio::task::yield_now().await;
            }
        };
        within(&format!("{ready} ready messages"), reached).await;
    }
}

struct Newcomer {
    driver: Arc<dyn QueueDriver>,
    is_another_connection: bool,
}

impl Newcomer {
    fn if_another_connection(self) -> Option<Arc<dyn QueueDriver>> {
        self.is_another_connection.then_some(self.driver)
    }
}

impl std::ops::Deref for Newcomer {
    type Target = dyn QueueDriver;

    fn deref(&self) -> &Self::Target {
        &*self.driver
    }
}

async fn connect(url: &str) -> Arc<dyn QueueDriver> {
    let driver = AmqpDriver::connect_lazily(&settings(url)).expect("a good url");
    driver.until_connected(PATIENCE).await.expect("a broker");
    driver
}

async fn consume(
    driver: &dyn QueueDriver,
    queue: &QueueName,
    prefetch: u16,
) -> Result<Box<dyn Consumer>, QueueError> {
    let request = ConsumeRequest {
        queue: queue.clone(),
        prefetch,
        tag: format!("test-{:08x}", rand::random::<u32>()),
    };
    within("a consumer", driver.consume(request)).await
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come about"))
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    match within("a delivery", poll_fn(|cx| consumer.poll_next(cx))).await {
        Some(Ok(delivery)) => delivery,
        other => panic!("not a delivery: {other:?}"),
    }
}

async fn is_at_its_end(consumer: &mut Box<dyn Consumer>) -> bool {
    let next: Option<Result<Delivery, QueueError>> =
        within("the end", poll_fn(|cx| consumer.poll_next(cx))).await;
    is_none(next)
}

fn is_none<T: Debug>(option: Option<T>) -> bool {
    assert!(option.is_none(), "not the end: {option:?}");
    true
}

/// Whether nothing is there to be taken. Only after an event that anything wrong would have come before.
async fn is_quiet(consumer: &mut Box<dyn Consumer>) -> bool {
    poll_fn(|cx| std::task::Poll::Ready(consumer.poll_next(cx).is_pending())).await
}

fn outgoing(queue: &QueueName, body: impl Into<Bytes>) -> Outgoing {
    Outgoing {
        routing_key: queue.as_str().to_owned(),
        body: body.into(),
        ..Outgoing::default()
    }
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.message().body).into_owned()
}

/// One header of each type, at the ends of its range.
fn every_header() -> Headers {
    let all = [
        HeaderValue::Bool(true),
        HeaderValue::I8(i8::MIN),
        HeaderValue::U8(u8::MAX),
        HeaderValue::I16(i16::MIN),
        HeaderValue::U16(u16::MAX),
        HeaderValue::I32(i32::MIN),
        HeaderValue::U32(u32::MAX),
        HeaderValue::I64(i64::MIN),
        HeaderValue::F32(1.5e-30),
        HeaderValue::F64(f64::MIN_POSITIVE),
        HeaderValue::Decimal {
            scale: 2,
            value: 31_415,
        },
        HeaderValue::from("text with a newline\n and a nul \0"),
        HeaderValue::Text(Bytes::from_static(b"\xff not utf-8")),
        HeaderValue::Binary(Bytes::from_static(b"\0\xff")),
        HeaderValue::Timestamp(u64::from(u32::MAX) + 1),
        HeaderValue::List(Vec::new()),
        HeaderValue::Table(Headers::new()),
        HeaderValue::Void,
    ];
    let mut headers: Headers = all
        .iter()
        .enumerate()
        .map(|(n, value)| (format!("header {n}"), value.clone()))
        .collect();
    headers.insert("list".to_owned(), HeaderValue::List(all.to_vec()));
    headers.insert("table".to_owned(), HeaderValue::Table(headers.clone()));
    headers
}
