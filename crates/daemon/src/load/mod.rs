//! Load: a generator of messages that measures what becomes of them.
//!
//! ```text
//!   shape ──► schedule ──► course ──► publisher ──► broker          when each message is due, and the sending
//!                            │  ◄──── confirms, returns, answers    heard by the same task
//!                            ├──► tally, ledger ──► report          counted, and each message once
//!                            └──► samples ──► chart                 what is drawn
//!   watch (its own connection, the supervisor's socket) ──► samples
//! ```
//!
//! Owns nothing of the daemon, and starts none: what it knows of a pool, it was told by answers or by the supervisor.

mod chart;
mod course;
mod ledger;
mod progress;
pub(crate) mod publisher;
mod report;
mod samples;
pub(crate) mod shape;
mod stop;
mod watch;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tidegate::{
    adapters::amqp::bulk::{BulkPublisher, DepthProbe},
    config::BrokerSettings,
    decide::QueueName,
    queue::QueueError,
    text::duration,
};

use self::{
    course::{Course, Early},
    progress::Progress,
    publisher::Outlet,
    report::Report,
    samples::Sample,
    shape::Schedule,
    stop::Stop,
    watch::Watch,
};
pub(crate) use self::{
    report::thousands,
    shape::{Shape, Until},
    watch::AskWorkers,
};
use crate::{
    chart::ChartError,
    output::{self, Exit, Failure},
};

/// What is to be sent, and how.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) broker: BrokerSettings,
    pub(crate) queue: QueueName,
    pub(crate) until: Until,
    /// Messages a second, on average. `None` for as many as the broker confirms, or for a trace as it was recorded.
    pub(crate) rate: Option<f64>,
    pub(crate) shape: Shape,
    /// How long one wave of the shape is.
    pub(crate) period: Option<Duration>,
    /// Bytes of a body.
    pub(crate) size: usize,
    /// Most messages in flight.
    pub(crate) window: usize,
    /// Longest silence while a confirm or an answer is awaited.
    pub(crate) patience: Duration,
    pub(crate) verify: bool,
    pub(crate) plot: Option<PathBuf>,
    /// What is written over the plot.
    pub(crate) plot_title: Option<String>,
}

/// Where a wave's length is not given and cannot be reckoned.
const PERIOD: Duration = Duration::from_secs(60);

impl Plan {
    /// The schedule; `None` where messages go as fast as the broker confirms them.
    fn schedule(&self) -> Option<Schedule> {
        match (&self.shape, self.rate) {
            (Shape::Steady, None) => None,
            (shape, rate) => Some(Schedule::new(shape, rate, self.wave(), self.until)),
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
        let waves = if self.shape == Shape::Step { 1 } else { 2 };
        let wave = self.period.or(length.map(|length| length / waves));
        wave.filter(|wave| !wave.is_zero()).unwrap_or(PERIOD)
    }

    /// In one line: what is sent.
    fn title(&self) -> String {
        let what = match self.until {
            Until::Count(count) => format!("{} messages", report::thousands(count)),
            Until::Time(time) => format!("{} of messages", duration(time)),
            Until::End => "a trace of messages".to_owned(),
        };
        let shape = match &self.shape {
            Shape::Steady => "steady",
            Shape::Burst => "in bursts",
            Shape::Sine => "as a sine",
            Shape::Step => "in steps",
            Shape::Trace(_) => "as recorded",
        };
        let rate = match (self.rate, &self.shape) {
            (Some(rate), _) => format!("{rate}/s"),
            (None, Shape::Trace(_)) => "its own rate".to_owned(),
            (None, _) => "full speed".to_owned(),
        };
        format!("{what}, {} bytes each, {shape}, {rate}", self.size)
    }
}

/// A load was not what it should have been.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("listen for signals")]
    Signals(#[source] io::Error),
    #[error("listen for answers")]
    Answers(#[source] QueueError),
    #[error("send a message")]
    Send(#[source] QueueError),
    #[error("send the whole load: the broker is lost")]
    Broken(#[source] QueueError),
    #[error("send the whole load: nothing is confirmed for {} s", patience.as_secs())]
    Silent {
        patience: Duration,
        is_blocked: bool,
    },
    #[error("see every message arrive: {what}")]
    Amiss { what: String, answers: bool },
    #[error("draw {}", file.display())]
    Plot {
        file: PathBuf,
        #[source]
        source: ChartError,
    },
}

/// Runs a load. `print` is given the report in the form that is wanted.
///
/// # Errors
/// The broker is not there or was lost, or a message was returned, refused or lost. The report is printed all the same,
/// where anything was sent.
pub(crate) async fn run(
    plan: Plan,
    workers: Option<AskWorkers>,
    mut print: impl FnMut(&Printed<'_>) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    let unreachable = |source| unreachable(&plan.broker, source);
    // Before the first message: a load that cannot be stopped is worse than none.
    let stop = Stop::listen().map_err(LoadError::Signals)?;
    let publisher = BulkPublisher::connect(&plan.broker, "load").await;
    let publisher = publisher.map_err(unreachable)?;
    let answers = match plan.verify {
        true => Some(publisher.answers().await.map_err(LoadError::Answers)?),
        false => None,
    };
    let watch = match plan.plot {
        Some(_) => {
            let probe = DepthProbe::connect(&plan.broker, "load watch", plan.queue.clone());
            Some(Watch::start(probe.await.map_err(unreachable)?, workers))
        }
        None => None,
    };
    let outlet = Outlet::Broker(Box::new(publisher));
    let progress = Progress::new(plan.until);
    let mut course = Course::new(&plan, &outlet, answers, watch.as_ref(), stop);
    let sent = course.run(|seen| progress.show(seen)).await;
    progress.finish();
    let report = course.report();
    print(&Printed {
        title: plan.title(),
        queue: &plan.queue,
        report: &report,
    })?;
    let drawn = match &plan.plot {
        Some(file) => draw(&plan, file, course.samples(), &report),
        None => Ok(()),
    };
    let ended = course.ended();
    outlet.close().await;
    sent.map_err(LoadError::Send)?;
    drawn?;
    if let Some(file) = &plan.plot {
        let file = file.display().to_string();
        output::tell(
            format!("wrote the plot to {}\n", tidegate::escape::Escaped(&file)).as_bytes(),
        );
    }
    judge(&plan, &report, ended)?;
    Ok(Exit::Ok)
}

/// What is said where a command's broker cannot be reached.
pub(crate) fn unreachable(broker: &BrokerSettings, source: QueueError) -> Failure {
    let error = anyhow::Error::new(source).context(format!("reach the broker {broker}"));
    Failure::new(Exit::Unavailable, error).hint(
        "is it running, and are user, password and vhost right in --url (or AMQP_URL, or broker.url)?",
    )
}

fn draw(plan: &Plan, file: &Path, samples: &[Sample], report: &Report) -> Result<(), LoadError> {
    let usual = || format!("tidegate load on {}: {}", plan.queue, plan.title());
    let title = plan.plot_title.clone().unwrap_or_else(usual);
    crate::chart::draw(file, &chart::chart(&title, samples, report)).map_err(|source| {
        LoadError::Plot {
            file: file.to_owned(),
            source,
        }
    })
}

/// # Errors
/// The load ended early against everybody's will, or not every message arrived.
fn judge(plan: &Plan, report: &Report, ended: Option<Early>) -> Result<(), LoadError> {
    match ended {
        Some(Early::Broken(source)) => return Err(LoadError::Broken(source)),
        Some(Early::Silent { is_blocked }) => {
            return Err(LoadError::Silent {
                patience: plan.patience,
                is_blocked,
            });
        }
        Some(Early::Stopped) | None => {}
    }
    if report.is_good() {
        return Ok(());
    }
    let lost = report.verified.as_ref().map_or(0, |verified| verified.lost);
    let counts = [
        (report.returned, "returned"),
        (report.refused, "refused"),
        (lost, "lost"),
    ];
    let what: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", report::thousands(count)))
        .collect();
    Err(LoadError::Amiss {
        what: what.join(", "),
        answers: report
            .verified
            .as_ref()
            .is_none_or(|verified| verified.answered > 0),
    })
}

/// What is printed at the end.
#[derive(Debug)]
pub(crate) struct Printed<'a> {
    title: String,
    queue: &'a QueueName,
    report: &'a Report,
}

impl Printed<'_> {
    /// For people.
    pub(crate) fn human(&self) -> String {
        let mut text = format!("load on {}: {}\n\n", self.queue, self.title);
        for (label, value) in self.report.lines() {
            text.push_str(&format!("  {label:<10} {value}\n"));
        }
        text
    }

    /// What a program's form of the report does not have, and somebody should know.
    pub(crate) fn warning(&self) -> Option<String> {
        let unsent = self.report.unsent;
        (unsent > 0).then(|| {
            let unsent = report::thousands(unsent);
            format!("the load fell behind: {unsent} messages were due and are not sent")
        })
    }

    /// For programs.
    pub(crate) fn json(&self) -> &impl serde::Serialize {
        self.report
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let hint = match &error {
            LoadError::Silent {
                is_blocked: true, ..
            } => Some(
                "the broker takes no messages: an alarm of its memory or disk (`rabbitmq-diagnostics alarms`)",
            ),
            LoadError::Amiss { answers: false, .. } => Some(
                "no message was answered: does a pool consume this queue, and has it reply = true?",
            ),
            LoadError::Amiss { what, .. } if what.contains("returned") => {
                Some("is there a queue of this name? `tidegate check --broker` looks")
            }
            _ => None,
        };
        let failure = Self::new(Exit::Unexpected, error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate::config::BrokerUrl;

    fn plan(shape: Shape, until: Until, rate: Option<f64>) -> Plan {
        Plan {
            broker: BrokerUrl::new("amqp://localhost").into(),
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
    fn a_load_has_two_waves_unless_it_is_told_otherwise() {
        let seconds = Duration::from_secs;
        for (shape, until, rate, wave) in [
            (Shape::Sine, Until::Time(seconds(60)), 5.0, 30),
            (Shape::Burst, Until::Count(100), 10.0, 5),
            (Shape::Step, Until::Count(100), 10.0, 10),
            (Shape::Sine, Until::End, 10.0, 60),
            (Shape::Sine, Until::Count(0), 10.0, 60),
        ] {
            let plan = plan(shape, until, Some(rate));
            assert_eq!(plan.wave(), seconds(wave), "{plan:?}");
        }
    }

    #[test]
    fn without_a_rate_a_steady_load_has_no_schedule() {
        let flat = plan(Shape::Steady, Until::Count(10), None);
        assert!(flat.schedule().is_none());
        assert_eq!(
            flat.title(),
            "10 messages, 1024 bytes each, steady, full speed"
        );
    }
}
