//! `docs/tidegate.schema.json`: the configuration for editors. It covers names and types; `tidegate check` checks more.

use serde_json::{Map, Value, json};

use tidegate::config::{Described, DescribedKey, Shape, Written, described};

/// The JSON schema of the configuration file.
pub(crate) fn schema() -> String {
    let described = described();
    let mut root = SchemaTable::new("tidegate's configuration");
    // The keys of a section may come after other sections, so all sections are read first.
    for entry in &described {
        if let Described::Section { path, doc, .. } = entry {
            root.at(path).doc = doc;
        }
    }
    for entry in &described {
        if let Described::Key(DescribedKey {
            table,
            name,
            doc,
            wants,
            value,
            shape,
            ..
        }) = entry
        {
            let table = root.at(table);
            match wants.is_empty() {
                // The user's own keys.
                true => table.is_open = true,
                false => {
                    let key = key(&format!("{doc} Takes {wants}."), shape, value);
                    table.keys.push(((*name).to_owned(), key));
                }
            }
        }
    }
    let mut schema = root.json();
    if let Value::Object(schema) = &mut schema {
        schema.insert(
            "$schema".to_owned(),
            "http://json-schema.org/draft-07/schema#".into(),
        );
        schema.insert("title".to_owned(), "tidegate".into());
    }
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

/// A table while the schema is being built.
struct SchemaTable {
    doc: &'static str,
    keys: Vec<(String, Value)>,
    tables: Vec<(String, SchemaTable)>,
    /// Whether its keys are the user's own.
    is_open: bool,
}

impl SchemaTable {
    fn new(doc: &'static str) -> Self {
        Self {
            doc,
            keys: Vec::new(),
            tables: Vec::new(),
            is_open: false,
        }
    }

    /// The table at a path. It is created if it is missing.
    fn at(&mut self, path: &str) -> &mut SchemaTable {
        let levels = path.split('.').filter(|level| !level.is_empty());
        levels.fold(self, |table, level| {
            let index = match table.tables.iter().position(|(name, _)| name == level) {
                Some(index) => index,
                None => {
                    table.tables.push((level.to_owned(), SchemaTable::new("")));
                    table.tables.len() - 1
                }
            };
            &mut table.tables[index].1
        })
    }

    fn json(&self) -> Value {
        let mut properties: Map<String, Value> = self.keys.iter().cloned().collect();
        for (name, table) in &self.tables {
            properties.insert(name.clone(), table.json_of(name));
        }
        json!({
            "type": "object",
            "description": self.doc,
            "properties": properties,
            "additionalProperties": self.is_open,
        })
    }

    fn json_of(&self, name: &str) -> Value {
        match (name, &self.tables[..]) {
            // The names of pools are the user's own: the one here is an example.
            ("pools", [(_, pool)]) => json!({
                "type": "object",
                "description": self.doc,
                "additionalProperties": pool.json(),
            }),
            _ => self.json(),
        }
    }
}

fn key(doc: &str, shape: &Shape, value: &Written) -> Value {
    let mut key = match shape {
        Shape::Whole { least, most } => json!({
            "type": "integer", "minimum": bound(*least), "maximum": bound(*most),
        }),
        Shape::Flag => json!({"type": "boolean"}),
        Shape::Words(words) => json!({"type": "string", "enum": words}),
        Shape::Text => json!({"type": "string"}),
        Shape::Texts => json!({"type": "array", "items": {"type": "string"}}),
        _ => json!({}),
    };
    if let Value::Object(key) = &mut key {
        key.insert("description".to_owned(), doc.into());
        if let Written::Default(text) = value
            && let Some(default) = of_toml(text)
        {
            key.insert("default".to_owned(), default);
        }
    }
    key
}

fn bound(number: i128) -> Value {
    i64::try_from(number).map_or(Value::Null, Value::from)
}

/// A TOML value as JSON.
fn of_toml(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(&format!("key = {text}")).ok()?;
    serde_json::to_value(table.get("key")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_valid(toml: &str) -> Result<(), String> {
        let schema: Value = serde_json::from_str(&schema()).unwrap();
        let mut schemas = boon::Schemas::new();
        let mut compiler = boon::Compiler::new();
        compiler.add_resource("tidegate.json", schema).unwrap();
        let index = compiler.compile("tidegate.json", &mut schemas).unwrap();
        let table: toml::Table = toml::from_str(toml).unwrap();
        let value = serde_json::to_value(table).unwrap();
        schemas
            .validate(&value, index)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_configuration_of_the_repository_is_valid() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut files = 0;
        for directory in ["deploy/compose", "examples"] {
            for file in std::fs::read_dir(root.join(directory)).unwrap() {
                let file = file.unwrap().path();
                if file
                    .extension()
                    .is_some_and(|extension| extension == "toml")
                {
                    let text = std::fs::read_to_string(&file).unwrap();
                    assert_eq!(is_valid(&text), Ok(()), "{file:?}");
                    files += 1;
                }
            }
        }
        assert!(files > 0);
        assert_eq!(is_valid(&tidegate::config::reference()), Ok(()));
    }

    #[test]
    fn mistakes_are_not_valid() {
        for slip in [
            "colour = 1",
            "[pools.a]\nprefetch = 0",
            "[pools.a]\nprefetch = \"1\"",
            "[pools.a]\npoll_interval = 5",
            "[pools.a]\ndeclare = \"yes\"",
            "[pools.a.polcy]\nmax = 1",
            "[pools.a.runner]\ncommand = \"true\"",
            "[pools.a.runner]\nkind = \"shell\"",
            "[pools.a]\npreempt = \"true\"",
        ] {
            assert!(is_valid(slip).is_err(), "{slip}");
        }
        let own =
            "[pools.a.arguments]\nx-max-priority = 3\n[pools.a.runner.env]\nA = \"b\"\n[pools.b]\n";
        assert_eq!(is_valid(own), Ok(()));
    }
}
