//! The pure crates use no clocks, files, sockets, threads, processes and environment. The compiler does not check that, so
//! clippy has lists of what they may not call. `cargo clippy` reports a use. This file checks that the lists are complete.

use std::{collections::BTreeMap, fs, path::Path};

/// The forbidden paths of a crate, each with its reason, by the list that they are in.
fn forbidden(crate_: &str) -> BTreeMap<String, Vec<(String, String)>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(crate_);
    let text = fs::read_to_string(path.join("clippy.toml")).expect("the crate has a clippy.toml");
    let lists: toml::Table = text.parse().expect("it is TOML");
    let lists = lists.into_iter().filter_map(|(name, list)| {
        name.starts_with("disallowed-").then_some(())?;
        let entries = list.as_array()?.iter().map(|entry| {
            let text = |key: &str| entry[key].as_str().expect("a text").to_owned();
            (text("path"), text("reason"))
        });
        Some((name, entries.collect()))
    });
    lists.collect()
}

#[test]
fn the_core_and_the_simulator_are_forbidden_the_same() {
    let core = forbidden("crates/core");
    assert_eq!(core, forbidden("crates/sim"));
    let paths = core.values().flatten().map(|(path, _)| path.as_str());
    let paths: Vec<_> = paths.collect();
    // One of each family: a list that was emptied would forbid nothing.
    for path in [
        "std::time::Instant::now",
        "std::time::SystemTime::now",
        "jiff::Timestamp::now",
        "jiff::ZonedDateTime::now",
        "std::env::var",
        "std::env::args",
        "std::fs::read_to_string",
        "std::fs::write",
        "std::fs::File",
        "std::fs::OpenOptions",
        "std::path::Path::exists",
        "std::io::stdin",
        "std::println",
        "std::net::TcpListener",
        "std::net::UdpSocket",
        "std::os::unix::net::UnixStream",
        "std::thread::spawn",
        "std::thread::sleep",
        "std::process::Command",
        "std::hash::RandomState",
    ] {
        assert!(paths.contains(&path), "{path} is not forbidden");
    }
}

/// The pure crates are pure in tests too, apart from tests that read a file or ask how far a clock reaches.
#[test]
fn only_programs_and_tests_are_excepted_and_each_says_why() {
    for crate_ in ["crates/core", "crates/sim"] {
        for file in super::source::files(crate_) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file);
            let text = fs::read_to_string(path).expect("a source file");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let is_outside =
                !file.starts_with(format!("{crate_}/src")) || file.ends_with("tests.rs");
            let names = code.matches("clippy::disallowed_").count();
            assert!(is_outside || names == 0, "{} is excepted", file.display());
            assert!(
                names == 0 || text.contains("reason = "),
                "{} does not say why it is excepted",
                file.display()
            );
        }
    }
}
