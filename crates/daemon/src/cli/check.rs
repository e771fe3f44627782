//! `tidegate check`: all problems of a configuration, and of the broker for this configuration.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt::Write,
};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::{
    args::{CheckArgs, Cli, Format},
    broker::{self, BrokerReport},
    finding::Severity,
    runtime::block_on,
};
use crate::{
    output::{self, CommandFailure, Exit},
    reference,
    telemetry::{logs, otlp},
};
use tidegate::{
    config::{self, Loaded, Place, Problem, Source},
    decide::PoolName,
    escape::Escaped,
    text::counted,
};

const OK: Style = AnsiColor::Green.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const ERROR: Style = AnsiColor::Red.on_default().bold();
const NOTE: Style = Style::new().dimmed();

/// The findings, for a program.
#[derive(Debug, Default, Serialize)]
struct CheckReport {
    file: String,
    ok: bool,
    pools: usize,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// The result of the check of the broker, if it was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    broker: Option<BrokerReport>,
}

pub(super) fn check(cli: &Cli, args: &CheckArgs) -> Result<Exit, CommandFailure> {
    if args.reference {
        output::write(config::reference().as_bytes())?;
        return Ok(Exit::Ok);
    }
    if args.schema {
        output::write(reference::schema().as_bytes())?;
        return Ok(Exit::Ok);
    }
    let source = config::find(cli.config.as_deref()).map_err(output::no_configuration)?;
    let (mut report, loaded) = examine(&source);
    if let Some(loaded) = &loaded {
        report
            .problems
            .extend(block_on(silent_dependencies(loaded))?);
        report.ok = report.problems.is_empty();
    }
    // Without valid settings the broker's address is not known.
    let unreachable = match loaded {
        Some(loaded) if args.broker => match block_on(broker::look(&loaded.settings))? {
            Ok(seen) => {
                report.ok &= seen.count(Severity::Error) == 0;
                report
                    .warnings
                    .retain(|warning| !is_answered(warning, &seen.shown));
                report.broker = Some(seen);
                None
            }
            Err(failure) => {
                report.ok = false;
                Some(failure)
            }
        },
        _ => None,
    };
    match cli.format {
        Format::Json => output::json(&report)?,
        Format::Human => output::write(text(&report).as_bytes())?,
    }
    let found = report.broker.map_or(0, |seen| seen.count(Severity::Error));
    match (report.problems.len() + found, unreachable) {
        (0, None) => Ok(Exit::Ok),
        (0, Some(failure)) => Err(failure),
        (count, _) => {
            Err(output::bad_configuration(&source, count)
                .hint("each line above says what is wrong"))
        }
    }
}

fn examine(source: &Source) -> (CheckReport, Option<Loaded>) {
    let mut report = CheckReport {
        file: source.file().display().to_string(),
        ..CheckReport::default()
    };
    let examined = config::examine(source);
    report.problems = examined.problems.into_vec();
    report.warnings = examined.warnings.into_vec();
    report.problems.extend(bad_log_filter());
    report.ok = report.problems.is_empty();
    if let Some(loaded) = &examined.loaded {
        report.problems.extend(otlp::inspect(loaded));
        report.ok &= report.problems.is_empty();
        report.pools = loaded.settings.pools.len();
    }
    (report, examined.loaded)
}

/// A log filter that `run` would refuse.
fn bad_log_filter() -> Option<Problem> {
    let error = logs::inspect().err()?;
    let variable = error.variable()?;
    let place = Place::Variable {
        variable: variable.to_owned(),
    };
    let found = std::env::var(variable).unwrap_or_default();
    let fix = "write a level (error, warn, info, debug, trace), or pairs like tidegate=debug";
    Some(Problem::new(place, "", format!("{found:?}"), fix))
}

/// Services that jobs need and that do not answer, such as a container engine. Each is asked once.
async fn silent_dependencies(loaded: &Loaded) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut asked = BTreeMap::new();
    for config in &loaded.settings.pools {
        let Some(dependency) = config.runner.dependency() else {
            continue;
        };
        let which = (config.runner.kind(), dependency.name);
        let answer = match asked.entry(which) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(dependency.ask.await),
        };
        if let Err((found, fix)) = answer {
            let key = format!("pools.{}.runner.{}", config.pool.name, dependency.key);
            let place = loaded.place(&key);
            problems.push(Problem::new(place, key, found.clone(), *fix));
        }
    }
    problems
}

/// Whether the management API has already answered this warning's question: whether a queue has a dead-letter
/// exchange.
fn is_answered(warning: &Problem, shown: &[PoolName]) -> bool {
    let mut shown = shown.iter();
    shown.any(|pool| warning.key == format!("pools.{pool}.retry.dead_letter"))
}

fn text(report: &CheckReport) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        let _ = writeln!(text, "{}", Escaped(&problem.to_string()));
    }
    for warning in &report.warnings {
        let _ = writeln!(
            text,
            "{WARNING}warning:{WARNING:#} {}",
            Escaped(&warning.to_string())
        );
    }
    if let Some(broker) = &report.broker {
        let _ = writeln!(text, "{}", Escaped(&broker.summary()));
        for finding in &broker.findings {
            let style = match finding.severity {
                Severity::Ok => OK,
                Severity::Warning => WARNING,
                Severity::Error => ERROR,
                Severity::Unseen => NOTE,
            };
            let (word, what) = (finding.severity.as_str(), finding.to_string());
            let _ = writeln!(text, "  {style}{word}:{style:#} {}", Escaped(&what));
        }
    }
    if report.ok {
        let (file, pools) = (&report.file, report.pools);
        let _ = writeln!(text, "{file}: {OK}ok{OK:#}, {}", counted(pools, "pool"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_exchange_is_looked_for_until_it_was_seen() {
        let text = "[pools.a]\nretry.dead_letter = \"broker\"\nrunner.command = [\"a\"]\n\
                    [pools.b]\nqueue = \"a.dead\"\nrunner.command = [\"b\"]\n";
        let nothing = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        let around = config::Surroundings::default();
        let loaded = config::parse(text, "tidegate.toml", &[], &around, &nothing).unwrap();
        let [lost, derived] = loaded.warnings.as_slice() else {
            panic!("{:?}", loaded.warnings);
        };
        assert!(is_answered(lost, &["b".into(), "a".into()]));
        assert!(!is_answered(lost, &["b".into()]));
        assert!(!is_answered(derived, &["a".into(), "b".into()]));
    }
}
