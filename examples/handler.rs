//! Runs each message of the queue `thumbnails` by calling a function: as many at a time as the queue deserves.
//!
//!     scripts/with-broker cargo run --example handler

use std::time::Duration;

use tidegate::{Declare, Job, Outcome, Policy, Pool, Supervisor};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("AMQP_URL")?;
    let supervisor = Supervisor::builder()
        .broker(url)
        .pool(
            Pool::new("thumbnails")
                .declare(Declare::Quorum)
                .policy(Policy::backlog(10).max(50))
                .handler(|job: Job| async move {
                    println!("{}: {} bytes", job.id(), job.body().len());
                    Ok(Outcome::Done)
                }),
        )
        .start()
        .await?;
    tokio::signal::ctrl_c().await?;
    supervisor.drain(Duration::from_secs(30)).await?;
    Ok(())
}
