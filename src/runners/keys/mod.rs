//! The `runner` table of a pool: the keys that kinds share, and the own keys of each kind.

mod command;
mod env_file;
mod limits;
mod own;
mod shared;

pub(crate) use self::{
    own::OwnKeys,
    shared::{JobKeys, SharedKeys},
};

use self::{own::AllOwn, shared::shared};
use super::{
    facts::{Facts, Known},
    kind::{Finish, FinishedRunner, RunnerKind, RunnerSettings},
};
use crate::config::{
    inputs::ConfigInputs,
    schema::{Item, Key, KeyKind, Shape, Table, ValuePosition, one_of, quoted},
};

/// Reads the `runner` table. `kinds` are the kinds that the file can name. The first is the default.
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
    let FinishedRunner { runner, job } = finish(shared, &mut table);
    RunnerKeys {
        runner,
        job,
        within_max: own.within_max,
    }
}

/// The settings from a `runner` table, and the keys that the pool checks against its own keys.
pub(crate) struct RunnerKeys {
    pub(crate) runner: RunnerSettings,
    /// The keys that limit a job's time. `None` if the kind does not limit it.
    pub(crate) job: Option<JobKeys>,
    /// Numbers that must not be above the pool's `policy.max`.
    pub(crate) within_max: Vec<Key<Option<u32>>>,
}

/// Lets every kind register its keys, `chosen` first. Returns the function of `chosen` that makes its settings.
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

    fn shape(&self) -> Shape {
        Shape::Words(
            self.0
                .iter()
                .map(|kind| kind.facts.name.to_owned())
                .collect(),
        )
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
