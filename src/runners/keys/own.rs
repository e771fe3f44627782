//! The keys that kinds have of their own.
//!
//! Every kind is asked, whichever the pool has: a key that no kind asks for is unknown, and one that another kind asks for
//! is refused with that kind's name.

use crate::{
    config::schema::{Key, KeyKind, KeyPresence, Table},
    runners::facts::Known,
};

/// A key that some kind has asked for.
struct Asked {
    name: &'static str,
    /// The kinds that asked for it.
    kinds: Vec<&'static str>,
    key: Key<()>,
}

/// The own keys of all kinds, as far as they were asked for.
#[derive(Default)]
pub(super) struct AllOwn {
    asked: Vec<Asked>,
    /// Numbers that are at most the pool's `policy.max`.
    pub(super) within_max: Vec<Key<Option<u32>>>,
}

impl AllOwn {
    /// Has a kind ask for its keys. The pool's own kind is the first to ask: of a key that several kinds have, its reading
    /// is the one that counts.
    pub(super) fn of<'k, 'd, 'v>(
        &'k mut self,
        table: &'k mut Table<'d, 'v>,
        kind: &'static str,
    ) -> OwnKeys<'k, 'd, 'v> {
        OwnKeys {
            table,
            kind,
            all: self,
        }
    }

    /// Refuses what is given and is not of the pool's kind.
    pub(super) fn refuse_foreign(&self, table: &mut Table<'_, '_>, known: &Known<'_>) {
        for asked in self.asked.iter().filter(|asked| asked.key.is_given()) {
            if let Some(fix) = known.refusal(asked.name, &asked.kinds) {
                table.refuse(&asked.key, fix);
            }
        }
    }
}

/// Asks for the keys of one kind, in the table that holds those of every kind.
pub(crate) struct OwnKeys<'k, 'd, 'v> {
    table: &'k mut Table<'d, 'v>,
    kind: &'static str,
    all: &'k mut AllOwn,
}

impl OwnKeys<'_, '_, '_> {
    /// A key of this kind. Optional, so that the reference page, whose runner may be another, can show it; what is needed
    /// is missed when the keys become settings. `doc` begins with the kind's name, and `example` is for the reference page.
    pub(crate) fn optional<K: KeyKind>(
        &mut self,
        name: &'static str,
        doc: &'static str,
        kind: K,
        example: &str,
    ) -> Key<Option<K::Value>> {
        if let Some(asked) = self.all.asked.iter_mut().find(|asked| asked.name == name) {
            asked.kinds.push(self.kind);
            self.table.describe_further(name, doc);
            return asked.key.clone().with(None, KeyPresence::Absent);
        }
        let key = self.table.optional(name, doc, kind, example);
        self.all.asked.push(Asked {
            name,
            kinds: vec![self.kind],
            key: key.bare(),
        });
        key
    }

    /// Has the pool hold a number to its `policy.max`.
    pub(crate) fn within_max(&mut self, key: &Key<Option<u32>>) {
        self.all.within_max.push(key.clone());
    }
}
