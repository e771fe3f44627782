//! Errors of the library are complete sentences: they begin with a subject, or with "failed to".
//!
//! An error of the program omits "failed to", which is printed once for a whole chain.

use std::{fs, path::Path};

use super::source::files;

/// The allowed beginnings of an error text. Texts that begin with a value are not checked.
const BEGINNINGS: [&str; 14] = [
    "failed to ",
    "a ",
    "an ",
    "its ",
    "no ",
    "our cgroup ",
    "signals ",
    "systemd ",
    "the ",
    "there is ",
    "this process ",
    "two pools ",
    "users and groups ",
    "{",
];

/// The texts in `#[error("...")]`.
fn texts(source: &str) -> Vec<&str> {
    let attributes = source.split("#[error(").skip(1);
    attributes
        .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
        .collect()
}

fn is_sentence(text: &str) -> bool {
    BEGINNINGS
        .iter()
        .any(|beginning| text.starts_with(beginning))
}

#[test]
fn errors_of_the_library_are_complete_sentences() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    let mut fragments = Vec::new();
    for source in ["src", "crates/core/src"] {
        for file in files(source) {
            if file.iter().any(|part| part == "tests") || file.ends_with("tests.rs") {
                continue;
            }
            let text = fs::read_to_string(root.join(&file)).expect("a source file");
            let texts = texts(&text);
            count += texts.len();
            let wrong = texts.into_iter().filter(|text| !is_sentence(text));
            fragments.extend(wrong.map(|text| format!("{}: {text}", file.display())));
        }
    }
    assert!(count > 30, "only {count} errors were found");
    assert!(fragments.is_empty(), "{fragments:#?}");
}

#[test]
fn a_text_that_begins_with_a_verb_is_a_fragment() {
    let source = r#"#[error("lock {}", path.display())] A, #[error( "the pool {0} has ended")] B, #[error(transparent)] C"#;
    let texts = texts(source);
    assert_eq!(texts, ["lock {}", "the pool {0} has ended"]);
    assert_eq!([false, true], [0, 1].map(|n| is_sentence(texts[n])));
}
