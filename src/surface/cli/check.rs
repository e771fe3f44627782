//! `tidegate check`: everything that is wrong with a configuration, and with the broker for it.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::{
    args::{CheckArgs, Cli, Format},
    output::{self, Exit, Failure},
};
use crate::config::{self, Problem, Source};

const OK: Style = AnsiColor::Green.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();

/// What was found, as a program reads it.
#[derive(Debug, Default, Serialize)]
struct Report {
    file: String,
    ok: bool,
    pools: usize,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

pub(super) fn check(cli: &Cli, _args: &CheckArgs) -> Result<Exit, Failure> {
    let source = config::find(cli.config.as_deref()).map_err(output::no_configuration)?;
    let report = examine(&source);
    match cli.format {
        Format::Json => output::json(&report)?,
        Format::Human => output::write(text(&report).as_bytes())?,
    }
    match report.problems.len() {
        0 => Ok(Exit::Ok),
        count => Err(output::bad_configuration(&source, count)
            .hint("each line above says what to write instead")),
    }
}

fn examine(source: &Source) -> Report {
    let mut report = Report {
        file: source.file().display().to_string(),
        ..Report::default()
    };
    match config::load(source) {
        Err(problems) => report.problems = problems.into_vec(),
        Ok(loaded) => {
            report.problems = loaded.inspect_machine().into_vec();
            report.pools = loaded.settings.pools.len();
            report.warnings = loaded.warnings;
        }
    }
    report.ok = report.problems.is_empty();
    report
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        let _ = writeln!(text, "{problem}");
    }
    for warning in &report.warnings {
        let _ = writeln!(text, "{WARNING}warning:{WARNING:#} {warning}");
    }
    if report.ok {
        let (file, pools) = (&report.file, report.pools);
        let plural = if pools == 1 { "" } else { "s" };
        let _ = writeln!(text, "{file}: {OK}ok{OK:#}, {pools} pool{plural}");
    }
    text
}
