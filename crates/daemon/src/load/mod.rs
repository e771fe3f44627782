//! Load: a generator of messages that measures how they are handled.
//!
//! ```text
//!   shape ──► schedule ──► course ──► publisher ──► broker          when each message is due, and and sending
//!                            │  ◄──── confirms, returns, answers    heard by the same task
//!                            ├──► tally, ledger ──► report          counted, and each message once
//!                            └──► samples ──► chart                 what is drawn
//!   watch (its own connection, the supervisor's socket) ──► samples
//! ```
//!
//! Does not use or start the daemon: it knows a pool only from answers and from the supervisor's API.

mod chart;
mod course;
mod ledger;
mod pace;
mod plan;
mod progress;
pub(crate) mod publisher;
mod report;
mod samples;
pub(crate) mod shape;
mod stop;
mod tally;
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
    text::{form_for, noun_for},
};

use self::{
    course::{Early, LoadRun},
    progress::LoadProgress,
    publisher::Outlet,
    report::LoadReport,
    samples::LoadSample,
    stop::Stop,
    watch::Watch,
};
pub(crate) use self::{
    plan::LoadPlan,
    report::thousands,
    shape::{LoadShape, Until},
    watch::AskWorkers,
};
use crate::{
    chart::ChartError,
    output::{self, CommandFailure, Exit},
};

/// A load failed.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("listen for signals")]
    Signals(#[source] io::Error),
    #[error("listen for answers")]
    Answers(#[source] QueueError),
    #[error("send a message")]
    Send(#[source] QueueError),
    #[error("send the whole load: the connection to the broker was lost")]
    Broken(#[source] QueueError),
    #[error("send the whole load: nothing is confirmed for {} s", patience.as_secs())]
    Silent {
        patience: Duration,
        is_blocked: bool,
    },
    #[error("deliver every message: {what}")]
    Amiss { what: String, answers: bool },
    #[error("draw {}", file.display())]
    Plot {
        file: PathBuf,
        #[source]
        source: ChartError,
    },
}

/// Runs a load. `print` gets the report in the requested format.
///
/// # Errors
/// The broker is not reachable or was lost, or a message was returned, refused or lost. The report is still printed, if
/// anything was sent.
pub(crate) async fn run(
    plan: LoadPlan,
    workers: Option<AskWorkers>,
    mut print: impl FnMut(&Printed<'_>) -> Result<(), CommandFailure>,
) -> Result<Exit, CommandFailure> {
    let unreachable = |source| unreachable(&plan.broker, source);
    // Before the first message, because a load must be stoppable.
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
    let progress = LoadProgress::new(plan.until);
    let mut course = LoadRun::new(&plan, &outlet, answers, watch.as_ref(), stop);
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
        output::tell_of_plot(file);
    }
    judge(&plan, &report, ended)?;
    Ok(Exit::Ok)
}

/// The message if a command's broker cannot be reached.
pub(crate) fn unreachable(broker: &BrokerSettings, source: QueueError) -> CommandFailure {
    let error = anyhow::Error::new(source).context(format!("reach the broker {broker}"));
    CommandFailure::new(Exit::Unavailable, error).hint(
        "is it running, and are user, password and vhost right in --url (or AMQP_URL, or broker.url)?",
    )
}

fn draw(
    plan: &LoadPlan,
    file: &Path,
    samples: &[LoadSample],
    report: &LoadReport,
) -> Result<(), LoadError> {
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
/// The load was ended early by an error, or not every message arrived.
fn judge(plan: &LoadPlan, report: &LoadReport, ended: Option<Early>) -> Result<(), LoadError> {
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

/// The output at the end.
#[derive(Debug)]
pub(crate) struct Printed<'a> {
    title: String,
    queue: &'a QueueName,
    report: &'a LoadReport,
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

    /// Warnings that the JSON form of the report does not contain.
    pub(crate) fn warning(&self) -> Option<String> {
        let unsent = self.report.unsent;
        (unsent > 0).then(|| {
            let messages = noun_for(unsent, "message");
            let were = form_for(unsent, "was due and is", "were due and are");
            let unsent = report::thousands(unsent);
            format!("the load was too slow: {unsent} {messages} {were} not sent")
        })
    }

    /// For programs.
    pub(crate) fn json(&self) -> &impl serde::Serialize {
        self.report
    }
}

impl From<LoadError> for CommandFailure {
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
