//! Settling: a verdict carried out at the broker.
//!
//! Each copy is confirmed before its original is acknowledged, so a crash in between repeats a message and never
//! loses one; so is an answer, after the copy that it may tell of. While one of them cannot be published, the delivery
//! is held and the pool's gate is closed.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{gate::BlockedGuard, metrics::Settlement, replies, shared::Shared};
use crate::{
    config::{Declare, PoolSettings},
    decide::JobId,
    queue::{Delivery, Outgoing, QueueError, QueueSpec, SettleError},
    runner::Failure,
    settle::{
        Copies, Death, History, Trouble, Verdict, dead_queue, dead_queue_spec, jittered,
        retry_queue_spec,
    },
};

/// First wait before a copy that could not be published is tried again.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Until when a delivery may be held for a copy.
pub(crate) struct HoldUntil<'a> {
    /// When it must be given back at the latest, lest the broker cuts the channel.
    pub(crate) deadline: Instant,
    /// The worker's order to stop what it does.
    pub(crate) stop: &'a CancellationToken,
    /// The supervisor's.
    pub(crate) kill: &'a CancellationToken,
}

impl HoldUntil<'_> {
    /// Counts a job that came to its end, and will all the same run again, where that is because we stop.
    fn count_stopped(&self, shared: &Shared) {
        if self.stop.is_cancelled() || self.kill.is_cancelled() {
            shared.totals.count_stopped();
        }
    }
}

/// A delivery whose copies, if it needs any, are confirmed: what is left is to tell the broker.
#[must_use = "a delivery that is not settled is given back"]
pub(crate) struct Prepared {
    job: Option<JobId>,
    delivery: Delivery,
    act: Act,
    settlement: Settlement,
}

/// What the broker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Ack,
    Requeue,
    Reject,
}

impl Prepared {
    /// Whether the message goes back to its queue itself, and so might come straight back to its consumer.
    pub(crate) fn gives_back(&self) -> bool {
        self.act == Act::Requeue || self.settlement == Settlement::RequeueCopy
    }

    /// Settles the delivery, and counts how.
    ///
    /// # Cancel-safety
    /// Not cancel-safe: a dropped future leaves it unknown whether the broker heard.
    pub(crate) async fn settle(self, shared: &Shared) {
        let delivery = self.delivery;
        let settling = async {
            match self.act {
                Act::Ack => delivery.ack().await,
                Act::Requeue => delivery.requeue().await,
                Act::Reject => delivery.reject().await,
            }
        };
        let result = shared.answered(settling).await;
        let result = result.unwrap_or(Err(SettleError { source: None }));
        let settlement = match result {
            Ok(()) => self.settlement,
            Err(error) => {
                let job = self.job.as_ref().map(|id| id.as_str().escape_debug());
                warn!(
                    pool = %shared.name,
                    job.id = job.as_ref().map(tracing::field::display),
                    settlement = self.settlement.as_str(),
                    error = error.source.as_ref().map(tracing::field::display),
                    "settlement lost: the channel is gone, so the broker delivers the message again"
                );
                match self.settlement {
                    Settlement::Retry
                    | Settlement::DeadLetter
                    | Settlement::RequeueCopy
                    | Settlement::LostCopy => Settlement::LostCopy,
                    _ => Settlement::Lost,
                }
            }
        };
        shared.metrics.settled(settlement);
        shared.totals.count(settlement);
    }
}

/// Publishes what `verdict` wants published, confirmed: a copy, and then the answer for whoever asked.
///
/// # Cancel-safety
/// Cancel-safe as far as nothing is lost: on drop the delivery is given back. A copy may be out already then.
pub(crate) async fn prepare(
    shared: &Shared,
    settings: &PoolSettings,
    job: Option<&JobId>,
    delivery: Delivery,
    history: History,
    verdict: Verdict,
    hold: HoldUntil<'_>,
) -> Prepared {
    let done = |delivery, act, settlement| Prepared {
        job: job.cloned(),
        delivery,
        act,
        settlement,
    };
    let queue = &settings.queue;
    let copies = || Copies {
        pool: shared.name.clone(),
        queue: queue.clone(),
        host: shared.host.clone(),
        job: job.cloned(),
        header_limit: shared.driver.header_limit(),
    };
    let now = jiff::Timestamp::now();
    let answer = replies::decide(shared, settings, delivery.message(), &verdict);
    let (copy, spec, act, settlement) = match verdict {
        Verdict::Ack { .. } => (None, None, Act::Ack, Settlement::Ack),
        Verdict::GiveBack => (None, None, Act::Requeue, Settlement::Requeue),
        Verdict::Reject { death } => {
            log_death(
                shared,
                job,
                &death,
                "job is rejected to the broker's own dead letters",
            );
            (None, None, Act::Reject, Settlement::Reject)
        }
        Verdict::Retry {
            level,
            next,
            failure,
        } => {
            let delay = jittered(level, rand::rng().random());
            let message = delivery.message();
            let copy = copies().retry(message, next, level, delay, failure.as_ref(), now);
            log_retry(shared, job, history, delay, failure.as_ref());
            (
                Some(copy),
                Some(retry_queue_spec(queue, level)),
                Act::Ack,
                Settlement::Retry,
            )
        }
        Verdict::DeadLetter { death } => {
            log_death(shared, job, &death, "job is dead-lettered");
            let copy = copies().dead_letter(delivery.message(), history, &death, now);
            (
                Some(copy),
                Some(dead_queue_spec(queue)),
                Act::Ack,
                Settlement::DeadLetter,
            )
        }
        Verdict::GiveBackCopy { next } => (
            Some(copies().give_back(delivery.message(), next)),
            None,
            Act::Ack,
            Settlement::RequeueCopy,
        ),
    };
    let is_copied = copy.is_some();
    if let Some(copy) = copy
        && publish(shared, spec.as_ref(), copy, &hold, |_| Trouble::Hold)
            .await
            .is_err()
    {
        hold.count_stopped(shared);
        return done(delivery, Act::Requeue, Settlement::Requeue);
    }
    if let Some(spec) = &spec {
        shared.fed.add(&spec.name);
    } else if settlement == Settlement::Reject && settings.declare != Declare::No {
        // By the arguments that the pool declares its queue with.
        shared.fed.add(&dead_queue(queue));
    }
    // After the copy: what an answer says is so by then.
    if let Err(TimeUp) = replies::send(shared, delivery.message(), answer, &hold).await {
        hold.count_stopped(shared);
        let settlement = match is_copied {
            true => Settlement::LostCopy,
            false => Settlement::Requeue,
        };
        return done(delivery, Act::Requeue, settlement);
    }
    done(delivery, act, settlement)
}

fn log_retry(
    shared: &Shared,
    job: Option<&JobId>,
    history: History,
    delay: Duration,
    failure: Option<&Failure>,
) {
    let job = job.map(|id| id.as_str().escape_debug());
    let job = job.as_ref().map(tracing::field::display);
    let delay_ms = delay.as_millis() as u64;
    let attempt = history.attempt;
    match failure {
        Some(failure) => warn!(
            pool = %shared.name,
            job.id = job,
            attempt,
            error = ?cut(&failure.message),
            delay_ms,
            "job failed and is retried later"
        ),
        None => {
            debug!(pool = %shared.name, job.id = job, attempt, delay_ms, "job is retried later")
        }
    }
}

fn log_death(shared: &Shared, job: Option<&JobId>, death: &Death, what: &'static str) {
    let job = job.map(|id| id.as_str().escape_debug());
    warn!(
        pool = %shared.name,
        job.id = job.as_ref().map(tracing::field::display),
        reason = death.cause.as_str(),
        attempts = death.attempts,
        error = ?cut(&death.message),
        "{what}"
    );
}

/// Others' text, no longer than a log line should be. Shown with Debug, which escapes control characters.
pub(super) fn cut(text: &str) -> &str {
    const LONGEST: usize = 1024;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// Nothing could be published for as long as the delivery could be held.
pub(super) struct TimeUp;

/// Why something was not published.
pub(super) enum Unpublished {
    /// The delivery could be held no longer.
    TimeUp,
    /// Its error was taken for a last one.
    GivenUp(QueueError),
}

/// Publishes until it is confirmed, until the delivery can be held no longer, or until an error is the last by the
/// word of `after`.
pub(super) async fn publish(
    shared: &Shared,
    spec: Option<&QueueSpec>,
    message: Outgoing,
    hold: &HoldUntil<'_>,
    mut after: impl FnMut(&QueueError) -> Trouble,
) -> Result<(), Unpublished> {
    let mut wait = FIRST_WAIT;
    let mut blocked: Option<BlockedGuard<'_>> = None;
    loop {
        let published = tokio::select! {
            published = try_publish(shared, spec, message.clone()) => published,
            // It may be out already: then the message runs twice, which is better than to wait now.
            () = hold.kill.cancelled() => return Err(Unpublished::TimeUp),
        };
        let error = match published {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match after(&error) {
            Trouble::GiveUp => return Err(Unpublished::GivenUp(error)),
            Trouble::TryAgain => blocked = None,
            Trouble::Hold => {
                let cause = format!("failed to {}", chain(&error));
                match &blocked {
                    Some(blocked) => blocked.because(cause),
                    None => {
                        warn!(
                            pool = %shared.name,
                            messaging.destination.name = ?cut(&message.routing_key),
                            error = %cause,
                            "a copy or an answer cannot be published: intake is closed until it can"
                        );
                        blocked = Some(shared.gate.block(cause));
                    }
                }
            }
        }
        let pause = wait.mul_f64(rand::rng().random_range(0.75..=1.0));
        tokio::select! {
            () = time::sleep(pause) => {}
            () = time::sleep_until(hold.deadline) => return Err(Unpublished::TimeUp),
            () = hold.stop.cancelled() => return Err(Unpublished::TimeUp),
            () = hold.kill.cancelled() => return Err(Unpublished::TimeUp),
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

async fn try_publish(
    shared: &Shared,
    spec: Option<&QueueSpec>,
    copy: Outgoing,
) -> Result<(), QueueError> {
    if let Some(spec) = spec {
        shared.driver.declare(spec).await?;
    }
    shared.driver.publish(copy).await
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
