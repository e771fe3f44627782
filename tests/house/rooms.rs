//! Which room of a crate may use which: the tables of ARCHITECTURE.md, which the code is held to.

use std::{fs, path::Path};

use super::source::Crate;

/// The rooms of one crate.
struct Rooms(Vec<Room>);

/// A row of a table: modules, each with all below it but for what has a row of its own.
#[derive(Debug, PartialEq)]
struct Room {
    modules: Vec<String>,
    /// Modules of other rooms. Each gives all below it.
    may_use: Vec<String>,
}

impl Rooms {
    /// The table below the words that name the crate.
    fn read(page: &str, crate_: &str) -> Self {
        let title = format!("**Rooms of `{crate_}`**");
        let below = page.lines().skip_while(|line| !line.starts_with(&title));
        let table = below
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'));
        // After the names of the columns and the line below them.
        let rooms = table.skip(2).map(|row| {
            let columns: Vec<_> = row.split('|').collect();
            let [_, modules, _, may_use, _] = columns.as_slice() else {
                panic!("a row has three columns: {row}");
            };
            Room {
                modules: quoted(modules),
                may_use: quoted(may_use),
            }
        });
        let rooms = Self(rooms.collect());
        let allowed = rooms.0.iter().flat_map(|room| &room.may_use);
        let unknown: Vec<_> = allowed.filter(|name| rooms.of(name).is_none()).collect();
        assert!(unknown.is_empty(), "no rooms of {crate_}: {unknown:?}");
        rooms
    }

    /// The room of a module, and the name in the table that covers it.
    fn of(&self, module: &str) -> Option<(&Room, &str)> {
        let rooms = self.0.iter();
        let names = rooms.flat_map(|room| room.modules.iter().map(move |name| (room, name)));
        names
            .map(|(room, name)| (room, name.as_str()))
            .filter(|(_, name)| is_in(module, name))
            .max_by_key(|(_, name)| name.len())
    }

    /// What the files of a crate name, and may not.
    fn wrong(&self, crate_: &Crate, source: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        for (file, named) in crate_.edges() {
            // The crate's root is no room: it offers what the rooms have. A file that names nothing is in nobody's way.
            if file.ends_with("lib.rs") || named.is_empty() {
                continue;
            }
            let Some((room, name)) = self.of(&module(file, source)) else {
                wrong.push(format!("{file} is in no room"));
                continue;
            };
            for other in named {
                match self.of(&module(other, source)) {
                    Some((used, _)) if used == room => {}
                    Some((_, used)) if room.may_use(used) => {}
                    Some((_, used)) => {
                        wrong.push(format!("{name} may not use {used}: {file} names {other}"));
                    }
                    None => wrong.push(format!("{other} is in no room")),
                }
            }
        }
        wrong.sort();
        wrong.dedup();
        wrong
    }

    /// What the table allows and the files of a crate do not use.
    fn unused(&self, crate_: &Crate, source: &str) -> Vec<String> {
        let mut unused = Vec::new();
        for room in &self.0 {
            let edges = crate_.edges().into_iter();
            let used: Vec<_> = edges
                .filter(|(file, _)| {
                    let here = self.of(&module(file, source));
                    here.is_some_and(|(here, _)| here == room)
                })
                .flat_map(|(_, named)| named)
                .map(|file| module(file, source))
                .collect();
            let is_used = |allowed: &String| used.iter().any(|used| is_in(used, allowed));
            let idle = room.may_use.iter().filter(|allowed| !is_used(allowed));
            unused.extend(idle.map(|idle| format!("{} does not use {idle}", room.modules[0])));
        }
        unused
    }
}

impl Room {
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

/// Crates whose rooms are in the page, each with its source.
const CRATES: [(&str, &str); 2] = [
    ("tidegate", "src"),
    ("tidegate-daemon", "crates/daemon/src"),
];

/// The rooms of a crate, and its code.
fn both((crate_, source): (&str, &str)) -> (Rooms, Crate) {
    let rooms = Rooms::read(&page(), crate_);
    assert!(rooms.0.len() > 10, "{crate_} has {} rooms", rooms.0.len());
    (rooms, Crate::read(source))
}

#[test]
fn no_room_uses_one_that_it_may_not() {
    let wrong = CRATES.map(|crate_| {
        let (rooms, code) = both(crate_);
        rooms.wrong(&code, crate_.1)
    });
    let wrong = wrong.concat();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_room_uses_what_it_may() {
    let unused = CRATES.map(|crate_| {
        let (rooms, code) = both(crate_);
        rooms.unused(&code, crate_.1)
    });
    let unused = unused.concat();
    assert!(unused.is_empty(), "{unused:#?}");
}

/// What the tests have to see, on a small crate.
#[test]
fn what_a_table_does_not_allow_is_found_and_so_is_what_nobody_uses() {
    let page = "**Rooms of `small`**, and more\n\n| room | what | may use |\n| --- | --- | --- |\n\
                | `a`, `d` | they | |\n| `b` | it | `b::inner`, `a` |\n| `b::inner` | in it | |\n\nText.";
    let rooms = Rooms::read(page, "small");
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
        rooms.wrong(&crate_, ""),
        [
            "a may not use b::inner: a.rs names b/inner.rs",
            "b::inner may not use b: b/inner.rs names b/mod.rs",
            "c.rs is in no room",
        ]
    );
    assert_eq!(rooms.unused(&crate_, ""), ["b does not use a"]);
}
