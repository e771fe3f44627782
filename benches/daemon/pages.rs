//! Open dashboards beside a busy pool.

use std::time::Duration;

use tokio::{task::JoinSet, time};

use super::{
    broker::Queues,
    daemon::{Client, Daemon},
    load::{self, Readers},
};

const POOLS: usize = 50;
const PAGES: usize = 5;
const JOBS_PER_SECOND: u64 = 20;
const WINDOW: Duration = Duration::from_secs(60);

/// How often a page reads about the chosen pool. Like `app.js`.
const REFRESH: Duration = Duration::from_secs(2);

pub(crate) async fn measure(url: &str) {
    let queues = Queues::new(url, POOLS).await;
    let daemon = Daemon::start(url, &queues).await;
    let measured = async {
        load::until_done(&mut daemon.client().await, JOBS_PER_SECOND).await;
        time::sleep(Duration::from_secs(5)).await;
        let before = daemon.load(WINDOW / 2).await;
        let mut pages = JoinSet::new();
        for _ in 0..PAGES {
            pages.spawn(refresh(daemon.client().await));
        }
        let readers = Readers::open(&daemon, PAGES, 0).await;
        let open = daemon.load(WINDOW).await;
        drop((pages, readers));
        time::sleep(Duration::from_secs(5)).await;
        let after = daemon.load(WINDOW / 2).await;
        (before, open, after)
    };
    let (before, open, after) = tokio::select! {
        measured = measured => measured,
        () = work(&queues) => unreachable!("the work never ends"),
    };
    println!(
        "pages: {PAGES} open on {POOLS} pools cost {:.2} % of a core (bound 1): {open:.2} with, {before:.2} and {after:.2} without",
        open - f64::midpoint(before, after)
    );
    daemon.end().await;
    queues.delete().await;
}

/// Keeps the first pool busy.
async fn work(queues: &Queues) {
    let mut ticks = time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        queues.publish(JOBS_PER_SECOND).await;
    }
}

/// The requests of a page about the chosen pool. It reads the failures only when there are new ones.
async fn refresh(mut client: Client) {
    client.get("/api/v1/history").await;
    client.get("/api/v1/pools/p0/history").await;
    client.get("/api/v1/pools/p0/failures").await;
    let mut ticks = time::interval(REFRESH);
    loop {
        ticks.tick().await;
        for path in [
            "/api/v1/pools/p0/explain",
            "/api/v1/pools/p0/jobs",
            "/api/v1/actions",
        ] {
            client.get(path).await;
        }
    }
}
