//! A custom policy. It sizes the pool so that the backlog is finished within a given time, and measures how long jobs
//! take.
//!
//!     cargo run --example custom_policy
//!
//! Runs on the in-memory queue, so it needs no broker and ends by itself.

use std::time::Duration;

use tidegate::{
    Job, Outcome, OwnPolicy, Pool, ScalingPolicy, Supervisor,
    adapters::memory::MemoryBroker,
    decide::{Recommendation, Situation},
    queue::QueueKind,
};

/// As many workers as work the backlog off within `target`.
struct WithinTarget {
    target: Duration,
    /// Jobs a second that one busy worker did, as far as is known. A policy may remember what it likes.
    per_worker: f64,
}

impl ScalingPolicy for WithinTarget {
    fn recommend(&mut self, situation: &Situation<'_>) -> Recommendation {
        let busy = situation.inputs.census.busy;
        if let Some(rates) = situation.rates
            && busy > 0
            && rates.done > 0.0
        {
            self.per_worker = rates.done / f64::from(busy);
        }
        let demand = situation.inputs.demand;
        let wanted = demand as f64 / (self.per_worker * self.target.as_secs_f64());
        let why = format!(
            "{demand} jobs within {:?}, at {:.1} jobs a second for each worker",
            self.target, self.per_worker
        );
        Recommendation::new(wanted.ceil() as u32, why)
    }

    fn describe(&self) -> String {
        format!("the backlog within {:?}", self.target)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = MemoryBroker::new();
    broker.declare_queue("thumbnails", QueueKind::Classic);
    for _ in 0..400 {
        broker.send("thumbnails", "cat.png");
    }
    let policy = WithinTarget {
        target: Duration::from_secs(5),
        per_worker: 10.0,
    };
    let supervisor = Supervisor::builder()
        .driver(broker)
        .pool(
            Pool::new("thumbnails")
                .poll_interval(Duration::from_millis(50))
                .policy(OwnPolicy::new(policy).max(20))
                .handler(|_: Job| async {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok(Outcome::Done)
                }),
        )
        .start()
        .await?;
    let name = "thumbnails".into();
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let pool = supervisor.pool(&name).ok_or("the pool is there")?;
        println!(
            "{}: {} workers, {} jobs done",
            pool.policy, pool.workers.live, pool.jobs.done
        );
        if let Some(decision) = supervisor.explain(&name) {
            println!("  {}", decision.terms[0].why);
        }
        if pool.jobs.done == 400 {
            break;
        }
    }
    supervisor.drain(Duration::from_secs(5)).await?;
    Ok(())
}
