//! The facts about a kind of runner and the keys that kinds share, as plain data.

use std::borrow::Cow;

use crate::config::schema::{Key, Table, quoted};

/// The keys of the `runner` table that more than one kind may take. A kind names those that it takes.
pub(crate) const SHARED_KEYS: [&str; 15] = [
    "command",
    "timeout",
    "kill_grace",
    "working_dir",
    "env_pass",
    "env_file",
    "user",
    "group",
    "nice",
    "memory_max",
    "cpu_max",
    "pids_max",
    "cgroup",
    "rlimits",
    "env",
];

/// The facts about a kind.
#[derive(Debug)]
pub(crate) struct Facts {
    /// The word in the file and on metrics.
    pub(crate) name: &'static str,
    /// Its description, which texts show after its name and a colon.
    pub(crate) doc: &'static str,
    /// The keys of [`SHARED_KEYS`] that it takes.
    pub(crate) takes: &'static [&'static str],
    /// The meaning of its `command`, if it takes one.
    pub(crate) command: CommandUse,
    /// The key for the time between TERM and KILL: the shared `kill_grace`, or an own key. `None` if a job of this kind
    /// has no such time.
    pub(crate) grace_key: Option<&'static str>,
    /// Additions to the docs of shared keys for this kind: each is a key and a sentence.
    pub(crate) notes: &'static [(&'static str, &'static str)],
}

/// The meaning of `command` for a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandUse {
    /// A program and its arguments. Required, and no shell reads it.
    Program,
    /// Arguments for a program that another setting names.
    Arguments,
}

impl Facts {
    pub(crate) fn takes(&self, shared: &str) -> bool {
        self.takes.contains(&shared)
    }
}

/// All kinds, and the kind of a pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'k> {
    /// All kinds, in the order in which texts name them.
    pub(crate) all: &'k [&'static Facts],
    /// The pool's own kind. `None` if its `kind` is invalid.
    pub(crate) chosen: Option<&'static Facts>,
}

impl Known<'_> {
    /// The doc of a shared key, with the additions of the kinds.
    pub(crate) fn doc(&self, key: &str, doc: &'static str) -> Cow<'static, str> {
        let mut whole = Cow::Borrowed(doc);
        for facts in self.all {
            if key == "kill_grace"
                && let Some(own) = facts.grace_key.filter(|own| *own != key)
            {
                let note = format!(" `{}` has `{own}` instead.", facts.name);
                whole.to_mut().push_str(&note);
            }
            for (_, note) in facts.notes.iter().filter(|(noted, _)| *noted == key) {
                whole.to_mut().push(' ');
                whole.to_mut().push_str(note);
            }
        }
        whole
    }

    /// Refuses a shared key that the pool's kind does not take. Otherwise the user would expect a limit that does not
    /// exist. `shared` is the key's name in [`SHARED_KEYS`], or the name of its table.
    pub(crate) fn refuse_shared<T>(&self, table: &mut Table<'_, '_>, shared: &str, key: &Key<T>) {
        let takers = self.all.iter().filter(|facts| facts.takes(shared));
        let takers: Vec<_> = takers.map(|facts| facts.name).collect();
        if key.is_given()
            && let Some(fix) = self.refusal(shared, &takers)
        {
            table.refuse(key, fix);
        }
    }

    /// What to write instead of a key that only `takers` take. `None` if the pool's kind is one of them.
    pub(crate) fn refusal(&self, key: &str, takers: &[&str]) -> Option<String> {
        let chosen = self.chosen?;
        if takers.contains(&chosen.name) {
            return None;
        }
        let this = quoted(chosen.name);
        let those: Vec<_> = takers.iter().map(|name| quoted(name)).collect();
        let those = those.join(" or ");
        let is_grace = |facts: &&&Facts| facts.grace_key == Some(key);
        Some(match chosen.grace_key {
            Some(own) if key == "kill_grace" => {
                format!("write {own}: {this} has this key instead")
            }
            Some(own) if self.all.iter().any(|facts| is_grace(&facts)) => {
                format!("write {own}: kinds other than {those} have this key instead")
            }
            _ => format!("remove it, or write kind = {those}: it has no effect for {this}"),
        })
    }
}
