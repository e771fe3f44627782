//! The own keys of each kind.
//!
//! Every kind registers its keys, also the kinds that the pool does not use. A key that no kind has registered is
//! unknown. A key that only another kind has registered is refused, and the error names that kind.

use crate::{
    config::schema::{Key, KeyKind, KeyPresence, Table},
    runners::facts::Known,
};

/// A key that a kind has registered.
struct Asked {
    name: &'static str,
    /// The kinds that have registered it.
    kinds: Vec<&'static str>,
    key: Key<()>,
}

/// The own keys of all kinds that have registered so far.
#[derive(Default)]
pub(super) struct AllOwn {
    asked: Vec<Asked>,
    /// Numbers that are at most the pool's `policy.max`.
    pub(super) within_max: Vec<Key<Option<u32>>>,
}

impl AllOwn {
    /// Lets a kind register its keys. The pool's own kind must be the first: if several kinds have a key of the same
    /// name, the value is read as the first kind reads it.
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

    /// Refuses the given keys that the pool's kind does not have.
    pub(super) fn refuse_foreign(&self, table: &mut Table<'_, '_>, known: &Known<'_>) {
        for asked in self.asked.iter().filter(|asked| asked.key.is_given()) {
            if let Some(fix) = known.refusal(asked.name, &asked.kinds) {
                table.refuse(&asked.key, fix);
            }
        }
    }
}

/// Registers the keys of one kind. All kinds share one table.
pub(crate) struct OwnKeys<'k, 'd, 'v> {
    table: &'k mut Table<'d, 'v>,
    kind: &'static str,
    all: &'k mut AllOwn,
}

impl OwnKeys<'_, '_, '_> {
    /// A key of this kind. Always optional here, because the reference page shows the keys of all kinds. A missing key
    /// that the kind needs is reported when the settings are made. `doc` begins with the kind's name, and `example` is
    /// for the reference page.
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

    /// Lets the pool check that a number is not above its `policy.max`.
    pub(crate) fn within_max(&mut self, key: &Key<Option<u32>>) {
        self.all.within_max.push(key.clone());
    }
}
