//! Keys: jobs of one key run one at a time, in the order in which their messages came.
//!
//! [`KeySource`] says where a message has its key, [`OrderKey`] is that key in bounded memory, and [`KeyTable`] decides
//! which of the deliveries that a pool has taken may start now. This module holds no message and waits for nothing.

mod source;
mod table;

pub use self::{
    source::{KEY_BYTES, KeySource, OrderKey},
    table::{KeyTable, TakenId},
};
use crate::{queue::Message, settle::History};

/// The most deliveries that a pool takes ahead of its workers, if the user does not say.
const MAX_WINDOW: u32 = 10_000;

/// How a pool orders its jobs by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySettings {
    /// Where a message has its key.
    pub source: KeySource,
    /// Jobs of one key that may run at a time: 1 or more.
    pub per_key: u32,
    /// Deliveries that the pool may hold unsettled: 1 or more. `None`: ten for each worker of the policy's maximum.
    pub window: Option<u16>,
}

impl KeySettings {
    /// One job of a key at a time.
    pub fn new(source: KeySource) -> Self {
        Self {
            source,
            per_key: 1,
            window: None,
        }
    }

    /// The key is in this header.
    pub fn header(name: impl Into<String>) -> Self {
        Self::new(KeySource::Header(name.into()))
    }

    /// The key is the routing key of the first publish.
    pub fn routing_key() -> Self {
        Self::new(KeySource::RoutingKey)
    }

    /// Jobs of one key that may run at a time. With more than one, only their starts are in order.
    #[must_use]
    pub fn per_key(mut self, jobs: u32) -> Self {
        self.per_key = jobs;
        self
    }

    /// Deliveries that the pool may hold unsettled.
    #[must_use]
    pub fn window(mut self, deliveries: u16) -> Self {
        self.window = Some(deliveries);
        self
    }

    /// Deliveries that a pool of at most `max` workers may hold unsettled.
    pub fn window_for(&self, max: u32) -> u16 {
        let usual = max.saturating_mul(10).clamp(10, MAX_WINDOW);
        self.window
            .unwrap_or_else(|| u16::try_from(usual).unwrap_or(u16::MAX))
    }

    /// How a delivery with this history is taken. The history is that of a pool that [keeps
    /// places](History::keeping_places).
    pub fn admit(&self, message: &Message, history: History) -> Admission {
        if history.came_back() {
            Admission::Renew
        } else if history.is_suspect() {
            Admission::Ordered(None)
        } else {
            Admission::Ordered(self.source.key_of(message))
        }
    }
}

/// How a delivery is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It is replaced by a fresh copy at once, because one more return may reach its queue's limit. It does not wait for
    /// other messages of its key.
    Renew,
    /// It waits for its turn among the messages of its key. Without a key it may start at once. A suspect has none: it
    /// runs alone, and would count the deaths of the suspect that it waited for.
    Ordered(Option<OrderKey>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_ten_for_each_worker_within_bounds() {
        let settings = KeySettings::routing_key();
        for (max, window) in [
            (0, 10),
            (1, 10),
            (8, 80),
            (5_000, 10_000),
            (u32::MAX, 10_000),
        ] {
            assert_eq!(settings.window_for(max), window, "{max}");
        }
        assert_eq!(settings.window(7).window_for(100), 7);
    }

    #[test]
    fn a_message_that_must_not_wait_is_taken_without_a_key() {
        let settings = KeySettings::routing_key();
        let message = Message {
            routing_key: String::from("a"),
            ..Message::default()
        };
        let keyed = Admission::Ordered(settings.source.key_of(&message));
        let with = |delivery_count, give_backs| History {
            delivery_count,
            give_backs,
            ..History::default()
        };
        for (history, admission) in [
            (with(0, 0), keyed.clone()),
            (with(1, 0), keyed.clone()),
            (with(2, 0), Admission::Renew),
            (with(1, 9), keyed),
            (with(0, 10), Admission::Ordered(None)),
            (with(1, 10), Admission::Ordered(None)),
            (with(2, 10), Admission::Renew),
        ] {
            let kept = history.keeping_places(true);
            assert_eq!(settings.admit(&message, kept), admission, "{history:?}");
        }
    }
}
