//! Each file says at its top what it is for, and comments are no wider than 125 columns. rustfmt does not check either.

use std::{fs, path::Path};

use super::source::files;

/// The folders with Rust of ours.
const FOLDERS: [&str; 6] = ["src", "crates", "tests", "benches", "examples", "fuzz"];

/// The widest line of a comment, in characters.
const WIDTH: usize = 125;

/// Every file of Rust with its text.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = FOLDERS.into_iter().flat_map(files);
    // `fuzz` is a workspace of its own, with its own folder of build outputs.
    let files = files.filter(|file| !file.iter().any(|part| part == "target"));
    let sources: Vec<_> = files
        .map(|file| {
            let text = fs::read_to_string(root.join(&file)).expect("a source file");
            (file.display().to_string(), text)
        })
        .collect();
    assert!(sources.len() > 500, "only {} files", sources.len());
    sources
}

/// Whether the first line says what the file is for.
fn has_purpose(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    first
        .strip_prefix("//! ")
        .is_some_and(|purpose| !purpose.trim().is_empty())
}

/// The numbers of the lines whose comment goes beyond the width.
fn wide_lines(text: &str) -> Vec<usize> {
    let lines = text.lines().zip(1..);
    let wide = lines.filter(|(line, _)| {
        let has_comment = line.trim_start().starts_with("//") || line.contains(" // ");
        has_comment && line.chars().count() > WIDTH
    });
    wide.map(|(_, number)| number).collect()
}

#[test]
fn every_file_says_on_its_first_line_what_it_is_for() {
    let sources = sources().into_iter();
    let without: Vec<_> = sources
        .filter(|(_, text)| !has_purpose(text))
        .map(|(file, _)| file)
        .collect();
    assert!(
        without.is_empty(),
        "write `//! ` and a purpose: {without:#?}"
    );
}

#[test]
fn no_comment_is_wider_than_125_columns() {
    let mut wide = Vec::new();
    for (file, text) in sources() {
        wide.extend(
            wide_lines(&text)
                .iter()
                .map(|line| format!("{file}:{line}")),
        );
    }
    assert!(
        wide.is_empty(),
        "wrap the comments at {WIDTH} columns: {wide:#?}"
    );
}

#[test]
fn a_purpose_is_a_text_and_width_is_in_characters() {
    assert!(has_purpose("//! Runs.\n"));
    for without in [
        "",
        "\n//! Runs.\n",
        "//!\n//! Runs.\n",
        "// Runs.\n",
        "use a;\n",
    ] {
        assert!(!has_purpose(without), "{without:?}");
    }
    let wide = |comment: &str, width: usize| format!("{comment}{}", "µ".repeat(width));
    let text = [
        wide("//! ", 121),
        wide("//! ", 122),
        wide("    /// ", 118),
        wide("call(); // ", 115),
        // A text in code is left to rustfmt.
        wide("let text = \"http://", 200),
    ];
    assert_eq!(wide_lines(&text.join("\n")), [2, 3, 4]);
}
