//! What a pool with keys has taken ahead of its workers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::form_for;

/// The deliveries that a pool with keys has taken and not started. No worker holds them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenAhead {
    /// Those that may start now.
    pub ready: u64,
    /// Those that wait for a running job of their key.
    pub blocked: u64,
    /// How many more deliveries the pool may take before one is settled.
    pub room: u64,
}

impl TakenAhead {
    /// All of them.
    pub fn taken(&self) -> u64 {
        self.ready.saturating_add(self.blocked)
    }
}

impl fmt::Display for TakenAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ready,
            blocked,
            room,
        } = *self;
        let wait = form_for(blocked, "waits", "wait");
        write!(
            f,
            "taken and not started: {ready} can start, {blocked} {wait} for a job of the same key; room for {room} more"
        )
    }
}
