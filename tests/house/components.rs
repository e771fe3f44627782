//! Checks the imports of each crate against the tables of components in ARCHITECTURE.md.

use std::{fs, path::Path};

use super::source::Crate;

/// The components of one crate.
struct Components(Vec<Component>);

/// A row of a table: modules, each with the modules below it that have no row of their own.
#[derive(Debug, PartialEq)]
struct Component {
    modules: Vec<String>,
    /// Modules of other components. Each includes all modules below it.
    may_use: Vec<String>,
}

impl Components {
    /// The table below the words that name the crate.
    fn read(page: &str, crate_: &str) -> Self {
        let title = format!("**Components of `{crate_}`**");
        let below = page.lines().skip_while(|line| !line.starts_with(&title));
        let table = below
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'));
        // After the names of the columns and the line below them.
        let components = table.skip(2).map(|row| {
            let columns: Vec<_> = row.split('|').collect();
            let [_, modules, _, may_use, _] = columns.as_slice() else {
                panic!("a row has three columns: {row}");
            };
            Component {
                modules: quoted(modules),
                may_use: quoted(may_use),
            }
        });
        let components = Self(components.collect());
        let allowed = components.0.iter().flat_map(|component| &component.may_use);
        let unknown: Vec<_> = allowed
            .filter(|name| components.of(name).is_none())
            .collect();
        assert!(unknown.is_empty(), "no components of {crate_}: {unknown:?}");
        components
    }

    /// The component of a module, and the name in the table that covers it.
    fn of(&self, module: &str) -> Option<(&Component, &str)> {
        let components = self.0.iter();
        let names = components
            .flat_map(|component| component.modules.iter().map(move |name| (component, name)));
        names
            .map(|(component, name)| (component, name.as_str()))
            .filter(|(_, name)| is_in(module, name))
            .max_by_key(|(_, name)| name.len())
    }

    /// The imports of a crate's files that the table does not allow.
    fn wrong(&self, crate_: &Crate, source: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        for (file, named) in crate_.edges() {
            // The crate's root is not a component: it re-exports items of the components. A file without imports needs no
            // check.
            if file.ends_with("lib.rs") || named.is_empty() {
                continue;
            }
            let Some((component, name)) = self.of(&module(file, source)) else {
                wrong.push(format!("{file} is in no component"));
                continue;
            };
            for other in named {
                match self.of(&module(other, source)) {
                    Some((used, _)) if used == component => {}
                    Some((_, used)) if component.may_use(used) => {}
                    Some((_, used)) => {
                        wrong.push(format!("{name} may not use {used}: {file} names {other}"));
                    }
                    None => wrong.push(format!("{other} is in no component")),
                }
            }
        }
        wrong.sort();
        wrong.dedup();
        wrong
    }

    /// The uses of a component whose row is not above the user's.
    fn upward(&self) -> Vec<String> {
        let mut above = Vec::new();
        let mut upward = Vec::new();
        for component in &self.0 {
            let allowed = component.may_use.iter();
            let found = allowed.filter(|name| match self.of(name) {
                Some((used, _)) => !above.contains(&used),
                None => true,
            });
            upward.extend(found.map(|name| format!("{} is above {name}", component.modules[0])));
            above.push(component);
        }
        upward
    }

    /// The uses that the table allows and that no file of the crate needs.
    fn unused(&self, crate_: &Crate, source: &str) -> Vec<String> {
        let mut unused = Vec::new();
        for component in &self.0 {
            let edges = crate_.edges().into_iter();
            let used: Vec<_> = edges
                .filter(|(file, _)| {
                    let here = self.of(&module(file, source));
                    here.is_some_and(|(here, _)| here == component)
                })
                .flat_map(|(_, named)| named)
                .map(|file| module(file, source))
                .collect();
            let is_used = |allowed: &String| used.iter().any(|used| is_in(used, allowed));
            let idle = component.may_use.iter().filter(|allowed| !is_used(allowed));
            unused.extend(idle.map(|idle| format!("{} does not use {idle}", component.modules[0])));
        }
        unused
    }
}

impl Component {
    fn may_use(&self, module: &str) -> bool {
        self.may_use.iter().any(|allowed| is_in(module, allowed))
    }
}

/// The module of a file: `config::schema` for `src/config/schema/mod.rs`.
fn module(file: &str, source: &str) -> String {
    let below = file.trim_start_matches(source).trim_start_matches('/');
    let path = below.trim_end_matches(".rs").trim_end_matches("/mod");
    path.replace('/', "::")
}

/// Whether a module is this one, or below it.
fn is_in(module: &str, this: &str) -> bool {
    let rest = module.strip_prefix(this);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The texts between backticks.
fn quoted(text: &str) -> Vec<String> {
    let parts = text.split('`').skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    fs::read_to_string(path).expect("ARCHITECTURE.md")
}

/// Crates whose components are in the page, each with its source.
const CRATES: [(&str, &str); 2] = [
    ("tidegate", "src"),
    ("tidegate-daemon", "crates/daemon/src"),
];

/// The components of a crate, and its code.
fn both((crate_, source): (&str, &str)) -> (Components, Crate) {
    let components = Components::read(&page(), crate_);
    assert!(
        components.0.len() > 10,
        "{crate_} has {} components",
        components.0.len()
    );
    (components, Crate::read(source))
}

#[test]
fn no_component_uses_one_that_it_may_not() {
    let wrong = CRATES.map(|crate_| {
        let (components, code) = both(crate_);
        components.wrong(&code, crate_.1)
    });
    let wrong = wrong.concat();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_component_uses_all_that_it_may() {
    let unused = CRATES.map(|crate_| {
        let (components, code) = both(crate_);
        components.unused(&code, crate_.1)
    });
    let unused = unused.concat();
    assert!(unused.is_empty(), "{unused:#?}");
}

#[test]
fn every_component_uses_only_rows_above_its_own() {
    let upward = CRATES.map(|(crate_, _)| Components::read(&page(), crate_).upward());
    let upward = upward.concat();
    assert!(upward.is_empty(), "{upward:#?}");
}

/// Tests the checks on a small crate.
#[test]
fn finds_imports_that_the_table_does_not_allow_and_rows_that_allow_too_much() {
    let page = "**Components of `small`**, and more\n\n| component | what | may use |\n| --- | --- | --- |\n\
                | `a`, `d` | they | |\n| `b` | it | `b::inner`, `a` |\n| `b::inner` | in it | |\n\nText.";
    let components = Components::read(page, "small");
    let crate_ = Crate::of(&[
        ("lib.rs", "mod a; mod b; mod c; mod d; pub use b::B;"),
        (
            "a.rs",
            "pub struct A; fn f() { crate::b::g(); crate::d::h() }",
        ),
        (
            "b/mod.rs",
            "mod inner; pub use inner::g; pub struct B; fn k() { self::inner::g() }",
        ),
        ("b/inner.rs", "use super::B; pub fn g() {}"),
        ("c.rs", "use crate::b::B;"),
        ("d.rs", "pub fn h() {}"),
    ]);
    assert_eq!(
        components.wrong(&crate_, ""),
        [
            "a may not use b::inner: a.rs names b/inner.rs",
            "b::inner may not use b: b/inner.rs names b/mod.rs",
            "c.rs is in no component",
        ]
    );
    assert_eq!(components.unused(&crate_, ""), ["b does not use a"]);
    assert_eq!(components.upward(), ["b is above b::inner"]);
}
