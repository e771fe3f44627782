//! For any text in the file, nothing panics, and every mistake is reported.

use proptest::{prelude::*, sample::subsequence};

use super::given;
use crate::config::{Place, reference};

/// A good line of the reference page, and what breaks it in its own line.
const INJECTIONS: [(&str, &str); 16] = [
    ("prefetch = 1", "prefetch = 0"),
    ("declare = \"no\"", "declare = \"maybe\""),
    ("poll_interval = \"500ms\"", "poll_interval = 500"),
    ("drain_after = \"5s\"", "drain_after = \"soon\""),
    ("keep_warm = 0", "keep_warm = -1"),
    ("preempt = false", "preempt = \"no\""),
    ("shutdown_grace = \"30s\"", "shutdown-grace = \"30s\""),
    ("ack_deadline = \"30m\"", "ack_deadline = []"),
    ("jobs_per_worker = 10", "jobs_per_worker = 0"),
    ("up_step = 100", "up_step = 1.5"),
    ("down_step = 100", "down_stop = 100"),
    ("timeout = \"5m\"", "timeout = { minutes = 5 }"),
    ("env_pass = []", "env_pass = [3]"),
    ("max_attempts = 5", "max_attempts = 0"),
    ("dead_letter = \"queue\"", "dead_letter = \"bin\""),
    ("format = \"human\"", "format = = \"human\""),
];

proptest! {
    #[test]
    fn every_injected_problem_is_reported_at_its_line(
        injected in subsequence(INJECTIONS.to_vec(), 1..=INJECTIONS.len())
    ) {
        let page = reference();
        let mut lines: Vec<&str> = page.lines().collect();
        let mut expected = Vec::new();
        for (good, bad) in injected {
            let at = lines.iter().position(|line| *line == good).expect("a line of the page");
            lines[at] = bad;
            expected.push(at + 1);
        }
        let problems = given(&lines.join("\n")).problems();
        let reported: Vec<_> = problems
            .iter()
            .filter_map(|problem| match problem.place {
                Place::Line { line, .. } => Some(line),
                _ => None,
            })
            .collect();
        for line in &expected {
            prop_assert!(reported.contains(line), "line {line}:\n{problems}");
        }
        prop_assert!(reported.iter().all(|line| expected.contains(line)), "{problems}");
    }

    #[test]
    fn no_text_makes_it_panic(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..20, "\\PC{0,3}|[\"'\\[\\]{}=.,#\\n\\x00]{1,3}"), 1..8)
    ) {
        let mut text = reference();
        for (at, remove, insert) in cuts {
            let chars: Vec<char> = text.chars().collect();
            let start = at.index(chars.len() + 1);
            let end = (start + remove).min(chars.len());
            text = chars[..start].iter().copied().chain(insert.chars()).chain(chars[end..].iter().copied()).collect();
        }
        if let Err(problems) = given(&text).parse() {
            prop_assert!(!problems.is_empty());
            let _ = problems.to_string();
        }
    }

    #[test]
    fn no_duration_makes_it_panic(text in "[0-9]{0,25}(\\.[0-9]{1,20})?( ?[a-zA-Zµ]{0,6}[0-9]{0,20}){0,3}(s|ns|y|d)?") {
        let variable = given(super::POOL).variable("TIDEGATE_POOLS__THUMBNAILS__DRAIN_AFTER", &text);
        let _ = variable.parse();
    }

    #[test]
    fn no_variable_makes_it_panic(name in "[A-Z_a-z-]{0,20}", value in "\\PC{0,20}") {
        let _ = given(super::POOL)
            .variable(&format!("TIDEGATE_{name}"), &value)
            .variable(&format!("TIDEGATE_POOLS__{name}"), &value)
            .variable(&format!("TIDEGATE_POOLS__THUMBNAILS__{name}"), &value)
            .parse();
    }
}
