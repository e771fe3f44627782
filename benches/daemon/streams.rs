//! A pool at full speed, without readers of the event stream and with many.

use std::time::Instant;

use super::{
    broker::Queues,
    daemon::Daemon,
    load::{Readers, done, until_done},
    quantile,
};

const POOLS: usize = 50;
const STREAMS: usize = 100;
const JOBS: u64 = 20_000;
const PAIRS: usize = 7;

pub(crate) async fn measure(url: &str) {
    let queues = Queues::new(url, POOLS).await;
    let daemon = Daemon::start(url, &queues).await;
    // The first run only warms up.
    rate(&daemon, &queues).await;
    let before = daemon.memory();
    let mut during = before;
    let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        // Each side goes first in turn.
        let alone = match pair % 2 {
            0 => Some(rate(&daemon, &queues).await),
            _ => None,
        };
        let readers = Readers::open(&daemon, STREAMS / 2, STREAMS / 2).await;
        assert_eq!(readers.len(), STREAMS);
        let beside = rate(&daemon, &queues).await;
        during = during.max(daemon.memory());
        drop(readers);
        let alone = match alone {
            Some(alone) => alone,
            None => rate(&daemon, &queues).await,
        };
        without.push(alone);
        with.push(beside);
        ratios.push(beside / alone);
    }
    println!(
        "streams: {:.0} jobs/s without, {:.0} with {STREAMS} of which half read nothing; ratio {:.2} (of {PAIRS} pairs: {:.2} to {:.2})",
        quantile(&mut without, 0.5),
        quantile(&mut with, 0.5),
        quantile(&mut ratios, 0.5),
        quantile(&mut ratios, 0.0),
        quantile(&mut ratios, 1.0),
    );
    println!("streams: {before:.0} MiB resident before, {during:.0} MiB at most with them");
    daemon.end().await;
    queues.delete().await;
}

/// Jobs per second of the first pool, without the first tenth, in which its workers start.
async fn rate(daemon: &Daemon, queues: &Queues) -> f64 {
    let mut client = daemon.client().await;
    let before = done(&mut client).await;
    client.post("/api/v1/pools/p0/pause").await;
    queues.publish(JOBS).await;
    // The messages are there when the broker has answered once more.
    queues.look(&queues.names()[0]).await;
    client.post("/api/v1/pools/p0/resume").await;
    until_done(&mut client, before + JOBS / 10).await;
    let (begun, first) = (Instant::now(), done(&mut client).await);
    until_done(&mut client, before + JOBS).await;
    (before + JOBS - first) as f64 / begun.elapsed().as_secs_f64()
}
