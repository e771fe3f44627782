//! The destination and the content of a publish.

use bytes::Bytes;
use tidegate::queue::{
    Connectivity, HeaderValue, Headers, Message, NoRoute, Outgoing, Properties, QueueErrorKind,
    header_size,
};

use super::bench::{Bench, every_header, next, outgoing};

pub(super) async fn a_publish_to_no_queue_is_unroutable(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    let missing = bench.name();
    let error = bench
        .publish_to(&missing, "lost")
        .await
        .expect_err("no such queue");
    assert_eq!(error.kind, QueueErrorKind::Unroutable);
    // The next publish must not be mistaken for the returned one.
    bench.send(&queue, "found").await;
    bench.until_ready(&queue, 1).await;
}

pub(super) async fn a_publish_to_no_exchange_is_not_found(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
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

pub(super) async fn a_message_keeps_every_property_and_header(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
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
            ..Properties::default()
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

pub(super) async fn a_message_without_properties_arrives_without_properties(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    bench.send(&queue, "bare").await;
    let mut consumer = bench.consume(&queue, 1).await;
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.message().properties, Properties::default());
    assert_eq!(delivery.message().headers, Headers::new());
}

pub(super) async fn bodies_arrive_byte_for_byte(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
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

pub(super) async fn headers_up_to_the_limit_pass_and_beyond_it_are_refused(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
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

pub(super) async fn texts_that_amqp_cannot_express_are_refused(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
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

pub(super) async fn many_publish_at_once(mut bench: Bench) {
    let queue = bench.queue(bench.kind).await;
    let missing = bench.name();
    let mut publishes = tokio::task::JoinSet::new();
    for n in 0..200 {
        let (driver, queue, missing) = (bench.driver.clone(), queue.clone(), missing.clone());
        publishes.spawn(async move {
            // Every fourth is returned, and each publish must get its own result.
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

pub(super) async fn a_message_that_may_be_dropped_is_dropped_if_no_queue_takes_it(
    mut bench: Bench,
) {
    let queue = bench.queue(bench.kind).await;
    let missing = bench.name();
    let droppable = |queue| Outgoing {
        no_route: NoRoute::Drop,
        ..outgoing(queue, "body")
    };
    let driver = &bench.driver;
    driver.publish(droppable(&missing)).await.expect("dropped");
    driver.publish(droppable(&queue)).await.expect("a publish");
    bench.until_ready(&queue, 1).await;
    // Without `NoRoute::Drop`, the publish fails.
    let error = bench.publish_to(&missing, "lost").await;
    let error = error.expect_err("no such queue");
    assert_eq!(error.kind, QueueErrorKind::Unroutable);
}
