//! The reference page: a file with every key and its explanation.

use std::fmt::Write;

use super::described::{Described, DescribedKey, Written};

const WIDTH: usize = 96;

/// A TOML file of all keys with their docs. Keys without a default are commented out, and so are whole tables whose
/// presence has a meaning.
pub(crate) fn page(described: &[Described]) -> String {
    let mut page = String::new();
    keys_of(&mut page, described, "", false);
    for entry in described {
        if let Described::Section {
            path,
            doc,
            optional,
        } = entry
        {
            page.push('\n');
            comment(&mut page, doc);
            let hash = if *optional { "# " } else { "" };
            let _ = writeln!(page, "{hash}[{path}]");
            keys_of(&mut page, described, path, *optional);
        }
    }
    page
}

fn keys_of(page: &mut String, described: &[Described], path: &str, optional: bool) {
    for key in described.iter().filter_map(|entry| entry.key_of(path)) {
        let DescribedKey {
            name,
            doc,
            wants,
            value,
            ..
        } = key;
        match wants.as_str() {
            "" => comment(page, doc),
            wants => comment(page, &format!("{doc} Takes {wants}.")),
        }
        let _ = match value {
            Written::Default(value) | Written::Required(value) if !optional => {
                writeln!(page, "{name} = {value}")
            }
            Written::Default(value) | Written::Required(value) | Written::Example(value) => {
                writeln!(page, "# {name} = {value}")
            }
        };
    }
}

fn comment(page: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(page, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(page, "{line}");
}
