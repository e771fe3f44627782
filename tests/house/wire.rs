//! What the command line and the supervisor exchange has types. A bare JSON value has none.

use std::{fs, path::Path};

use proc_macro2::{TokenStream, TokenTree};

use super::source::files;

/// Where a bare JSON value may not be.
const TYPED: [&str; 3] = [
    "crates/daemon/src/cli",
    "src/api",
    "crates/daemon/src/http/policy.rs",
];

/// Files that may name one, each with the reason.
const EXCEPTIONS: [(&str, &str); 2] = [
    (
        "crates/daemon/src/cli/management.rs",
        "the broker's management API: arguments and policies of a queue may have any value",
    ),
    (
        "crates/daemon/src/cli/dead/whole.rs",
        "a whole dead letter: headers and bodies of other programs' messages may have any value",
    ),
];

/// The code as words between spaces, without the module `tests`.
fn words(tokens: TokenStream, words: &mut Vec<String>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(word) if word == "mod" => {
                let is_tests = tokens
                    .get(at + 1)
                    .is_some_and(|name| name.to_string() == "tests");
                at += if is_tests { 2 } else { 0 };
            }
            TokenTree::Group(group) => {
                words.push("{".to_owned());
                self::words(group.stream(), words);
                words.push("}".to_owned());
            }
            token => words.push(token.to_string()),
        }
        at += 1;
    }
}

/// Whether this code names `serde_json::Value`, or its map, by a `use` or in full.
fn names_a_bare_value(code: &str) -> bool {
    let mut all = Vec::new();
    words(code.parse().expect("it is Rust"), &mut all);
    let is_bare = |word: &String| ["Value", "Map"].contains(&word.as_str());
    all.iter().enumerate().any(|(at, word)| {
        let follows = all.get(at + 1..at + 4);
        let Some([_, _, next]) = follows.filter(|_| word == "serde_json") else {
            return false;
        };
        let mut group = all[at + 4..].iter().take_while(|word| *word != "}");
        is_bare(next) || (next == "{" && group.any(is_bare))
    })
}

#[test]
fn the_command_line_and_the_wire_types_name_no_bare_json_value() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut count = 0;
    for typed in TYPED {
        let files = match typed.ends_with(".rs") {
            true => vec![typed.into()],
            false => files(typed),
        };
        for file in files {
            if file.iter().any(|part| part == "tests") || file.ends_with("tests.rs") {
                continue;
            }
            count += 1;
            let code = fs::read_to_string(root.join(&file)).expect("a source file");
            if names_a_bare_value(&code) {
                found.push(file.display().to_string());
            }
        }
    }
    assert!(count > 20, "only {count} files were read");
    found.sort();
    let mut allowed = EXCEPTIONS.map(|(file, _)| file);
    allowed.sort_unstable();
    assert_eq!(
        found, allowed,
        "give what is exchanged a type in src/api/v1, or take a file that names none off the list"
    );
}

#[test]
fn a_bare_value_is_found_in_a_use_and_in_code_but_not_in_tests() {
    for bare in [
        "use serde_json::Value;",
        "use serde_json::{Map, json};",
        "fn f(a: &serde_json::Value) {}",
        "mod a { fn f() { let b: Vec<serde_json::Map<A, B>>; } }",
    ] {
        assert!(names_a_bare_value(bare), "{bare}");
    }
    for typed in [
        "use serde_json::{Number, json}; use toml::Value;",
        "fn f() { serde_json::to_value(a); }",
        "mod tests { use serde_json::Value; }",
        "mod tests; fn f(a: HeaderValue) {}",
    ] {
        assert!(!names_a_bare_value(typed), "{typed}");
    }
}
