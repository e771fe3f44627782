//! The plan of a load: what to send, and how.

use std::{path::PathBuf, time::Duration};

use tidegate::{
    config::BrokerSettings,
    decide::QueueName,
    text::{counted, duration, noun_for},
};

use super::{
    report::thousands,
    shape::{LoadSchedule, LoadShape, Until},
};

/// The plan of a load.
#[derive(Debug)]
pub(crate) struct LoadPlan {
    pub(crate) broker: BrokerSettings,
    pub(crate) queue: QueueName,
    pub(crate) until: Until,
    /// Messages a second, on average. `None` for as many as the broker confirms, or for a trace as it was recorded.
    pub(crate) rate: Option<f64>,
    pub(crate) shape: LoadShape,
    /// How long one wave of the shape is.
    pub(crate) period: Option<Duration>,
    /// Bytes of a body.
    pub(crate) size: usize,
    /// The maximum number of messages in flight.
    pub(crate) window: usize,
    /// Longest silence while a confirm or an answer is awaited.
    pub(crate) patience: Duration,
    pub(crate) verify: bool,
    pub(crate) plot: Option<PathBuf>,
    /// The title of the plot.
    pub(crate) plot_title: Option<String>,
}

/// The length of a wave if it is not given and cannot be computed.
const PERIOD: Duration = Duration::from_secs(60);

impl LoadPlan {
    /// The schedule; `None` if messages are sent as fast as the broker confirms them.
    pub(super) fn schedule(&self) -> Option<LoadSchedule> {
        match (&self.shape, self.rate) {
            (LoadShape::Steady, None) => None,
            (shape, rate) => Some(LoadSchedule::new(shape, rate, self.wave(), self.until)),
        }
    }

    /// How long one wave is: two in the load, or one staircase.
    fn wave(&self) -> Duration {
        let length = match (self.until, self.rate) {
            (Until::Time(length), _) => Some(length),
            (Until::Count(count), Some(rate)) => {
                Duration::try_from_secs_f64(count as f64 / rate).ok()
            }
            _ => None,
        };
        let waves = if self.shape == LoadShape::Step { 1 } else { 2 };
        let wave = self.period.or(length.map(|length| length / waves));
        wave.filter(|wave| !wave.is_zero()).unwrap_or(PERIOD)
    }

    /// A description of the load in one line.
    pub(super) fn title(&self) -> String {
        let what = match self.until {
            Until::Count(count) => format!("{} {}", thousands(count), noun_for(count, "message")),
            Until::Time(time) => format!("{} of messages", duration(time)),
            Until::End => "a trace of messages".to_owned(),
        };
        let shape = match &self.shape {
            LoadShape::Steady => "steady",
            LoadShape::Burst => "in bursts",
            LoadShape::Sine => "as a sine",
            LoadShape::Step => "in steps",
            LoadShape::Trace(_) => "as recorded",
        };
        let rate = match (self.rate, &self.shape) {
            (Some(rate), _) => format!("{rate}/s"),
            (None, LoadShape::Trace(_)) => "its own rate".to_owned(),
            (None, _) => "full speed".to_owned(),
        };
        let size = counted(self.size, "byte");
        format!("{what}, {size} each, {shape}, {rate}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate::config::{BrokerUrl, TlsSettings};

    fn plan(shape: LoadShape, until: Until, rate: Option<f64>) -> LoadPlan {
        LoadPlan {
            broker: BrokerSettings {
                url: BrokerUrl::new("amqp://localhost"),
                tls: TlsSettings::default(),
            },
            queue: "work".into(),
            until,
            rate,
            shape,
            period: None,
            size: 1024,
            window: 10,
            patience: Duration::from_secs(30),
            verify: false,
            plot: None,
            plot_title: None,
        }
    }

    #[test]
    fn a_demo_load_has_two_waves_by_default() {
        let seconds = Duration::from_secs;
        for (shape, until, rate, wave) in [
            (LoadShape::Sine, Until::Time(seconds(60)), 5.0, 30),
            (LoadShape::Burst, Until::Count(100), 10.0, 5),
            (LoadShape::Step, Until::Count(100), 10.0, 10),
            (LoadShape::Sine, Until::End, 10.0, 60),
            (LoadShape::Sine, Until::Count(0), 10.0, 60),
        ] {
            let plan = plan(shape, until, Some(rate));
            assert_eq!(plan.wave(), seconds(wave), "{plan:?}");
        }
    }

    #[test]
    fn without_a_rate_a_steady_load_has_no_schedule() {
        let flat = plan(LoadShape::Steady, Until::Count(10), None);
        assert!(flat.schedule().is_none());
        assert_eq!(
            flat.title(),
            "10 messages, 1024 bytes each, steady, full speed"
        );
    }
}
