//! Preparing a settlement: what a verdict publishes is confirmed before the delivery is settled.

use std::time::Duration;

use tracing::{debug, warn};

use super::{
    copy_publish::{CopyOutcome, CopyPublish, publish_copy},
    held::HeldDelivery,
    hold::{HoldUntil, TimeUp},
    publish::cut,
    replies,
};
use crate::{
    config::Declare,
    escape::{Escaped, Quoted},
    queue::{Delivery, SettleError},
    run::{
        events::{Fate, JobFailure},
        metrics::Settlement,
        shared::PoolShared,
    },
    runner::Failure,
    settle::{Copies, Death, History, Levels, Verdict, dead_queue, jittered},
};

/// A delivery whose copies, if it needs any, are confirmed. Only the answer to the broker remains.
#[must_use = "a delivery that is not settled is given back"]
pub(crate) struct Prepared {
    held: HeldDelivery,
    action: SettleAction,
    settlement: Settlement,
}

/// The answer to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SettleAction {
    Ack,
    Requeue,
    Reject,
    /// Nothing yet: no queue accepts a copy of it, and its job has not run.
    Run,
}

impl HeldDelivery {
    fn prepared(self, action: SettleAction, settlement: Settlement) -> Prepared {
        Prepared {
            held: self,
            action,
            settlement,
        }
    }
}

impl Prepared {
    /// Whether the message goes back to its queue itself. The broker may then send it to the same consumer at once.
    pub(crate) fn gives_back(&self) -> bool {
        self.action == SettleAction::Requeue || self.settlement == Settlement::RequeueCopy
    }

    /// Whether it goes back without a copy.
    pub(crate) fn is_requeued(&self) -> bool {
        self.action == SettleAction::Requeue
    }

    /// The delivery itself, if no queue accepts a copy of it before its job has run.
    pub(crate) fn or_runs(self) -> Result<Self, Delivery> {
        match self.action {
            SettleAction::Run => Err(self.held.delivery),
            _ => Ok(self),
        }
    }

    /// Settles the delivery, counts how, and returns it.
    ///
    /// # Cancel-safety
    /// Not cancel-safe: after a drop it is unknown whether the broker got the settlement.
    pub(crate) async fn settle(self, shared: &PoolShared) -> Settlement {
        let gives_back = self.gives_back();
        let HeldDelivery {
            delivery,
            history,
            job,
            ..
        } = self.held;
        let settling = async {
            match self.action {
                SettleAction::Ack => delivery.ack().await,
                SettleAction::Requeue | SettleAction::Run => delivery.requeue().await,
                SettleAction::Reject => delivery.reject().await,
            }
        };
        let result = shared.broker.answered(settling).await;
        let result = result.unwrap_or(Err(SettleError { source: None }));
        let settlement = match result {
            Ok(()) => {
                // The message came by a retry queue.
                let was_retried = history.attempt > 1 || history.launch_failures > 0;
                if was_retried && !gives_back {
                    shared.copies.outstanding.came_back();
                }
                self.settlement
            }
            Err(error) => {
                let job = job.as_ref().map(|id| Escaped(id.as_str()));
                warn!(
                    pool = %shared.name,
                    job.id = job.as_ref().map(tracing::field::display),
                    settlement = self.settlement.as_str(),
                    error = error.source.as_ref().map(tracing::field::display),
                    "settlement lost: the channel was closed, so the broker delivers the message again"
                );
                match self.settlement {
                    Settlement::Retry
                    | Settlement::DeadLetter
                    | Settlement::RequeueCopy
                    | Settlement::Renewed
                    | Settlement::Parked
                    | Settlement::LostCopy => Settlement::LostCopy,
                    _ => Settlement::Lost,
                }
            }
        };
        shared.stats.settled(settlement);
        settlement
    }
}

/// Publishes the messages that `verdict` requires, and waits for the confirms: first a copy, then the reply.
///
/// # Cancel-safety
/// No message is lost: on drop the delivery is given back. A copy may have been published by then.
pub(crate) async fn prepare(
    shared: &PoolShared,
    held: HeldDelivery,
    verdict: Verdict,
    hold: HoldUntil<'_>,
) -> Prepared {
    let reply = replies::decide(shared, &held, &verdict);
    let goes_back = matches!(
        verdict,
        Verdict::GiveBackCopy { .. } | Verdict::Renew { .. }
    );
    let (copy, action, settlement) = decided(shared, &held, verdict);
    let is_copied = copy.is_some();
    if let Some(copy) = copy {
        match publish_copy(shared, &held.settings.queue, copy, &hold).await {
            Ok(CopyOutcome::AsDecided) => {
                if settlement == Settlement::Retry {
                    shared.copies.outstanding.sent();
                }
            }
            // Its job runs again, and there is no reply yet.
            Ok(CopyOutcome::Back) => {
                return held.prepared(SettleAction::Ack, Settlement::RequeueCopy);
            }
            Ok(CopyOutcome::Not) => return held.prepared(SettleAction::Run, Settlement::Requeue),
            Err(TimeUp) => {
                // A job that was stopped is counted already, and a job that did not begin did not end.
                if !(goes_back || settlement == Settlement::Parked) {
                    hold.count_stopped(shared);
                }
                return held.prepared(SettleAction::Requeue, Settlement::Requeue);
            }
        }
        if settlement == Settlement::Reject && held.settings.declare != Declare::No {
            // The pool declares its queue with arguments that send rejected messages there.
            let dead = dead_queue(&held.settings.queue);
            shared.copies.received.add(&dead);
        }
    }
    // After the copy, so that a reply never reports a settlement that did not happen.
    if let Err(TimeUp) = replies::send(shared, held.message(), reply, &hold).await {
        hold.count_stopped(shared);
        let settlement = match is_copied {
            true => Settlement::LostCopy,
            false => Settlement::Requeue,
        };
        return held.prepared(SettleAction::Requeue, settlement);
    }
    held.prepared(action, settlement)
}

/// The copy that a verdict requires, and the answer to the broker after it. Logs and reports failures.
fn decided(
    shared: &PoolShared,
    held: &HeldDelivery,
    verdict: Verdict,
) -> (Option<CopyPublish>, SettleAction, Settlement) {
    let HeldDelivery {
        settings, history, ..
    } = held;
    let (message, history) = (held.message(), *history);
    let copies = || Copies {
        pool: shared.name.clone(),
        queue: settings.queue.clone(),
        host: shared.host.clone(),
        job: held.job.clone(),
        header_limit: shared.broker.driver.header_limit(),
    };
    let now = jiff::Timestamp::now();
    let may_run = matches!(verdict, Verdict::Renew { .. });
    let straight_back = |next| {
        let level = Levels::new(&settings.retry).after(1);
        CopyPublish::Back {
            copy: copies().give_back(message, next),
            beside: Box::new(copies().retry(message, next, level, level, None, now)),
            level,
            may_run,
        }
    };
    match verdict {
        Verdict::Ack { .. } => (None, SettleAction::Ack, Settlement::Ack),
        Verdict::GiveBack => (None, SettleAction::Requeue, Settlement::Requeue),
        Verdict::Reject { death } => {
            report_death(
                shared,
                held,
                &death,
                "job is rejected to the broker's own dead letters",
            );
            (None, SettleAction::Reject, Settlement::Reject)
        }
        Verdict::Retry {
            level,
            next,
            failure,
        } => {
            let delay = jittered(level, shared.random.fraction());
            let copy = copies().retry(message, next, level, delay, failure.as_ref(), now);
            report_retry(shared, held, delay, failure);
            let copy = CopyPublish::Retry { copy, level, delay };
            (Some(copy), SettleAction::Ack, Settlement::Retry)
        }
        Verdict::DeadLetter { death } => {
            report_death(shared, held, &death, "job is dead-lettered");
            let copy = copies().dead_letter(message, history, &death, now);
            let back = Box::new(copies().give_back(message, uncounted(history)));
            let copy = CopyPublish::Dead { copy, back };
            (Some(copy), SettleAction::Ack, Settlement::DeadLetter)
        }
        Verdict::GiveBackCopy { next } => {
            let copy = straight_back(next);
            (Some(copy), SettleAction::Ack, Settlement::RequeueCopy)
        }
        Verdict::Renew { next } => {
            let copy = straight_back(next);
            (Some(copy), SettleAction::Ack, Settlement::Renewed)
        }
        Verdict::Park { level, next } => {
            let delay = jittered(level, shared.random.fraction());
            let copy = copies().retry(message, next, level, delay, None, now);
            let copy = CopyPublish::Retry { copy, level, delay };
            (Some(copy), SettleAction::Ack, Settlement::Parked)
        }
    }
}

/// The history of a message whose job has ended: its deliveries no longer count.
fn uncounted(history: History) -> History {
    History {
        delivery_count: 0,
        ..history
    }
}

fn report_retry(
    shared: &PoolShared,
    held: &HeldDelivery,
    delay: Duration,
    failure: Option<Failure>,
) {
    let job = held.job.as_ref().map(|id| Escaped(id.as_str()));
    let job = job.as_ref().map(tracing::field::display);
    let delay_ms = delay.as_millis() as u64;
    let attempt = held.history.attempt;
    let Some(failure) = failure else {
        debug!(pool = %shared.name, job.id = job, attempt, delay_ms, "job is retried later");
        return;
    };
    warn!(
        pool = %shared.name,
        job.id = job,
        attempt,
        error = %Quoted(cut(&failure.message)),
        delay_ms,
        "job failed and is retried later"
    );
    shared.fleet.emit_failure(|pool| JobFailure {
        pool,
        job_id: held.job.clone(),
        attempt,
        error: failure.message.clone(),
        failure: Some(failure),
        fate: Fate::Retried(delay),
    });
}

fn report_death(shared: &PoolShared, held: &HeldDelivery, death: &Death, what: &'static str) {
    let job = held.job.as_ref().map(|id| Escaped(id.as_str()));
    warn!(
        pool = %shared.name,
        job.id = job.as_ref().map(tracing::field::display),
        reason = death.cause.as_str(),
        attempts = death.attempts,
        error = %Quoted(cut(&death.message)),
        "{what}"
    );
    shared.fleet.emit_failure(|pool| JobFailure {
        pool,
        job_id: held.job.clone(),
        attempt: death.attempts,
        error: death.message.clone(),
        failure: death.failure.clone(),
        fate: Fate::Dead(death.cause.as_str()),
    });
}
