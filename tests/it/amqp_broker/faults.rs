//! A broker that dies, stops, closes channels, starts late, blocks, or stops answering.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tidegate::{
    decide::QueueName,
    queue::{QueueDriver, QueueErrorKind},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{
    connect, consume, declare, delivery, everything_fails_at_once, is_lost, is_lost_by, lazily,
    next, outgoing, publish, to, until_connected, until_disconnected, within,
};
use crate::support::broker::{faulty_broker, settings};

#[tokio::test(flavor = "multi_thread")]
async fn comes_back_by_itself_after_the_broker_was_killed() {
    let mut broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    let queue = declare(&driver, "killed").await;
    publish(&driver, &queue, "before").await.expect("a publish");
    let mut consumer = consume(&driver, &queue).await.expect("a consumer");
    let held = delivery(&mut consumer).await;

    to(&mut broker, |broker| broker.kill());
    is_lost(&mut consumer).await;
    held.ack().await.expect_err("the connection is lost");
    until_disconnected(&driver).await;
    everything_fails_at_once(&driver, &queue).await;

    to(&mut broker, |broker| broker.restart());
    until_connected(&driver).await;
    let mut consumer = consume(&driver, &queue).await.expect("a consumer");
    let again = delivery(&mut consumer).await;
    assert_eq!(again.message().body, "before");
    again.ack().await.expect("an ack");
    publish(&driver, &queue, "after").await.expect("a publish");
    assert_eq!(delivery(&mut consumer).await.message().body, "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_of_the_broker_is_a_lost_connection_and_not_a_cancelled_consumer() {
    let mut broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    let queue = declare(&driver, "stopped").await;
    publish(&driver, &queue, "before").await.expect("a publish");
    let mut busy = consume(&driver, &queue).await.expect("a consumer");
    let mut idle = consume(&driver, &queue).await.expect("a consumer");
    let held = delivery(&mut busy).await;

    to(&mut broker, |broker| broker.stop_app());
    is_lost(&mut busy).await;
    is_lost(&mut idle).await;
    held.ack().await.expect_err("the connection is lost");
    until_disconnected(&driver).await;
    everything_fails_at_once(&driver, &queue).await;

    to(&mut broker, |broker| broker.start_app());
    until_connected(&driver).await;
    let mut consumer = consume(&driver, &queue).await.expect("a consumer");
    delivery(&mut consumer).await.ack().await.expect("an ack");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_the_broker_closes_is_lost_alone() {
    let mut broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    let queue = declare(&driver, "slow").await;
    to(&mut broker, |broker| {
        broker.set_consumer_timeout(Some(Duration::from_secs(1)))
    });
    let mut idle = consume(&driver, &queue).await.expect("a consumer");
    let mut slow = consume(&driver, &queue).await.expect("a consumer");
    publish(&driver, &queue, "a").await.expect("a publish");
    // The two consumers take turns. The one that holds the message is cut off.
    let held = delivery(&mut idle).await;
    is_lost_by(&mut idle, QueueErrorKind::HeldTooLong).await;
    held.ack().await.expect_err("its channel is closed");
    let again = delivery(&mut slow).await;
    assert!(again.message().redelivered);
    again.ack().await.expect("the other channel is there still");
    to(&mut broker, |broker| broker.set_consumer_timeout(None));
    until_connected(&driver).await;
    driver.delete(&queue).await.expect("a delete");
    assert!(next(&mut slow).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_unreachable_at_the_start_is_found_once_it_is_up() {
    let mut broker = faulty_broker().await;
    to(&mut broker, |broker| broker.kill());
    let driver = lazily(&settings(&broker.url()));
    let why = until_disconnected(&driver).await;
    assert!(why.contains("refused"), "{why}");
    let queue = QueueName::from("later");
    everything_fails_at_once(&driver, &queue).await;
    to(&mut broker, |broker| broker.restart());
    until_connected(&driver).await;
    declare(&driver, "later").await;
    publish(&driver, &queue, "a").await.expect("a publish");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_blocks_publishes_and_nothing_else() {
    let mut broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    let queue = declare(&driver, "alarm").await;
    publish(&driver, &queue, "a").await.expect("a publish");
    publish(&driver, &queue, "b").await.expect("a publish");
    let mut consumer = consume(&driver, &queue).await.expect("a consumer");
    let held = delivery(&mut consumer).await;

    to(&mut broker, |broker| broker.set_alarm(true));
    // The broker reports the alarm at the first publish, and may accept that publish. Its confirm is waited for.
    let sent = tokio::spawn({
        let (driver, queue) = (driver.clone(), queue.clone());
        async move { driver.publish(outgoing(&queue, "sent")).await }
    });
    let mut is_blocked = driver.blocked();
    let blocked = is_blocked.wait_for(|blocked| *blocked);
    within("the block", blocked).await.expect("a driver");
    for _ in 0..3 {
        let since = Instant::now();
        let error = publish(&driver, &queue, "c").await.expect_err("an alarm");
        assert_eq!(error.kind, QueueErrorKind::Blocked);
        assert!(
            since.elapsed() < Duration::from_secs(5),
            "{:?}",
            since.elapsed()
        );
    }
    held.ack().await.expect("an ack");
    let next_one = delivery(&mut consumer).await;
    assert_eq!(next_one.message().body, "b");
    assert_eq!(driver.probe(&queue).await.expect("a probe").consumers, 1);

    to(&mut broker, |broker| broker.set_alarm(false));
    next_one.ack().await.expect("an ack");
    let sent = within("the confirm", sent).await.expect("no panic");
    sent.expect("a publish");
    let published = async { while publish(&driver, &queue, "d").await.is_err() {} };
    within("a publish", published).await;
    // The message that was sent when the alarm rose arrives too, once. The refused one does not.
    for body in ["sent", "d"] {
        let delivery = delivery(&mut consumer).await;
        assert_eq!(delivery.message().body, body);
        delivery.ack().await.expect("an ack");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_a_blocked_driver_does_not_hang() {
    let mut broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    let queue = declare(&driver, "blocked").await;
    to(&mut broker, |broker| broker.set_alarm(true));
    let sent = tokio::spawn({
        let driver = driver.clone();
        async move { driver.publish(outgoing(&queue, "a")).await }
    });
    let mut is_blocked = driver.blocked();
    let blocked = is_blocked.wait_for(|blocked| *blocked);
    within("the block", blocked).await.expect("a driver");
    let since = Instant::now();
    driver.close().await;
    let sent = within("the end of a publish", sent).await;
    sent.expect("no panic").expect_err("closed");
    assert!(
        since.elapsed() < Duration::from_secs(10),
        "{:?}",
        since.elapsed()
    );
    to(&mut broker, |broker| broker.set_alarm(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_noticed_after_two_heartbeats() {
    let broker = faulty_broker().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let is_silent = Arc::new(AtomicBool::new(false));
    let proxy = tokio::spawn(proxy(listener, broker.port(), is_silent.clone()));

    let url = format!("amqp://guest:guest@127.0.0.1:{port}/%2f?heartbeat=1");
    let driver = connect(&url).await;
    let queue = declare(&driver, "silent").await;
    let mut consumer = consume(&driver, &queue).await.expect("a consumer");
    is_silent.store(true, Ordering::SeqCst);
    is_lost(&mut consumer).await;
    until_disconnected(&driver).await;
    is_silent.store(false, Ordering::SeqCst);
    until_connected(&driver).await;
    proxy.abort();
}

/// Forwards bytes in both directions. While it is silent, it drops them and keeps the connection open.
async fn proxy(listener: TcpListener, port: u16, is_silent: Arc<AtomicBool>) {
    let mut copies = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
            continue;
        };
        let (client_in, client_out) = client.into_split();
        let (server_in, server_out) = server.into_split();
        for (mut from, mut into) in [(client_in, server_out), (server_in, client_out)] {
            let is_silent = is_silent.clone();
            copies.spawn(async move {
                let mut buffer = [0; 4096];
                // A direction that was silent once never forwards again.
                let mut was_silent = false;
                while let Ok(count @ 1..) = from.read(&mut buffer).await {
                    was_silent |= is_silent.load(Ordering::SeqCst);
                    if !was_silent && into.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
            });
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_to_a_peer_that_never_answers_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let driver = lazily(&settings(&format!("amqp://127.0.0.1:{port}")));
    let (mut stream, _) = within("a connection", listener.accept())
        .await
        .expect("a peer");
    let hung_up = async {
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.map(|_| received)
    };
    let received = within("the end", hung_up).await.expect("a clean end");
    assert_eq!(received, b"AMQP\0\0\x09\x01");
    until_disconnected(&driver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_workers_that_ask_at_once_make_no_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let refusing = tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let driver = lazily(&settings(&format!("amqp://127.0.0.1:{port}")));
    until_disconnected(&driver).await;
    let before = connections.load(Ordering::SeqCst);
    let since = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..1000 {
        let driver = driver.clone();
        workers.spawn(async move { consume(&driver, &QueueName::from("any")).await.is_err() });
    }
    assert!(workers.join_all().await.into_iter().all(|failed| failed));
    // Attempts of the three keepers: each waits at least 50 ms after the one before.
    let by_keepers = 3 * (1 + since.elapsed().as_millis() / 50);
    let made = connections.load(Ordering::SeqCst) - before;
    assert!(
        made as u128 <= by_keepers,
        "{made} in {:?}",
        since.elapsed()
    );
    refusing.abort();
}
