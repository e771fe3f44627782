//! The built daemon with a frozen broker: its end must not wait for answers that never come.

use std::time::{Duration, Instant};

use tidegate::{
    adapters::amqp::AmqpDriver,
    queue::{Outgoing, QueueDriver as _, QueueKind, QueueSpec},
};
use tokio::task::block_in_place;

use crate::support::{
    broker::{PrivateBroker, TestQueue, faulty_broker, settings},
    daemon::{DEADLINE, Daemon, Signal, poll},
};

/// Starts a daemon with a job that does not end by itself, freezes its broker, sends the daemon a signal, and returns
/// its exit code. It must end within `at_most`, which is far more than an end needs, but less than the ten seconds
/// for each answer of the broker.
async fn ends(
    broker: &mut PrivateBroker,
    signal: Signal,
    grace: &str,
    at_most: Duration,
) -> Option<i32> {
    let queue = TestQueue::at(&broker.url(), "frozen");
    let driver = AmqpDriver::connect_lazily(&settings(&broker.url())).unwrap();
    driver.until_connected(DEADLINE).await.unwrap();
    let spec = QueueSpec {
        name: queue.name(),
        kind: QueueKind::Classic,
        dead_letter_to: None,
        message_ttl: None,
        arguments: Default::default(),
        bindings: Vec::new(),
    };
    driver.declare(&spec).await.unwrap();
    let pool = format!(
        "[pools.work]\nqueue = \"{}\"\nshutdown_grace = \"{grace}\"\ndrain_after = \"never\"\n\
         [pools.work.policy]\nkind = \"fixed\"\nworkers = 3\n\
         [pools.work.runner]\nkill_grace = \"100ms\"\n\
         command = [\"/bin/sh\", \"-c\", 'echo >> started; exec sleep 600']\n",
        queue.name()
    );
    let daemon = block_in_place(|| Daemon::start(&broker.url(), &pool));
    let job = Outgoing {
        routing_key: queue.name().as_str().to_owned(),
        ..Outgoing::default()
    };
    driver.publish(job).await.unwrap();
    driver.close().await;
    let (code, took, said) = block_in_place(|| {
        daemon.wait_for_pool("work", |pool| pool["workers"]["live"] == 3);
        let started = daemon.dir().join("started");
        poll(|| started.exists().then_some(())).expect("a job starts");
        broker.suspend();
        let begun = Instant::now();
        daemon.signal(signal);
        let (code, said) = daemon.end();
        let took = begun.elapsed();
        broker.resume();
        (code, took, said)
    });
    assert!(took < at_most, "{took:?}:\n{said}");
    code
}

#[tokio::test(flavor = "multi_thread")]
async fn quit_does_not_wait_for_a_frozen_broker() {
    let mut broker = faulty_broker().await;
    let code = ends(&mut broker, Signal::SIGQUIT, "10m", Duration::from_secs(5)).await;
    assert_eq!(code, Some(75));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_at_a_frozen_broker_ends_soon_after_its_deadline() {
    let mut broker = faulty_broker().await;
    let code = ends(&mut broker, Signal::SIGTERM, "1s", Duration::from_secs(9)).await;
    assert_eq!(code, Some(75));
}
