//! Shapes: when each message of a load is due.
//!
//! Pure. A shape is a list of spans of time, each with an even rate, and a schedule iterates over them. The due time of
//! a message does not depend on when earlier messages were sent. A load that waits for a slow broker before it sends
//! the next message would hide the delay (coordinated omission).

use std::time::Duration;

use tidegate::trace::Trace;

/// Number of spans in a sine's period. The error of the rate is then less than one part in 200.
const SINE_SPANS: u32 = 64;

/// What share of a period a burst takes, and by how much its rate is above the mean: 1/4 of the time, 4 times the rate.
const BURST: f64 = 4.0;

/// The rates of the steps, relative to the mean.
const STAIRS: [f64; 4] = [0.4, 0.8, 1.2, 1.6];

/// How arrivals are spread over time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LoadShape {
    /// At one rate.
    Steady,
    /// A quarter of each period at four times the rate, then nothing.
    Burst,
    /// From nothing to twice the rate and back in each period.
    Sine,
    /// In each period 0.4, 0.8, 1.2 and 1.6 times the rate.
    Step,
    /// As it was recorded.
    Trace(Trace),
}

/// The due times of messages: an iterator of times since the load's beginning, which never decrease.
#[derive(Debug, Clone)]
pub(crate) struct LoadSchedule {
    /// The spans, and whether they are repeated.
    spans: Vec<Segment>,
    repeats: bool,
    /// The position: completed rounds, and the span in the current round.
    round: u64,
    at: usize,
    /// The earlier spans of this round: seconds, and messages.
    begun: (f64, f64),
    /// The totals of one round.
    total: (f64, f64),
    /// The next message.
    next: u64,
    until: Until,
}

/// A span, in seconds and messages.
#[derive(Debug, Clone, Copy)]
struct Segment {
    length: f64,
    arrivals: f64,
}

/// The end of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// After this number of messages.
    Count(u64),
    /// At this time: before the first message that is due then or later.
    Time(Duration),
    /// With the trace.
    End,
}

impl LoadSchedule {
    /// A schedule of this mean rate a second. A trace without a rate is played as it was recorded; with one it is played
    /// faster or slower, so that its mean is that.
    pub(crate) fn new(
        shape: &LoadShape,
        rate: Option<f64>,
        period: Duration,
        until: Until,
    ) -> Self {
        let mean = rate.unwrap_or(1.0);
        let period = period.as_secs_f64();
        let all = mean * period;
        let (spans, repeats) = match shape {
            // Any length is correct, because all spans are alike.
            LoadShape::Steady => (vec![line(1.0, mean)], true),
            LoadShape::Burst => {
                let burst = period / BURST;
                (vec![line(burst, all), line(period - burst, 0.0)], true)
            }
            LoadShape::Sine => (sine(all, period), true),
            LoadShape::Step => {
                let step = period / STAIRS.len() as f64;
                let steps = STAIRS.map(|part| line(step, part * mean * step));
                (steps.to_vec(), true)
            }
            LoadShape::Trace(trace) => (played(trace, rate), false),
        };
        let total = spans.iter().fold((0.0, 0.0), |(length, arrivals), span| {
            (length + span.length, arrivals + span.arrivals)
        });
        Self {
            spans,
            repeats,
            round: 0,
            at: 0,
            begun: (0.0, 0.0),
            total,
            next: 0,
            until,
        }
    }

    /// When the message with this number is due: when more than that number of arrivals have come.
    fn due(&mut self) -> Option<f64> {
        loop {
            let Some(span) = self.spans.get(self.at) else {
                // A round without arrivals would be repeated for ever.
                if !self.repeats || self.total.1 <= 0.0 {
                    return None;
                }
                self.round += 1;
                self.at = 0;
                self.begun = (0.0, 0.0);
                continue;
            };
            let rounds = self.round as f64;
            let before = rounds * self.total.1 + self.begun.1;
            let wanted = self.next as f64 - before;
            // A message that is due at the end of a span belongs to the next span. Sums of floating-point parts are not
            // exact.
            if wanted < span.arrivals - 1e-6 {
                let part = (wanted / span.arrivals).max(0.0);
                return Some(rounds * self.total.0 + self.begun.0 + part * span.length);
            }
            self.begun.0 += span.length;
            self.begun.1 += span.arrivals;
            self.at += 1;
        }
    }
}

impl Iterator for LoadSchedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.until == Until::Count(self.next) {
            return None;
        }
        let due = Duration::try_from_secs_f64(self.due()?).ok()?;
        if matches!(self.until, Until::Time(end) if due >= end) {
            return None;
        }
        self.next += 1;
        Some(due)
    }
}

fn line(length: f64, arrivals: f64) -> Segment {
    Segment { length, arrivals }
}

fn sine(all: f64, period: f64) -> Vec<Segment> {
    // The integral of 1 - cos: the share of arrivals up to this part of the period.
    let arrived = |part: f64| part - (std::f64::consts::TAU * part).sin() / std::f64::consts::TAU;
    let part = |n: u32| f64::from(n) / f64::from(SINE_SPANS);
    let span = |n| {
        line(
            period / f64::from(SINE_SPANS),
            all * (arrived(part(n + 1)) - arrived(part(n))),
        )
    };
    (0..SINE_SPANS).map(span).collect()
}

fn played(trace: &Trace, rate: Option<f64>) -> Vec<Segment> {
    let recorded = trace.arrivals() / trace.length().as_secs_f64();
    let stretch = match rate {
        Some(rate) if recorded.is_finite() => recorded / rate,
        _ => 1.0,
    };
    let spans = trace.spans().iter();
    spans
        .map(|span| line(span.length.as_secs_f64() * stretch, span.arrivals))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERIOD: Duration = Duration::from_secs(8);

    fn schedule(shape: &LoadShape, rate: f64, until: Until) -> LoadSchedule {
        LoadSchedule::new(shape, Some(rate), PERIOD, until)
    }

    /// How many messages are due in each whole second.
    fn by_second(schedule: LoadSchedule) -> Vec<usize> {
        let mut seconds = Vec::new();
        for due in schedule {
            let second = due.as_secs() as usize;
            seconds.resize(seconds.len().max(second + 1), 0);
            seconds[second] += 1;
        }
        seconds
    }

    fn seconds(n: u64) -> Until {
        Until::Time(Duration::from_secs(n))
    }

    #[test]
    fn a_steady_load_is_due_at_even_times() {
        let due: Vec<f64> = schedule(&LoadShape::Steady, 4.0, Until::Count(6))
            .map(|due| due.as_secs_f64())
            .collect();
        assert_eq!(due, [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]);
    }

    #[test]
    fn a_load_of_a_duration_has_what_is_due_before_its_end() {
        for (rate, length, count) in [
            (100.0, 10, 1000),
            (20_000.0, 5, 100_000),
            (0.5, 10, 5),
            (33.3, 3, 100),
            (1e-3, 10, 1),
        ] {
            let schedule = schedule(&LoadShape::Steady, rate, seconds(length));
            assert_eq!(schedule.count(), count, "{rate} for {length} s");
        }
    }

    #[test]
    fn shapes_have_the_mean_rate_over_a_period() {
        let cases: [(LoadShape, [usize; 8]); 3] = [
            (LoadShape::Burst, [400, 400, 0, 0, 0, 0, 0, 0]),
            (LoadShape::Step, [40, 40, 80, 80, 120, 120, 160, 160]),
            (LoadShape::Sine, [10, 64, 136, 190, 190, 136, 64, 10]),
        ];
        for (shape, expected) in cases {
            let two = by_second(schedule(&shape, 100.0, seconds(16)));
            let mut counts = two.clone();
            counts.resize(16, 0);
            for (second, count) in counts.iter().enumerate() {
                let off = count.abs_diff(expected[second % 8]);
                assert!(off <= 1, "{shape:?}: {two:?}");
            }
            assert_eq!(counts.iter().sum::<usize>(), 1600, "{shape:?}");
        }
    }

    #[test]
    fn after_a_quiet_time_the_next_burst_begins_on_time() {
        let due: Vec<Duration> = schedule(&LoadShape::Burst, 1.0, Until::Count(9)).collect();
        assert_eq!(due[7], Duration::from_millis(1750));
        assert_eq!(due[8], PERIOD);
    }

    #[test]
    fn a_trace_is_played_as_it_was_recorded_or_at_another_rate() {
        let trace = Trace::parse("time,arrivals\n0,2\n10,0\n20,4\n").unwrap();
        let shape = LoadShape::Trace(trace);
        let play = |rate, until| -> Vec<u64> {
            let schedule = LoadSchedule::new(&shape, rate, PERIOD, until);
            schedule.map(|due| due.as_millis() as u64).collect()
        };
        let recorded = [0, 5000, 20_000, 22_500, 25_000, 27_500];
        assert_eq!(play(None, Until::End), recorded);
        // Six in 30 s is 0.2 a second.
        assert_eq!(play(Some(0.4), Until::End), recorded.map(|due| due / 2));
        assert_eq!(play(None, Until::Count(3)), recorded[..3]);
        assert_eq!(play(None, seconds(21)), recorded[..3]);
    }

    #[test]
    fn a_trace_of_single_arrivals_is_due_at_their_times() {
        let trace = Trace::parse("time\n100\n100\n100.5\n").unwrap();
        let schedule = LoadSchedule::new(&LoadShape::Trace(trace), None, PERIOD, Until::End);
        let due: Vec<u128> = schedule.map(|due| due.as_millis()).collect();
        assert_eq!(due, [0, 0, 500]);
    }

    #[test]
    fn a_trace_without_arrivals_ends() {
        let trace = Trace::parse("time,arrivals\n0,0\n10,0\n").unwrap();
        let schedule = LoadSchedule::new(&LoadShape::Trace(trace), None, PERIOD, Until::Count(5));
        assert_eq!(schedule.count(), 0);
    }

    proptest! {
        #[test]
        fn no_message_is_due_before_the_one_before_it(
            shape in prop::sample::select(vec![LoadShape::Steady, LoadShape::Burst, LoadShape::Sine, LoadShape::Step]),
            rate in 0.1..50_000.0_f64,
            period in 1_u64..100_000,
        ) {
            let period = Duration::from_millis(period);
            let due: Vec<Duration> =
                LoadSchedule::new(&shape, Some(rate), period, Until::Count(2_000)).collect();
            prop_assert_eq!(due.len(), 2_000);
            prop_assert!(due.is_sorted());
            // Never ahead of its rate: a period's messages come in that period.
            let last = due[1_999].as_secs_f64() + period.as_secs_f64();
            prop_assert!(last * rate >= 1_999.0 - 1.0, "{last}");
        }
    }
}
