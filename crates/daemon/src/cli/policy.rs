//! `tidegate policy`: shows a pool's policy with the origin of each key, and sets keys by hand.

use std::{fmt::Write, path::Path};

use anstyle::{AnsiColor, Style};
use anyhow::Context;
use hyper::Method;
use serde::Deserialize;

use super::{
    args::{
        Cli, Format,
        steer::{DryRunArgs, PolicyArgs, PolicyCommand, PolicySetArgs},
    },
    client::{self, ClientError},
    dry_run,
    steer::{TIMEOUT, path},
    supervisor::{self, RemoteSupervisor},
    table::DIM,
};
use crate::{
    files::{self, Links},
    output::{self, CommandFailure, Exit},
};
use tidegate::{
    api::v1::{Outlook, PolicyAct, PolicyChange, PolicyKeys, PolicyValue, PolicyView},
    config::Origin,
    escape::Escaped,
    text::{counted, time},
};

const BY_HAND: Style = AnsiColor::Yellow.on_default();

/// The largest file of keys: a policy has a few hundred bytes.
const POLICY_BYTES: u64 = 1 << 20;

/// Keys of `scaling`, which can be written without the name of their table.
const OF_SCALING: [&str; 4] = ["up_step", "down_window", "down_step", "churn"];

pub(super) async fn policy(cli: &Cli, args: &PolicyArgs) -> Result<Exit, CommandFailure> {
    match &args.command {
        PolicyCommand::Show(args) => {
            let supervisor = supervisor::find(cli, &args.socket)?;
            let path = path(&args.pool, "policy");
            let view: PolicyView = client::get(&supervisor, &path, "show the policy").await?;
            match cli.format {
                Format::Json => output::json(&view)?,
                Format::Human => output::write(toml_of(&view).as_bytes())?,
            }
            Ok(Exit::Ok)
        }
        PolicyCommand::Set(args) => {
            let supervisor = supervisor::find(cli, &args.socket)?;
            let body = body(args)?;
            let method = match args.file {
                Some(_) => Method::PUT,
                None => Method::PATCH,
            };
            let (pool, operation) = (&args.pool, "set the policy");
            change(
                cli,
                &supervisor,
                method,
                pool,
                &body,
                &args.trial,
                operation,
            )
            .await
        }
        PolicyCommand::Reset(args) => {
            let supervisor = supervisor::find(cli, &args.socket)?;
            let (none, operation) = (PolicyKeys::default(), "reset the policy");
            let (method, pool) = (Method::DELETE, &args.pool);
            change(
                cli,
                &supervisor,
                method,
                pool,
                &none,
                &args.trial,
                operation,
            )
            .await
        }
    }
}

async fn change(
    cli: &Cli,
    supervisor: &RemoteSupervisor,
    method: Method,
    pool: &str,
    body: &PolicyKeys,
    trial: &DryRunArgs,
    operation: &'static str,
) -> Result<Exit, CommandFailure> {
    let patience = match trial.dry_run {
        true => dry_run::PATIENCE,
        false => TIMEOUT,
    };
    let path = path(pool, &format!("policy{}", dry_run::query(trial)));
    let change: Result<PolicyChange, _> =
        client::act(supervisor, method, &path, body, patience, operation).await;
    let change = match change {
        Ok(change) => change,
        Err(error) => {
            if let ClientError::Refused { refusal, .. } = &error
                && refusal.problems.len() > 1
            {
                for problem in &refusal.problems {
                    output::tell(format!("{}\n", Escaped(problem)).as_bytes());
                }
            }
            return Err(error.into());
        }
    };
    if let Some(file) = &trial.plot {
        dry_run::plot(file, &change)?;
    }
    match cli.format {
        Format::Json => output::json(&change)?,
        Format::Human => output::write(text_of(&change).as_bytes())?,
    }
    Ok(Exit::Ok)
}

/// The keys of the command line, which override the keys of the file.
fn body(args: &PolicySetArgs) -> Result<PolicyKeys, CommandFailure> {
    let mut body = PolicyKeys::default();
    if let Some(file) = &args.file {
        body = from_file(file)?;
    }
    for pair in &args.keys {
        let Some((key, value)) = pair.split_once('=') else {
            let error = anyhow::anyhow!("parse {pair:?} as KEY=VALUE");
            return Err(
                CommandFailure::new(Exit::Usage, error).hint("jobs_per_worker=2, for example")
            );
        };
        let (table, name) = match key.trim().split_once('.') {
            Some((table, name)) => (table, name),
            None if OF_SCALING.contains(&key.trim()) => ("scaling", key.trim()),
            None => ("policy", key.trim()),
        };
        body.table(table).insert(name.to_owned(), value_of(value)?);
    }
    Ok(body)
}

/// The keys of a file, each in its table.
fn from_file(file: &Path) -> Result<PolicyKeys, CommandFailure> {
    let bad = |error: anyhow::Error| CommandFailure::new(Exit::BadConfiguration, error);
    let text = files::read_text(file, Links::Follow, POLICY_BYTES)
        .with_context(|| format!("read {}", file.display()))
        .map_err(bad)?;
    let table: toml::Table = text
        .parse()
        .with_context(|| format!("read {} as TOML", file.display()))
        .map_err(bad)?;
    let mut body = PolicyKeys::default();
    for (key, value) in table {
        let value = json_of(value).map_err(bad)?;
        match (key.as_str(), value) {
            ("policy" | "scaling", PolicyValue::Table(keys)) => body.table(&key).extend(keys),
            (name, value) => {
                let table = match OF_SCALING.contains(&name) {
                    true => "scaling",
                    false => "policy",
                };
                body.table(table).insert(key, value);
            }
        }
    }
    Ok(body)
}

/// A value from the command line: TOML, otherwise a string without quotes.
fn value_of(text: &str) -> Result<PolicyValue, CommandFailure> {
    let parsed: Option<toml::Table> = format!("value = {text}").parse().ok();
    let parsed = parsed.filter(|table| table.len() == 1);
    match parsed.and_then(|mut table| table.remove("value")) {
        Some(value) => json_of(value).map_err(|error| CommandFailure::new(Exit::Usage, error)),
        None => Ok(PolicyValue::Text(text.to_owned())),
    }
}

fn json_of(value: toml::Value) -> anyhow::Result<PolicyValue> {
    let json = serde_json::to_value(value);
    json.and_then(PolicyValue::deserialize)
        .context("convert a value that JSON does not have")
}

/// The policy as TOML that `set --file` accepts. A comment after each key shows its origin.
fn toml_of(view: &PolicyView) -> String {
    let (name, words) = (Escaped(view.name.as_str()), Escaped(&view.text));
    let mut text = format!("{DIM}# {name}: {words}{DIM:#}\n");
    if let Some(whom) = &view.by_hand {
        let since = time(whom.since);
        let by = Escaped(&whom.by);
        let _ = writeln!(
            text,
            "{BY_HAND}# set by hand by {by} since {since}{BY_HAND:#}"
        );
    }
    for line in view.toml.lines() {
        // A value may contain a #. The comment with the origin begins at the last one.
        let _ = match line.rsplit_once("  # ") {
            Some((key, origin)) => {
                let style = if origin == Origin::ByHand.as_str() {
                    BY_HAND
                } else {
                    DIM
                };
                writeln!(
                    text,
                    "{}  {style}# {}{style:#}",
                    Escaped(key),
                    Escaped(origin)
                )
            }
            None => writeln!(text, "{}", Escaped(line)),
        };
    }
    text
}

/// The result of a change, for a person.
fn text_of(change: &PolicyChange) -> String {
    let mut text = String::new();
    let name = Escaped(change.policy.name.as_str());
    let _ = writeln!(text, "{name}: {}", headline(change));
    for change in &change.changes {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        let (before, after) = (shown(&change.before), shown(&change.after));
        let line = format!("{}: {before} -> {after}", change.key);
        let _ = writeln!(text, "  {}", Escaped(&line));
    }
    // A dry run has the whole decision of both.
    let outlooks = match change.changes.is_empty() || change.now.is_some() {
        true => Vec::new(),
        false => vec![("before", &change.before), ("after", &change.after)],
    };
    for (word, outlook) in outlooks {
        let Outlook {
            policy,
            demand,
            workers,
            why,
        } = outlook;
        let (workers, jobs) = (counted(*workers, "worker"), counted(*demand, "job"));
        let line = format!("{workers} for {jobs} ({why}); {policy}");
        let _ = writeln!(text, "  {DIM}{word}:{DIM:#} {}", Escaped(&line));
    }
    for warning in &change.warnings {
        let _ = writeln!(text, "  {BY_HAND}warning:{BY_HAND:#} {}", Escaped(warning));
    }
    if let Some(why) = &change.not_stored {
        let _ = writeln!(text, "  not kept for the next start: {}", Escaped(why));
    }
    text.push_str(&dry_run::text(change));
    text
}

/// A line that describes the change, or the change that would be made.
fn headline(change: &PolicyChange) -> &'static str {
    match (change.applied, change.act, change.changes.is_empty()) {
        (true, PolicyAct::Reset, true) => "as configured, no value changes",
        (true, PolicyAct::Reset, false) => "as configured again, from the next reconcile on",
        (false, PolicyAct::Reset, true) => "a reset would change nothing",
        (false, PolicyAct::Reset, false) => "a reset would change",
        (true, _, true) => "nothing changes",
        (true, PolicyAct::Replace, false) => {
            "set by hand, in place of what was set before, from the next reconcile on"
        }
        (true, _, false) => "set by hand, from the next reconcile on",
        (false, _, true) => "this would change nothing",
        (false, _, false) => "this would change",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn args(keys: &[&str], file: Option<&Path>) -> PolicySetArgs {
        PolicySetArgs {
            pool: "a".to_owned(),
            keys: keys.iter().map(|key| key.to_string()).collect(),
            file: file.map(Path::to_owned),
            trial: DryRunArgs::default(),
            socket: super::super::args::SocketArgs { socket: None },
        }
    }

    #[test]
    fn text_on_the_command_line_needs_no_quotes_and_a_scaling_key_needs_no_table() {
        let keys = [
            "kind=fixed",
            "workers=5",
            "down_window=30s",
            "scaling.up_step=3",
            "policy.max=9",
        ];
        let body = body(&args(&keys, None)).unwrap();
        let wanted = json!({
            "policy": {"kind": "fixed", "workers": 5, "max": 9},
            "scaling": {"down_window": "30s", "up_step": 3},
        });
        assert_eq!(serde_json::to_value(&body).unwrap(), wanted);
        let steps = super::body(&args(&["steps=[[1, 1], [100, 10]]"], None)).unwrap();
        let wanted = json!({"policy": {"steps": [[1, 1], [100, 10]]}});
        assert_eq!(serde_json::to_value(&steps).unwrap(), wanted);
        let failure = super::body(&args(&["max"], None)).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
    }

    #[test]
    fn a_policy_file_may_have_tables_or_bare_keys_and_keys_of_the_command_line_win() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("policy.toml");
        for text in [
            "[policy]\njobs_per_worker = 2\nmax = 3\n[scaling]\nup_step = 4\n",
            "jobs_per_worker = 2\nmax = 3\nup_step = 4\n",
        ] {
            std::fs::write(&file, text).unwrap();
            let body = body(&args(&["max=9"], Some(&file))).unwrap();
            let wanted =
                json!({"policy": {"jobs_per_worker": 2, "max": 9}, "scaling": {"up_step": 4}});
            assert_eq!(serde_json::to_value(&body).unwrap(), wanted);
        }
    }

    #[test]
    fn a_policy_file_without_end_is_refused() {
        let failure = body(&args(&[], Some(Path::new("/dev/zero")))).unwrap_err();
        assert_eq!(failure.exit, Exit::BadConfiguration);
        let shown = format!("{failure:?}");
        assert!(shown.contains("it is not a regular file"), "{shown}");
    }

    #[test]
    fn each_change_has_its_own_answer() {
        let answer = |act: &str, applied: bool, changes: bool, warnings: &[&str]| {
            let outlook = |policy: &str, workers: u32| json!({"policy": policy, "demand": 1, "workers": workers, "why": "1 job of demand"});
            let changes = match changes {
                true => json!([{"key": "policy.max", "before": "5", "after": "9"}]),
                false => json!([]),
            };
            let change: PolicyChange = serde_json::from_value(json!({
                "act": act, "applied": applied, "changes": changes, "warnings": warnings,
                "before": outlook("old", 1), "after": outlook("new", 2),
                "policy": {
                    "name": "a", "text": "", "keys": [], "toml": "",
                    "policy": {"kind": "fixed", "workers": 1, "min_active": 1, "max": 1},
                    "scaling": {"up_step": 1, "down_window": "10s", "down_step": 1}
                }
            }))
            .unwrap();
            anstream::adapter::strip_str(&text_of(&change)).to_string()
        };
        let all = [
            answer("set", true, true, &["look"]),
            answer("set", true, false, &[]),
            answer("set", false, true, &[]),
            answer("replace", true, true, &[]),
            answer("reset", true, true, &[]),
            answer("reset", true, false, &[]),
            answer("reset", false, true, &[]),
            answer("reset", false, false, &[]),
        ];
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn what_is_shown_is_toml_that_set_takes() {
        let view: PolicyView = serde_json::from_value(json!({
            "name": "a", "text": "one worker for each 2 jobs, 1 to 50 workers",
            "policy": {"kind": "backlog", "jobs_per_worker": 2, "min_active": 1, "max": 50},
            "scaling": {"up_step": 100, "down_window": {"secs": 10, "nanos": 0}, "down_step": 100},
            "keys": [],
            "toml": "[policy]\nkind = \"backlog\"    # default\njobs_per_worker = 2  # set by hand\n",
            "by_hand": {"by": "root", "since": "2026-01-02T03:04:05Z"}
        }))
        .unwrap();
        let text = anstream::adapter::strip_str(&toml_of(&view)).to_string();
        insta::assert_snapshot!(text);
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["policy"]["jobs_per_worker"].as_integer(), Some(2));
    }
}
