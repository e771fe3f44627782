//! Durations of zero, and longer than any clock.

use std::collections::BTreeSet;

use super::{given, pool_lines};
use crate::config::{Described, described, variable_of};

/// Every duration of the configuration, with those that may be zero and why.
#[test]
fn a_duration_of_zero_is_refused_except_where_it_means_at_once() {
    let may_be_zero = [
        // All workers drain as soon as the queue is empty.
        "pools.thumbnails.drain_after",
        // A drain gives running jobs back at once.
        "pools.thumbnails.shutdown_grace",
        // The last recommendation alone counts.
        "pools.thumbnails.scaling.down_window",
        // KILL follows TERM at once.
        "pools.thumbnails.runner.kill_grace",
        // The same for a container.
        "pools.thumbnails.runner.stop_timeout container",
    ];
    let kinds = ["exec", "warm", "container", "consumer"];
    let mut accepted = BTreeSet::new();
    let mut durations = BTreeSet::new();
    for described in described() {
        let Described::Key(key) = described else {
            continue;
        };
        if !key.wants.contains("a duration") {
            continue;
        }
        let path = format!("{}.{}", key.table, key.name);
        for kind in kinds {
            let image = if kind == "container" {
                "image = \"busybox\"\n"
            } else {
                ""
            };
            let file = format!(
                "[pools.thumbnails.runner]\nkind = \"{kind}\"\ncommand = [\"true\"]\n{image}"
            );
            let given = given(&file).variable(&variable_of(&path), "0s");
            let problems = match given.parse() {
                Ok(_) => String::new(),
                Err(problems) => problems.to_string(),
            };
            if !problems.contains(&format!("{path}: ")) {
                accepted.insert(match key.name {
                    "stop_timeout" => format!("{path} {kind}"),
                    _ => path.clone(),
                });
            }
        }
        durations.insert(path);
    }
    assert!(durations.len() > 15, "{durations:#?}");
    assert_eq!(accepted, may_be_zero.map(str::to_owned).into());
}

#[test]
fn a_target_of_zero_is_refused_in_a_clear_sentence() {
    assert_eq!(
        pool_lines("policy = { kind = \"target_wait\", target = \"0s\" }"),
        [
            "tidegate.toml:2:43: pools.thumbnails.policy.target: found \"0s\", write a duration from \"1s\" to \"28d\""
        ]
    );
}

#[test]
fn a_duration_beyond_all_clocks_is_refused_like_any_other() {
    // The second overflows the parser's own arithmetic.
    for text in ["99999999y", "18446744073709551615s 1000000000ns"] {
        let lines = pool_lines(&format!("drain_after = \"{text}\""));
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("write a duration"), "{lines:?}");
    }
}
