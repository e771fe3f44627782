//! Arrivals: how many messages arrive in a queue and leave it, computed from readings.
//!
//! The arrivals between two readings are the growth of the ready and held messages, plus the messages that left.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

use super::Moment;

/// Time constant of the fast average of arrivals.
pub const FAST: Duration = Duration::from_secs(10);
/// Time constant of the slow average of arrivals.
pub const SLOW: Duration = Duration::from_secs(120);

/// Length of time that a rate covers.
const WINDOW: Duration = Duration::from_secs(60);
/// Readings closer together than this are merged, so that the window has a limited number of them.
const APART: Duration = Duration::from_secs(1);
/// Shortest time for which a rate is computed.
const LEAST: Duration = Duration::from_secs(5);

/// Messages that arrive per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Arrivals {
    /// An average that follows a change within [`FAST`].
    pub fast: f64,
    /// An average over about [`SLOW`], with less noise.
    pub slow: f64,
    /// How long arrivals were watched.
    #[serde(with = "crate::json_time::seconds")]
    pub watched: Duration,
    /// Messages that arrived in that time.
    pub total: u64,
}

impl Arrivals {
    /// Both averages at this rate, after watching for this long.
    pub fn steady(rate: f64, watched: Duration) -> Self {
        Self {
            fast: rate,
            slow: rate,
            watched,
            total: (rate * watched.as_secs_f64()) as u64,
        }
    }
}

/// Takes trusted readings.
#[derive(Debug, Clone, Default)]
pub(in crate::decide) struct ArrivalMeter {
    /// The readings of the last minute.
    seen: VecDeque<Seen>,
    begun: Option<Moment>,
    fast: Average,
    slow: Average,
    total: u64,
    /// Messages that were counted before, but are missing from later readings. A delivery can be missing for a moment:
    /// while it moves between two places, or when its worker no longer holds it.
    missing: u64,
}

/// An average that decays exponentially.
#[derive(Debug, Clone, Copy, Default)]
struct Average {
    sum: f64,
    /// Weight of the time that was seen: 1 once it is much longer than the time constant.
    weight: f64,
}

impl Average {
    fn add(&mut self, rate: f64, time: Duration, constant: Duration) {
        let kept = (-time.as_secs_f64() / constant.as_secs_f64()).exp();
        self.sum = self.sum * kept + rate * (1.0 - kept);
        self.weight = self.weight * kept + (1.0 - kept);
    }

    fn get(self) -> f64 {
        if self.weight > 0.0 {
            self.sum / self.weight
        } else {
            0.0
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Moment,
    /// Messages in the queue, plus messages that we hold.
    there: u64,
    /// Jobs that have ever left the queue.
    gone: u64,
}

impl ArrivalMeter {
    /// Adds a reading.
    pub(in crate::decide) fn see(&mut self, at: Moment, there: u64, gone: u64) {
        match self.seen.back().copied() {
            Some(last) if at.since(last.at) < APART => return,
            Some(last) => self.count(at, last, there.saturating_add(gone)),
            None => self.begun = Some(at),
        }
        self.seen.push_back(Seen { at, there, gone });
        while self.seen.len() > 2 && at.since(self.seen[1].at) >= WINDOW {
            self.seen.pop_front();
        }
    }

    /// Counts what arrived since the last reading.
    fn count(&mut self, at: Moment, last: Seen, sum: u64) {
        let before = last.there.saturating_add(last.gone);
        let time = at.since(last.at);
        // A message that stays missing was taken by others.
        let kept = (-time.as_secs_f64() / FAST.as_secs_f64()).exp();
        self.missing = (self.missing as f64 * kept).ceil() as u64;
        let came = match sum.checked_sub(before) {
            Some(more) => {
                let back = more.min(self.missing);
                self.missing -= back;
                more - back
            }
            None => {
                // If many are missing, others took them or they were purged, so they do not come back.
                let fewer = before - sum;
                self.missing = if fewer <= last.there / 4 + 16 {
                    self.missing + fewer
                } else {
                    0
                };
                0
            }
        };
        self.total += came;
        let rate = came as f64 / time.as_secs_f64();
        self.fast.add(rate, time, FAST);
        self.slow.add(rate, time, SLOW);
    }

    /// The averages as of the last reading. `None` until the queue was watched for a few seconds.
    pub(in crate::decide) fn arrivals(&self) -> Option<Arrivals> {
        let watched = self.seen.back()?.at.since(self.begun?);
        (watched >= LEAST).then(|| Arrivals {
            fast: self.fast.get(),
            slow: self.slow.get(),
            watched,
            total: self.total,
        })
    }

    /// How long the oldest of the ready messages has waited, at least. Messages leave a queue in the order in which
    /// they came, so the ready messages are the last `ready` that arrived. `None` if none is ready, or before the first
    /// reading. No more than the last minute is known.
    pub(in crate::decide) fn oldest(&self, now: Moment, ready: u64) -> Option<Duration> {
        let last = self.seen.back()?;
        let others = last
            .there
            .saturating_add(last.gone)
            .checked_sub(ready)
            .filter(|_| ready > 0)?;
        let arrived = |seen: &&Seen| seen.there.saturating_add(seen.gone) > others;
        // The readings without the oldest message come before the readings with it.
        let first = self
            .seen
            .iter()
            .rev()
            .take_while(arrived)
            .last()
            .unwrap_or(last);
        Some(now.since(first.at))
    }

    /// The rates as of the last reading.
    pub(in crate::decide) fn rates(&self) -> Option<Rates> {
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

    /// Forgets all readings, because the queue was replaced.
    pub(in crate::decide) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Messages per second, over the last minute or the part of it that was observed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Messages that arrived in the queue, without those that other consumers took.
    pub arrivals: f64,
    /// Jobs that left the queue: done, moved to a retry queue, or dead-lettered.
    pub done: f64,
}

impl Rates {
    /// The same rates with three digits after the point, for people.
    #[must_use]
    pub fn rounded(self) -> Self {
        let round = |rate: f64| (rate * 1000.0).round() / 1000.0;
        Self {
            arrivals: round(self.arrivals),
            done: round(self.done),
        }
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
        let mut meter = ArrivalMeter::default();
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
    fn messages_that_others_take_give_no_negative_rate() {
        let mut meter = ArrivalMeter::default();
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

    #[test]
    fn fast_and_slow_averages_follow_a_change_at_their_own_speed() {
        let mut meter = ArrivalMeter::default();
        let mut there = 0;
        for second in 0..=900 {
            there += if second > 600 { 20 } else { 4 };
            meter.see(at(second), there, 0);
            let arrivals = meter.arrivals();
            match second {
                4 => assert_eq!(arrivals, None, "too short to tell"),
                5..=600 => {
                    let Arrivals { fast, slow, .. } = arrivals.expect("long enough");
                    assert!((fast - 4.0).abs() < 1e-6 && (slow - 4.0).abs() < 1e-6);
                }
                620 => {
                    let Arrivals { fast, slow, .. } = arrivals.expect("long enough");
                    // 86 % and 15 % of the way.
                    assert!((17.0..18.5).contains(&fast), "{fast}");
                    assert!((6.0..7.0).contains(&slow), "{slow}");
                }
                _ => {}
            }
        }
        let arrivals = meter.arrivals().expect("long enough");
        assert_eq!(arrivals.total, 4 * 600 + 20 * 300);
        assert_eq!(arrivals.watched, Duration::from_secs(900));
    }

    #[test]
    fn the_age_of_the_oldest_message_follows_from_the_number_of_arrivals() {
        let mut meter = ArrivalMeter::default();
        assert_eq!(meter.oldest(at(0), 3), None);
        // Two come each second, and one leaves, so the queue grows by one.
        for second in 0..=40 {
            meter.see(at(second), second, second);
        }
        assert_eq!(meter.oldest(at(40), 0), None);
        // 80 came by now, and 40 of them are there: the first of them was the 41st.
        assert_eq!(meter.oldest(at(41), 40), Some(Duration::from_secs(20)));
        for second in 41..=300 {
            meter.see(at(second), 40 + second, second);
        }
        // An age of more than a minute is reported as a minute.
        let oldest = meter.oldest(at(300), 340).expect("it is known");
        assert!((60..=61).contains(&oldest.as_secs()), "{oldest:?}");
    }

    /// A delivery that is missing in one reading and back in the next is not a new arrival.
    #[test]
    fn messages_that_are_missing_for_a_moment_are_not_counted_twice() {
        let mut meter = ArrivalMeter::default();
        for second in 0..100 {
            meter.see(at(second), 10 - second % 3, 0);
        }
        let arrivals = meter.arrivals().expect("long enough");
        assert_eq!(arrivals.total, 0);
        // A purge removes them: later messages are new.
        meter.see(at(101), 1000, 0);
        meter.see(at(102), 0, 0);
        meter.see(at(103), 5, 0);
        assert_eq!(meter.arrivals().map(|a| a.total), Some(990 + 5));
    }
}
