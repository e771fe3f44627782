//! Environment variables that set keys.

use super::{POOL, given};
use crate::{
    config::{ExecSettings, RunnerSettings},
    decide::Policy,
};

#[test]
fn a_variable_wins_over_the_file_and_needs_no_quotes() {
    let text = "[pools.thumbnails]\nprefetch = 3\n[pools.thumbnails.runner]\ncommand = [\"a\"]\n";
    let settings = given(text)
        .variable("TIDEGATE_POOLS__THUMBNAILS__PREFETCH", "7")
        .variable("TIDEGATE_POOLS__THUMBNAILS__QUEUE", "123")
        .variable("TIDEGATE_POOLS__THUMBNAILS__PREEMPT", "true")
        .variable("TIDEGATE_POOLS__THUMBNAILS__DRAIN_AFTER", "never")
        .variable(
            "TIDEGATE_POOLS__THUMBNAILS__RUNNER__COMMAND",
            "[\"b\", \"c\"]",
        )
        .variable("TIDEGATE_POOLS__THUMBNAILS__POLICY__KIND", "steps")
        .variable("TIDEGATE_POOLS__THUMBNAILS__POLICY__STEPS", "[[1, 5]]")
        .variable("TIDEGATE__EVENTS_FILE", "/events")
        .loaded()
        .settings;
    let pool = &settings.pools[0].pool;
    assert_eq!(pool.prefetch, 7);
    assert_eq!(pool.queue.as_str(), "123");
    assert!(pool.preempt);
    assert_eq!(pool.policy, Policy::steps([(1, 5)]));
    assert_eq!(
        settings.pools[0].runner,
        RunnerSettings::from(ExecSettings::new(["b", "c"]))
    );
    assert_eq!(settings.events_file.as_deref(), Some("/events".as_ref()));
}

#[test]
fn a_variable_without_two_underscores_is_ignored() {
    given(POOL)
        .variable("TIDEGATE_POOL", "x")
        .variable("TIDEGATE_JOB_ID", "x")
        .variable("TIDEGATE_CONFIG", "x")
        .variable("OTHER__BROKER__URL", "x")
        .loaded();
}

#[test]
fn a_pools_name_matches_its_variable_in_any_case_and_with_underscores_for_hyphens() {
    let text = "[pools.My-Thumbs.runner]\ncommand = [\"a\"]\n";
    let settings = given(text)
        .variable("TIDEGATE_POOLS__MY_THUMBS__PREFETCH", "7")
        .loaded()
        .settings;
    assert_eq!(settings.pools.len(), 1);
    assert_eq!(settings.pools[0].pool.prefetch, 7);
}

#[test]
fn a_variable_that_fits_two_pools_is_refused() {
    let text = "pools.a-b.runner.command = [\"a\"]\npools.a_b.runner.command = [\"b\"]\n";
    let lines = given(text)
        .variable("TIDEGATE_POOLS__A_B__PREFETCH", "7")
        .lines();
    assert_eq!(
        lines,
        [
            "TIDEGATE_POOLS__A_B__PREFETCH: pools.a_b: found a name that fits a-b and a_b, set it in the file, or rename one of them"
        ]
    );
}

#[test]
fn variables_alone_can_make_a_pool() {
    let settings = given("")
        .variable("TIDEGATE_POOLS__THUMBS__RUNNER__COMMAND", "[\"a\"]")
        .variable("TIDEGATE_POOLS__THUMBS__RUNNER__ENV__Size", "256")
        .loaded()
        .settings;
    assert_eq!(settings.pools[0].pool.name.as_str(), "thumbs");
    let mut exec = ExecSettings::new(["a"]);
    exec.env.insert("Size".to_owned(), "256".to_owned());
    assert_eq!(settings.pools[0].runner, RunnerSettings::from(exec));
}

#[test]
fn a_problem_of_a_variable_names_the_variable() {
    let lines = given(POOL)
        .variable("TIDEGATE_POOLS__THUMBNAILS__PREFETCH", "many")
        .variable("TIDEGATE_POOLS__THUMBNAILS__PREFECH", "1")
        .variable("TIDEGATE_POOLS__THUMBNAILS__POLICY__MAX__MORE", "1")
        .variable("TIDEGATE_POOLS__THUMBNAILS__POLICY", "backlog")
        .variable("TIDEGATE_POOLS__OTHER__PREFETCH", "1")
        .variable("TIDEGATE_ZZZ__YYY", "1")
        .variable("TIDEGATE_POOLS____PREFETCH", "1")
        .lines();
    insta::assert_snapshot!(lines.join("\n"));
}
