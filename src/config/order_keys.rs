//! `key`, `per_key` and `key_window`: jobs of one key in order, and how many messages a pool takes to have that choice.

use super::{
    schema::{Key, Table, Text, WholeNumber},
    settings::{KeySettings, KeySource, MAX_WORKERS},
};
use crate::decide::Policy;

/// The keys of a pool about the order of its jobs.
pub(super) struct OrderKeys {
    key: Key<Option<KeySource>>,
    per_key: Key<Option<u32>>,
    window: Key<Option<u16>>,
}

/// Reads them.
pub(super) fn order_keys(table: &mut Table<'_, '_>) -> OrderKeys {
    let key = table.optional(
        "key",
        "Jobs of one key run one at a time, in the order in which their messages came. Jobs of other keys are not held \
        back. The key is in a header (`header:NAME`), or it is the `routing_key`, the `correlation_id` or the `type`. \
        Messages without a key run at any time. The order holds between first attempts in one daemon: see docs/keys.md.",
        SOURCE,
        "\"header:tenant\"",
    );
    let per_key = table.optional(
        "per_key",
        "Jobs of one key that may run at a time, with `key`. With more than 1, only their starts are in order. When absent, 1.",
        WholeNumber(1..=MAX_WORKERS),
        "1",
    );
    let window = table.optional(
        "key_window",
        "Messages that the pool takes from the queue and has not finished, with `key`. It chooses among them the next \
        that may start. If all of them wait for jobs of their keys, other messages wait too. The window is in memory. When \
        absent, ten for each worker of `policy.max`, at most 10,000.",
        WholeNumber(1..=u16::MAX),
        "500",
    );
    OrderKeys {
        key,
        per_key,
        window,
    }
}

impl OrderKeys {
    /// The settings. `None` without `key`.
    pub(super) fn settings(&self) -> Option<KeySettings> {
        let source = self.key.value.clone()?;
        Some(KeySettings {
            source,
            per_key: self.per_key.value.unwrap_or(1),
            window: self.window.value,
        })
    }

    /// Refuses keys without an effect, and warns of what is most likely a mistake.
    pub(super) fn check(
        &self,
        table: &mut Table<'_, '_>,
        prefetch: &Key<u16>,
        share: &Key<bool>,
        policy: &Key<Policy>,
    ) {
        if !self.key.is_given() {
            let fix = "remove it, or write key too: key = \"header:tenant\"";
            if self.per_key.is_given() {
                table.refuse(&self.per_key, fix);
            }
            if self.window.is_given() {
                table.refuse(&self.window, fix);
            }
            return;
        }
        if prefetch.is_sound() && prefetch.value > 1 {
            table.refuse(
                prefetch,
                "remove it: with key a worker takes one message at a time, and the pool takes key_window of them",
            );
        }
        if share.is_sound() && share.value {
            table.warn_of(
                &self.key,
                "write share = false, and let one daemon consume the queue: each daemon keeps the order of what it takes, \
                 and two may run jobs of one key at the same time (docs/keys.md)",
            );
        }
        let max = policy.value.max;
        if policy.is_sound()
            && let Some(window) = self.window.value
            && u32::from(window) < max
        {
            table.warn_of(
                &self.window,
                format!(
                    "write at least policy.max, which is {max}: no more jobs than key_window can run"
                ),
            );
        }
    }
}

const SOURCE: Text<KeySource> = Text {
    wants: "\"header:NAME\", \"routing_key\", \"correlation_id\" or \"type\"",
    parse: str::parse,
    show: KeySource::to_string,
};
