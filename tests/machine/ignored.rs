//! Ignored tests are reported, and no test is left out silently.

use std::{env, fs, os::unix::fs::symlink, path::Path, process::Command};

use tempfile::TempDir;

use crate::needs::Need;

trials! {
    plain(Need::Nothing): [
        a_test_whose_needs_are_missing_is_reported_as_ignored_with_the_reason,
        a_test_that_matches_one_of_several_filters_runs,
        no_test_of_this_binary_has_the_test_attribute,
        no_test_ends_early_and_passes,
    ],
}

/// The output of this binary for these tests if PATH contains only a shell.
fn without_tools(filters: &[&str]) -> String {
    let bin = TempDir::new().unwrap();
    symlink("/bin/sh", bin.path().join("sh")).unwrap();
    let run = Command::new(env::current_exe().unwrap())
        .args(filters)
        .env("PATH", bin.path())
        .env_remove("TIDEGATE_TEST_ENGINE")
        .output()
        .unwrap();
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{said}");
    said
}

fn a_test_whose_needs_are_missing_is_reported_as_ignored_with_the_reason() {
    let said = without_tools(&["container_runner::pools"]);
    assert!(said.contains("0 passed; 0 failed; 4 ignored;"), "{said}");
    assert!(said.contains("install busybox-static"), "{said}");
    let said = without_tools(&["shims::php"]);
    assert!(said.contains("0 passed; 0 failed; 1 ignored;"), "{said}");
    assert!(said.contains("no php on the path"), "{said}");
}

fn a_test_that_matches_one_of_several_filters_runs() {
    let said = without_tools(&["shims::php", "--test-threads", "1", "shims::ruby"]);
    assert!(said.contains("0 passed; 0 failed; 2 ignored;"), "{said}");
}

fn sources(folder: &str, look: &mut dyn FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(path.to_str().unwrap(), look);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}

/// In a binary without libtest, the compiler drops functions with this attribute.
fn no_test_of_this_binary_has_the_test_attribute() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/machine");
    sources(folder, &mut |path, text| {
        let has = |line: &str| {
            ["#[test]", "#[tokio::test"]
                .iter()
                .any(|word| line.trim().starts_with(word))
        };
        assert!(!text.lines().any(has), "{}: use `trials!`", path.display());
    });
}

/// A test that cannot run must have a need in this binary.
fn no_test_ends_early_and_passes() {
    let word = ["skip", "ped:"].concat();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests");
    sources(folder, &mut |path, text| {
        assert!(!text.to_lowercase().contains(&word), "{}", path.display());
    });
}
