//! Demo: a tide of jobs, and a pool that rises and falls with it.
//!
//! Real jobs, as child processes, from a real queue; only where there is no broker, from one in memory. Every job
//! signs a ledger, and the demo believes nothing else: what a supervisor says of itself is not proof. Leaves no
//! queue and no file behind, however it ends.

mod broker;
mod ledger;
mod screen;
mod summary;
mod tide;

use std::{io, time::Duration};

use tokio::{signal::ctrl_c, time::timeout};

use self::{broker::DemoBroker, ledger::JobFile, screen::Screen, tide::DemoRun};
use crate::{
    load::publisher::Outlet,
    output::{Exit, Failure},
};
use tidegate::{
    builder::{LaunchError, Pool},
    config::{BrokerUrl, ExecSettings},
    decide::{Policy, Scaling},
    queue::QueueError,
    run::Supervisor,
};

/// Longest that a tide may take: about three times what it does.
const DEADLINE: Duration = Duration::from_secs(52);

/// How long the broker may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a job does: it reads its own body, signs with it, and works for a while. A constant, for nothing of a
/// message belongs on a command line.
const JOB: &str = r#"read -r id && printf '%s\n' "$id" >> "$LEDGER" && exec sleep 0.25"#;

/// The demo did not come to its end.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("reach the broker {url}")]
    Unreachable {
        url: BrokerUrl,
        #[source]
        source: QueueError,
    },
    #[error("prepare the demo's queue")]
    Queue(#[source] QueueError),
    #[error("keep the demo's ledger")]
    JobFile(#[source] io::Error),
    #[error("publish a job")]
    Publish(#[source] QueueError),
    #[error("start the demo's pool")]
    Launch(#[source] LaunchError),
    #[error("show the demo")]
    Screen(#[source] io::Error),
    #[error("finish the demo: it was interrupted")]
    Interrupted,
    #[error("finish the demo within {} s", DEADLINE.as_secs())]
    Late,
    #[error("run every job and drain to zero: {0}")]
    Amiss(String),
}

/// Runs the demo on the broker of `AMQP_URL`, or in memory.
///
/// # Errors
/// The broker is not there, someone interrupted it, or the tide was not what it should have been.
pub async fn run() -> Result<Exit, Failure> {
    let url = std::env::var("AMQP_URL").ok().filter(|url| !url.is_empty());
    on_broker(url.map(BrokerUrl::new), &mut Screen::new()).await?;
    Ok(Exit::Ok)
}

async fn on_broker(url: Option<BrokerUrl>, screen: &mut Screen) -> Result<(), DemoError> {
    let broker = DemoBroker::open(url)?;
    screen.opening(&broker).map_err(DemoError::Screen)?;
    let outlet = broker.reach().await?;
    broker.make_queue().await.map_err(DemoError::Queue)?;
    // Whatever happens from here on, the queue goes. An interrupt is an answer like any other.
    let done = tokio::select! {
        done = timeout(DEADLINE, turn(&broker, &outlet, screen)) => done.unwrap_or(Err(DemoError::Late)),
        _ = ctrl_c() => Err(DemoError::Interrupted),
    };
    outlet.close().await;
    broker.close().await;
    done
}

/// One whole tide, and its proof.
async fn turn(broker: &DemoBroker, outlet: &Outlet, screen: &mut Screen) -> Result<(), DemoError> {
    let ledger = JobFile::new().map_err(DemoError::JobFile)?;
    let supervisor = broker
        .supervise(pool(broker, &ledger))
        .start()
        .await
        .map_err(DemoError::Launch)?;
    let summary = {
        let mut course = DemoRun::new(broker, outlet, &supervisor, screen);
        course.run().await?;
        let signatures = ledger.read().map_err(DemoError::JobFile)?;
        course.summary(&signatures)
    };
    end(&supervisor).await;
    screen.summary(&summary).map_err(DemoError::Screen)?;
    match summary.problem() {
        None => Ok(()),
        Some(problem) => Err(DemoError::Amiss(problem)),
    }
}

fn pool(broker: &DemoBroker, ledger: &JobFile) -> Pool {
    let mut job = ExecSettings::new(["/bin/sh", "-c", JOB]);
    job.timeout = Duration::from_secs(20);
    let ledger = ledger.path().to_string_lossy().into_owned();
    job.env.insert("LEDGER".to_owned(), ledger);
    Pool::new("demo")
        .queue(broker.queue().clone())
        .policy(Policy::backlog(8).max(32))
        // Slower than a pool has to be, so that it can be seen to move.
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
    // Drained already where all went well; where not, the summary says so.
    supervisor.stop_now().await;
}

impl From<DemoError> for Failure {
    fn from(error: DemoError) -> Self {
        let (exit, hint) = match &error {
            DemoError::Unreachable { .. } => (
                Exit::Unavailable,
                Some("see AMQP_URL; without one, the demo runs on a queue in memory"),
            ),
            DemoError::Launch(_) => (Exit::Usage, Some("see AMQP_URL")),
            DemoError::Queue(_) => (
                Exit::Unexpected,
                Some("this user must be allowed to declare queues named tidegate-demo-*"),
            ),
            DemoError::Late => (
                Exit::Unexpected,
                Some("this machine is too busy for it, or the broker is"),
            ),
            _ => (Exit::Unexpected, None),
        };
        let failure = Self::new(exit, error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
