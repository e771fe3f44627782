//! The reference pages in `docs/`, made from the code: `tidegate docs DIR` writes them, and a test fails where one of
//! them is stale.

mod configuration;
mod metrics;
mod schema;

use std::{fs, io, path::Path};

pub(crate) use self::schema::schema;

/// A page with its name in `docs/`.
pub(crate) struct Page {
    pub(crate) name: &'static str,
    pub(crate) text: String,
}

/// All pages.
pub(crate) fn pages() -> Vec<Page> {
    let page = |name, text| Page { name, text };
    vec![
        page("configuration.md", configuration::page()),
        page("metrics.md", metrics::page()),
        page("tidegate.schema.json", schema()),
    ]
}

/// Writes the pages into a directory.
pub(crate) fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut pages = pages().into_iter();
    pages.try_for_each(|page| fs::write(directory.join(page.name), page.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_pages_in_docs_match_the_code() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        for page in pages() {
            let there = fs::read_to_string(docs.join(page.name)).unwrap_or_default();
            assert!(
                there == page.text,
                "docs/{} is stale; `cargo run -- docs docs` writes it again",
                page.name
            );
        }
    }
}
