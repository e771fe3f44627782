//! No circular imports, and only the registry names a kind of runner.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use super::source::Crate;

type Edges<'c> = BTreeMap<&'c str, BTreeSet<&'c str>>;

/// Pairs of files that may name each other: two sides of one object.
const ONE_OBJECT: [(&str, &str); 2] = [
    // A document gives its tables, and a table reads from its document.
    (
        "src/config/schema/document.rs",
        "src/config/schema/table.rs",
    ),
    // A fleet lends its runners, and a borrowed runner returns to its fleet.
    ("src/run/fleet.rs", "src/run/fleet/borrowed.rs"),
];

/// The files that `from` leads to, by one import or more.
fn reachable<'c>(edges: &Edges<'c>, from: &str) -> BTreeSet<&'c str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = vec![from];
    while let Some(file) = open.pop() {
        for next in edges.get(file).into_iter().flatten() {
            if reached.insert(*next) {
                open.push(next);
            }
        }
    }
    reached
}

/// Files that lead back to themselves, each with those that it goes through.
fn circles(edges: &Edges<'_>) -> Vec<String> {
    let mut inside: Edges<'_> = edges.clone();
    for (file, named) in &mut inside {
        named.retain(|other| {
            let is_pair =
                |pair: &(&str, &str)| *pair == (*file, *other) || *pair == (*other, *file);
            !ONE_OBJECT.iter().any(is_pair)
        });
    }
    let mut circles = BTreeSet::new();
    for file in inside.keys() {
        let round: Vec<_> = reachable(&inside, file)
            .into_iter()
            .filter(|other| reachable(&inside, other).contains(file))
            .collect();
        let lines: Vec<_> = round
            .iter()
            .map(|file| {
                let named = inside[file].iter().filter(|other| round.contains(other));
                let named: Vec<_> = named.copied().collect();
                format!("{file} names {}", named.join(" and "))
            })
            .collect();
        if !lines.is_empty() {
            circles.insert(lines.join("; "));
        }
    }
    circles.into_iter().collect()
}

/// Each crate of the workspace that has source of its own.
const CRATES: [&str; 4] = [
    "src",
    "crates/core/src",
    "crates/daemon/src",
    "crates/sim/src",
];

#[test]
fn no_file_leads_back_to_itself_by_its_imports() {
    let found: Vec<_> = CRATES
        .into_iter()
        .flat_map(|source| circles(&Crate::read(source).edges()))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn pairs_of_modules_that_may_import_each_other_do() {
    let library = Crate::read("src");
    let edges = library.edges();
    for (one, other) in ONE_OBJECT {
        assert!(
            edges[one].contains(other) && edges[other].contains(one),
            "{one} and {other} no longer do"
        );
    }
}

/// The kinds of runner: folders with an entry for the registry.
fn kinds() -> Vec<String> {
    let runners = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/runners");
    let folders = fs::read_dir(runners).expect("the folder of kinds");
    let kinds = folders.filter_map(|folder| {
        let folder = folder.expect("an entry");
        let name = folder.file_name().into_string().expect("a name");
        folder.path().join("kind.rs").is_file().then_some(name)
    });
    kinds.collect()
}

#[test]
fn only_the_registry_names_a_kind_of_runner() {
    let kinds = kinds();
    assert!(kinds.len() >= 3, "{kinds:?}");
    let library = Crate::read("src");
    let mut found = Vec::new();
    for kind in kinds {
        let folder = format!("src/runners/{kind}/");
        for (file, named) in library.edges() {
            // The crate's root offers to users what the registry does.
            let may =
                file.starts_with(&folder) || ["src/runners/mod.rs", "src/lib.rs"].contains(&file);
            let named = named.iter().filter(|other| other.starts_with(&folder));
            if !may {
                found.extend(named.map(|other| format!("{file} names {other}")));
            }
        }
        found.extend(named_in_the_daemon(&kind));
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Files of the daemon that name a kind's module in the library.
fn named_in_the_daemon(kind: &str) -> Vec<String> {
    let daemon = Crate::read("crates/daemon/src");
    let module = ["tidegate", "runners", kind];
    let named = daemon.foreign(&module);
    named.map(|file| format!("{file} names {kind}")).collect()
}

/// Tests the analysis on a crate of five files.
#[test]
fn an_import_is_followed_to_the_file_that_has_it() {
    let crate_ = Crate::of(&[
        (
            "lib.rs",
            "mod a; mod b; use b::X; pub(in crate::a) fn f() { a::deep::Deep; std::mem::take() }",
        ),
        (
            "a/mod.rs",
            "mod deep; pub use self::deep::{Deep as Renamed, Other}; pub struct Here;",
        ),
        (
            "a/deep.rs",
            "pub struct Deep; /* use crate::b::X; */ fn f() { \"crate::b::X\"; crate::b::f(); }",
        ),
        (
            "b.rs",
            "use super::a::{Renamed, self,}; mod tests { use crate::a::Other; }",
        ),
    ]);
    let edges = crate_.edges();
    assert_eq!(edges["lib.rs"], BTreeSet::from(["a/deep.rs", "b.rs"]));
    assert_eq!(edges["a/deep.rs"], BTreeSet::from(["b.rs"]));
    assert_eq!(edges["b.rs"], BTreeSet::from(["a/deep.rs", "a/mod.rs"]));
    assert_eq!(edges["a/mod.rs"], BTreeSet::new());
    assert_eq!(
        circles(&edges),
        ["a/deep.rs names b.rs; b.rs names a/deep.rs"]
    );
}
