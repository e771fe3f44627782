//! How long a delivery may be held, and how much of that time belongs to its job.
//!
//! A broker closes the channel of a delivery that is held too long, and delivers the message again while its job still
//! runs. So a job's time is counted from the arrival of its delivery, and ends early enough to settle.

use std::time::Duration;

/// Longest time that is reserved for settling.
const MARGIN: Duration = Duration::from_secs(10);

/// A year: longer than any broker waits, and safe to add to any instant of a clock.
const MAX_DEADLINE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The deadlines of a delivery, counted from its arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryDeadlines {
    /// When its job is told to end.
    pub stop: Duration,
    /// When a job that did not end is abandoned.
    pub abandon: Duration,
    /// When it must be settled.
    pub settle: Duration,
}

impl DeliveryDeadlines {
    /// The deadlines for a job that may take `stop_grace` to end. For any `stop_grace`, a job has half of the time.
    pub fn new(ack_deadline: Duration, stop_grace: Duration) -> Self {
        // A user of the library may write Duration::MAX.
        let ack_deadline = ack_deadline.min(MAX_DEADLINE);
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

    /// How long a delivery may wait for its turn before it is given back and taken again. Its job then still has its own
    /// timeout, or half of the time.
    pub fn longest_wait(&self, timeout: Option<Duration>) -> Duration {
        let half = self.stop / 2;
        let needs = timeout.map_or(half, |timeout| timeout.min(half));
        self.stop - needs
    }

    /// Whether a delivery that has waited for its worker for this time may still start: its job's own timeout must come
    /// before the deadline. If the job has no timeout, or one longer than the whole time, half of the time must be
    /// left.
    pub fn is_worth_starting(&self, waited: Duration, timeout: Option<Duration>) -> bool {
        let needs = timeout
            .filter(|timeout| *timeout <= self.stop)
            .unwrap_or(self.stop / 2);
        self.stop.saturating_sub(waited) >= needs
    }
}

/// The part of a deadline that is reserved for settling.
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
            let deadlines = DeliveryDeadlines::new(ack_deadline, stop_grace);
            assert_eq!((deadlines.stop, deadlines.abandon), (stop, abandon));
        }
    }

    #[test]
    fn a_delivery_that_waited_is_started_if_its_timeout_ends_before_the_deadline() {
        let deadlines = DeliveryDeadlines::new(s(1800), s(10));
        for (waited, timeout, worth) in [
            (0, Some(300), true),
            (1480, Some(300), true),
            (1481, Some(300), false),
            (890, None, true),
            (891, None, false),
            // A timeout that never fits counts as no timeout.
            (890, Some(9999), true),
            (891, Some(9999), false),
            (99_999, Some(1), false),
        ] {
            let is_worth = deadlines.is_worth_starting(s(waited), timeout.map(s));
            assert_eq!(is_worth, worth, "{waited} {timeout:?}");
        }
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "what is tested is that the clock can hold the sum"
    )]
    fn an_unlimited_deadline_can_be_added_to_an_instant() {
        let deadlines = DeliveryDeadlines::new(Duration::MAX, s(10));
        assert!(
            std::time::Instant::now()
                .checked_add(deadlines.settle)
                .is_some()
        );
        assert!(deadlines.stop < deadlines.abandon && deadlines.abandon < deadlines.settle);
    }

    proptest! {
        #[test]
        fn the_deadlines_are_in_order_and_leave_time_for_each(ack in 1u64..3_000_000_000, grace in 0u64..3_000_000_000) {
            let (ack, grace) = (Duration::from_millis(ack), Duration::from_millis(grace));
            let deadlines = DeliveryDeadlines::new(ack, grace);
            prop_assert!(ack / 2 <= deadlines.stop && deadlines.stop < deadlines.abandon && deadlines.abandon < deadlines.settle);
            prop_assert!(deadlines.is_worth_starting(Duration::ZERO, None));
            let longest = deadlines.longest_wait(Some(grace));
            prop_assert!(longest >= deadlines.longest_wait(None) && longest <= deadlines.stop);
            prop_assert!(deadlines.longest_wait(None) >= deadlines.stop / 2 && !longest.is_zero());
        }
    }
}
