//! `docs/configuration.md`: every key of the configuration.

use std::fmt::Write;

use tidegate::config::{Described, DescribedKey, Written, described, variable_of};

/// The pool that the descriptions are made with, and its placeholder on the page.
const EXAMPLE: &str = "thumbnails";
const ANY: &str = "NAME";

const HEAD: &str = "\
# Configuration

<!-- Made from the code by `cargo run -- docs docs`. Edit the descriptions in src/config and src/runners. -->

A TOML file: the first of `--config`, `$TIDEGATE_CONFIG`, `./tidegate.toml` and `/etc/tidegate/tidegate.toml`. `tidegate init` writes a first one, and `tidegate check` prints all problems of a file.
`tidegate check --reference` prints this page as a file.

Unknown keys are errors. Durations are `\"500ms\"`, `\"5s\"`, `\"10m\"`; sizes are `\"256MiB\"`. Any key can come from the
environment, by the name that is given below. It wins over the file. A text needs no quotes there; other values are
written as in TOML. In the name of a pool, `-` is `_`.

[`tidegate.schema.json`](tidegate.schema.json) is a JSON schema for editors. With [taplo](https://taplo.tamasfe.dev), a first
line `#:schema PATH-OR-URL` in the file names it. `tidegate check --schema` prints it.
";

pub(super) fn page() -> String {
    let described = described();
    let mut page = HEAD.to_owned();
    keys_of(&mut page, &described, "");
    for entry in &described {
        let Described::Section {
            path,
            doc,
            optional,
            ..
        } = entry
        else {
            continue;
        };
        let _ = write!(page, "\n## `[{}]`\n\n{doc}", shown(path));
        if *optional {
            page.push_str(" The table may be left out.");
        }
        page.push('\n');
        keys_of(&mut page, &described, path);
    }
    page
}

fn keys_of(page: &mut String, described: &[Described], path: &str) {
    for key in described.iter().filter_map(|entry| entry.key_of(path)) {
        let DescribedKey {
            table,
            name,
            doc,
            wants,
            value,
            ..
        } = key;
        if wants.is_empty() {
            // The user's own keys.
            let example = match value {
                Written::Default(value) | Written::Required(value) | Written::Example(value) => {
                    value
                }
                _ => continue,
            };
            let _ = write!(page, "\n{doc} Example: `{name} = {example}`.\n");
            continue;
        }
        let key = match table.as_str() {
            "" => (*name).to_owned(),
            table => format!("{table}.{name}"),
        };
        let value = match value {
            Written::Default(value) => format!("; default `{value}`"),
            Written::Required(example) => format!("; required, such as `{example}`"),
            // Its default, if it has one, depends on other keys or on the machine. The doc says it.
            Written::Example(example) => format!("; example `{example}`"),
            _ => String::new(),
        };
        let variable = variable_of(&key);
        let variable = variable.replacen(&EXAMPLE.to_uppercase(), &format!("<{ANY}>"), 1);
        let _ = write!(
            page,
            "\n### `{name}`\n\n{doc}\n\nTakes {wants}{value}. `{variable}`\n"
        );
    }
}

/// A path without the name of the example.
fn shown(path: &str) -> String {
    path.replacen(EXAMPLE, ANY, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_table_its_default_and_its_variable() {
        let page = page();
        for part in [
            "\n## `[pools.NAME.policy]`\n",
            "### `shutdown_grace`\n\nHow long a drain waits for running jobs.\n\nTakes a duration from \"0s\" to \"28d\"; \
             default `\"30s\"`. `TIDEGATE_POOLS__<NAME>__SHUTDOWN_GRACE`\n",
            "### `queue`\n\nThe queue it consumes. When absent, the queue with the pool's name.\n\nTakes a queue's name; example ",
            "otherwise in /run/tidegate for root and in /tmp/tidegate-UID for other users.",
            "otherwise $HOME/.local/state/tidegate. Without $HOME, /var/lib/tidegate for root",
            "`TIDEGATE__EVENTS_FILE`",
            "Example: `x-message-ttl = 86400000`.",
        ] {
            assert!(page.contains(part), "{part} in:\n{page}");
        }
        assert!(!page.contains("THUMBNAILS__"), "{page}");
    }
}
