//! The `runner` table of a pool: the keys that kinds share, and those that each kind has of its own.

mod command;
mod env_file;
mod limits;
mod own;
mod shared;

pub(crate) use self::{
    command::base_name,
    own::OwnKeys,
    shared::{JobKeys, SharedKeys},
};

use self::{own::AllOwn, shared::shared};
use super::{
    facts::{Facts, Known},
    kind::{Finish, Finished, RunnerKind, RunnerSettings},
};
use crate::config::{
    inputs::ConfigInputs,
    schema::{Item, Key, KeyKind, Table, ValuePosition, one_of, quoted},
};

/// Reads what a pool's jobs run on. `kinds` are those that the file can name; the first is the default.
pub(crate) fn runner(
    pool: &mut Table<'_, '_>,
    inputs: &ConfigInputs<'_>,
    kinds: &[&'static RunnerKind],
) -> RunnerKeys {
    let mut table = pool.table("runner", "What its jobs run on.");
    let docs: Vec<_> = kinds
        .iter()
        .map(|kind| format!("`{}`: {}.", kind.facts.name, kind.facts.doc))
        .collect();
    let first = kinds
        .first()
        .expect("a registry has a kind to be the default");
    let kind = table.key("kind", docs.join(" "), KindWord(kinds), first);
    if !kind.is_sound() {
        table.ignore_the_rest();
    }
    let all: Vec<&'static Facts> = kinds.iter().map(|kind| &kind.facts).collect();
    let known = Known {
        all: &all,
        chosen: kind.is_sound().then_some(&kind.value.facts),
    };
    let mut own = AllOwn::default();
    let mut finish = None;
    let shared = shared(&mut table, &known, inputs, |table| {
        finish = Some(own_keys(&mut own, table, kind.value, kinds));
        own.refuse_foreign(table, &known);
    });
    let finish: Finish = finish.expect("own keys are read with the shared ones");
    let Finished { runner, job } = finish(shared, &mut table);
    RunnerKeys {
        runner,
        job,
        within_max: own.within_max,
    }
}

/// What a `runner` table says, and those of its keys that the pool has bounds for.
pub(crate) struct RunnerKeys {
    pub(crate) runner: RunnerSettings,
    /// What a job's time depends on; `None` where its kind has no say in it.
    pub(crate) job: Option<JobKeys>,
    /// Numbers that are at most the pool's `policy.max`.
    pub(crate) within_max: Vec<Key<Option<u32>>>,
}

/// Has every kind ask for its keys, `chosen` first, and keeps what `chosen` makes of its own.
fn own_keys(
    all: &mut AllOwn,
    table: &mut Table<'_, '_>,
    chosen: &'static RunnerKind,
    kinds: &[&'static RunnerKind],
) -> Finish {
    let finish = (chosen.keys)(&mut all.of(table, chosen.facts.name));
    let others = kinds
        .iter()
        .filter(|kind| kind.facts.name != chosen.facts.name);
    for other in others {
        let _not_this_pools = (other.keys)(&mut all.of(table, other.facts.name));
    }
    finish
}

/// One of the kinds, by its name.
#[derive(Debug)]
struct KindWord<'k>(&'k [&'static RunnerKind]);

impl KeyKind for KindWord<'_> {
    type Value = &'static RunnerKind;
    const IS_TEXT: bool = true;

    fn wants(&self) -> String {
        one_of(self.0.iter().map(|kind| kind.facts.name))
    }

    fn read(&self, item: &Item<'_>, spot: &mut ValuePosition<'_>) -> Option<Self::Value> {
        let text = item.get_ref().as_str();
        let chosen = self.0.iter().find(|kind| Some(kind.facts.name) == text);
        if chosen.is_none() {
            spot.wrong(item, format!("write {}", self.wants()));
        }
        chosen.copied()
    }

    fn toml(&self, kind: &Self::Value) -> String {
        quoted(kind.facts.name)
    }
}
