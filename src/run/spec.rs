//! What a pool is started from.

use std::sync::Arc;

use crate::{config::PoolSettings, runner::RunnerManager};

/// A pool to run: its settings, and what its jobs run on.
#[derive(Debug, Clone)]
pub struct PoolSpec {
    /// Settings.
    pub settings: PoolSettings,
    /// Brings its runners up. On a reconfiguration, the same `Arc` means the same runners.
    pub runners: Arc<dyn RunnerManager>,
}
