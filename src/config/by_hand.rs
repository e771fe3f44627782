//! Keys of a pool's policy and scaling that are set by hand: checked as if the file had them, and told apart from what
//! the file, the environment and the defaults say.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{
    Loaded, Surroundings,
    file::read_file,
    parse::read,
    problem::{Place, Problem, Problems},
    schema::{Finished, join},
};
use crate::decide::{Policy, PoolName, Scaling};

/// Keys of a policy that mean the same to every kind.
const OF_EVERY_KIND: [&str; 3] = ["kind", "min_active", "max"];

/// The tables whose keys can be set by hand.
const TABLES: [&str; 2] = ["policy", "scaling"];

/// What a configuration was read from. Kept to read it again with other keys.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) text: Arc<str>,
    pub(super) origin: Arc<str>,
    pub(super) environment: Arc<[(String, String)]>,
}

impl fmt::Debug for Given {
    // Either may hold a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Given(..)")
    }
}

/// Where the value of a key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Nobody gave one.
    Default,
    /// The configuration file.
    File,
    /// A variable of the environment.
    Environment,
    /// An operator.
    Hand,
}

/// A key of a pool's policy or scaling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyKey {
    /// The key: `policy.max`.
    pub key: String,
    /// Its value, as TOML.
    pub value: String,
    /// Where that comes from.
    pub from: Origin,
    /// The line or the variable, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// A pool's policy and scaling, whole, with the origin of each key.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PolicyKeys {
    /// The policy.
    pub policy: Policy,
    /// How fast the number of workers may move.
    pub scaling: Scaling,
    /// Its keys, in the order of the reference page.
    pub keys: Vec<PolicyKey>,
    /// What is likely not meant.
    pub warnings: Vec<Problem>,
}

impl Loaded {
    /// A pool's policy and scaling with these keys in place of what file and environment say. A key is `policy.max`, a value
    /// is TOML.
    ///
    /// Where the kind of policy is another than before, the keys that belong to a kind are not taken over.
    ///
    /// # Errors
    /// Everything that `check` would refuse in a file with these keys.
    pub fn policy_with(
        &self,
        pool: &PoolName,
        by_hand: &BTreeMap<String, String>,
    ) -> Result<PolicyKeys, Problems> {
        let edited = Edited::new(&self.given, pool, by_hand).map_err(Problems::new)?;
        let text = toml::to_string(&edited.file).map_err(|error| {
            let fix = "write values that TOML has";
            Problems::new(vec![problem("", error.to_string(), fix)])
        })?;
        let (settings, finished) = read(
            &text,
            &self.given.origin,
            &edited.environment,
            &Surroundings::of_process(),
            &read_file,
        );
        // A file that a key names may have gone since: that is for a reload to say.
        let of_pools = |found: &Problem| found.key.starts_with("pools.");
        let by_name = |found: Problem| Problem {
            place: nowhere(),
            ..found
        };
        let (problems, warnings) = (finished.problems.iter(), finished.warnings.iter());
        let problems: Vec<_> = problems.filter(|found| of_pools(found)).cloned().collect();
        if !problems.is_empty() {
            return Err(Problems::new(problems.into_iter().map(by_name).collect()));
        }
        let prefix = join("pools", pool.as_str());
        let of_tables = |found: &&Problem| {
            let mut tables = TABLES.iter();
            tables.any(|table| found.key.starts_with(&format!("{prefix}.{table}.")))
        };
        let warnings = warnings.filter(of_tables).cloned().map(by_name).collect();
        let config = (settings.pools.iter()).find(|config| config.pool.name == *pool);
        let Some(config) = config else {
            let fix = "name a pool of the configuration";
            return Err(Problems::new(vec![problem(&prefix, "nothing", fix)]));
        };
        let (policy, scaling) = (config.pool.policy.clone(), config.pool.scaling);
        let keys = self.keys(&prefix, by_hand, &policy, &edited, &finished);
        Ok(PolicyKeys {
            policy,
            scaling,
            keys,
            warnings,
        })
    }

    fn keys(
        &self,
        prefix: &str,
        by_hand: &BTreeMap<String, String>,
        policy: &Policy,
        edited: &Edited,
        finished: &Finished,
    ) -> Vec<PolicyKey> {
        let effective = serde_json::to_value(policy).unwrap_or_default();
        let mut keys = Vec::new();
        for (table, name, default) in &finished.keys {
            let Some(table) = TABLES.iter().find(|t| *table == format!("{prefix}.{t}")) else {
                continue;
            };
            let (key, path) = (
                format!("{table}.{name}"),
                format!("{prefix}.{table}.{name}"),
            );
            let written = edited.pool().and_then(|pool| pool.get(*table)?.get(*name));
            let (value, from, place) = match finished.places.get(&path) {
                _ if by_hand.contains_key(&key) => {
                    (written.map(Value::to_string), Origin::Hand, None)
                }
                Some(Place::Variable { variable }) => {
                    let value = edited.variable(variable).map(as_toml);
                    (value, Origin::Environment, Some(variable.clone()))
                }
                Some(_) => {
                    let place = self.place(&path).to_string();
                    (written.map(Value::to_string), Origin::File, Some(place))
                }
                // What belongs to another kind is not there, and a bound may follow from the rest.
                None if *table == "policy" => {
                    let effective = effective.get(*name);
                    let derived = || effective.filter(|value| value.is_number());
                    let value = default.clone().filter(|_| effective.is_some());
                    let value = value.or_else(|| Some(derived()?.to_string()));
                    (value, Origin::Default, None)
                }
                None => (default.clone(), Origin::Default, None),
            };
            keys.extend(value.map(|value| PolicyKey {
                key,
                value,
                from,
                place,
            }));
        }
        keys
    }
}

/// A configuration with keys in place of its own.
struct Edited {
    file: Table,
    environment: Vec<(String, String)>,
    name: String,
}

impl Edited {
    fn new(
        given: &Given,
        pool: &PoolName,
        by_hand: &BTreeMap<String, String>,
    ) -> Result<Self, Vec<Problem>> {
        let mut edited = Self {
            // It was read before, so it is TOML.
            file: given.text.parse().unwrap_or_default(),
            environment: given.environment.to_vec(),
            name: pool.as_str().to_owned(),
        };
        let mut problems = Vec::new();
        let kind = by_hand.get("policy.kind").and_then(|kind| value_of(kind));
        if kind.is_some_and(|kind| edited.kind() != kind) {
            edited.forget_the_kind();
        }
        for (key, text) in by_hand {
            let table = key.split_once('.');
            let Some((table, name)) = table.filter(|(table, _)| TABLES.contains(table)) else {
                let fix = "write policy.KEY or scaling.KEY";
                problems.push(problem("", format!("the key {key:?}"), fix));
                continue;
            };
            let Some(value) = value_of(text) else {
                let fix = "write a value as TOML has it, a text with quotes around it";
                problems.push(problem(key, format!("{text:?}"), fix));
                continue;
            };
            edited.remove(table, name);
            match edited.table(table) {
                Some(table) => drop(table.insert(name.to_owned(), value)),
                None => problems.push(problem(key, "a value that is no table", "write a table")),
            }
        }
        match problems.is_empty() {
            true => Ok(edited),
            false => Err(problems),
        }
    }

    fn pool(&self) -> Option<&Table> {
        self.file.get("pools")?.get(&self.name)?.as_table()
    }

    /// A table of the pool, made where it is not there.
    fn table(&mut self, table: &str) -> Option<&mut Table> {
        let mut inner = &mut self.file;
        for name in ["pools", &self.name, table] {
            let entry = inner.entry(name).or_insert_with(|| Table::new().into());
            inner = entry.as_table_mut()?;
        }
        Some(inner)
    }

    /// The kind of policy that file and environment say.
    fn kind(&self) -> Value {
        let in_environment = self.environment.iter().find_map(|(variable, text)| {
            let (table, name) = self.key_of(variable)?;
            (table == "policy" && name == "kind").then(|| Value::String(text.clone()))
        });
        let in_file = || self.pool()?.get("policy")?.get("kind").cloned();
        let kind = in_environment.or_else(in_file);
        kind.unwrap_or_else(|| Value::String("backlog".to_owned()))
    }

    /// Takes out what belongs to one kind of policy.
    fn forget_the_kind(&mut self) {
        if let Some(policy) = self.table("policy") {
            policy.retain(|name, _| OF_EVERY_KIND.contains(&name));
        }
        let mut environment = std::mem::take(&mut self.environment);
        environment.retain(|(variable, _)| {
            let of_kind = self.key_of(variable).filter(|(table, _)| table == "policy");
            of_kind.is_none_or(|(_, name)| OF_EVERY_KIND.contains(&name.as_str()))
        });
        self.environment = environment;
    }

    /// Takes a key out of the environment, which would win over the file.
    fn remove(&mut self, table: &str, name: &str) {
        let mut environment = std::mem::take(&mut self.environment);
        environment.retain(|(variable, _)| {
            let key = self.key_of(variable);
            key.is_none_or(|(t, n)| (t.as_str(), n.as_str()) != (table, name))
        });
        self.environment = environment;
    }

    /// The table and the key of this pool that a variable stands for.
    fn key_of(&self, variable: &str) -> Option<(String, String)> {
        let fold = |text: &str| text.to_ascii_lowercase().replace('-', "_");
        let levels = variable.strip_prefix("TIDEGATE_")?.split("__");
        let levels: Vec<String> = levels.map(fold).collect();
        match &levels[..] {
            [pools, pool, table, name] if pools == "pools" && *pool == fold(&self.name) => {
                Some((table.clone(), name.clone()))
            }
            _ => None,
        }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        let mut environment = self.environment.iter();
        let found = environment.find(|(variable, _)| variable == name);
        found.map(|(_, text)| text.as_str())
    }
}

/// A value from its TOML.
fn value_of(text: &str) -> Option<Value> {
    let mut table: Table = format!("value = {text}").parse().ok()?;
    match table.len() {
        1 => table.remove("value"),
        // A line break, and then more than a value.
        _ => None,
    }
}

/// The text of a variable as TOML: a string needs no quotes there.
fn as_toml(text: &str) -> String {
    match value_of(text) {
        Some(value) => value.to_string(),
        None => Value::String(text.to_owned()).to_string(),
    }
}

fn nowhere() -> Place {
    Place::File {
        file: "set by hand".to_owned(),
    }
}

fn problem(key: &str, found: impl Into<String>, fix: &str) -> Problem {
    Problem::new(nowhere(), key, found, fix)
}

#[cfg(test)]
mod tests {
    use super::{super::parse, *};

    const FILE: &str = "[pools.a-b]\nrunner.command = [\"a\"]\nkeep_warm = 2\n\
                        policy = { jobs_per_worker = 4, max = 20 }\n\
                        [pools.c]\nrunner.command = [\"c\"]\n";

    fn loaded(environment: &[(&str, &str)]) -> Loaded {
        let own = |(name, text): &(&str, &str)| (name.to_string(), text.to_string());
        let environment: Vec<_> = environment.iter().map(own).collect();
        let nothing = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        let around = Surroundings::default();
        parse(FILE, "tidegate.toml", &environment, &around, &nothing).unwrap()
    }

    fn set(
        loaded: &Loaded,
        pool: &str,
        keys: &[(&str, &str)],
    ) -> Result<(Policy, Vec<String>), Vec<String>> {
        let keys = keys.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        match loaded.policy_with(&pool.into(), &keys.collect()) {
            Ok(set) => {
                let shown = |key: &PolicyKey| {
                    let place = key.place.as_deref().unwrap_or("-");
                    format!("{} = {} # {:?} {place}", key.key, key.value, key.from)
                };
                Ok((set.policy, set.keys.iter().map(shown).collect()))
            }
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn tells_where_each_key_comes_from() {
        let variable = ("TIDEGATE_POOLS__C__SCALING__DOWN_WINDOW", "30s");
        let loaded = loaded(&[variable]);
        let (_, keys) = set(&loaded, "a-b", &[("policy.max", "7")]).unwrap();
        assert_eq!(
            keys[..4],
            [
                "policy.kind = \"backlog\" # Default -",
                "policy.jobs_per_worker = 4 # File tidegate.toml:4:30",
                "policy.max = 7 # Hand -",
                "policy.min_active = 1 # Default -",
            ]
        );
        let (_, keys) = set(&loaded, "c", &[]).unwrap();
        let wanted = format!("scaling.down_window = \"30s\" # Environment {}", variable.0);
        assert!(keys.contains(&wanted), "{keys:#?}");
        assert!(
            keys.contains(&"policy.max = 50 # Default -".to_owned()),
            "{keys:#?}"
        );
    }

    #[test]
    fn another_kind_takes_over_no_key_of_the_old_one() {
        let variable = ("TIDEGATE_POOLS__C__POLICY__JOBS_PER_WORKER", "3");
        let loaded = loaded(&[variable]);
        for pool in ["a-b", "c"] {
            let keys = [("policy.kind", "\"fixed\""), ("policy.workers", "5")];
            let (policy, keys) = set(&loaded, pool, &keys).unwrap();
            assert_eq!(policy.workers_for(1000), 5, "{pool}");
            assert!(
                !keys.iter().any(|key| key.contains("jobs_per_worker")),
                "{keys:#?}"
            );
        }
        // The same kind keeps them.
        let (policy, _) = set(&loaded, "a-b", &[("policy.kind", "\"backlog\"")]).unwrap();
        assert_eq!(policy.workers_for(40), 10);
    }

    #[test]
    fn what_is_set_by_hand_wins_over_the_environment() {
        let variable = ("TIDEGATE_POOLS__C__POLICY__MAX", "3");
        let loaded = loaded(&[variable]);
        assert_eq!(set(&loaded, "c", &[]).unwrap().0.max, 3);
        assert_eq!(set(&loaded, "c", &[("policy.max", "9")]).unwrap().0.max, 9);
    }

    #[test]
    fn what_check_would_refuse_is_refused_with_every_problem() {
        let loaded = loaded(&[]);
        let refused = |keys: &[(&str, &str)]| set(&loaded, "a-b", keys).unwrap_err();
        let both = refused(&[("policy.maxx", "1"), ("policy.jobs_per_worker", "0")]);
        assert_eq!(both.len(), 2, "{both:#?}");
        assert!(
            both.iter()
                .all(|line| line.starts_with("set by hand: pools.a-b.policy.")),
            "{both:#?}"
        );
        // Another key of the pool does not go with it.
        let warm = refused(&[("policy.max", "1")]);
        assert!(warm[0].contains("keep_warm"), "{warm:#?}");
        for (key, value) in [
            ("max", "1"),
            ("runner.command", "[]"),
            ("policy.max", "1\nx = 2"),
            ("policy.max", "["),
        ] {
            assert_eq!(refused(&[(key, value)]).len(), 1, "{key} = {value}");
        }
    }

    #[test]
    fn shows_nothing_of_what_it_was_read_from() {
        let secret = ("TIDEGATE_BROKER__URL", "amqp://a:s3cret@host");
        assert!(!format!("{:?}", loaded(&[secret])).contains("s3cret"));
    }
}
