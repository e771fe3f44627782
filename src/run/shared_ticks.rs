//! The instants at which pools do what they do regularly: whole intervals after the supervisor's start.
//!
//! Pools of one interval tick in step. So their readings share packets, their tasks share wake-ups, and idle pools cost
//! less.

use std::time::Duration;

use tokio::time::Instant;

use crate::decide::Moment;

/// The last such instant, which may be now. A clock that begins there ticks at once.
pub(super) fn last_whole(interval: Duration, now: Moment) -> Instant {
    let over = since_last_whole(interval, now);
    let now = Instant::now();
    now.checked_sub(over).unwrap_or(now)
}

/// The next such instant, which is later than now.
pub(super) fn next_whole(interval: Duration, now: Moment) -> Instant {
    let left = interval.saturating_sub(since_last_whole(interval, now));
    Instant::now() + left
}

fn since_last_whole(interval: Duration, now: Moment) -> Duration {
    let over = now.since(Moment::ZERO).as_nanos() % interval.as_nanos().max(1);
    u64::try_from(over).map_or(Duration::ZERO, Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pools_that_start_at_different_times_tick_in_step() {
        let interval = Duration::from_secs(2);
        let ms = Duration::from_millis;
        for (now, since_last, to_next) in
            [(0, 0, 2000), (1, 1, 1999), (1999, 1999, 1), (6000, 0, 2000)]
        {
            let now = Moment::after_start(ms(now));
            let instant = Instant::now();
            assert_eq!(
                instant - last_whole(interval, now),
                ms(since_last),
                "{now:?}"
            );
            assert_eq!(next_whole(interval, now) - instant, ms(to_next), "{now:?}");
        }
    }
}
