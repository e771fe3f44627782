//! How long to wait after failures: of runners and programs, of a pool's own task, and of storing orders.

use std::time::Duration;

/// The pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The pause after this many failures in a row: 1 s, doubled for each further failure, up to a minute.
pub fn fault_pause(failures: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)))
        .min(MAX_PAUSE)
}
