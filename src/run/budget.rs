//! The workers of one supervisor, divided among its pools.
//!
//! Each pool reports after a reconcile what it needs and has, and reads before the next one what it may have. When the
//! parts change, every pool is woken.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::decide::{Allowance, PoolName, PoolNeed, allowances};

/// The limit on workers, and what the pools need.
#[derive(Debug)]
pub(crate) struct WorkerBudget {
    state: Mutex<BudgetState>,
    /// Counts changes of any allowance. Written by the pools and by the supervisor's handle, read by the pools.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct BudgetState {
    /// `None` means no limit.
    max_workers: Option<u32>,
    needs: BTreeMap<PoolName, PoolNeed>,
    allowances: BTreeMap<PoolName, Allowance>,
}

impl WorkerBudget {
    pub(crate) fn new(max_workers: Option<u32>) -> Self {
        Self {
            state: Mutex::new(BudgetState {
                max_workers,
                ..BudgetState::default()
            }),
            changes: watch::Sender::new(0),
        }
    }

    /// Changes the limit.
    pub(crate) fn set_max(&self, max_workers: Option<u32>) {
        self.change(|state| state.max_workers = max_workers);
    }

    /// Reports what a pool needs and has.
    pub(crate) fn report(&self, pool: &PoolName, need: PoolNeed) {
        if self.state().needs.get(pool) != Some(&need) {
            self.change(|state| {
                state.needs.insert(pool.clone(), need);
            });
        }
    }

    /// Removes a pool that has ended.
    pub(crate) fn remove(&self, pool: &PoolName) {
        self.change(|state| {
            state.needs.remove(pool);
        });
    }

    /// What the pool may have. `None` without a limit. A pool that has reported nothing may have nothing yet.
    pub(crate) fn allowance(&self, pool: &PoolName) -> Option<Allowance> {
        let state = self.state();
        state.max_workers?;
        let known = state.allowances.get(pool).cloned();
        Some(known.unwrap_or_else(|| Allowance {
            workers: 0,
            why: String::from("its part of the supervisor's workers is not known yet"),
        }))
    }

    /// What the pool might have if it needed this. `None` without a limit.
    pub(crate) fn foreseen(&self, pool: &PoolName, need: PoolNeed) -> Option<Allowance> {
        let state = self.state();
        let total = state.max_workers?;
        let mut needs = state.needs.clone();
        needs.insert(pool.clone(), need);
        let place = needs.keys().position(|name| name == pool)?;
        let needs: Vec<PoolNeed> = needs.into_values().collect();
        allowances(total, &needs).into_iter().nth(place)
    }

    /// The workers that other pools do not have. `None` without a limit.
    pub(crate) fn room(&self, pool: &PoolName) -> Option<u32> {
        let state = self.state();
        let others = state.needs.iter().filter(|(name, _)| *name != pool);
        let taken = others.fold(0u32, |sum, (_, need)| sum.saturating_add(need.taken));
        Some(state.max_workers?.saturating_sub(taken))
    }

    /// Sees changes of allowances.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut BudgetState)) {
        let mut state = self.state();
        change(&mut state);
        let allowances = match state.max_workers {
            Some(total) => {
                let needs: Vec<PoolNeed> = state.needs.values().copied().collect();
                let parts = allowances(total, &needs);
                state.needs.keys().cloned().zip(parts).collect()
            }
            None => BTreeMap::new(),
        };
        let workers = |parts: &BTreeMap<PoolName, Allowance>| -> Vec<u32> {
            parts.values().map(|part| part.workers).collect()
        };
        let is_same = workers(&state.allowances) == workers(&allowances);
        state.allowances = allowances;
        drop(state);
        if !is_same {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    fn state(&self) -> MutexGuard<'_, BudgetState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
