//! `tidegate jobs`: lists the running jobs, and stops one of them.

use std::time::Duration;

use hyper::Method;
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    args::{
        Cli, Format,
        steer::{JobsArgs, JobsCommand, JobsStopArgs},
    },
    client, status,
    steer::{TIMEOUT, no_such_pool, path},
    supervisor::{self, RemoteSupervisor},
    table::{Cell, Layout, cell},
};
use crate::output::{self, CommandFailure, Exit};
use tidegate::{
    api::v1::{self, Job, JobOfPool, StopJob, StoppedJobs},
    decide::PoolName,
    escape::Escaped,
    run::{PoolStatus, StopThen},
    text::{counted, duration, form_for},
};

pub(super) async fn jobs(cli: &Cli, args: &JobsArgs) -> Result<Exit, CommandFailure> {
    if let Some(JobsCommand::Stop(stopped)) = &args.command {
        return stop(cli, args, stopped).await;
    }
    let supervisor = supervisor::find(cli, &args.socket)?;
    let pools = pools(&supervisor, args.pool.as_deref()).await?;
    let jobs = running_in(&supervisor, &pools).await?;
    match cli.format {
        Format::Json => output::json(&jobs)?,
        Format::Human => output::write(table(&jobs, &pools, Timestamp::now()).as_bytes())?,
    }
    Ok(Exit::Ok)
}

/// Pool and socket may stand before the word `stop` or after it. Those after it win.
async fn stop(cli: &Cli, before: &JobsArgs, args: &JobsStopArgs) -> Result<Exit, CommandFailure> {
    let socket = match args.socket.socket {
        Some(_) => &args.socket,
        None => &before.socket,
    };
    let supervisor = supervisor::find(cli, socket)?;
    let then = StopThen::from(args.then);
    let pool = args.pool.as_ref().or(before.pool.as_ref());
    let jobs = running(&supervisor, pool.map(String::as_str)).await?;
    let mut pools: Vec<&PoolName> = Vec::new();
    for job in jobs.iter().filter(|job| job.job.id.as_str() == args.id) {
        if !pools.contains(&&job.pool) {
            pools.push(&job.pool);
        }
    }
    if pools.is_empty() {
        let error = anyhow::anyhow!("find a running job with the id {}", args.id);
        let hint = "`tidegate jobs` shows those that run; it may have ended meanwhile";
        return Err(CommandFailure::new(Exit::Unexpected, error).hint(hint));
    }
    let mut stopped = 0;
    for pool in pools {
        stopped += stop_one(&supervisor, pool.as_str(), &args.id, then)
            .await?
            .stopped;
    }
    match cli.format {
        Format::Json => output::json(&StoppedJobs { stopped, then })?,
        Format::Human => output::write(of_stop(stopped, then).as_bytes())?,
    }
    Ok(Exit::Ok)
}

/// What was stopped, and what becomes of its message.
fn of_stop(stopped: usize, then: StopThen) -> String {
    let jobs = match stopped {
        1 => "1 job was".to_owned(),
        jobs => format!("{} with this id were", counted(jobs, "job")),
    };
    let becomes = match then {
        StopThen::Retry => "retried later",
        StopThen::Reject => "dead-lettered",
        StopThen::Requeue => "given back",
    };
    format!("{jobs} told to stop, to be {becomes}\n")
}

async fn stop_one(
    supervisor: &RemoteSupervisor,
    pool: &str,
    id: &str,
    then: StopThen,
) -> Result<StoppedJobs, client::ClientError> {
    let id = utf8_percent_encode(id, NON_ALPHANUMERIC);
    let path = path(pool, &format!("jobs/{id}/stop"));
    let body = StopJob { then };
    client::act(
        supervisor,
        Method::POST,
        &path,
        &body,
        TIMEOUT,
        "stop the job",
    )
    .await
}

/// Stops every running job of a pool, and returns their number.
pub(super) async fn stop_each(
    supervisor: &RemoteSupervisor,
    pool: &str,
    then: StopThen,
) -> Result<usize, CommandFailure> {
    let mut stopped = 0;
    // Those of a supervisor that has handed over are not this one's to drain.
    let own = |job: &Job| job.predecessor.is_none();
    for job in running(supervisor, Some(pool))
        .await?
        .into_iter()
        .filter(own)
    {
        // A job that has ended in the meantime is no longer found.
        if let Ok(jobs) = stop_one(supervisor, pool, job.job.id.as_str(), then).await {
            stopped += jobs.stopped;
        }
    }
    Ok(stopped)
}

/// The running jobs of one pool or of all pools.
async fn running(
    supervisor: &RemoteSupervisor,
    pool: Option<&str>,
) -> Result<Vec<Job>, CommandFailure> {
    let pools = pools(supervisor, pool).await?;
    Ok(running_in(supervisor, &pools).await?)
}

/// One pool, or all pools. Those that a reload has removed and that still drain come last.
async fn pools(
    supervisor: &RemoteSupervisor,
    pool: Option<&str>,
) -> Result<Vec<v1::Pool>, CommandFailure> {
    let seen = status::read_all(supervisor).await?;
    let pools = seen.pools.into_iter().chain(seen.leaving);
    let meant: Vec<v1::Pool> = pools
        .filter(|seen| pool.is_none_or(|pool| pool == seen.status.name.as_str()))
        .collect();
    match (meant.is_empty(), pool) {
        (true, Some(pool)) => Err(no_such_pool(pool)),
        _ => Ok(meant),
    }
}

async fn running_in(
    supervisor: &RemoteSupervisor,
    pools: &[v1::Pool],
) -> Result<Vec<Job>, client::ClientError> {
    // A pool may have been removed, and added again. The answer has the jobs of both.
    let mut names: Vec<&PoolName> = Vec::new();
    for pool in pools {
        if !names.contains(&&pool.status.name) {
            names.push(&pool.status.name);
        }
    }
    let mut all = Vec::new();
    for pool in names {
        let path = path(pool.as_str(), "jobs");
        let jobs: Vec<JobOfPool> = client::get(supervisor, &path, "read the jobs").await?;
        all.extend(jobs.into_iter().map(|JobOfPool { job, predecessor }| Job {
            pool: pool.clone(),
            job,
            predecessor,
        }));
    }
    Ok(all)
}

const COLUMNS: [&str; 8] = [
    "POOL", "JOB", "WORKER", "RUNNER", "ATTEMPT", "RUNS", "LEFT", "STOPPING",
];

fn table(jobs: &[Job], pools: &[v1::Pool], now: Timestamp) -> String {
    let (removed, kept): (Vec<_>, Vec<_>) = pools.iter().partition(|pool| pool.removed);
    let removed = removed.iter().map(|pool| status::of_leaving(&pool.status));
    let pools = kept.iter().map(|pool| &pool.status);
    let mut unseen: String = pools.clone().filter_map(of_programs).collect();
    unseen.extend(removed);
    if jobs.is_empty() {
        // Where every pool has programs, nobody knows whether a job runs.
        return match pools.clone().all(|pool| pool.consumes) && !kept.is_empty() {
            true => unseen,
            false => format!("no job runs\n{unseen}"),
        };
    }
    let rows: Vec<Vec<Cell>> = jobs.iter().map(|job| row(job, now)).collect();
    let layout = Layout::new(&COLUMNS, |column| !(4..7).contains(&column), &rows);
    let mut text = String::new();
    layout.head(&mut text);
    for row in &rows {
        layout.line(&mut text, row);
    }
    if jobs.iter().any(|job| job.predecessor.is_some()) {
        text.push_str("pid: the supervisor that this one has taken over from still runs the job\n");
    }
    text + &unseen
}

/// A line about a pool whose jobs are not seen.
fn of_programs(pool: &PoolStatus) -> Option<String> {
    if !pool.consumes {
        return None;
    }
    let programs = pool.workers.live + pool.workers.draining;
    Some(format!(
        "{}: its programs consume the queue themselves, so tidegate does not see their jobs; {} {} up\n",
        Escaped(pool.name.as_str()),
        counted(programs, "program"),
        form_for(programs, "is", "are")
    ))
}

fn row(
    Job {
        pool,
        job,
        predecessor,
    }: &Job,
    now: Timestamp,
) -> Vec<Cell> {
    let between = |from: Timestamp, to: Timestamp| {
        let seconds = to.duration_since(from).as_secs();
        duration(Duration::from_secs(seconds.try_into().unwrap_or(0)))
    };
    let stopping = (job.stopping.as_ref())
        .map(|stopping| format!("{}, by {}", stopping.then.as_str(), stopping.by));
    let elsewhere = predecessor.map(|pid| format!("(pid {pid})"));
    let remarks: Vec<String> = stopping.into_iter().chain(elsewhere).collect();
    vec![
        cell(Escaped(pool.as_str())),
        cell(Escaped(job.id.as_str())),
        cell(job.worker),
        cell(job.runner),
        cell(job.attempt),
        cell(between(job.since, now)),
        cell(
            job.deadline
                .map_or_else(|| "-".to_owned(), |end| between(now, end)),
        ),
        cell(Escaped(&remarks.join(" "))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_how_long_a_job_runs_and_how_long_it_may() {
        let jobs: Vec<Job> = serde_json::from_value(serde_json::json!([
            {"pool": "thumbnails", "id": "order-17", "worker": 3, "runner": 12, "attempt": 2,
             "since": "2026-01-02T03:00:00Z", "deadline": "2026-01-02T03:05:00Z"},
            {"pool": "mails", "id": "a\u{1b}", "worker": 11, "runner": 1, "attempt": 1,
             "since": "2026-01-02T01:59:30Z", "stopping": {"then": "reject", "by": "root"}},
            {"pool": "mails", "id": "b", "worker": 2, "runner": 4, "attempt": 1,
             "since": "2026-01-02T01:59:30Z", "predecessor": 4711}
        ]))
        .unwrap();
        let now = "2026-01-02T03:01:30Z".parse().unwrap();
        let text = anstream::adapter::strip_str(&table(&jobs, &[], now)).to_string();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn the_answer_to_a_stop_says_what_becomes_of_the_message() {
        for (stopped, then, text) in [
            (
                1,
                StopThen::Retry,
                "1 job was told to stop, to be retried later\n",
            ),
            (
                1,
                StopThen::Reject,
                "1 job was told to stop, to be dead-lettered\n",
            ),
            (
                2,
                StopThen::Requeue,
                "2 jobs with this id were told to stop, to be given back\n",
            ),
        ] {
            assert_eq!(of_stop(stopped, then), text);
        }
    }

    #[test]
    fn says_so_if_nothing_runs() {
        assert_eq!(table(&[], &[], Timestamp::UNIX_EPOCH), "no job runs\n");
    }

    #[test]
    fn says_of_programs_that_consume_the_queue_themselves_that_their_jobs_are_not_seen() {
        let pool = |name: &str, consumes: bool, live: u32| -> v1::Pool {
            serde_json::from_value(serde_json::json!({
                "name": name, "queue": name, "state": "active", "consumes": consumes,
                "depth": {"ready": 0, "age_ms": 1, "stale": false}, "delayed": 0, "demand": 0, "expected": 0,
                "workers": {"bare": 0, "live": live, "draining": 1}, "runners": {"idle": 0, "busy": 0},
                "jobs": {"done": 0, "retried": 0, "dead": 0, "requeued": 0, "lost": 0}
            }))
            .unwrap()
        };
        let said = |pools: &[v1::Pool]| table(&[], pools, Timestamp::UNIX_EPOCH);
        let celery = pool("celery", true, 2);
        let unseen = "celery: its programs consume the queue themselves, so tidegate does not see their jobs; \
                      3 programs are up\n";
        assert_eq!(said(std::slice::from_ref(&celery)), unseen);
        let other = pool("mails", false, 2);
        assert_eq!(
            said(&[celery, other.clone()]),
            format!("no job runs\n{unseen}")
        );
        let removed = v1::Pool {
            removed: true,
            ..other
        };
        assert_eq!(
            said(&[removed]),
            "no job runs\nmails was removed from the configuration: 3 workers still end\n"
        );
    }
}
