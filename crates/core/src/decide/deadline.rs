//! How long a delivery may be held, and what of that is its job's.
//!
//! A broker cuts the channel of a delivery that is held too long, and hands it to someone else while its job still
//! runs. So a job's time is counted from its delivery's arrival, and ends while there is still time to settle.

use std::time::Duration;

/// The most that is kept to settle in.
const MARGIN: Duration = Duration::from_secs(10);

/// A year: longer than any broker waits, and what can be added to any time of a clock.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The hours of a delivery, counted from its arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// When its job is told to end.
    pub stop: Duration,
    /// When a job that did not end is let go of.
    pub abandon: Duration,
    /// When it must be settled.
    pub settle: Duration,
}

impl Hours {
    /// The hours where a job that is told to end may take `stop_grace` for it. However long that is, a job has half
    /// of the time.
    pub fn new(ack_deadline: Duration, stop_grace: Duration) -> Self {
        // A library's user may write Duration::MAX.
        let ack_deadline = ack_deadline.min(LONGEST);
        let margin = margin(ack_deadline);
        Self {
            stop: ack_deadline
                .saturating_sub(stop_grace)
                .saturating_sub(margin)
                .max(ack_deadline / 2),
            abandon: ack_deadline - margin / 2,
            settle: ack_deadline,
        }
    }

    /// Whether a delivery that has waited for its worker for so long is worth starting: where its job's own timeout
    /// would still come first. Of jobs that have none, or more than there ever is, half of the time must be left.
    pub fn is_worth_starting(&self, waited: Duration, timeout: Option<Duration>) -> bool {
        let needs = timeout
            .filter(|timeout| *timeout <= self.stop)
            .unwrap_or(self.stop / 2);
        self.stop.saturating_sub(waited) >= needs
    }
}

/// What is kept of a deadline to settle in.
pub fn margin(ack_deadline: Duration) -> Duration {
    (ack_deadline / 20).min(MARGIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_job_is_stopped_in_time_to_be_settled() {
        for (ack_deadline, stop_grace, stop, abandon) in [
            (s(1800), s(10), s(1780), s(1795)),
            (s(1800), s(0), s(1790), s(1795)),
            (s(100), s(10), s(85), Duration::from_millis(97_500)),
            (s(20), s(60), s(10), Duration::from_millis(19_500)),
        ] {
            let hours = Hours::new(ack_deadline, stop_grace);
            assert_eq!((hours.stop, hours.abandon), (stop, abandon));
        }
    }

    #[test]
    fn what_waited_is_started_while_its_timeout_still_comes_first() {
        let hours = Hours::new(s(1800), s(10));
        for (waited, timeout, worth) in [
            (0, Some(300), true),
            (1480, Some(300), true),
            (1481, Some(300), false),
            (890, None, true),
            (891, None, false),
            // A timeout that never fits is none.
            (890, Some(9999), true),
            (891, Some(9999), false),
            (99_999, Some(1), false),
        ] {
            let is_worth = hours.is_worth_starting(s(waited), timeout.map(s));
            assert_eq!(is_worth, worth, "{waited} {timeout:?}");
        }
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "what is tested is that the clock can hold the sum"
    )]
    fn a_deadline_that_never_comes_is_still_a_time() {
        let hours = Hours::new(Duration::MAX, s(10));
        assert!(
            std::time::Instant::now()
                .checked_add(hours.settle)
                .is_some()
        );
        assert!(hours.stop < hours.abandon && hours.abandon < hours.settle);
    }

    proptest! {
        #[test]
        fn the_hours_are_in_order_and_leave_time_for_each(ack in 1u64..3_000_000_000, grace in 0u64..3_000_000_000) {
            let (ack, grace) = (Duration::from_millis(ack), Duration::from_millis(grace));
            let hours = Hours::new(ack, grace);
            prop_assert!(ack / 2 <= hours.stop && hours.stop < hours.abandon && hours.abandon < hours.settle);
            prop_assert!(hours.is_worth_starting(Duration::ZERO, None));
        }
    }
}
