//! Demo: two bursts of jobs, and a pool that grows and shrinks with the queue.
//!
//! The jobs are real child processes from a real queue. Without a broker, the queue is in memory. Each job appends its
//! id to a file, and the demo trusts only that file, because the supervisor's own counts are not a proof. The demo
//! leaves no queue and no file behind, also after an error.

mod broker;
mod course;
mod error;
mod job_file;
mod screen;
mod summary;

use std::time::Duration;

use tokio::{signal::ctrl_c, time::timeout};

use self::{
    broker::DemoBroker, course::DemoRun, error::DemoError, job_file::JobFile, screen::Screen,
};
use crate::{
    load::publisher::Outlet,
    output::{CommandFailure, Exit},
};
use tidegate::{
    builder::Pool,
    config::{BrokerUrl, ExecSettings},
    decide::{Policy, Scaling},
    run::Supervisor,
};

/// Longest time of a demo: about three times its usual time.
const DEADLINE: Duration = Duration::from_secs(52);

/// A job reads its body, appends it to the file, and works for a short time. A constant, because no part of a message
/// belongs on a command line.
const JOB: &str = r#"read -r id && printf '%s\n' "$id" >> "$LEDGER" && exec sleep 0.25"#;

/// Runs the demo on the broker of `AMQP_URL`, or in memory.
///
/// # Errors
/// The broker cannot be reached, the demo was interrupted, or its result is not good.
pub async fn run() -> Result<Exit, CommandFailure> {
    let url = std::env::var("AMQP_URL").ok().filter(|url| !url.is_empty());
    on_broker(url.map(BrokerUrl::new), &mut Screen::new()).await?;
    Ok(Exit::Ok)
}

async fn on_broker(url: Option<BrokerUrl>, screen: &mut Screen) -> Result<(), DemoError> {
    let broker = DemoBroker::open(url)?;
    screen.opening(&broker).map_err(DemoError::Screen)?;
    let outlet = broker.reach().await?;
    broker.make_queue().await.map_err(DemoError::Queue)?;
    // From here on the queue is always deleted, also after an interrupt or an error.
    let done = tokio::select! {
        done = timeout(DEADLINE, turn(&broker, &outlet, screen)) => done.unwrap_or(Err(DemoError::Late(DEADLINE))),
        _ = ctrl_c() => Err(DemoError::Interrupted),
    };
    outlet.close().await;
    broker.close().await;
    done
}

/// Runs the whole demo and checks its result.
async fn turn(broker: &DemoBroker, outlet: &Outlet, screen: &mut Screen) -> Result<(), DemoError> {
    let job_file = JobFile::new().map_err(DemoError::JobFile)?;
    let supervisor = broker
        .supervise(pool(broker, &job_file))
        .start()
        .await
        .map_err(DemoError::Launch)?;
    let summary = {
        let mut course = DemoRun::new(broker, outlet, &supervisor, screen);
        course.run().await?;
        let runs = job_file.read().map_err(DemoError::JobFile)?;
        course.summary(&runs)
    };
    end(&supervisor).await;
    screen.summary(&summary).map_err(DemoError::Screen)?;
    match summary.problem() {
        None => Ok(()),
        Some(problem) => Err(DemoError::Amiss(problem)),
    }
}

fn pool(broker: &DemoBroker, job_file: &JobFile) -> Pool {
    let mut job = ExecSettings::new(["/bin/sh", "-c", JOB]);
    job.timeout = Duration::from_secs(20);
    let job_file = job_file.path().to_string_lossy().into_owned();
    job.env.insert("LEDGER".to_owned(), job_file);
    Pool::new("demo")
        .queue(broker.queue().clone())
        .policy(Policy::backlog(8).max(32))
        // Slower than necessary, so that a viewer can see the changes.
        .scaling(Scaling {
            up_step: 4,
            down_window: Duration::from_secs(1),
            down_step: 4,
            ..Scaling::default()
        })
        .poll_interval(Duration::from_millis(200))
        .drain_after(Duration::from_secs(1))
        .exec(job)
}

async fn end(supervisor: &Supervisor) {
    // If all went well, the pool has drained already. Otherwise the summary reports the problem.
    supervisor.stop_now().await;
}
