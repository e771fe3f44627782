//! One name, one meaning: the name of a type occurs once in all crates.
//!
//! A type that others build on keeps its name, and the newer or the more private one of two gets a name that says more.

use std::{collections::BTreeMap, fs, path::Path};

use proc_macro2::{TokenStream, TokenTree};

use super::source::files;

/// Each crate of the workspace that has source of its own.
const CRATES: [&str; 4] = [
    "src",
    "crates/core/src",
    "crates/daemon/src",
    "crates/sim/src",
];

/// Names that may occur twice, each with the reason.
const EXCEPTIONS: [(&str, &str); 5] = [
    (
        "DeadLetter",
        "the setting `dead_letter`, and on the wire a letter. The path of each says which: `settings`, `api::v1`",
    ),
    (
        "Job",
        "on the wire: what the API shows of the job that runners get",
    ),
    (
        "Otlp",
        "the exporter, and its stand-in for builds without the feature: one of them is compiled",
    ),
    (
        "Pool",
        "on the wire: what the API shows of the pool that a program describes",
    ),
    (
        "Steered",
        "on the wire: what the API shows of the result that the supervisor returns",
    ),
];

/// The names of the structs, enums, traits and aliases of these tokens. Code of tests, and associated types, are left out.
fn types(tokens: TokenStream, found: &mut Vec<String>) {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        let name = match tokens.get(at + 1) {
            Some(TokenTree::Ident(name)) => Some(name.to_string()),
            _ => None,
        };
        match (&tokens[at], name) {
            (TokenTree::Ident(word), Some(name)) if word == "mod" && name == "tests" => at += 2,
            (TokenTree::Ident(word), Some(name)) if word == "trait" => {
                found.push(name);
                at = body(&tokens, at);
            }
            // An implementation has associated types. Types inside its functions are not worth the search.
            (TokenTree::Ident(word), _) if word == "impl" && is_item(&tokens, at) => {
                at = body(&tokens, at);
            }
            (TokenTree::Ident(word), Some(name))
                if ["struct", "enum", "type"].contains(&word.to_string().as_str()) =>
            {
                found.push(name);
                at += 1;
            }
            (TokenTree::Group(group), _) => types(group.stream(), found),
            _ => {}
        }
        at += 1;
    }
}

/// Whether an `impl` begins an item, and is not a type: before an item is nothing, an end, or an attribute.
fn is_item(tokens: &[TokenTree], at: usize) -> bool {
    match at.checked_sub(1).map(|before| &tokens[before]) {
        None | Some(TokenTree::Group(_)) => true,
        Some(TokenTree::Punct(punct)) => punct.as_char() == ';',
        Some(word) => word.to_string() == "unsafe",
    }
}

/// The index of the next block in braces.
fn body(tokens: &[TokenTree], at: usize) -> usize {
    let is_block = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == proc_macro2::Delimiter::Brace,
        _ => false,
    };
    let rest = tokens[at..].iter().position(is_block);
    rest.map_or(tokens.len(), |further| at + further)
}

/// Names that occur more than once, each with the files that have them.
fn repeated<'f>(sources: &[(&'f str, String)]) -> BTreeMap<String, Vec<&'f str>> {
    let mut all: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (file, text) in sources {
        let mut found = Vec::new();
        types(text.parse().expect("it is Rust"), &mut found);
        for name in found {
            all.entry(name).or_default().push(*file);
        }
    }
    all.retain(|_, files| files.len() > 1);
    all
}

#[test]
fn no_two_types_have_one_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files: Vec<_> = CRATES.into_iter().flat_map(files).collect();
    let is_test =
        |file: &Path| file.ends_with("tests.rs") || file.iter().any(|part| part == "tests");
    let code = files.iter().filter(|file| !is_test(file));
    let sources: Vec<_> = code
        .map(|file| {
            let text = fs::read_to_string(root.join(file)).expect("a source file");
            (file.to_str().expect("a path that is text"), text)
        })
        .collect();
    assert!(sources.len() > 300, "only {} files", sources.len());
    let mut repeated = repeated(&sources);
    for (name, reason) in EXCEPTIONS {
        let removed = repeated.remove(name);
        assert!(
            removed.is_some(),
            "{name} occurs once: take it off the list ({reason})"
        );
    }
    assert!(
        repeated.is_empty(),
        "give the more private one a name that says more, or list it with a reason: {repeated:#?}"
    );
}

#[test]
fn repeated_names_are_found_wherever_a_type_is_declared() {
    let one = "pub struct A; enum B<T> { A(T) } mod inner { trait C { type D; } } fn f() { type E = u8; } \
               #[cfg(test)] mod tests { struct F; }";
    let other = "impl C for A { type D = u8; } fn g(of: impl C) -> impl C { struct A; } type B = u8; trait E { type G; } \
                 struct D; struct F; fn h(a: A) -> B { B::A }";
    let sources = [("one.rs", one.to_owned()), ("other.rs", other.to_owned())];
    let names: Vec<_> = repeated(&sources).into_keys().collect();
    assert_eq!(names, ["A", "B", "E"]);
}
