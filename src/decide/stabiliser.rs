//! The stabiliser: how fast the number of workers may move.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How fast a pool may grow and shrink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaling {
    /// At most this many workers more per reconcile: 1 or more.
    pub up_step: u32,
    /// Scale down to the highest recommendation within this window.
    pub down_window: Duration,
    /// At most this many workers fewer per reconcile: 1 or more.
    pub down_step: u32,
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            up_step: 100,
            down_window: Duration::from_secs(10),
            down_step: 100,
        }
    }
}
