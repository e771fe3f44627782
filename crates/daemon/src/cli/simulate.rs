//! `tidegate simulate`: policies on traffic, in virtual time.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

use serde::Serialize;

use super::{
    args::{Cli, Format, simulate::SimulateArgs},
    table::{Cell, Layout, cell},
    traffic,
};
use crate::{
    chart,
    lab::{self, course::RunCourse, table},
    output::{self, CommandFailure, Exit},
};
use tidegate::{decide::Decision, escape::Escaped, text::noun_for};
use tidegate_sim::{Contender, Report, SimulatedRun, Workload, simulate as run};

/// The form of the contract.
#[derive(Debug, Serialize)]
struct Runs<'r> {
    runs: Vec<RunOf<'r>>,
}

#[derive(Debug, Serialize)]
struct RunOf<'r> {
    #[serde(flatten)]
    report: &'r Report,
    /// The supervisor's limit, if it has one: the pool had all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_workers: Option<u32>,
}

/// A line of the file of decisions.
#[derive(Debug, Serialize)]
struct DecisionLine<'d> {
    run: &'d str,
    decision: &'d Decision,
}

pub(super) fn simulate(cli: &Cli, args: &SimulateArgs) -> Result<Exit, CommandFailure> {
    let workload = args.traffic.workload()?;
    let contenders = contenders(cli, args)?;
    let runs = match &args.decisions {
        Some(file) => with_decisions(file, &workload, &contenders).map_err(|error| {
            let error = anyhow::Error::new(error).context(format!("write {}", file.display()));
            CommandFailure::new(Exit::Unexpected, error)
        })?,
        None => lab::compare(&workload, &contenders),
    };
    let title = title(args, &runs);
    if let Some(file) = &args.plot {
        let courses: Vec<RunCourse> = runs.iter().map(RunCourse::of).collect();
        let target = workload.target.as_secs_f64();
        let picture = lab::chart::chart(&title, &courses, Some(target));
        chart::draw(file, &picture).map_err(|error| {
            let error = anyhow::Error::new(error).context(format!("draw {}", file.display()));
            CommandFailure::new(Exit::Unexpected, error)
        })?;
        output::tell_of_plot(file);
    }
    match cli.format {
        Format::Json => {
            let runs = runs.iter().zip(&contenders);
            let runs = runs.map(|(run, contender)| RunOf {
                report: &run.report,
                max_workers: max_workers(contender),
            });
            output::json(&Runs {
                runs: runs.collect(),
            })?;
        }
        Format::Human => output::write(text(&title, &runs, &contenders).as_bytes())?,
    }
    Ok(Exit::Ok)
}

fn contenders(cli: &Cli, args: &SimulateArgs) -> Result<Vec<Contender>, CommandFailure> {
    let named = args.sources.iter().map(|text| Some(text.as_str()));
    let texts: Vec<Option<&str>> = match args.sources.is_empty() {
        true => vec![None],
        false => named.collect(),
    };
    let mut contenders = Vec::new();
    let mut first = None;
    for text in texts {
        let found = traffic::pool(cli, text)?;
        let pool = &found.settings;
        let name = text.map_or_else(|| pool.name.to_string(), str::to_owned);
        contenders.push(Contender::Pool(Box::new(traffic::model(name, &found))));
        first.get_or_insert((pool.policy.max, pool.retry.clone()));
    }
    if let Some((max, retry)) = first {
        contenders.extend(args.against.iter().map(|model| Contender::Neighbour {
            model: *model,
            max,
            retry: retry.clone(),
        }));
    }
    Ok(contenders)
}

/// Runs one after the other, so that the decisions of each are together.
fn with_decisions(
    file: &Path,
    workload: &Workload,
    contenders: &[Contender],
) -> std::io::Result<Vec<SimulatedRun>> {
    let mut out = BufWriter::new(File::create(file)?);
    let mut runs = Vec::new();
    for contender in contenders {
        let name = contender.name();
        let mut written = Ok(());
        let mut last = None;
        runs.push(run(workload, contender, &mut |_, _, decision| {
            let is_new = last != Some((decision.rule, decision.expected));
            last = Some((decision.rule, decision.expected));
            if written.is_ok() && (is_new || decision.plan != Default::default()) {
                let line = DecisionLine {
                    run: &name,
                    decision,
                };
                written = serde_json::to_writer(&mut out, &line)
                    .map_err(std::io::Error::from)
                    .and_then(|()| out.write_all(b"\n"));
            }
        }));
        written?;
    }
    out.flush()?;
    Ok(runs)
}

fn title(args: &SimulateArgs, runs: &[SimulatedRun]) -> String {
    let jobs = runs.first().map_or(0, |run| run.report.jobs);
    let traffic = &args.traffic;
    format!(
        "{}: {} {} of {}, start-up {}, target {}, seed {}",
        traffic.trace.display(),
        table::thousands(jobs),
        noun_for(jobs, "job"),
        traffic.service,
        tidegate::text::duration(traffic.start_up),
        tidegate::text::duration(traffic.target),
        traffic.seed
    )
}

/// The limit of the supervisor that a pool has in its run.
fn max_workers(contender: &Contender) -> Option<u32> {
    match contender {
        Contender::Pool(model) => model.max_workers,
        Contender::Neighbour { .. } => None,
    }
}

fn text(title: &str, runs: &[SimulatedRun], contenders: &[Contender]) -> String {
    let rows: Vec<Vec<Cell>> = runs
        .iter()
        .map(|run| {
            let row = table::row(&run.report).into_iter();
            row.map(|text| cell(Escaped(&text))).collect()
        })
        .collect();
    let layout = Layout::new(&table::COLUMNS, |column| column == 0, &rows);
    let mut text = format!("{}\n\n", Escaped(title));
    layout.head(&mut text);
    for row in &rows {
        layout.line(&mut text, row);
    }
    let limits = contenders.iter().filter_map(|contender| {
        let workers = max_workers(contender)?;
        Some(format!(
            "{}: at most {} workers, all of [supervisor] max_workers: each pool is simulated alone",
            contender.name(),
            table::thousands(u64::from(workers))
        ))
    });
    let notes: Vec<String> = runs
        .iter()
        .flat_map(|run| table::notes(&run.report))
        .chain(limits)
        .collect();
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        text.push_str(&format!("{}\n", Escaped(&note)));
    }
    text
}
