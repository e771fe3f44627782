//! The programs of a pool that consume the queue themselves: what they hold as far as that is known, and when those that
//! ended by themselves are replaced. The core decides; this is its state under a lock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    decide::{HeldBy, Moment, ProgramStop, Replacements},
    queue::HoldingsView,
};

/// What is known of a pool's programs.
#[derive(Debug)]
pub(crate) struct Programs {
    /// Shows what they hold.
    pub(crate) view: Option<Arc<dyn HoldingsView>>,
    /// Written by workers whose programs end, read by the pool.
    replacements: Mutex<Replacements>,
    /// Written by the pool with each reading, read with each census.
    held: Mutex<ProgramsHeld>,
}

/// What the programs hold, by the last reading.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProgramsHeld {
    pub(crate) held: u64,
    pub(crate) holders: u32,
    pub(crate) by: HeldBy,
    /// When the view was asked last.
    pub(crate) asked: Option<Moment>,
    /// Messages of the queue that were ever delivered, and acknowledged.
    pub(crate) delivered: Option<u64>,
    pub(crate) acknowledged: Option<u64>,
    /// Messages that were acknowledged since the pool began.
    pub(crate) gone: u64,
}

impl Programs {
    pub(crate) fn new(view: Option<Arc<dyn HoldingsView>>) -> Self {
        Self {
            view,
            replacements: Mutex::default(),
            held: Mutex::default(),
        }
    }

    /// What they hold.
    pub(crate) fn held(&self) -> ProgramsHeld {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }

    pub(crate) fn set_held(&self, held: ProgramsHeld) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// A program ended by itself, while `steady` others work. Returns the cause of the fault that this is, if it is one.
    #[must_use = "a crash loop is a fault of the pool"]
    pub(crate) fn ended(&self, now: Moment, stop: ProgramStop<'_>, steady: u32) -> Option<String> {
        let mut replacements = self.replacements();
        replacements.ended(now, stop, steady).map(str::to_owned)
    }

    /// A program works.
    pub(crate) fn worked(&self) {
        self.replacements().worked();
    }

    /// Ends the pause before the next start, because the cause may have been fixed.
    pub(crate) fn try_now(&self, now: Moment) {
        self.replacements().try_now(now);
    }

    /// How many of the `wanted` programs may be started now.
    pub(crate) fn most(&self, now: Moment, wanted: u32, young: bool) -> u32 {
        self.replacements().most(now, wanted, young)
    }

    /// Why programs are replaced with a pause, while they are.
    pub(crate) fn cause(&self) -> Option<String> {
        let replacements = self.replacements();
        let why = replacements.cause()?;
        Some(format!(
            "a program ended by itself, so others are started with a pause: {why}"
        ))
    }

    fn replacements(&self) -> MutexGuard<'_, Replacements> {
        self.replacements
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
