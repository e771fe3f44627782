//! Arrivals: when the jobs of a trace come.

use std::time::Duration;

use rand::RngExt as _;
use tidegate_core::{
    decide::Moment,
    trace::{ArrivalSpan, Trace},
};

use crate::random::{self, Stream};

/// The arrival times of a trace, in order.
///
/// Within a span, arrivals come at random times: a Poisson process with the span's number of arrivals. Fractions of an
/// arrival are rounded up or down at random. The times are computed one by one, so a clone costs nothing and computes
/// the same times again.
#[derive(Debug, Clone)]
pub(crate) struct ArrivalTimes<'t> {
    spans: std::slice::Iter<'t, ArrivalSpan>,
    stream: Stream,
    /// The start and the length of the current span.
    begin: Duration,
    length: Duration,
    /// Seconds from the start of the span to the last arrival.
    offset: f64,
    /// Arrivals that are still to come in it.
    left: u64,
}

impl<'t> ArrivalTimes<'t> {
    pub(crate) fn new(trace: &'t Trace, seed: u64) -> Self {
        Self {
            spans: trace.spans().iter(),
            stream: random::of_arrivals(seed),
            begin: Duration::ZERO,
            length: Duration::ZERO,
            offset: 0.0,
            left: 0,
        }
    }

    /// Goes on to the next span. `None` after the last.
    fn turn(&mut self) -> Option<()> {
        let span = self.spans.next()?;
        self.begin += self.length;
        self.length = span.length;
        self.offset = 0.0;
        let whole = span.arrivals.floor();
        let extra = self.stream.random::<f64>() < span.arrivals - whole;
        self.left = whole as u64 + u64::from(extra);
        Some(())
    }
}

impl Iterator for ArrivalTimes<'_> {
    type Item = Moment;

    fn next(&mut self) -> Option<Moment> {
        while self.left == 0 {
            self.turn()?;
        }
        if self.length > Duration::ZERO {
            // The earliest of `left` times that are spread evenly over the rest of the span.
            let rest = self.length.as_secs_f64() - self.offset;
            let draw = 1.0 - self.stream.random::<f64>();
            let share = -(draw.ln() / self.left as f64).exp_m1();
            self.offset += rest.max(0.0) * share;
        }
        self.left -= 1;
        let offset = Duration::from_secs_f64(self.offset).min(self.length);
        Some(Moment::after_start(self.begin + offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(text: &str, seed: u64) -> Vec<f64> {
        let trace = Trace::parse(text).expect("a trace");
        let seconds = |at: Moment| at.since(Moment::ZERO).as_secs_f64();
        ArrivalTimes::new(&trace, seed).map(seconds).collect()
    }

    #[test]
    fn each_span_has_its_arrivals_in_order() {
        let times = times("time,arrivals\n0,1000\n100,0\n200,500\n", 1);
        assert_eq!(times.len(), 1500);
        assert!(times.is_sorted());
        assert!(times[999] <= 100.0 && times[1000] >= 200.0 && times[1499] <= 300.0);
    }

    #[test]
    fn gaps_are_those_of_a_poisson_process() {
        let times = times("time,arrivals\n0,100000\n10000,0\n", 3);
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let squares = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>();
        let variation = (squares / gaps.len() as f64).sqrt() / mean;
        assert!((mean - 0.1).abs() < 0.001, "{mean}");
        // 1 for exponential gaps, 0 for even ones.
        assert!((variation - 1.0).abs() < 0.02, "{variation}");
    }

    #[test]
    fn fractions_hold_on_average() {
        let rows: String = (0..10_000).map(|row| format!("{row},0.25\n")).collect();
        let count = times(&format!("time,arrivals\n{rows}"), 5).len();
        assert!((2400..2600).contains(&count), "{count}");
    }

    #[test]
    fn single_arrivals_keep_their_times_and_a_seed_its_own() {
        assert_eq!(times("time\n3\n3\n4.5\n", 1), [0.0, 0.0, 1.5]);
        let text = "time,arrivals\n0,10\n10,0\n";
        assert_eq!(times(text, 7), times(text, 7));
        assert_ne!(times(text, 7), times(text, 8));
    }
}
