//! `tidegate status`: the pools of a running supervisor.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use anstyle::{AnsiColor, Style};
use hyper::StatusCode;

use super::{
    args::{Cli, Format, status::StatusArgs},
    client::{self, ClientError},
    supervisor::{self, RemoteSupervisor},
    table::{Cell, DIM, Layout, cell},
};
use crate::output::{self, Exit};
use tidegate::{
    api::v1::{self, RefusedReload},
    escape::Escaped,
    run::{PoolState, PoolStatus},
    text::{counted, form_for, time},
};

const REFUSED: Style = AnsiColor::Red.on_default().bold();

pub(super) async fn status(cli: &Cli, args: &StatusArgs) -> Result<Exit, output::CommandFailure> {
    let supervisor = supervisor::find(cli, &args.socket)?;
    let seen = read_all(&supervisor).await?;
    match cli.format {
        Format::Json => output::json(&[seen.pools, seen.leaving].concat())?,
        Format::Human => output::write(text(seen).as_bytes())?,
    }
    Ok(Exit::Ok)
}

/// What a supervisor says of its pools.
#[derive(Debug, Default)]
pub(super) struct SeenPools {
    /// Those of the configuration.
    pub(super) pools: Vec<v1::Pool>,
    /// Those that a reload has removed and that still drain.
    pub(super) leaving: Vec<v1::Pool>,
}

/// Asks the supervisor for its pools, and for those that it has no longer.
pub(super) async fn read_all(supervisor: &RemoteSupervisor) -> Result<SeenPools, ClientError> {
    let pools = read(supervisor).await?;
    let path = "/api/v1/leaving";
    let leaving = match client::get(supervisor, path, "read the removed pools").await {
        // A supervisor of an older version does not tell.
        Err(ClientError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => Vec::new(),
        leaving => leaving?,
    };
    Ok(SeenPools { pools, leaving })
}

/// Asks the supervisor for its pools.
pub(super) async fn read(supervisor: &RemoteSupervisor) -> Result<Vec<v1::Pool>, ClientError> {
    client::get(supervisor, "/api/v1/pools", "read the pools").await
}

/// The pools for a person.
pub(super) fn text(SeenPools { pools, leaving }: SeenPools) -> String {
    let refused = pools.iter().find_map(|pool| pool.reload_refused.clone());
    let predecessors = of_predecessors(&pools);
    let pools: Vec<PoolStatus> = pools.into_iter().map(|pool| pool.status).collect();
    let mut text = table(&pools);
    text.extend(leaving.iter().map(|pool| of_leaving(&pool.status)));
    text.push_str(&of_nodes(&pools));
    text.push_str(&predecessors);
    if let Some(refused) = refused {
        text.push_str(&of_refusal(&refused));
    }
    text
}

/// The broker's nodes, in one line. Empty while there is no connection.
fn of_nodes(pools: &[PoolStatus]) -> String {
    let nodes: BTreeSet<&str> = pools
        .iter()
        .flat_map(|pool| pool.nodes.iter().map(String::as_str))
        .collect();
    if nodes.is_empty() {
        return String::new();
    }
    let nodes = Vec::from_iter(nodes).join(", ");
    format!("{DIM}connected to {}{DIM:#}\n", Escaped(&nodes))
}

/// A line for a pool that a reload has removed and that still drains.
pub(super) fn of_leaving(pool: &PoolStatus) -> String {
    let noun = if pool.consumes { "program" } else { "worker" };
    let left = pool.workers.live + pool.workers.draining;
    let (name, count) = (Escaped(pool.name.as_str()), counted(left, noun));
    let ends = form_for(left, "ends", "end");
    format!("{name} was removed from the configuration: {count} still {ends}\n")
}

/// A line for each supervisor that has handed over and still works.
fn of_predecessors(pools: &[v1::Pool]) -> String {
    let mut known: BTreeMap<u32, Option<usize>> = BTreeMap::new();
    for predecessor in pools.iter().flat_map(|pool| &pool.predecessors) {
        let jobs = known.entry(predecessor.pid).or_insert(Some(0));
        *jobs = jobs.zip(predecessor.jobs).map(|(one, more)| one + more);
    }
    let mut text = String::new();
    for (pid, jobs) in known {
        let _ = match jobs {
            Some(jobs) => writeln!(
                text,
                "{} of the supervisor that this one has taken over from still {} (pid {pid})",
                counted(jobs, "job"),
                form_for(jobs, "runs", "run")
            ),
            None => writeln!(
                text,
                "the supervisor that this one has taken over from still runs (pid {pid})"
            ),
        };
    }
    text
}

/// A configuration that was refused, in two lines.
fn of_refusal(refused: &RefusedReload) -> String {
    let RefusedReload {
        at,
        file,
        why,
        problems,
    } = refused;
    let count = counted(*problems, "problem");
    let at = time(*at);
    let first = why.first().map_or("", String::as_str);
    format!(
        "{REFUSED}configuration refused at {at}{REFUSED:#}, an older one runs: {}, {count}\n  {}\n",
        Escaped(file),
        Escaped(first)
    )
}

/// Columns by group. The first two are words and aligned to the left. The others are numbers and aligned to the right.
const COLUMNS: [&str; 15] = [
    "POOL", "STATE", "READY", "DELAYED", "DEMAND", "EXPECTED", "LIVE", "BARE", "DRAINING", "IDLE",
    "BUSY", "DONE", "RETRIED", "DEAD", "LOST",
];
const WORDS: usize = 2;

fn table(pools: &[PoolStatus]) -> String {
    if pools.is_empty() {
        return "no pools are configured\n".to_owned();
    }
    let rows: Vec<Vec<Cell>> = pools.iter().map(row).collect();
    let layout = Layout::new(&COLUMNS, |column| column < WORDS, &rows);
    let mut text = String::new();
    layout.head(&mut text);
    for (pool, row) in pools.iter().zip(&rows) {
        layout.line(&mut text, row);
        for note in notes(pool) {
            let _ = writeln!(text, "  {DIM}{}{DIM:#}", Escaped(&note));
        }
    }
    text
}

fn row(pool: &PoolStatus) -> Vec<Cell> {
    let number = |number: u64| match number {
        0 => Cell {
            text: "0".to_owned(),
            style: DIM,
        },
        number => cell(number),
    };
    let (workers, runners, jobs) = (pool.workers, pool.runners, pool.jobs);
    let mut ready = number(pool.depth.ready);
    match pool.depth.age_ms {
        None => ready = cell("?"),
        // The number is out of date.
        Some(_) if pool.depth.stale => ready.text.push('~'),
        Some(_) => {}
    }
    let mut expected = number(pool.expected.into());
    if pool.pinned.is_some() {
        expected.text.push('*');
    }
    vec![
        cell(Escaped(pool.name.as_str())),
        Cell {
            text: pool.state.as_str().to_owned(),
            style: state_style(pool.state),
        },
        ready,
        number(pool.delayed),
        number(pool.demand),
        expected,
        number(workers.live.into()),
        number(workers.bare.into()),
        number(workers.draining.into()),
        number(runners.idle.into()),
        number(runners.busy.into()),
        number(jobs.done),
        number(jobs.retried),
        number(jobs.dead),
        number(jobs.lost),
    ]
}

fn state_style(state: PoolState) -> Style {
    match state {
        PoolState::Active => AnsiColor::Green.on_default(),
        PoolState::Idle => Style::new(),
        PoolState::Paused | PoolState::Draining | PoolState::Waiting => {
            AnsiColor::Yellow.on_default()
        }
        PoolState::Faulted | PoolState::Blocked | PoolState::Stuck | PoolState::Disconnected => {
            AnsiColor::Red.on_default().bold()
        }
    }
}

/// Facts that do not fit in a column, as text.
fn notes(pool: &PoolStatus) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(pool.cause.clone());
    if let (true, Some(age)) = (pool.depth.stale, pool.depth.age_ms) {
        notes.push(format!(
            "the depth is {:.1} s old: newer readings failed",
            age as f64 / 1000.0
        ));
    }
    notes.extend(pool.orders.to_string().lines().map(str::to_owned));
    let dead = pool.dead_waiting;
    if dead > 0 {
        let (letters, wait) = (
            counted(dead, "dead letter"),
            form_for(dead, "waits", "wait"),
        );
        notes.push(format!("{letters} {wait} in {}.dead", pool.queue));
    }
    if let Some(ahead) = pool.taken_ahead.filter(|ahead| ahead.blocked > 0) {
        let (messages, wait) = (
            counted(ahead.blocked, "message"),
            form_for(ahead.blocked, "waits", "wait"),
        );
        let room = match ahead.room {
            0 => String::from("key_window is full"),
            room => format!("key_window has room for {room} more"),
        };
        notes.push(format!(
            "{messages} {wait} for a job of the same key; {room}"
        ));
    }
    let back = pool.jobs.requeued;
    if back > 0 {
        let (messages, were) = (counted(back, "message"), form_for(back, "was", "were"));
        notes.push(format!("{messages} {were} given back"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(json: serde_json::Value) -> PoolStatus {
        serde_json::from_value(json).unwrap()
    }

    fn thumbnails() -> serde_json::Value {
        serde_json::json!({
            "name": "thumbnails", "queue": "thumbnails", "state": "active",
            "depth": {"ready": 120, "age_ms": 210, "stale": false},
            "delayed": 2, "demand": 126, "expected": 13,
            "workers": {"bare": 1, "live": 13, "draining": 0},
            "runners": {"idle": 6, "busy": 6},
            "jobs": {"done": 900, "retried": 3, "dead": 1, "requeued": 0, "lost": 0}
        })
    }

    #[test]
    fn shows_pools_as_an_aligned_table() {
        let mut mails = thumbnails();
        mails["name"] = "mails".into();
        mails["state"] = "faulted".into();
        mails["cause"] = "start a runner: /bin/mail: no such\nfile".into();
        mails["depth"] = serde_json::json!({"ready": 7, "age_ms": 12_345, "stale": true});
        mails["pinned"] = 4.into();
        mails["orders"] = serde_json::json!({
            "pin": {"what": 4, "by": "root", "since": "2026-01-02T03:04:05Z"}
        });
        mails["dead_waiting"] = 12.into();
        mails["jobs"]["requeued"] = 5.into();
        let text = table(&[pool(thumbnails()), pool(mails)]);
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }

    #[test]
    fn says_what_the_predecessors_still_run() {
        let with = |predecessors: serde_json::Value| {
            let mut pool = thumbnails();
            pool["predecessors"] = predecessors;
            serde_json::from_value::<v1::Pool>(pool).unwrap()
        };
        let known = with(serde_json::json!([{"pid": 7, "jobs": 2}]));
        let unknown = with(serde_json::json!([{"pid": 8}, {"pid": 7, "jobs": 1}]));
        assert_eq!(
            of_predecessors(&[known, unknown]),
            "3 jobs of the supervisor that this one has taken over from still run (pid 7)\n\
             the supervisor that this one has taken over from still runs (pid 8)\n"
        );
        assert_eq!(of_predecessors(&[with(serde_json::json!([]))]), "");
    }

    #[test]
    fn says_of_a_removed_pool_what_still_ends() {
        let mut celery = thumbnails();
        celery["workers"] = serde_json::json!({"bare": 0, "live": 0, "draining": 2});
        assert_eq!(
            of_leaving(&pool(celery.clone())),
            "thumbnails was removed from the configuration: 2 workers still end\n"
        );
        celery["consumes"] = true.into();
        celery["workers"]["draining"] = 1.into();
        assert_eq!(
            of_leaving(&pool(celery)),
            "thumbnails was removed from the configuration: 1 program still ends\n"
        );
    }

    #[test]
    fn says_when_and_why_a_configuration_was_refused() {
        let refused = RefusedReload {
            at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            file: "tidegate.toml".to_owned(),
            why: vec!["tidegate.toml:3:1: pools.a: found \u{1b}, remove it".to_owned()],
            problems: 2,
        };
        let text = anstream::adapter::strip_str(&of_refusal(&refused)).to_string();
        insta::assert_snapshot!(text, @r"
        configuration refused at 2026-01-02T03:04:05Z, an older one runs: tidegate.toml, 2 problems
          tidegate.toml:3:1: pools.a: found \u{1b}, remove it
        ");
    }

    #[test]
    fn says_how_many_messages_wait_for_a_key() {
        let with = |ready: u64, blocked: u64, room: u64| {
            let mut pool = thumbnails();
            pool["taken_ahead"] =
                serde_json::json!({"ready": ready, "blocked": blocked, "room": room});
            notes(&serde_json::from_value(pool).unwrap())
        };
        assert_eq!(with(5, 0, 5), [""; 0]);
        assert_eq!(
            with(0, 1, 9),
            ["1 message waits for a job of the same key; key_window has room for 9 more"]
        );
        assert_eq!(
            with(1, 40, 0),
            ["40 messages wait for a job of the same key; key_window is full"]
        );
    }

    #[test]
    fn says_to_which_nodes_it_is_connected() {
        let mut other = thumbnails();
        other["nodes"] = serde_json::json!(["b:5672", "a:5672"]);
        let nodes = of_nodes(&[pool(other.clone()), pool(other)]);
        let text = anstream::adapter::strip_str(&nodes).to_string();
        assert_eq!(text, "connected to a:5672, b:5672\n");
        assert_eq!(of_nodes(&[pool(thumbnails())]), "");
    }

    #[test]
    fn says_so_if_there_is_no_such_pool() {
        assert_eq!(table(&[]), "no pools are configured\n");
    }

    #[test]
    fn marks_a_depth_that_was_never_read() {
        let mut new = thumbnails();
        new["depth"] = serde_json::json!({"ready": 0, "age_ms": null, "stale": true});
        let text = table(&[pool(new)]);
        assert!(
            anstream::adapter::strip_str(&text)
                .to_string()
                .contains(" ? ")
        );
    }
}
