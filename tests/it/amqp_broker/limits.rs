//! Many channels, channels whose opening is cancelled, and what the broker tells about itself.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use tidegate::queue::{ConsumeRequest, QueueDriver};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{connect, consume, declare, delivery, publish, to, within};
use crate::support::broker::{PrivateBroker, faulty_broker};

#[tokio::test(flavor = "multi_thread")]
async fn channels_are_spread_over_connections_that_are_opened_and_closed_as_needed() {
    const WORKERS: usize = 1_100;
    let mut broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    let queue = declare(&driver, "spread").await;
    let mut opening = JoinSet::new();
    for _ in 0..WORKERS {
        let (driver, queue) = (driver.clone(), queue.clone());
        opening.spawn(async move { consume(&driver, &queue).await.expect("a consumer") });
    }
    let mut consumers = opening.join_all().await;
    let depth = driver.probe(&queue).await.expect("a probe");
    assert_eq!(depth.consumers as usize, WORKERS);
    let lanes = to(&mut broker, lanes);
    assert_eq!(
        lanes,
        [
            "tidegate consume 1",
            "tidegate consume 2",
            "tidegate consume 3"
        ]
    );

    // Each of them works.
    for _ in 0..WORKERS {
        publish(&driver, &queue, "a").await.expect("a publish");
    }
    for consumer in &mut consumers {
        delivery(consumer).await.ack().await.expect("an ack");
    }
    consumers.clear();
    until_lanes(&mut broker, 1).await;
}

/// Another connection may take a while, and so may a trial for more channels.
#[tokio::test(flavor = "multi_thread")]
async fn no_publish_waits_for_a_trial_while_there_is_a_channel() {
    let broker = faulty_broker().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let is_deaf = Arc::new(AtomicBool::new(false));
    let proxy = {
        let (is_deaf, port) = (is_deaf.clone(), broker.port());
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let is_deaf = is_deaf.load(Ordering::SeqCst);
                connections.spawn(async move {
                    if is_deaf {
                        std::future::pending::<()>().await;
                    }
                    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
        })
    };
    let driver = connect(&format!("amqp://guest:guest@127.0.0.1:{port}/%2f")).await;
    let queue = declare(&driver, "one channel").await;
    // While jobs run, no channel is tried on a connection that is in use.
    let _consumer = consume(&driver, &queue).await.expect("a consumer");
    within("a channel", driver.prepare_to_publish())
        .await
        .expect("a channel");
    is_deaf.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let mut publishes = JoinSet::new();
    for n in 0..20 {
        let (driver, queue) = (driver.clone(), queue.clone());
        publishes.spawn(async move { publish(&driver, &queue, &n.to_string()).await });
    }
    for published in publishes.join_all().await {
        published.expect("a publish");
    }
    // A trial is cancelled after ten seconds.
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    proxy.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_a_consumer_can_be_cancelled_at_any_point() {
    let mut broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    let queue = declare(&driver, "given up").await;
    for polls in 1..40 {
        let mut open = Box::pin(driver.consume(ConsumeRequest {
            queue: queue.clone(),
            prefetch: 1,
            tag: format!("given-up-{polls}"),
        }));
        let mut left = polls;
        within(
            "an end",
            std::future::poll_fn(|cx| {
                left -= 1;
                match open.as_mut().poll(cx) {
                    Poll::Pending if left > 0 => Poll::Pending,
                    _ => Poll::Ready(()),
                }
            }),
        )
        .await;
    }
    let closed = async {
        while to(&mut broker, |broker| {
            broker.ctl(&["list_channels", "connection"])
        })
        .lines()
        // The probe's own channel stays.
        .count()
            > 1
        {
            tokio::task::yield_now().await;
        }
    };
    within("closed channels", closed).await;
    assert_eq!(driver.probe(&queue).await.expect("a probe").consumers, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_driver_leaves_no_connection() {
    let mut broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    assert_eq!(to(&mut broker, lanes).len(), 1);
    drop(driver);
    until_lanes(&mut broker, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_reports_its_product_and_version() {
    let broker = faulty_broker().await;
    let driver = connect(&broker.url()).await;
    let facts = driver.facts().await.expect("a broker");
    assert_eq!(facts.product.as_deref(), Some("RabbitMQ"));
    assert!(
        facts.release().is_some_and(|release| release >= (3, 8)),
        "{facts:?}"
    );
}

/// The names of the connections with consumers, sorted.
fn lanes(broker: &mut PrivateBroker) -> Vec<String> {
    let listed = broker.ctl(&["list_connections", "client_properties"]);
    let mut names: Vec<String> = listed
        .lines()
        .filter_map(|line| {
            line.split('"')
                .find(|text| text.starts_with("tidegate consume"))
        })
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

async fn until_lanes(broker: &mut PrivateBroker, count: usize) {
    let reached = async {
        while to(broker, lanes).len() != count {
            tokio::task::yield_now().await;
        }
    };
    within("fewer connections", reached).await;
}
