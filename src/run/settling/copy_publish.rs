//! Publishing the copy that a verdict requires: to its retry queue, to the dead letters, or back to its own queue. If
//! the right queue accepts no copy, the next best place is chosen here.

use std::time::Duration;

use super::{
    copying::{NotCopied, copy_to},
    hold::{HoldUntil, TimeUp},
    publish::{LONGEST_WAIT, Unpublished, publish},
};
use crate::{
    decide::QueueName,
    queue::{Outgoing, QueueError, QueueErrorKind},
    run::shared::PoolShared,
    settle::{CopyStep, ErrorScope, ReplyRetry, Route, scope},
};

/// A copy to be published before its original is acknowledged.
pub(super) enum CopyPublish {
    /// To a retry queue of this level, for this long.
    Retry {
        copy: Outgoing,
        level: Duration,
        delay: Duration,
    },
    /// To the dead letters; or back to its queue, if they accept nothing.
    Dead { copy: Outgoing, back: Box<Outgoing> },
    /// To its own queue; or to a retry queue, if its own is full, until there is room.
    Back {
        copy: Outgoing,
        beside: Box<Outgoing>,
        level: Duration,
        /// Whether its job has not run yet, and runs without a copy if no queue accepts one.
        may_run: bool,
    },
}

/// The queue that got a copy.
pub(super) enum CopyOutcome {
    /// To its intended queue, or to a queue with the same effect.
    AsDecided,
    /// Back to its queue instead: the job runs again.
    Back,
    /// The copy was not published, and waiting would not help: its job runs without a copy.
    Not,
}

/// Publishes a copy, to the best place that accepts it.
pub(super) async fn publish_copy(
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
                    shared.copies.received.add(&taken.name);
                }
                Err(NotCopied::TimeUp) => return Err(TimeUp),
                // The delivery was held for the delay instead. Now the copy goes to the queue to which the retry queue
                // would have sent it.
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
                    shared.copies.received.add(&taken.name);
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
                // The queue no longer exists, or is full.
                QueueErrorKind::Unroutable | QueueErrorKind::Refused => ReplyRetry::GiveUp,
                // If it were held, it would come back with one more count and never run.
                _ if may_run && is_its_own(error) => ReplyRetry::GiveUp,
                _ => ReplyRetry::Hold,
            };
            let route = Route::retry(queue, level);
            loop {
                match publish(shared, copy.clone(), hold, after).await {
                    Ok(()) => return Ok(CopyOutcome::AsDecided),
                    // The queue is full. The acknowledgement of the original makes room.
                    Err(Unpublished::GivenUp(error)) if error.kind == QueueErrorKind::Refused => {}
                    Err(Unpublished::GivenUp(error)) if may_run && is_its_own(&error) => {
                        return Ok(CopyOutcome::Not);
                    }
                    Err(_) => return Err(TimeUp),
                }
                // The own queue is tried again from time to time, because there may be room.
                let time_limit = Some(LONGEST_WAIT);
                match copy_to(shared, &route, (*beside).clone(), hold, time_limit).await {
                    Ok(taken) => {
                        shared.copies.received.add(&taken.name);
                        return Ok(CopyOutcome::AsDecided);
                    }
                    Err(NotCopied::TimeUp) => return Err(TimeUp),
                    Err(NotCopied::NoQueue(_)) if may_run => return Ok(CopyOutcome::Not),
                    // Without a copy the broker would count it, so it is held for as long as possible.
                    Err(NotCopied::NoQueue(_)) => {}
                }
            }
        }
    }
}
