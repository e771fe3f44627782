//! `tidegate top`: the screen of `crate::top` over the supervisor's socket.

use std::{fmt::Write, sync::Arc, time::Duration};

use hyper::Method;
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::{
    args::{Cli, SocketArgs},
    client::{self, ClientError},
    supervisor::{self, RemoteSupervisor},
};
use crate::{
    output::{CommandFailure, Exit},
    top::{self, Detail, ScreenSource, Steer},
};
use tidegate::{api::v1, escape::Escaped, run::RunningJob};

/// How long the supervisor may take to carry out an order: it waits for a reconcile.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) async fn top(cli: &Cli, args: &SocketArgs) -> Result<Exit, CommandFailure> {
    let source = Socket(Arc::new(supervisor::find(cli, args)?));
    let shown = top::run(source, has_color()).await;
    shown.map_err(|error| {
        let error = anyhow::Error::from(error).context("use the terminal");
        CommandFailure::new(Exit::Usage, error)
    })?;
    Ok(Exit::Ok)
}

/// As for all other output: `NO_COLOR` and dumb terminals.
fn has_color() -> bool {
    let choice = anstream::AutoStream::choice(&std::io::stdout());
    choice != anstream::ColorChoice::Never
}

#[derive(Clone)]
struct Socket(Arc<RemoteSupervisor>);

impl ScreenSource for Socket {
    async fn pools(&self) -> Result<Vec<v1::Pool>, String> {
        let asked = client::get(&self.0, "/api/v1/pools", "read the pools").await;
        asked.map_err(|error| in_one_line(&error))
    }

    async fn detail(&self, pool: &str) -> Result<Detail, String> {
        let explain = path(pool, "explain");
        let explained = client::get(&self.0, &explain, "explain the pool").await;
        let explained: v1::Explanation = explained.map_err(|error| in_one_line(&error))?;
        let jobs = client::get(&self.0, &path(pool, "jobs"), "read the jobs").await;
        let jobs: Vec<RunningJob> = jobs.map_err(|error| in_one_line(&error))?;
        let now = Timestamp::now();
        Ok(Detail {
            decision: in_lines(explained.text.as_deref().unwrap_or("no decision yet")),
            jobs: jobs.iter().map(|job| line_of(job, now)).collect(),
        })
    }

    async fn steer(&self, pool: &str, steer: Steer) -> Result<String, String> {
        let (method, act, said) = match steer {
            Steer::Pause => (Method::POST, "pause", "paused".to_owned()),
            Steer::Resume => (Method::POST, "resume", "resumed".to_owned()),
            Steer::Drain => (Method::POST, "drain", "drains".to_owned()),
            Steer::Scale(Some(workers)) => (Method::PUT, "scale", format!("pinned to {workers}")),
            Steer::Scale(None) => (Method::PUT, "scale", "follows its policy".to_owned()),
        };
        let workers = |workers: Option<u32>| workers.map_or(v1::Workers::Auto, v1::Workers::Count);
        let scale = match steer {
            Steer::Scale(count) => Some(v1::Scale {
                workers: workers(count),
            }),
            Steer::Pause | Steer::Resume | Steer::Drain => None,
        };
        let steered = match scale {
            Some(scale) => self.act(method, &path(pool, act), &scale).await,
            None => self.act(method, &path(pool, act), &v1::Nothing {}).await,
        };
        match steered {
            Ok(steered) if steered.changed => Ok(format!("{pool}: {said}")),
            Ok(_) => Ok(format!("{pool}: nothing to change")),
            Err(error) => Err(in_one_line(&error)),
        }
    }
}

impl Socket {
    async fn act(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<v1::Steered, ClientError> {
        client::act(&self.0, method, path, body, TIMEOUT, "steer the pool").await
    }
}

fn path(pool: &str, rest: &str) -> String {
    let pool = utf8_percent_encode(pool, NON_ALPHANUMERIC);
    format!("/api/v1/pools/{pool}/{rest}")
}

/// The error with its causes.
fn in_one_line(error: &dyn std::error::Error) -> String {
    format!("failed to {}", tidegate::run::chain(error))
}

/// Escapes each line separately, so that line breaks are kept.
fn in_lines(text: &str) -> String {
    let mut shown = String::new();
    for line in text.lines() {
        let _ = writeln!(shown, "{}", Escaped(line));
    }
    shown
}

fn line_of(job: &RunningJob, now: Timestamp) -> String {
    let running = now.duration_since(job.since).as_secs().max(0);
    let id = Escaped(job.id.as_str());
    let stopping = match &job.stopping {
        Some(_) => "  stopping",
        None => "",
    };
    format!(
        "{running:>5}s  {}  {id}  attempt {}{stopping}",
        job.worker, job.attempt
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_one_line_whatever_its_id_is() {
        let job = serde_json::json!({
            "id": "order\n17\u{1b}[2J", "worker": 3, "runner": 4, "attempt": 2,
            "since": "2026-01-01T00:00:00Z",
        });
        let job: RunningJob = serde_json::from_value(job).unwrap();
        let line = line_of(&job, "2026-01-01T00:01:05Z".parse().unwrap());
        assert_eq!(line, "   65s  w3  order\\n17\\u{1b}[2J  attempt 2");
    }

    #[test]
    fn a_pools_name_stays_one_segment_of_the_path() {
        assert_eq!(path("a/b?c", "jobs"), "/api/v1/pools/a%2Fb%3Fc/jobs");
    }
}
