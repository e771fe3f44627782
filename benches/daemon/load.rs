//! A busy pool, and readers of the event stream.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, BufReader},
    net::TcpStream,
    task::JoinSet,
    time,
};

use super::daemon::{Client, Daemon};

/// Readers of the event stream. Dropping them ends their connections.
#[derive(Default)]
pub(crate) struct Readers {
    reading: JoinSet<()>,
    /// Connections from which nobody reads.
    stalled: Vec<BufReader<TcpStream>>,
}

impl Readers {
    /// Opens this many streams.
    pub(crate) async fn open(daemon: &Daemon, reading: usize, stalled: usize) -> Self {
        let mut readers = Self::default();
        for _ in 0..reading {
            let mut stream = daemon.client().await.follow().await;
            readers.reading.spawn(async move {
                let mut bytes = vec![0; 64 * 1024];
                while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
            });
        }
        for _ in 0..stalled {
            readers.stalled.push(daemon.client().await.follow().await);
        }
        readers
    }

    pub(crate) fn len(&self) -> usize {
        self.reading.len() + self.stalled.len()
    }
}

/// Jobs that the first pool has done.
pub(crate) async fn done(client: &mut Client) -> u64 {
    let pool: Value =
        serde_json::from_str(&client.get("/api/v1/pools/p0").await).expect("a pool is JSON");
    pool["jobs"]["done"].as_u64().expect("a number")
}

/// Waits until the first pool has done this many jobs.
pub(crate) async fn until_done(client: &mut Client, jobs: u64) {
    while done(client).await < jobs {
        time::sleep(Duration::from_millis(10)).await;
    }
}
