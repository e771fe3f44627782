//! The table of keys: which of the deliveries that a pool has taken may start now.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::OrderKey;

/// A delivery in the table. Ids grow in the order in which deliveries are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TakenId(u64);

/// The deliveries that a pool has taken and not settled, by key.
///
/// ```text
///            take                  start_next               done
///  ─────────────────► blocked ──► ready ───────────► running ─────►
///                       ▲           ▲                  │ put_back: to its place among those of its key
///                       └───────────┴──────────────────┘
/// ```
///
/// # Guarantees
/// - At most `per_key` deliveries of one key run or are ready.
/// - Deliveries of one key start in the order in which they were taken. One that was put back keeps its place.
/// - Of all deliveries that are ready, the one that was taken first starts first. So no key starves another.
/// - A delivery without a key is ready at once.
#[derive(Debug)]
pub struct KeyTable {
    per_key: u32,
    last: u64,
    lanes: HashMap<OrderKey, KeyLane>,
    /// Those that may start now.
    ready: BTreeMap<TakenId, Option<OrderKey>>,
    running: HashMap<TakenId, Option<OrderKey>>,
    /// The number of those that wait for another one of their key.
    blocked: usize,
}

/// The deliveries of one key.
#[derive(Debug, Default)]
struct KeyLane {
    running: u32,
    ready: u32,
    blocked: BTreeSet<TakenId>,
}

impl KeyTable {
    /// An empty table.
    pub fn new(per_key: u32) -> Self {
        Self {
            per_key,
            last: 0,
            lanes: HashMap::new(),
            ready: BTreeMap::new(),
            running: HashMap::new(),
            blocked: 0,
        }
    }

    /// Changes how many deliveries of one key may run at a time. Those that run stay.
    pub fn set_per_key(&mut self, per_key: u32) {
        if self.per_key == per_key {
            return;
        }
        self.per_key = per_key;
        let keys: Vec<_> = self.lanes.keys().cloned().collect();
        for (id, key) in std::mem::take(&mut self.ready) {
            match key.as_ref().and_then(|key| self.lanes.get_mut(key)) {
                Some(lane) => {
                    lane.ready -= 1;
                    lane.blocked.insert(id);
                    self.blocked += 1;
                }
                None => {
                    self.ready.insert(id, key);
                }
            }
        }
        for key in keys {
            self.refill(&key);
        }
    }

    /// Takes a delivery. It is ready, or blocked by others of its key.
    pub fn take(&mut self, key: Option<OrderKey>) -> TakenId {
        self.last += 1;
        let id = TakenId(self.last);
        match key {
            None => {
                self.ready.insert(id, None);
            }
            Some(key) => self.block(id, &key),
        }
        id
    }

    /// Starts the ready delivery that was taken first. `None` if none is ready.
    pub fn start_next(&mut self) -> Option<TakenId> {
        let (id, key) = self.ready.pop_first()?;
        if let Some(lane) = key.as_ref().and_then(|key| self.lanes.get_mut(key)) {
            lane.ready -= 1;
            lane.running += 1;
        }
        self.running.insert(id, key);
        Some(id)
    }

    /// A running delivery is settled. The next one of its key is ready.
    pub fn done(&mut self, id: TakenId) {
        if let Some(Some(key)) = self.running.remove(&id) {
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.running -= 1;
            }
            self.refill(&key);
        }
    }

    /// A running delivery was not finished and will start again. It gets its place back: before all others of its key that
    /// were taken later.
    pub fn put_back(&mut self, id: TakenId) {
        match self.running.remove(&id) {
            None => {}
            Some(None) => {
                self.ready.insert(id, None);
            }
            Some(Some(key)) => {
                if let Some(lane) = self.lanes.get_mut(&key) {
                    lane.running -= 1;
                }
                self.block(id, &key);
            }
        }
    }

    /// Removes a delivery that has not started, and all of its key that were taken after it: they must not start before it.
    /// Returns them in the order in which they were taken.
    pub fn remove_with_later(&mut self, id: TakenId) -> Vec<TakenId> {
        let key = match self.ready.get(&id) {
            Some(None) => {
                self.ready.remove(&id);
                return vec![id];
            }
            Some(Some(key)) => Some(key.clone()),
            None => {
                let mut lanes = self.lanes.iter();
                let found = lanes.find(|(_, lane)| lane.blocked.contains(&id));
                found.map(|(key, _)| key.clone())
            }
        };
        let Some(key) = key else {
            return Vec::new();
        };
        let later = self.ready.range(id..);
        let of_key = later.filter(|(_, of)| of.as_ref() == Some(&key));
        let mut removed: Vec<_> = of_key.map(|(id, _)| *id).collect();
        for id in &removed {
            self.ready.remove(id);
        }
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.ready -= u32::try_from(removed.len()).unwrap_or(lane.ready);
            let later = lane.blocked.split_off(&id);
            self.blocked -= later.len();
            removed.extend(later);
        }
        self.refill(&key);
        removed.sort_unstable();
        removed
    }

    /// Removes all deliveries that have not started. Returns them in the order in which they were taken.
    pub fn remove_waiting(&mut self) -> Vec<TakenId> {
        let mut removed: Vec<_> = std::mem::take(&mut self.ready).into_keys().collect();
        self.lanes.retain(|_, lane| {
            lane.ready = 0;
            removed.append(&mut lane.blocked.iter().copied().collect());
            lane.blocked.clear();
            lane.running > 0
        });
        self.blocked = 0;
        removed.sort_unstable();
        removed
    }

    /// How many deliveries may start now.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// How many deliveries wait for another one of their key.
    pub fn blocked(&self) -> usize {
        self.blocked
    }

    /// How many deliveries have started and are not settled.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    fn block(&mut self, id: TakenId, key: &OrderKey) {
        let lane = self.lanes.entry(key.clone()).or_default();
        lane.blocked.insert(id);
        self.blocked += 1;
        self.refill(key);
    }

    /// Makes deliveries of a key ready, as far as its running ones leave room. Forgets a key without deliveries.
    fn refill(&mut self, key: &OrderKey) {
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        while lane.running + lane.ready < self.per_key
            && let Some(id) = lane.blocked.pop_first()
        {
            lane.ready += 1;
            self.blocked -= 1;
            self.ready.insert(id, Some(key.clone()));
        }
        if lane.running + lane.ready == 0 && lane.blocked.is_empty() {
            self.lanes.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
