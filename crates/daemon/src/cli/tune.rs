//! `tidegate tune`: the cheapest setting of a pool's own policy that holds a target.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use super::{
    args::{Cli, Format, simulate::TuneArgs},
    table::{Cell, Layout, cell},
    traffic,
};
use crate::{
    lab::{self, table},
    output::{self, CommandFailure, Exit},
};
use tidegate::{
    config::{Origin, PolicyKey, PoolSettings, policy_keys, policy_toml},
    escape::Escaped,
    text::counted,
};
use tidegate_sim::{Contender, PoolModel, Report, Tuned, Tuning, Workload, tune as search};

/// The result, for programs.
#[derive(Debug, Serialize)]
struct Found<'t> {
    target_s: f64,
    /// Whether the setting holds the target on both parts.
    holds: bool,
    /// The keys of `policy` and `scaling` with their values as TOML.
    keys: BTreeMap<&'t str, &'t str>,
    /// The same as a text for a configuration.
    toml: &'t str,
    /// The target less the 95th percentile of the waits on the rest of the recording. Negative if it is not held there.
    margin_s: f64,
    best: Parts<'t>,
    present: Parts<'t>,
    /// Runs that were made.
    tried: usize,
}

/// A setting on the two parts of the recording.
#[derive(Debug, Serialize)]
struct Parts<'t> {
    chosen_on: &'t Report,
    checked_on: &'t Report,
}

impl<'t> Parts<'t> {
    fn of([chosen_on, checked_on]: &'t [Report; 2]) -> Self {
        Self {
            chosen_on,
            checked_on,
        }
    }
}

pub(super) fn tune(cli: &Cli, args: &TuneArgs) -> Result<Exit, CommandFailure> {
    let workload = args.traffic.workload()?;
    let pool = traffic::pool(cli, args.source.as_deref())?;
    let present = traffic::model(pool.settings.name.to_string(), &pool);
    let tuning = Tuning { first: args.first };
    let tuned = search(&workload, &present, tuning, &mut run_all);
    let keys = keys(&pool.settings, &tuned.best);
    let toml = policy_toml(&keys);
    let target = workload.target.as_secs_f64();
    let found = Found {
        target_s: target,
        holds: tuned.holds(workload.target),
        keys: keys
            .iter()
            .map(|key| (key.key.as_str(), key.value.as_str()))
            .collect(),
        toml: &toml,
        margin_s: target - tuned.best_runs[1].wait_s.p95,
        best: Parts::of(&tuned.best_runs),
        present: Parts::of(&tuned.present_runs),
        tried: tuned.tried,
    };
    match cli.format {
        Format::Json => output::json(&found)?,
        Format::Human => output::write(text(&found, &tuned).as_bytes())?,
    }
    Ok(Exit::Ok)
}

fn run_all(workload: &Workload, models: &[PoolModel]) -> Vec<Report> {
    let contenders: Vec<Contender> = models
        .iter()
        .map(|model| Contender::Pool(Box::new(model.clone())))
        .collect();
    let runs = lab::compare(workload, &contenders);
    runs.into_iter().map(|run| run.report).collect()
}

/// The keys of the pool with the setting that was found. Those whose value is another one than the pool's are marked.
fn keys(pool: &PoolSettings, best: &PoolModel) -> Vec<PolicyKey> {
    let settings = PoolSettings {
        policy: best.rules.policy.clone(),
        scaling: best.rules.scaling,
        ..pool.clone()
    };
    let present = policy_keys(pool, None);
    let is_present = |key: &PolicyKey| {
        let mut present = present.iter();
        present.any(|known| known.key == key.key && known.value == key.value)
    };
    let mut keys = policy_keys(&settings, None);
    for key in keys.iter_mut().filter(|key| !is_present(key)) {
        key.origin = Origin::Tuned;
    }
    keys
}

fn text(found: &Found<'_>, tuned: &Tuned) -> String {
    let parts = [
        ("present, chosen on", &tuned.present_runs[0]),
        ("present, checked on", &tuned.present_runs[1]),
        ("best, chosen on", &tuned.best_runs[0]),
        ("best, checked on", &tuned.best_runs[1]),
    ];
    let rows: Vec<Vec<Cell>> = parts
        .iter()
        .map(|(name, report)| {
            let mut row = table::row(report);
            row[0] = (*name).to_owned();
            row.map(|text| cell(Escaped(&text))).into()
        })
        .collect();
    let layout = Layout::new(&table::COLUMNS, |column| column == 0, &rows);
    let mut text = String::new();
    layout.head(&mut text);
    for row in &rows {
        layout.line(&mut text, row);
    }
    let target = table::seconds(found.target_s);
    let judged = match (found.holds, found.margin_s) {
        (true, margin) => format!(
            "this setting holds {target}: 95 of 100 jobs waited less, with {} to spare on the part that it was not chosen on",
            table::seconds(margin)
        ),
        (false, _) if tuned.best_runs[0].wait_s.p95 <= found.target_s => {
            format!(
                "this setting met the target {target} on the first part of the trace, but not on the rest"
            )
        }
        (false, _) => {
            format!("no setting within the pool's max holds {target}; this one comes closest")
        }
    };
    let _ = writeln!(
        text,
        "\n{judged} ({})\n\n{}",
        counted(found.tried, "run"),
        found.toml.trim_end()
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate::decide::Policy;

    #[test]
    fn only_what_it_chose_is_marked_as_its_choice() {
        let mut pool = PoolSettings::new("a");
        pool.policy = Policy::backlog(10).max(50);
        let found = traffic::FoundPool {
            settings: pool.clone(),
            max_workers: None,
        };
        let mut best = traffic::model("a".to_owned(), &found);
        best.rules.policy = Policy::backlog(2).max(50);
        let keys = keys(&pool, &best);
        let origin = |key: &str| keys.iter().find(|known| known.key == key).unwrap().origin;
        assert_eq!(origin("policy.jobs_per_worker"), Origin::Tuned);
        assert_ne!(origin("policy.max"), Origin::Tuned);
        let line = policy_toml(&keys);
        let line = line
            .lines()
            .find(|line| line.starts_with("jobs_per_worker"))
            .unwrap();
        assert!(line.ends_with("# chosen by tune"), "{line}");
    }
}
