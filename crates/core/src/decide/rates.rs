//! Rates: how many messages arrive in a queue and leave it, computed from readings.

use std::{collections::VecDeque, time::Duration};

use super::{Moment, Rates};

/// Length of time that a rate covers.
const WINDOW: Duration = Duration::from_secs(60);
/// Readings closer together than this are merged, so that the window has a limited number of them.
const APART: Duration = Duration::from_secs(1);
/// Shortest time for which a rate is computed.
const LEAST: Duration = Duration::from_secs(5);

/// The readings of the last minute.
#[derive(Debug, Clone, Default)]
pub(super) struct RateMeter {
    seen: VecDeque<Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Moment,
    /// Messages in the queue, plus messages that we hold.
    there: u64,
    /// Jobs that have ever left the queue.
    gone: u64,
}

impl RateMeter {
    /// Adds a reading.
    pub(super) fn see(&mut self, at: Moment, there: u64, gone: u64) {
        if self
            .seen
            .back()
            .is_some_and(|last| at.since(last.at) < APART)
        {
            return;
        }
        self.seen.push_back(Seen { at, there, gone });
        while self.seen.len() > 2 && at.since(self.seen[1].at) >= WINDOW {
            self.seen.pop_front();
        }
    }

    /// The rates as of the last reading.
    pub(super) fn rates(&self) -> Option<Rates> {
        let (first, last) = (self.seen.front()?, self.seen.back()?);
        let time = last.at.since(first.at);
        if time < LEAST {
            return None;
        }
        let done = last.gone.saturating_sub(first.gone);
        // If other consumers took messages, or the queue was purged, fewer messages remain than arrived.
        let came = last.there.saturating_add(done).saturating_sub(first.there);
        let seconds = time.as_secs_f64();
        Some(Rates {
            arrivals: came as f64 / seconds,
            done: done as f64 / seconds,
        })
    }

    /// Forgets all readings, because the queue is another one.
    pub(super) fn clear(&mut self) {
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Moment {
        Moment::after_start(Duration::from_secs(second))
    }

    #[test]
    fn counts_what_came_and_what_left_over_the_last_minute() {
        let mut meter = RateMeter::default();
        assert_eq!(meter.rates(), None);
        // Each second two messages arrive and one leaves, until both stop.
        for second in 0..=120 {
            let steady = second.min(60);
            meter.see(at(second), 10 + steady, steady);
            if second == 4 {
                assert_eq!(meter.rates(), None, "too short to tell");
            }
            if second == 60 {
                let rates = Rates {
                    arrivals: 2.0,
                    done: 1.0,
                };
                assert_eq!(meter.rates(), Some(rates));
            }
        }
        assert_eq!(meter.rates(), Some(Rates::default()));
        assert!(meter.seen.len() < 64, "{}", meter.seen.len());
    }

    #[test]
    fn what_others_take_is_no_negative_rate() {
        let mut meter = RateMeter::default();
        meter.see(at(0), 100, 0);
        meter.see(at(10), 0, 20);
        let rates = meter.rates().expect("enough was seen");
        assert_eq!(
            rates,
            Rates {
                arrivals: 0.0,
                done: 2.0
            }
        );
        meter.clear();
        assert_eq!(meter.rates(), None);
    }
}
