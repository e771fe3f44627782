//! Checks the pages: each file, folder and heading that a page names must exist.

use std::{fs, path::Path};

const PAGES: [&str; 2] = ["ARCHITECTURE.md", "CONTRIBUTING.md"];

/// All pages for people, by their paths.
fn all_pages() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec!["README.md".to_owned(), "SECURITY.md".to_owned()];
    pages.extend(PAGES.map(str::to_owned));
    for folder in ["docs", "docs/decisions"] {
        let files = fs::read_dir(root.join(folder)).expect("a folder of pages");
        let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        let pages_of = names.filter(|name| name.ends_with(".md"));
        pages.extend(pages_of.map(|name| format!("{folder}/{name}")));
    }
    pages
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(path).expect("the page is there")
}

/// The texts between backticks that are paths of this repository. `a/{b,c}` is two.
fn paths(page: &str) -> Vec<String> {
    let quoted = page
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    let folders = [
        "src/",
        "crates/",
        "tests/",
        "docs/",
        "examples/",
        "scripts/",
        ".ci/",
    ];
    let named = quoted.filter(|text| folders.iter().any(|folder| text.starts_with(folder)));
    named
        .flat_map(|text| {
            let path = text.split([' ', ':']).next().unwrap_or_default();
            match path.split_once('{').zip(path.split_once('}')) {
                Some(((before, rest), (_, after))) => {
                    let words = rest.split('}').next().unwrap_or_default().split(',');
                    words.map(|word| format!("{before}{word}{after}")).collect()
                }
                None => vec![path.to_owned()],
            }
        })
        .collect()
}

/// The targets of links to pages of this repository.
fn links(page: &str) -> Vec<&str> {
    let targets = page.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split(')').next());
    let images = page.split("src=\"").skip(1);
    let images = images.filter_map(|rest| rest.split('"').next());
    let all = targets.chain(images);
    all.filter(|target| !target.contains("://")).collect()
}

/// The anchor that a heading has on a page.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().replace(' ', "-")
}

fn has_heading(file: &str, wanted: &str) -> bool {
    let page = read(file);
    let mut headings = page.lines().filter(|line| line.starts_with('#'));
    headings.any(|heading| anchor(heading) == wanted)
}

/// The numbers of the lines of text that are wider than 125 columns. Tables, code and HTML cannot be wrapped.
fn wide_lines(page: &str) -> Vec<usize> {
    let mut is_code = false;
    let lines = page.lines().zip(1..);
    let wide = lines.filter(|(line, _)| {
        is_code ^= line.trim_start().starts_with("```");
        let is_fixed =
            is_code || line.starts_with("    ") || line.trim_start().starts_with(['|', '<']);
        !is_fixed && line.chars().count() > 125
    });
    wide.map(|(_, number)| number).collect()
}

/// Pages that `tidegate docs` writes.
const GENERATED: [&str; 2] = ["docs/configuration.md", "docs/metrics.md"];

#[test]
fn the_text_of_pages_is_no_wider_than_125_columns() {
    let pages = all_pages().into_iter();
    let written = pages.filter(|page| !GENERATED.contains(&page.as_str()));
    let wide: Vec<_> = written
        .flat_map(|page| {
            let lines = wide_lines(&read(&page)).into_iter();
            lines
                .map(move |line| format!("{page}:{line}"))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(wide.is_empty(), "wrap the text at 125 columns: {wide:#?}");
}

#[test]
fn only_text_counts_as_wide() {
    let wide = "w".repeat(126);
    let page = format!(
        "{wide}\n| {wide} |\n```\n{wide}\n```\n    {wide}\n- {wide}\n{}\n",
        "w".repeat(125)
    );
    assert_eq!(wide_lines(&page), [1, 7]);
}

#[test]
fn every_file_that_a_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = Vec::new();
    for page in PAGES {
        let text = read(page);
        let paths = paths(&text);
        assert!(paths.len() > 1, "{page} names {paths:?}");
        let gone =
            |path: &String| !root.join(path).exists() && !root.join(format!("{path}.rs")).exists();
        missing.extend(
            paths
                .into_iter()
                .filter(gone)
                .map(|path| format!("{page}: {path}")),
        );
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_readme_has_the_two_commands_on_lines_of_their_own() {
    let page = read("README.md");
    for command in [
        "scripts/with-broker cargo run --release -- demo",
        "scripts/with-broker cargo test",
    ] {
        let stands = page
            .lines()
            .filter_map(|line| line.split(" #").next())
            .any(|line| line.trim_end() == command);
        assert!(stands, "{command}");
    }
}

#[test]
fn every_link_of_a_page_has_an_existing_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut broken = Vec::new();
    for page in all_pages() {
        let text = read(&page);
        let folder = Path::new(&page).parent().expect("a page has a folder");
        for link in links(&text) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let file = match file {
                "" => page.clone(),
                file => folder.join(file).to_string_lossy().into_owned(),
            };
            let leads =
                root.join(&file).exists() && (heading.is_empty() || has_heading(&file, heading));
            if !leads {
                broken.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn paths_and_links_are_found_in_a_text() {
    let text = "see `src/{a,b}.rs` and `crates/x/y.rs::test`, not `policy.max`; [more](docs/a.md#the-b-c), [web](https://x.y)";
    assert_eq!(paths(text), ["src/a.rs", "src/b.rs", "crates/x/y.rs"]);
    assert_eq!(links(text), ["docs/a.md#the-b-c"]);
    assert_eq!(anchor("## Set by hand: `a`"), "set-by-hand-a");
}
