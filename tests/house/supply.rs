//! The dependencies of tidegate: the licence and the source of each crate. Also: no `unsafe` code of our own.
//!
//! cargo-deny checks more (`deny.toml`), but it is a program of its own. These tests need only cargo.

use std::{fs, iter::Peekable, path::Path, str::SplitWhitespace};

use super::cargo_tree;

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A file of TOML, by its path from the workspace's root.
fn read(file: &str) -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(path).expect("the file is there");
    text.parse().expect("the file is TOML")
}

/// The texts of a list.
fn texts(list: &toml::Value) -> Vec<String> {
    let list = list.as_array().expect("a list");
    let texts = list.iter().map(|text| text.as_str().expect("a text"));
    texts.map(str::to_owned).collect()
}

/// Every crate that the programs and the library are built from on this machine: its licence, and its name. Crates that
/// only tests use are not shipped.
fn licences() -> Vec<(String, String)> {
    let text = cargo_tree(&[
        "--workspace",
        "--edges",
        "normal,build",
        "--format",
        "{l}\t{p}",
    ]);
    // Empty lines separate the crates of the workspace.
    text.lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(licence, name)| (licence.to_owned(), name.to_owned()))
        .collect()
}

type Words<'t> = Peekable<SplitWhitespace<'t>>;

/// Whether an SPDX expression can be met by these licences alone. Its old form has `/` in the place of `OR`.
fn is_met(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    any_is_met(&mut words, allowed) && words.next().is_none()
}

fn any_is_met(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut is_met = all_are_met(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        is_met |= all_are_met(words, allowed);
    }
    is_met
}

fn all_are_met(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut is_met = one_is_met(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        is_met &= one_is_met(words, allowed);
    }
    is_met
}

fn one_is_met(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let Some(word) = words.next() else {
        return false;
    };
    if word == "(" {
        let is_met = any_is_met(words, allowed);
        return words.next_if_eq(&")").is_some() && is_met;
    }
    let mut name = word.to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        name = format!("{word} WITH {}", words.next().unwrap_or_default());
    }
    allowed.contains(&name)
}

#[test]
fn every_crate_has_a_licence_that_is_allowed() {
    let allowed = texts(&read("deny.toml")["licenses"]["allow"]);
    let crates = licences();
    assert!(crates.len() > 100, "{crates:?}");
    let refused: Vec<_> = crates
        .iter()
        .filter(|(licence, _)| !is_met(licence, &allowed))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn a_licence_expression_is_met_only_by_allowed_licences() {
    let allowed = ["MIT", "ISC", "Apache-2.0"].map(str::to_owned);
    for (expression, is_allowed) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("ISC AND MIT", true),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("GPL-3.0 OR MIT AND GPL-2.0", false),
        ("Apache-2.0 WITH LLVM-exception", false),
        ("Apache-2.0 WITH LLVM-exception OR MIT", true),
        ("(MIT", false),
        ("MIT ISC", false),
        ("", false),
    ] {
        assert_eq!(is_met(expression, &allowed), is_allowed, "{expression}");
    }
}

#[test]
fn every_crate_comes_from_crates_io_with_its_checksum() {
    let lock = read("Cargo.lock");
    let packages = lock["package"].as_array().expect("a list of packages");
    let text = |package: &toml::Value, key: &str| {
        let value = package.get(key).and_then(toml::Value::as_str);
        value.map(str::to_owned)
    };
    let strangers: Vec<_> = packages
        .iter()
        // The crates of the workspace have no source.
        .filter(|package| match text(package, "source") {
            Some(source) => source != CRATES_IO || text(package, "checksum").is_none(),
            None => !text(package, "name").is_some_and(|name| name.starts_with("tidegate")),
        })
        .collect();
    assert!(strangers.is_empty(), "{strangers:#?}");
}

#[test]
fn every_crate_forbids_unsafe_code() {
    let root = read("Cargo.toml");
    let forbidden = root["workspace"]["lints"]["rust"]["unsafe_code"].as_str();
    assert_eq!(forbidden, Some("forbid"));
    let members = texts(&root["workspace"]["members"]);
    let files = members
        .into_iter()
        .map(|member| format!("{member}/Cargo.toml"))
        .chain(["Cargo.toml".to_owned()]);
    for file in files {
        let lints = read(&file).get("lints").cloned();
        let takes_them = lints.and_then(|lints| lints.get("workspace")?.as_bool());
        assert_eq!(takes_them, Some(true), "{file}");
    }
}
