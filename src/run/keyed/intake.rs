//! The table of a pool with keys: the deliveries that it has taken, and the workers that wait for one. Waits for nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

use super::opening::{KeyedOpening, OpeningPhase};
use crate::{config::PoolSettings, decide::TakenAhead, queue::Delivery, settle::History};
use tidegate_core::keys::{Admission, KeyTable, TakenId};

/// The intake of a pool with keys. Without keys it is empty.
pub(crate) struct KeyedIntake {
    table: Mutex<IntakeTable>,
    /// Held by the worker that opens the consumer.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Whether the consumer is cancelled while jobs still run. Written by the pool, read by the pump.
    hands_over: AtomicBool,
}

/// The deliveries that the pool has taken, and the workers that wait for one.
pub(super) struct IntakeTable {
    /// Written by the pump and by workers.
    pub(super) keys: KeyTable,
    /// Those that have not started. All are of the current opening.
    pub(super) waiting: BTreeMap<TakenId, ParkedDelivery>,
    /// Those that must be replaced by a fresh copy at once. A worker can do that beside its job.
    pub(super) renewals: VecDeque<ParkedDelivery>,
    pub(super) current: Option<Arc<KeyedOpening>>,
    /// Workers that wait for a job.
    pub(super) idle: BTreeMap<u64, Waker>,
    /// Workers that have a job, and want to know when the consumer ends.
    pub(super) busy: BTreeMap<u64, Waker>,
    pub(super) last_worker: u64,
}

/// A delivery that no worker holds.
pub(crate) struct ParkedDelivery {
    pub(crate) delivery: Delivery,
    /// When it came: the broker's consumer timeout counts from then.
    pub(crate) at: Instant,
}

impl Default for KeyedIntake {
    fn default() -> Self {
        let table = IntakeTable {
            keys: KeyTable::new(1),
            waiting: BTreeMap::new(),
            renewals: VecDeque::new(),
            current: None,
            idle: BTreeMap::new(),
            busy: BTreeMap::new(),
            last_worker: 0,
        };
        Self {
            table: Mutex::new(table),
            turn: tokio::sync::Mutex::default(),
            hands_over: AtomicBool::new(false),
        }
    }
}

impl KeyedIntake {
    /// What the pool has taken ahead. `None` if it has no keys.
    pub(crate) fn ahead(&self, settings: &PoolSettings) -> Option<TakenAhead> {
        let keys = settings.key.as_ref()?;
        let table = self.lock();
        let current = table.current.as_ref();
        let window = current.map_or_else(
            || keys.window_for(settings.policy.max),
            |current| current.window,
        );
        let ready = table.keys.ready() + table.renewals.len();
        let blocked = table.keys.blocked();
        let held = ready + blocked + table.keys.running();
        Some(TakenAhead {
            ready: ready as u64,
            blocked: blocked as u64,
            room: usize::from(window).saturating_sub(held) as u64,
        })
    }

    /// Takes nothing more with the consumer that is open now, and gives back what has not started.
    pub(crate) fn stop_taking(&self) {
        if let Some(current) = self.current() {
            self.release(&current);
        }
    }

    /// From now on, the consumer is cancelled while jobs still run. For a pool that another supervisor takes over.
    pub(crate) fn hand_over(&self) {
        self.hands_over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn hands_over(&self) -> bool {
        self.hands_over.load(Ordering::Relaxed)
    }

    /// Ends the taking of an opening.
    pub(crate) fn release(&self, opening: &KeyedOpening) {
        if opening.advance(OpeningPhase::Released) {
            self.lock().wake_all();
        }
    }

    /// A worker needs no delivery any more. What it was woken for is for another one.
    pub(super) fn wakes_no_more(&self, worker: u64) {
        let mut table = self.lock();
        table.idle.remove(&worker);
        table.busy.remove(&worker);
        table.wake();
    }

    /// A worker takes nothing more.
    pub(super) fn left(&self, opening: &KeyedOpening) {
        if opening.leave() {
            self.release(opening);
        }
    }

    /// Keeps a delivery until it may start and a worker is free.
    pub(crate) fn park(&self, opening: &KeyedOpening, delivery: Delivery) {
        let settings = &opening.settings;
        let message = delivery.message();
        let history = History::of(message, &settings.retry).keeping_places(true);
        let admission = match &settings.key {
            Some(keys) => keys.admit(message, history),
            None => Admission::Ordered(None),
        };
        let parked = ParkedDelivery {
            delivery,
            at: Instant::now(),
        };
        let mut table = self.lock();
        match admission {
            Admission::Renew => table.renewals.push_back(parked),
            Admission::Ordered(key) => {
                let id = table.keys.take(key);
                table.waiting.insert(id, parked);
            }
        }
        table.wake();
    }

    /// A delivery was settled.
    pub(super) fn done(&self, id: TakenId) {
        let mut table = self.lock();
        table.keys.done(id);
        table.wake();
    }

    /// When the oldest delivery came that has not started.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let table = self.lock();
        let (_, oldest) = table.waiting.first_key_value()?;
        Some(oldest.at)
    }

    /// Removes the deliveries that came this long ago and have not started, with the later ones of their keys.
    pub(crate) fn take_aged(&self, age: Duration) -> Vec<ParkedDelivery> {
        let mut table = self.lock();
        let mut aged = Vec::new();
        while let Some((id, oldest)) = table.waiting.first_key_value()
            && oldest.at.elapsed() >= age
        {
            let id = *id;
            let with_later = table.keys.remove_with_later(id);
            for id in std::iter::once(id).chain(with_later) {
                aged.extend(table.waiting.remove(&id));
            }
        }
        aged
    }

    /// Removes all deliveries that have not started. From now on none comes back to the opening.
    pub(crate) fn collect(&self, opening: &KeyedOpening) -> Vec<ParkedDelivery> {
        let mut table = self.lock();
        opening.advance(OpeningPhase::Collected);
        // Every delivery that waits is in the table of keys, and nothing else is.
        let _ = table.keys.remove_waiting();
        let waiting = mem::take(&mut table.waiting).into_values();
        let mut all: Vec<_> = waiting.collect();
        all.extend(mem::take(&mut table.renewals));
        all
    }

    /// An opening is over.
    pub(crate) fn forget(&self, opening: &Arc<KeyedOpening>) {
        let mut table = self.lock();
        if table
            .current
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, opening))
        {
            table.current = None;
        }
    }

    /// Wakes all workers, because the consumer has ended.
    pub(crate) fn wake_all(&self) {
        self.lock().wake_all();
    }

    /// The opening that takes or gives back.
    pub(crate) fn current(&self) -> Option<Arc<KeyedOpening>> {
        self.lock().current.clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, IntakeTable> {
        // No code of ours panics while it holds the lock.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IntakeTable {
    /// Wakes a worker for each delivery that may start.
    pub(super) fn wake(&mut self) {
        for _ in 0..self.keys.ready() {
            let Some((_, waker)) = self.idle.pop_first() else {
                break;
            };
            waker.wake();
        }
        for _ in 0..self.renewals.len() {
            let found = self.idle.pop_first().or_else(|| self.busy.pop_first());
            let Some((_, waker)) = found else {
                break;
            };
            waker.wake();
        }
    }

    fn wake_all(&mut self) {
        let idle = mem::take(&mut self.idle).into_values();
        for waker in idle.chain(mem::take(&mut self.busy).into_values()) {
            waker.wake();
        }
    }
}
