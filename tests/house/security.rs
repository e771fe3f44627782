//! SECURITY.md makes no claim that no test shows.

use std::{fs, path::Path};

/// The files and tests that a line names: `path/of/a/file.rs::name_of_a_test`.
fn named_tests(line: &str) -> Vec<(&str, &str)> {
    // Every second part is between backticks.
    let quoted = line.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|text| text.split_once("::"))
        .filter(|(file, _)| file.contains('/'))
        .collect()
}

/// Whether a file of Rust or JavaScript has a test of this name.
fn has_test(file: &str, name: &str) -> bool {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(path).unwrap_or_default();
    text.contains(&format!("fn {name}(")) || text.contains(&format!("test(\"{name}\""))
}

#[test]
fn each_claim_of_security_md_names_tests_that_exist() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("SECURITY.md");
    let text = fs::read_to_string(path).expect("SECURITY.md");
    let mut wrong = Vec::new();
    let mut claims = 0;
    let mut is_table_of_claims = false;
    for line in text.lines() {
        if !line.starts_with('|') {
            is_table_of_claims = false;
        } else if line.starts_with("| claim |") {
            is_table_of_claims = true;
        } else if is_table_of_claims && !line.starts_with("| ---") {
            let tests = named_tests(line);
            claims += 1;
            if tests.is_empty() {
                wrong.push(line.to_owned());
            }
            let missing = tests
                .into_iter()
                .filter(|(file, name)| !has_test(file, name));
            wrong.extend(missing.map(|(file, name)| format!("{file}::{name}")));
        }
    }
    assert!(claims > 20, "only {claims} claims were found");
    assert!(wrong.is_empty(), "no test shows: {wrong:#?}");
}

#[test]
fn a_test_is_named_by_its_file_and_its_name() {
    let line = "| `user-id` is kept aside | `tests/a.rs::first`, `src/b.rs::second` |";
    let named = [("tests/a.rs", "first"), ("src/b.rs", "second")];
    assert_eq!(named_tests(line), named);
    assert!(!has_test("SECURITY.md", "first"));
}
