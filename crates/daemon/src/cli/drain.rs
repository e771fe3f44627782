//! `tidegate drain`: pools stop taking messages, and the command waits until they are empty.

use std::{fmt::Write, io::IsTerminal, time::Duration};

use hyper::Method;
use tokio::time::{self, Instant};

use super::{
    args::{Cli, Format, steer::DrainArgs},
    client,
    jobs::stop_each,
    steer::{TIMEOUT, line, names, path, with_as_before},
    supervisor::{self, RemoteSupervisor},
};
use crate::output::{self, CommandFailure, Exit};
use tidegate::{
    api::v1::{self, Steered},
    escape::Escaped,
    run::{IntakeStatus, PoolStatus, StopThen},
    text::{counted, form_for},
};

/// Time between two requests for the state of the pools.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// How long jobs may take to be given back after the deadline, while their runners have their grace.
const ENDING: Duration = Duration::from_secs(600);

pub(super) async fn drain(cli: &Cli, args: &DrainArgs) -> Result<Exit, CommandFailure> {
    let supervisor = supervisor::find(cli, &args.pools.socket)?;
    let names = names(&supervisor, &args.pools).await?;
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout.0);
    for name in &names {
        let body = v1::Nothing {};
        let path = path(name, "drain");
        let operation = "drain the pool";
        let steered: Steered =
            client::act(&supervisor, Method::POST, &path, &body, TIMEOUT, operation).await?;
        if cli.format == Format::Human {
            output::write(line(&steered, &with_as_before(&steered, "drains")).as_bytes())?;
        }
    }
    let mut given_back = 0;
    let left = match watch(&supervisor, &names, deadline).await? {
        left if left.is_empty() || !args.give_back => left,
        left => {
            output::tell(b"stopping the jobs that still run; their messages are given back\n");
            for name in &left {
                given_back += stop_each(&supervisor, name, StopThen::Requeue).await?;
            }
            watch(&supervisor, &names, Some(Instant::now() + ENDING)).await?
        }
    };
    let pools = pools(&supervisor, &names).await?;
    match cli.format {
        Format::Json => output::json(&pools)?,
        Format::Human if left.is_empty() => {
            let mut text = String::new();
            for name in &names {
                let _ = writeln!(text, "{}: empty", Escaped(name));
            }
            output::write(text.as_bytes())?;
        }
        Format::Human => {}
    }
    if left.is_empty() {
        // As the operator asked, so it is not an error. The exit code says that not every job has ended by itself.
        return Ok(match given_back {
            0 => Exit::Ok,
            jobs => {
                output::tell(of_given_back(jobs).as_bytes());
                Exit::GivenBack
            }
        });
    }
    let statuses = pools.iter().map(|pool| &pool.status);
    let busy: u32 = statuses.map(|status| status.runners.busy).sum();
    let what = format!("drain before the deadline: {}", jobs(busy));
    Err(CommandFailure::new(Exit::GivenBack, anyhow::anyhow!(what)).hint(
        "the pools take no messages until `tidegate resume`; `tidegate jobs` shows what still runs, and \
         --give-back stops it",
    ))
}

fn of_given_back(jobs: usize) -> String {
    let were = form_for(jobs, "was", "were");
    let jobs = counted(jobs, "running job");
    format!("drained at the deadline: {jobs} {were} stopped and given back\n")
}

fn jobs(running: u32) -> String {
    match running {
        0 => "workers are still on their way out".to_owned(),
        jobs => format!(
            "{} still {}",
            counted(jobs, "job"),
            form_for(jobs, "runs", "run")
        ),
    }
}

/// Waits until the pools are empty, and shows the progress. Returns the pools that are not empty at the deadline.
async fn watch(
    supervisor: &RemoteSupervisor,
    names: &[String],
    deadline: Option<Instant>,
) -> Result<Vec<String>, CommandFailure> {
    let is_terminal = std::io::stderr().is_terminal();
    let mut shown = String::new();
    loop {
        let pools = pools(supervisor, names).await?;
        // Another user may have resumed the pool in the meantime.
        if let Some(open) = pools
            .iter()
            .find(|pool| pool.status.intake == IntakeStatus::Open)
        {
            let what = format!(
                "drain the pool {}: it was resumed meanwhile",
                open.status.name
            );
            return Err(CommandFailure::new(Exit::Unexpected, anyhow::anyhow!(what)));
        }
        let left: Vec<&PoolStatus> = pools
            .iter()
            .map(|pool| &pool.status)
            .filter(|status| !is_empty(status))
            .collect();
        let text = progress(&left);
        if text != shown {
            let text = match is_terminal {
                // Overwrites the previous line.
                true => format!("\r\u{1b}[K{text}"),
                false => format!("{text}\n"),
            };
            output::tell(text.as_bytes());
        }
        shown = text;
        let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if left.is_empty() || is_over {
            if is_terminal {
                output::tell(b"\n");
            }
            return Ok(left.iter().map(|status| status.name.to_string()).collect());
        }
        let next = Instant::now() + CHECK_INTERVAL;
        time::sleep_until(deadline.map_or(next, |deadline| deadline.min(next))).await;
    }
}

fn is_empty(status: &PoolStatus) -> bool {
    let (workers, runners) = (status.workers, status.runners);
    workers.live + workers.draining + runners.idle + runners.busy == 0
}

fn progress(left: &[&PoolStatus]) -> String {
    if left.is_empty() {
        return "drained".to_owned();
    }
    let parts: Vec<String> = left
        .iter()
        .map(|status| {
            let workers = status.workers.live + status.workers.draining;
            let (name, busy) = (Escaped(status.name.as_str()), status.runners.busy);
            format!("{name}: {busy} busy, {} left", counted(workers, "worker"))
        })
        .collect();
    parts.join("; ")
}

/// The current state of these pools.
async fn pools(
    supervisor: &RemoteSupervisor,
    names: &[String],
) -> Result<Vec<v1::Pool>, CommandFailure> {
    let pools: Vec<v1::Pool> = client::get(supervisor, "/api/v1/pools", "read the pools").await?;
    let is_meant = |pool: &v1::Pool| names.iter().any(|name| name == pool.status.name.as_str());
    Ok(pools.into_iter().filter(is_meant).collect())
}
