//! `tidegate pause`, `resume`, `flush`, `scale` and `reload`: orders to a running supervisor.

use std::{fmt::Write, time::Duration};

use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::{
    args::{
        Cli, Format,
        steer::{FlushArgs, PauseArgs, PoolsArgs, ReloadArgs, ResumeArgs, ScaleArgs},
    },
    client::{self, ClientError},
    supervisor::{self, RemoteSupervisor},
};
use crate::output::{self, CommandFailure, Exit};
use tidegate::{
    api::v1::{self, Reloaded, Steered, Workers},
    escape::Escaped,
    text::counted,
};

/// Longest time for an order: a reconcile waits for the queue's depth from the broker.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// Longest time for a reload: old cgroups of jobs may have to be removed first.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(120);

pub(super) async fn pause(cli: &Cli, args: &PauseArgs) -> Result<Exit, CommandFailure> {
    let body = v1::Pause {
        span: args.span,
        shrinking: args.shrinking,
    };
    let done = |steered: &Steered| {
        let done = match args.shrinking {
            true => "does not shrink",
            false => "paused",
        };
        with_as_before(steered, done)
    };
    each(cli, &args.pools, "pause", &body, done).await
}

pub(super) async fn resume(cli: &Cli, args: &ResumeArgs) -> Result<Exit, CommandFailure> {
    let body = v1::Resume {
        shrinking: args.shrinking,
    };
    let done = |steered: &Steered| match (args.shrinking, steered.changed) {
        (true, true) => "may shrink again".to_owned(),
        (true, false) => "may shrink, as before".to_owned(),
        (false, true) => "resumed".to_owned(),
        (false, false) => "was neither paused nor drained".to_owned(),
    };
    each(cli, &args.pools, "resume", &body, done).await
}

pub(super) async fn flush(cli: &Cli, args: &FlushArgs) -> Result<Exit, CommandFailure> {
    let body = v1::Flush { busy: args.busy };
    each(cli, &args.pools, "flush", &body, |steered| {
        of_flush(steered, args.busy)
    })
    .await
}

/// The runners that a flush has stopped, and the jobs that it told to stop.
fn of_flush(steered: &Steered, busy: bool) -> String {
    if steered.pool.status.consumes {
        return of_flushed_programs(steered.runners_stopped, busy);
    }
    let mut parts = Vec::new();
    if steered.runners_stopped > 0 {
        let idle = counted(steered.runners_stopped, "idle runner");
        parts.push(format!("{idle} stopped"));
    }
    if steered.jobs_told > 0 {
        let jobs = counted(steered.jobs_told, "running job");
        parts.push(format!("{jobs} told to stop, to be given back"));
    }
    match (parts.is_empty(), busy) {
        (false, _) => parts.join(", "),
        (true, true) => "no runner to stop".to_owned(),
        (true, false) => "no idle runner to stop".to_owned(),
    }
}

/// Programs that consume the queue themselves. They finish what they hold first, and others take their place.
fn of_flushed_programs(told: u64, busy: bool) -> String {
    match (told, busy) {
        (0, true) => "no program to end".to_owned(),
        (0, false) => "no program that holds nothing".to_owned(),
        (told, _) => format!("{} told to end, to be replaced", counted(told, "program")),
    }
}

pub(super) async fn scale(cli: &Cli, args: &ScaleArgs) -> Result<Exit, CommandFailure> {
    let supervisor = supervisor::find(cli, &args.socket)?;
    let path = path(&args.pool, "scale");
    let body = v1::Scale {
        workers: args.workers,
    };
    let operation = "scale the pool";
    let steered: Steered =
        client::act(&supervisor, Method::PUT, &path, &body, TIMEOUT, operation).await?;
    match cli.format {
        Format::Json => output::json(&steered)?,
        Format::Human => {
            let done = match args.workers {
                Workers::Auto => "scales by its policy".to_owned(),
                Workers::Count(workers) => {
                    let expected = steered.pool.status.expected;
                    let pinned = format!("pinned to {}", counted(workers, "worker"));
                    match expected < workers {
                        true => format!("{pinned}, of which it may have {expected}"),
                        false => pinned,
                    }
                }
            };
            let done = with_as_before(&steered, &done);
            output::write(line(&steered, &done).as_bytes())?;
        }
    }
    Ok(Exit::Ok)
}

pub(super) async fn reload(cli: &Cli, args: &ReloadArgs) -> Result<Exit, CommandFailure> {
    let supervisor = supervisor::find(cli, &args.socket)?;
    let (path, operation) = ("/api/v1/reload", "reload the configuration");
    let body = v1::Nothing {};
    let reloaded: Result<Reloaded, _> = client::act(
        &supervisor,
        Method::POST,
        path,
        &body,
        RELOAD_TIMEOUT,
        operation,
    )
    .await;
    let reloaded = match reloaded {
        Ok(reloaded) => reloaded,
        Err(ClientError::Refused {
            refusal,
            status,
            operation,
        }) => {
            for problem in &refusal.problems {
                output::tell(format!("{}\n", Escaped(problem)).as_bytes());
            }
            if cli.format == Format::Json {
                output::json(&refusal)?;
            }
            return Err(ClientError::Refused {
                refusal,
                status,
                operation,
            }
            .into());
        }
        Err(error) => return Err(error.into()),
    };
    match cli.format {
        Format::Json => output::json(&reloaded)?,
        Format::Human => output::write(of_reload(&reloaded).as_bytes())?,
    }
    Ok(Exit::Ok)
}

fn of_reload(reloaded: &Reloaded) -> String {
    let pools = counted(reloaded.pools, "pool");
    let mut text = format!("{}: applied, {pools}", Escaped(&reloaded.file));
    for (word, names) in [
        ("added", &reloaded.added),
        ("changed", &reloaded.changed),
        ("removed", &reloaded.removed),
    ] {
        if !names.is_empty() {
            let _ = write!(text, "; {word} {}", Escaped(&names.join(", ")));
        }
    }
    text.push('\n');
    if !reloaded.needs_restart.is_empty() {
        let keys = reloaded.needs_restart.join(", ");
        let _ = writeln!(text, "changes of {keys} take effect at the next start");
    }
    text
}

/// Gives an order to each of the pools, and prints the results. Stops at the first refusal.
async fn each(
    cli: &Cli,
    pools: &PoolsArgs,
    act: &'static str,
    body: &impl Serialize,
    done: impl Fn(&Steered) -> String,
) -> Result<Exit, CommandFailure> {
    let supervisor = supervisor::find(cli, &pools.socket)?;
    let mut all = Vec::new();
    for name in names(&supervisor, pools).await? {
        let path = path(&name, act);
        let operation = operation(act);
        let steered: Steered =
            client::act(&supervisor, Method::POST, &path, body, TIMEOUT, operation).await?;
        if cli.format == Format::Human {
            output::write(line(&steered, &done(&steered)).as_bytes())?;
        }
        all.push(steered);
    }
    if cli.format == Format::Json {
        output::json(&all)?;
    }
    Ok(Exit::Ok)
}

/// The names of the pools. If the supervisor does not know one of them, no order is given at all.
pub(super) async fn names(
    supervisor: &RemoteSupervisor,
    args: &PoolsArgs,
) -> Result<Vec<String>, CommandFailure> {
    let pools: Vec<v1::Pool> = client::get(supervisor, "/api/v1/pools", "read the pools").await?;
    let known = pools.into_iter().map(|pool| pool.status.name.to_string());
    let known: Vec<String> = known.collect();
    if args.all {
        return Ok(known);
    }
    match args.pools.iter().find(|pool| !known.contains(pool)) {
        None => Ok(args.pools.clone()),
        Some(stranger) => Err(no_such_pool(stranger)),
    }
}

/// The failure for an unknown pool.
pub(super) fn no_such_pool(name: &str) -> CommandFailure {
    let error = anyhow::anyhow!("find a pool named {name}");
    CommandFailure::new(Exit::Unexpected, error).hint("`tidegate status` names the pools")
}

/// A path below a pool.
pub(super) fn path(pool: &str, below: &str) -> String {
    let pool = utf8_percent_encode(pool, NON_ALPHANUMERIC);
    format!("/api/v1/pools/{pool}/{below}")
}

fn operation(act: &str) -> &'static str {
    match act {
        "pause" => "pause the pool",
        "resume" => "resume the pool",
        "flush" => "flush the pool",
        _ => "steer the pool",
    }
}

/// The effect of an order, with a remark if it was in force already.
pub(super) fn with_as_before(steered: &Steered, done: &str) -> String {
    match steered.changed {
        true => done.to_owned(),
        false => format!("{done}, as before"),
    }
}

/// The result for one pool: what was done, the orders in force, and a problem.
pub(super) fn line(steered: &Steered, done: &str) -> String {
    let status = &steered.pool.status;
    let mut text = format!("{}: {done}\n", Escaped(status.name.as_str()));
    for order in status.orders.to_string().lines() {
        let _ = writeln!(text, "  {}", Escaped(order));
    }
    if let Some(why) = &steered.not_stored {
        let _ = writeln!(text, "  not kept for the next start: {}", Escaped(why));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steered(changed: bool, runners_stopped: u64, jobs_told: u64) -> Steered {
        let pool = serde_json::json!({
            "name": "a", "queue": "a", "state": "active",
            "depth": {"ready": 0, "age_ms": 1, "stale": false}, "delayed": 0, "demand": 0, "expected": 0,
            "workers": {"bare": 0, "live": 0, "draining": 0}, "runners": {"idle": 0, "busy": 0},
            "jobs": {"done": 0, "retried": 0, "dead": 0, "requeued": 0, "lost": 0}
        });
        Steered {
            changed,
            workers_diff: 0,
            runners_stopped,
            jobs_told,
            not_stored: None,
            pool: serde_json::from_value(pool).unwrap(),
        }
    }

    #[test]
    fn a_flush_says_what_it_has_stopped_and_what_it_has_told_to_stop() {
        for (stopped, told, busy, expected) in [
            (0, 0, false, "no idle runner to stop"),
            (0, 0, true, "no runner to stop"),
            (1, 0, false, "1 idle runner stopped"),
            (0, 1, true, "1 running job told to stop, to be given back"),
            (
                2,
                3,
                true,
                "2 idle runners stopped, 3 running jobs told to stop, to be given back",
            ),
        ] {
            let steered = steered(stopped + told > 0, stopped, told);
            assert_eq!(of_flush(&steered, busy), expected);
            assert_eq!(line(&steered, expected), format!("a: {expected}\n"));
        }
    }

    #[test]
    fn a_flush_of_programs_that_consume_the_queue_themselves_speaks_of_programs() {
        for (told, busy, expected) in [
            (0, false, "no program that holds nothing"),
            (0, true, "no program to end"),
            (1, false, "1 program told to end, to be replaced"),
            (3, true, "3 programs told to end, to be replaced"),
        ] {
            let mut steered = steered(told > 0, told, 0);
            steered.pool.status.consumes = true;
            assert_eq!(of_flush(&steered, busy), expected);
        }
    }

    #[test]
    fn an_order_that_was_in_force_already_says_so() {
        assert_eq!(with_as_before(&steered(true, 0, 0), "paused"), "paused");
        let before = with_as_before(&steered(false, 0, 0), "paused");
        assert_eq!(before, "paused, as before");
    }

    #[test]
    fn reports_the_result_of_a_reload() {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        let reloaded = Reloaded {
            file: "tidegate.toml".to_owned(),
            pools: 3,
            added: names(&["a"]),
            removed: Vec::new(),
            changed: names(&["b", "c\u{1b}"]),
            needs_restart: names(&["http"]),
        };
        let text = of_reload(&reloaded);
        assert_eq!(
            text,
            "tidegate.toml: applied, 3 pools; added a; changed b, c\\u{1b}\n\
             changes of http take effect at the next start\n"
        );
    }
}
