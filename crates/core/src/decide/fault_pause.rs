//! How long to wait after failures: of runners and programs, of a pool's own task, of storing orders, and of readings of a
//! queue that is missing.

use std::time::Duration;

/// The pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Longest pause between two readings of a missing queue. Each costs the broker a channel and a line in its log.
const MAX_ABSENT: Duration = Duration::from_secs(5);

/// The pause after this many failures in a row: 1 s, doubled for each further failure, up to a minute.
pub fn fault_pause(failures: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)))
        .min(MAX_PAUSE)
}

/// The pause after a reading that found no queue: the pool's interval, doubled for each further such reading, up to 5 s. An
/// interval above that stays. `last`: the pause after the reading before, if that found none either.
pub fn absent_pause(last: Option<Duration>, interval: Duration) -> Duration {
    let longer = |pause: Duration| pause.saturating_mul(2).min(MAX_ABSENT);
    last.map_or(interval, longer).max(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_queue_is_looked_for_at_growing_intervals() {
        let pauses = |interval: u64, readings: usize| {
            let interval = Duration::from_millis(interval);
            let pauses = std::iter::successors(Some(absent_pause(None, interval)), |last| {
                Some(absent_pause(Some(*last), interval))
            });
            let pauses = pauses.take(readings).map(|pause| pause.as_millis());
            pauses.collect::<Vec<_>>()
        };
        assert_eq!(pauses(500, 6), [500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(pauses(30_000, 2), [30_000, 30_000]);
        assert_eq!(
            absent_pause(Some(Duration::MAX), Duration::MAX),
            Duration::MAX
        );
    }

    #[test]
    fn a_pause_after_failures_doubles_up_to_a_minute() {
        let seconds = [1, 2, 3, 7, u32::MAX].map(|failures| fault_pause(failures).as_secs());
        assert_eq!(seconds, [1, 2, 4, 60, 60]);
    }
}
