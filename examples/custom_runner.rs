//! A kind of runner of your own: here, one that keeps a connection and uses it for one job after another.
//!
//!     cargo run --example custom_runner
//!
//! Runs on the in-memory queue, so it needs no broker and ends by itself.

use std::time::Duration;

use async_trait::async_trait;
use tidegate::{
    Job, Policy, Pool, Supervisor,
    adapters::memory::MemoryBroker,
    queue::QueueKind,
    runner::{CreateRunner, JobControl, JobEnd, RunReport, Runner, RunnerManager, StartError},
};
use tokio::{
    io::{AsyncWriteExt as _, DuplexStream},
    time,
};

/// Connects to a service that does the work.
#[derive(Debug)]
struct Connections;

#[async_trait]
impl RunnerManager for Connections {
    fn kind(&self) -> &'static str {
        "connection"
    }

    async fn create(&self, request: CreateRunner) -> Result<Box<dyn Runner>, StartError> {
        // Yours would be a `TcpStream::connect`, and its error a `StartError`: the pool backs off then, and the
        // message goes back to the queue.
        let (near, mut far) = tokio::io::duplex(1024);
        tokio::spawn(async move { tokio::io::copy(&mut far, &mut tokio::io::sink()).await });
        println!("{}: connected", request.id);
        Ok(Box::new(Connection(near)))
    }
}

struct Connection(DuplexStream);

#[async_trait]
impl Runner for Connection {
    async fn run(&mut self, job: &Job, control: JobControl) -> RunReport {
        control.started.notify();
        let sent = tokio::select! {
            sent = self.0.write_all(job.body()) => sent,
            // The pool is shutting down, or scales down with `preempt`: the job is given back.
            () = control.stop.cancelled() => return RunReport { end: JobEnd::Stopped, reusable: false },
            () = control.kill.cancelled() => return RunReport { end: JobEnd::Stopped, reusable: false },
        };
        match sent {
            Ok(()) => RunReport {
                end: JobEnd::Done { reply: None },
                reusable: true,
            },
            // Not the job's fault: it goes to another runner, and this one goes.
            Err(_) => RunReport {
                end: JobEnd::Stopped,
                reusable: false,
            },
        }
    }

    async fn stop(mut self: Box<Self>) {
        // An idle runner is asked to go when the queue is empty. Nothing is lost if saying goodbye fails.
        let _ = self.0.shutdown().await;
        println!("a connection was closed");
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = MemoryBroker::new();
    broker.declare_queue("letters", QueueKind::Classic);
    for n in 0..100 {
        broker.send("letters", format!("letter {n}"));
    }
    let supervisor = Supervisor::builder()
        .driver(broker.clone())
        .pool(
            Pool::new("letters")
                .policy(Policy::backlog(25).max(10))
                .drain_after(Duration::from_secs(1))
                .runners(Connections),
        )
        .start()
        .await?;
    loop {
        let pool = supervisor.pool(&"letters".into()).ok_or("no pool")?;
        println!(
            "{:>8}: {} ready, {} workers, {} idle runners, {} done",
            pool.state.as_str(),
            pool.depth.ready,
            pool.workers.live,
            pool.runners.idle,
            pool.jobs.done
        );
        if pool.jobs.done == 100 && pool.workers.live == 0 {
            break;
        }
        time::sleep(Duration::from_millis(250)).await;
    }
    supervisor.drain(Duration::from_secs(5)).await?;
    Ok(())
}
