//! The goal of `target_wait`: it holds its target, costs less than every neighbour that holds it too, and starts and stops
//! fewer workers than Horizon does.
//!
//! The tables of docs/policies.md are the list of what is reached and what is not: a bold number is not. The rows are
//! computed again here against Horizon and the neighbour that the row names, which is the cheapest that the example `goal`
//! found. So a test fails if the goal is not reached where the tables say that it is, and also if it is reached where they
//! say that it is not. Rows of traces that are longer than two days or have most jobs take minutes, so only the example
//! computes them.

#![allow(clippy::disallowed_methods, reason = "it reads a trace from a file")]

#[allow(dead_code, reason = "the example `goal` uses the rest")]
mod ugly;

use std::{collections::BTreeMap, fs, time::Duration};

use tidegate_core::{decide::DrainAfter, trace::Trace};

use ugly::{
    Ugly,
    contest::{Contest, Missed, SERVICES},
};

fn docs() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/policies.md");
    fs::read_to_string(path).expect("docs/policies.md")
}

/// A row of a table.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    /// 95th percentile, worker-seconds, those of the cheapest neighbour, starts and stops, those of Horizon.
    numbers: [f64; 5],
    cheapest: String,
    missed: Missed,
}

impl Row {
    fn read(line: &str) -> (String, Self) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [trace, p95, ours, cheapest, churn, horizon] = cells[..] else {
            panic!("{line:?} has {} cells", cells.len());
        };
        let number = |text: &str| {
            let digits = text.replace([',', '*', 's', ' '], "");
            digits.parse::<f64>().unwrap_or_else(|_| panic!("{text:?}"))
        };
        let (name, its) = match cheapest.rsplit_once(':') {
            Some((name, its)) => (name.to_owned(), number(its)),
            None => (cheapest.to_owned(), 0.0),
        };
        let is_bold = |text: &str| text.starts_with("**");
        let row = Self {
            numbers: [
                number(p95),
                number(ours),
                its,
                number(churn),
                number(horizon),
            ],
            cheapest: name,
            missed: Missed {
                target: is_bold(p95),
                cost: is_bold(ours),
                churn: is_bold(churn),
            },
        };
        (trace.to_owned(), row)
    }
}

/// The rows of the tables, in the order of [`SERVICES`].
fn tables(docs: &str) -> Vec<Vec<(String, Row)>> {
    let mut tables = Vec::new();
    let mut lines = docs.lines();
    while lines.any(|line| line == ugly::HEAD) {
        let rows = lines
            .by_ref()
            .skip(1)
            .take_while(|line| line.starts_with('|'));
        tables.push(rows.map(Row::read).collect());
    }
    tables
}

#[test]
fn the_tables_of_the_docs_have_every_trace_with_both_service_times() {
    let docs = docs();
    let tables = tables(&docs);
    assert_eq!(tables.len(), SERVICES.len());
    let names: Vec<&str> = ugly::all().iter().map(|(name, _)| *name).collect();
    for (table, service) in tables.iter().zip(SERVICES) {
        let found: Vec<&str> = table.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(found, names);
        assert!(docs.contains(&format!("`{service}`")), "{service}");
    }
}

/// With its name, a picture and a command.
#[test]
fn the_docs_explain_every_trace_on_which_the_goal_is_not_reached() {
    let docs = docs();
    let why = docs
        .split_once("**Where it does not reach it.**")
        .expect("the section")
        .1;
    for (name, row) in tables(&docs).into_iter().flatten() {
        if row.missed != Missed::default() {
            assert!(
                why.contains(&format!("`{name}`")),
                "{name} is not explained"
            );
        }
        assert!(!row.missed.target, "{name}: the target is always held");
    }
}

/// The traces that take little time in a test: at most two days.
fn short(traces: Vec<Ugly>) -> Vec<Ugly> {
    let longest = Duration::from_secs(2 * 86_400);
    let is_short = |text: &str| Trace::parse(text).expect("a trace").length() <= longest;
    let traces = traces.into_iter();
    traces.filter(|(_, text)| is_short(text)).collect()
}

/// Computes the rows of these traces with one of the service times again.
fn hold(traces: Vec<Ugly>, service: usize) {
    let table: BTreeMap<String, Row> = tables(&docs()).swap_remove(service).into_iter().collect();
    let service = SERVICES[service];
    let mut wrong = Vec::new();
    for (name, text) in traces {
        let row = table
            .get(name)
            .unwrap_or_else(|| panic!("no row of {name}"));
        let outcome = Contest::new(&text, service, 1, None).against(&row.cheapest);
        let found = outcome.row(name);
        let again = Row::read(&found).1;
        // The last digit of a logarithm may depend on the machine.
        let is_close = |(one, other): (&f64, &f64)| (one - other).abs() <= 0.02 * other + 0.1;
        let is_same = again.numbers.iter().zip(&row.numbers).all(is_close);
        if again.missed != row.missed || !is_same {
            wrong.push(format!("{found}\n  and not {row:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "with {service}:\n{}\nthe example `goal` prints the tables with --table",
        wrong.join("\n")
    );
}

/// The numbers of the docs about the choice between cost and churn: the trace and the ceiling of `examples/traces`.
#[test]
fn where_jobs_are_rare_draining_later_costs_more_and_starts_fewer_workers() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/traces/rare.csv"
    );
    let text = fs::read_to_string(path).expect("the trace");
    let contest = Contest::new(&text, SERVICES[0], 1, Some(60));
    let ten_minutes = DrainAfter::After(Duration::from_secs(600));
    let docs = docs().split_whitespace().collect::<Vec<_>>().join(" ");
    for (report, numbers) in [
        (contest.target_wait(None), "2,935 worker-seconds with 571"),
        (contest.target_wait(Some(ten_minutes)), "69,125 with 57"),
        (contest.neighbour("horizon"), "80,494 with 123"),
        (contest.neighbour("knative:5"), "21,799 with 397"),
    ] {
        let found = [report.worker_seconds.round(), report.churn() as f64];
        let shown: Vec<f64> = numbers
            .replace(',', "")
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        assert_eq!(shown, found, "{}", report.name);
        assert!(docs.contains(numbers), "{numbers}");
    }
}

#[test]
fn the_rows_of_a_day_hold() {
    hold(vec![ugly::day()], 0);
    hold(vec![ugly::day()], 1);
}

#[test]
fn the_rows_of_cheap_traces_hold_with_exponential_jobs() {
    hold(ugly::cheap(), 0);
}

#[test]
fn the_rows_of_cheap_traces_hold_with_a_heavy_tail() {
    hold(ugly::cheap(), 1);
}

#[test]
fn the_rows_of_short_sparse_traces_hold_with_exponential_jobs() {
    hold(short(ugly::sparse()), 0);
}

#[test]
fn the_rows_of_short_sparse_traces_hold_with_a_heavy_tail() {
    hold(short(ugly::sparse()), 1);
}
