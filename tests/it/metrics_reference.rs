//! The metrics page against the metrics of a live daemon.

use std::collections::BTreeSet;

use crate::support::{broker::broker_url, daemon::Daemon, queue::Queue};

/// The part of the page about each metric, by its name.
fn sections(page: &str) -> Vec<(&str, &str)> {
    let sections = page.split("\n## `").skip(1);
    sections
        .map(|section| section.split_once('`').expect("a name in backticks"))
        .collect()
}

/// The labels of a line: names and values.
fn labels(line: &str) -> Vec<(&str, &str)> {
    let Some((_, labels)) = line.split_once('{') else {
        return Vec::new();
    };
    let labels = labels.rsplit_once('}').expect("an end").0;
    labels
        .split(',')
        .map(|label| label.split_once('=').expect("name=value"))
        .map(|(name, value)| (name, value.trim_matches('"')))
        .collect()
}

/// Metrics whose first line comes with their first event: their labels are not known before it.
const LATE: [&str; 5] = [
    "tidegate_otlp_requests_total",
    "tidegate_runner_panics_total",
    "tidegate_runners_stopped_total",
    "tidegate_workers_stopped_total",
    "tidegate_steering_total",
];

#[test]
fn every_metric_of_a_daemon_is_on_the_page_and_the_page_has_no_other() {
    let page = include_str!("../../docs/metrics.md");
    let sections = sections(page);
    let queue = Queue::new();
    let pools = format!(
        "[pools.work]\nqueue = \"{}\"\npoll_interval = \"50ms\"\ndrain_after = \"0s\"\n\
         [pools.work.runner]\ncommand = [\"/bin/true\"]\n",
        queue.name()
    );
    let daemon = Daemon::start_with(&broker_url(), "events_file = \"events.jsonl\"", &pools);
    queue.publish("job");
    daemon.wait_for_pool("work", |pool| {
        pool["jobs"]["done"] == 1 && pool["state"] == "idle"
    });
    assert_eq!(daemon.run(&["pause", "work"]).0, Some(0));
    let (_, metrics) = daemon.get("/metrics");
    let mut seen = BTreeSet::new();
    let mut section = "";
    for line in metrics.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            let found = sections.iter().find(|(known, _)| *known == name);
            section = found
                .unwrap_or_else(|| panic!("{name} is not on the page"))
                .1;
            assert!(
                section.contains(&format!("\n\nA {kind}")),
                "{name}: {section}"
            );
            seen.insert(name);
        }
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        for (label, value) in labels(line) {
            if ["le", "quantile"].contains(&label) {
                continue;
            }
            let values = section
                .lines()
                .find(|line| line.starts_with(&format!("- `{label}`: ")));
            let values = values.unwrap_or_else(|| panic!("{line}: no {label} in {section}"));
            let is_open = ["pool", "kind", "version"].contains(&label);
            assert!(
                is_open || values.contains(&format!("`{value}`")),
                "{line}: {values}"
            );
        }
    }
    for (name, _) in sections {
        assert!(
            seen.contains(name) || LATE.contains(&name),
            "{name} is not a metric of a daemon"
        );
    }
}
