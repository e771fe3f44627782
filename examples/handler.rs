//! Runs each message of the queue `thumbnails` by calling a function: as many at a time as the queue deserves. Ends by
//! Ctrl-C or SIGTERM, when the jobs that run are done.
//!
//!     scripts/with-broker cargo run --example handler

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;
use tidegate::{BoxError, Declare, Job, Outcome, Policy, Pool, Supervisor};

/// The state that every call of the handler gets. Yours may hold a connection pool.
#[derive(Clone, Default)]
struct App {
    pixels: Arc<AtomicU64>,
}

/// A message: `{"picture": "cat.png", "width": 320, "height": 200}`.
#[derive(Deserialize)]
struct Thumbnail<'a> {
    picture: &'a str,
    width: u64,
    height: u64,
}

async fn thumbnail(app: App, job: Job) -> Result<Outcome, BoxError> {
    // A body that is not this becomes a dead letter at once.
    let wanted: Thumbnail<'_> = job.json()?;
    let pixels = wanted.width * wanted.height;
    let sum = pixels + app.pixels.fetch_add(pixels, Ordering::Relaxed);
    println!("{}: {pixels} pixels, {sum} in all", wanted.picture);
    Ok(Outcome::Done)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let supervisor = Supervisor::builder()
        .broker(std::env::var("AMQP_URL")?)
        .pool(
            Pool::new("thumbnails")
                .declare(Declare::Quorum)
                .policy(Policy::backlog(10).max(50))
                .timeout(Duration::from_secs(60))
                .handler_with(App::default(), thumbnail),
        )
        .start()
        .await?;
    let report = supervisor.run_until_signal().await?;
    println!("finished {} jobs in {:?}", report.finished, report.took);
    Ok(())
}
