//! Preparing a settlement: what a verdict wants published is confirmed before the broker is told of the delivery.

use std::time::Duration;

use rand::RngExt as _;
use tracing::{debug, warn};

use super::{
    copying::{NotCopied, copy_to},
    hold::{HoldUntil, TimeUp},
    publish::{LONGEST_WAIT, Unpublished, cut, publish},
    replies,
};
use crate::{
    config::{Declare, PoolSettings},
    decide::{JobId, QueueName},
    escape::{Escaped, Quoted},
    queue::{Delivery, Message, Outgoing, QueueError, QueueErrorKind, SettleError},
    run::{
        events::{Fate, JobFailure},
        metrics::Settlement,
        shared::PoolShared,
    },
    runner::Failure,
    settle::{
        Copies, CopyStep, Death, ErrorScope, History, Levels, ReplyRetry, Route, Verdict,
        dead_queue, jittered, scope,
    },
};

/// A delivery whose copies, if it needs any, are confirmed: what is left is to tell the broker.
#[must_use = "a delivery that is not settled is given back"]
pub(crate) struct Prepared {
    job: Option<JobId>,
    delivery: Delivery,
    act: SettleAction,
    settlement: Settlement,
    /// Whether the message came by a retry queue.
    was_retried: bool,
}

/// What the broker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SettleAction {
    Ack,
    Requeue,
    Reject,
    /// Nothing yet: no copy of it is taken, and its job has not run.
    Run,
}

impl Prepared {
    /// Whether the message goes back to its queue itself, and so might come straight back to its consumer.
    pub(crate) fn gives_back(&self) -> bool {
        self.act == SettleAction::Requeue || self.settlement == Settlement::RequeueCopy
    }

    /// Whether it goes back without a copy.
    pub(crate) fn is_requeued(&self) -> bool {
        self.act == SettleAction::Requeue
    }

    /// The delivery itself, where no copy of it is taken before its job has run.
    pub(crate) fn or_runs(self) -> Result<Self, Delivery> {
        match self.act {
            SettleAction::Run => Err(self.delivery),
            _ => Ok(self),
        }
    }

    /// Settles the delivery, counts how, and says it.
    ///
    /// # Cancel-safety
    /// Not cancel-safe: a dropped future leaves it unknown whether the broker heard.
    pub(crate) async fn settle(self, shared: &PoolShared) -> Settlement {
        let (was_retried, gives_back) = (self.was_retried, self.gives_back());
        let delivery = self.delivery;
        let settling = async {
            match self.act {
                SettleAction::Ack => delivery.ack().await,
                SettleAction::Requeue | SettleAction::Run => delivery.requeue().await,
                SettleAction::Reject => delivery.reject().await,
            }
        };
        let result = shared.answered(settling).await;
        let result = result.unwrap_or(Err(SettleError { source: None }));
        let settlement = match result {
            Ok(()) => {
                if was_retried && !gives_back {
                    shared.outstanding.came_back();
                }
                self.settlement
            }
            Err(error) => {
                let job = self.job.as_ref().map(|id| Escaped(id.as_str()));
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
                    | Settlement::Renewed
                    | Settlement::Parked
                    | Settlement::LostCopy => Settlement::LostCopy,
                    _ => Settlement::Lost,
                }
            }
        };
        shared.metrics.settled(settlement);
        shared.totals.count(settlement);
        settlement
    }
}

/// Publishes what `verdict` wants published, confirmed: a copy, and then the answer for the caller.
///
/// # Cancel-safety
/// Cancel-safe as far as nothing is lost: on drop the delivery is given back. A copy may be out already then.
pub(crate) async fn prepare(
    shared: &PoolShared,
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
        was_retried: history.attempt > 1 || history.launch_failures > 0,
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
    let goes_back = matches!(
        verdict,
        Verdict::GiveBackCopy { .. } | Verdict::Renew { .. }
    );
    let may_run = matches!(verdict, Verdict::Renew { .. });
    let straight_back = |message: &Message, next| {
        let level = Levels::new(&settings.retry).after(1);
        CopyPublish::Back {
            copy: copies().give_back(message, next),
            beside: Box::new(copies().retry(message, next, level, level, None, now)),
            level,
            may_run,
        }
    };
    let (copy, act, settlement) = match verdict {
        Verdict::Ack { .. } => (None, SettleAction::Ack, Settlement::Ack),
        Verdict::GiveBack => (None, SettleAction::Requeue, Settlement::Requeue),
        Verdict::Reject { death } => {
            log_death(
                shared,
                job,
                &death,
                "job is rejected to the broker's own dead letters",
            );
            note_death(shared, job, &death);
            (None, SettleAction::Reject, Settlement::Reject)
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
            if let Some(failure) = failure {
                shared.fleet.job_failed(|pool| JobFailure {
                    pool,
                    job_id: job.cloned(),
                    attempt: history.attempt,
                    error: failure.message.clone(),
                    failure: Some(failure),
                    fate: Fate::Retried(delay),
                });
            }
            let copy = CopyPublish::Retry { copy, level, delay };
            (Some(copy), SettleAction::Ack, Settlement::Retry)
        }
        Verdict::DeadLetter { death } => {
            log_death(shared, job, &death, "job is dead-lettered");
            note_death(shared, job, &death);
            let copy = copies().dead_letter(delivery.message(), history, &death, now);
            let back = copies().give_back(delivery.message(), uncounted(history));
            let back = Box::new(back);
            let copy = CopyPublish::Dead { copy, back };
            (Some(copy), SettleAction::Ack, Settlement::DeadLetter)
        }
        Verdict::GiveBackCopy { next } => (
            Some(straight_back(delivery.message(), next)),
            SettleAction::Ack,
            Settlement::RequeueCopy,
        ),
        Verdict::Renew { next } => (
            Some(straight_back(delivery.message(), next)),
            SettleAction::Ack,
            Settlement::Renewed,
        ),
        Verdict::Park { level, next } => {
            let delay = jittered(level, rand::rng().random());
            let copy = copies().retry(delivery.message(), next, level, delay, None, now);
            let copy = CopyPublish::Retry { copy, level, delay };
            (Some(copy), SettleAction::Ack, Settlement::Parked)
        }
    };
    let is_copied = copy.is_some();
    if let Some(copy) = copy {
        match copied(shared, queue, copy, &hold).await {
            Ok(CopyOutcome::AsDecided) => {
                if settlement == Settlement::Retry {
                    shared.outstanding.sent();
                }
            }
            // Its job runs again, and the caller is not answered yet.
            Ok(CopyOutcome::Back) => {
                return done(delivery, SettleAction::Ack, Settlement::RequeueCopy);
            }
            Ok(CopyOutcome::Not) => return done(delivery, SettleAction::Run, Settlement::Requeue),
            Err(TimeUp) => {
                // A job that we stopped is counted already, and one that was not begun did not end.
                if !(goes_back || settlement == Settlement::Parked) {
                    hold.count_stopped(shared);
                }
                return done(delivery, SettleAction::Requeue, Settlement::Requeue);
            }
        }
        if settlement == Settlement::Reject && settings.declare != Declare::No {
            // By the arguments that the pool declares its queue with.
            shared.fed.add(&dead_queue(queue));
        }
    }
    // After the copy: what an answer says is so by then.
    if let Err(TimeUp) = replies::send(shared, delivery.message(), answer, &hold).await {
        hold.count_stopped(shared);
        let settlement = match is_copied {
            true => Settlement::LostCopy,
            false => Settlement::Requeue,
        };
        return done(delivery, SettleAction::Requeue, settlement);
    }
    done(delivery, act, settlement)
}

/// A copy to be published before its original is acknowledged.
enum CopyPublish {
    /// To a retry queue of this level, for this long.
    Retry {
        copy: Outgoing,
        level: Duration,
        delay: Duration,
    },
    /// To the dead letters; or back, where they take nothing.
    Dead { copy: Outgoing, back: Box<Outgoing> },
    /// To its own queue; or beside it, where it is full, until there is room.
    Back {
        copy: Outgoing,
        beside: Box<Outgoing>,
        level: Duration,
        /// Whether its job is still to run, and runs without a copy where none is taken.
        may_run: bool,
    },
}

/// Where a copy went.
enum CopyOutcome {
    /// Where it was to go, or to the same effect.
    AsDecided,
    /// Back to its queue instead: what was decided will be decided again.
    Back,
    /// Nowhere, and it would not help to wait: its job runs as it is.
    Not,
}

/// Publishes a copy, or what comes closest.
async fn copied(
    shared: &PoolShared,
    queue: &QueueName,
    copy: CopyPublish,
    hold: &HoldUntil<'_>,
) -> Result<CopyOutcome, TimeUp> {
    let straight_back = async |copy: Outgoing| {
        let published = publish(shared, copy, hold, |_| ReplyRetry::Hold).await;
        published.map_err(|_| TimeUp)
    };
    match copy {
        CopyPublish::Retry { copy, level, delay } => {
            let route = Route::retry(queue, level);
            match copy_to(shared, &route, copy, hold, Some(delay)).await {
                Ok(taken) => {
                    shared.fed.add(&taken.name);
                }
                Err(NotCopied::TimeUp) => return Err(TimeUp),
                // It has waited here instead, and goes where the retry queue would have sent it.
                Err(NotCopied::NoQueue(copy)) => {
                    let mut copy = *copy;
                    copy.routing_key = queue.as_str().to_owned();
                    copy.properties.expiration = None;
                    straight_back(copy).await?;
                }
            }
            Ok(CopyOutcome::AsDecided)
        }
        CopyPublish::Dead { copy, back } => {
            match copy_to(shared, &Route::dead_letter(queue), copy, hold, None).await {
                Ok(taken) => {
                    shared.fed.add(&taken.name);
                    Ok(CopyOutcome::AsDecided)
                }
                Err(NotCopied::TimeUp) => Err(TimeUp),
                Err(NotCopied::NoQueue(_)) => {
                    straight_back(*back).await?;
                    Ok(CopyOutcome::Back)
                }
            }
        }
        CopyPublish::Back {
            copy,
            beside,
            level,
            may_run,
        } => {
            let is_its_own =
                |error: &QueueError| scope(CopyStep::Publish, error.kind) == ErrorScope::Message;
            let after = |error: &QueueError| match error.kind {
                // Its own queue is gone, or full.
                QueueErrorKind::Unroutable | QueueErrorKind::Refused => ReplyRetry::GiveUp,
                // Held, it would come back with one more count, and never run.
                _ if may_run && is_its_own(error) => ReplyRetry::GiveUp,
                _ => ReplyRetry::Hold,
            };
            let route = Route::retry(queue, level);
            loop {
                match publish(shared, copy.clone(), hold, after).await {
                    Ok(()) => return Ok(CopyOutcome::AsDecided),
                    // Its acknowledgement makes room.
                    Err(Unpublished::GivenUp(error)) if error.kind == QueueErrorKind::Refused => {}
                    Err(Unpublished::GivenUp(error)) if may_run && is_its_own(&error) => {
                        return Ok(CopyOutcome::Not);
                    }
                    Err(_) => return Err(TimeUp),
                }
                // Its own queue is asked again now and then: there may be room by then.
                let patience = Some(LONGEST_WAIT);
                match copy_to(shared, &route, (*beside).clone(), hold, patience).await {
                    Ok(taken) => {
                        shared.fed.add(&taken.name);
                        return Ok(CopyOutcome::AsDecided);
                    }
                    Err(NotCopied::TimeUp) => return Err(TimeUp),
                    Err(NotCopied::NoQueue(_)) if may_run => return Ok(CopyOutcome::Not),
                    // Given back without a copy, it would be counted: it is held for as long as it can be.
                    Err(NotCopied::NoQueue(_)) => {}
                }
            }
        }
    }
}

/// The history of a message whose job has come to its end: its deliveries are finished.
fn uncounted(history: History) -> History {
    History {
        delivery_count: 0,
        ..history
    }
}

fn log_retry(
    shared: &PoolShared,
    job: Option<&JobId>,
    history: History,
    delay: Duration,
    failure: Option<&Failure>,
) {
    let job = job.map(|id| Escaped(id.as_str()));
    let job = job.as_ref().map(tracing::field::display);
    let delay_ms = delay.as_millis() as u64;
    let attempt = history.attempt;
    match failure {
        Some(failure) => warn!(
            pool = %shared.name,
            job.id = job,
            attempt,
            error = %Quoted(cut(&failure.message)),
            delay_ms,
            "job failed and is retried later"
        ),
        None => {
            debug!(pool = %shared.name, job.id = job, attempt, delay_ms, "job is retried later")
        }
    }
}

fn log_death(shared: &PoolShared, job: Option<&JobId>, death: &Death, what: &'static str) {
    let job = job.map(|id| Escaped(id.as_str()));
    warn!(
        pool = %shared.name,
        job.id = job.as_ref().map(tracing::field::display),
        reason = death.cause.as_str(),
        attempts = death.attempts,
        error = %Quoted(cut(&death.message)),
        "{what}"
    );
}

fn note_death(shared: &PoolShared, job: Option<&JobId>, death: &Death) {
    shared.fleet.job_failed(|pool| JobFailure {
        pool,
        job_id: job.cloned(),
        attempt: death.attempts,
        error: death.message.clone(),
        failure: death.failure.clone(),
        fate: Fate::Dead(death.cause.as_str()),
    });
}
