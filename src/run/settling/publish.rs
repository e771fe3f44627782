//! Publishing a copy or a reply until the broker confirms it, or until its delivery can be held no longer.

use std::{sync::Arc, time::Duration};

use tokio::time::{self, Instant};
use tracing::warn;

use super::hold::{HoldUntil, TimeUp};
use crate::{
    escape::Quoted,
    queue::{Outgoing, QueueError},
    run::{copy_queues::HeldGuard, gate::BlockedGuard, shared::PoolShared},
    settle::{CopyStep, ErrorScope, ReplyRetry, scope},
};
use tidegate_core::text::{chain, first_chars};

/// Longest text from a message that a log line shows, in characters.
const LOG_CHARS: usize = 1024;
/// First wait before a copy that could not be published is tried again.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(200);
/// How long one try may continue after the delivery should be given back. Longer than any confirm that comes at all.
const LATEST: Duration = Duration::from_secs(40);
/// Longest wait before it is tried again.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Why something was not published.
pub(super) enum Unpublished {
    /// The delivery could be held no longer.
    TimeUp,
    /// The error was final.
    GivenUp(QueueError),
}

/// Publishes again and again, until the broker confirms, until the delivery can be held no longer, or until `after` says
/// that an error is final.
pub(super) async fn publish(
    shared: &PoolShared,
    message: Outgoing,
    hold: &HoldUntil<'_>,
    mut after: impl FnMut(&QueueError) -> ReplyRetry,
) -> Result<(), Unpublished> {
    let mut wait = FIRST_WAIT;
    let mut blocked: Option<BlockedGuard<'_>> = None;
    let mut held: Option<(HeldGuard<'_>, Instant)> = None;
    loop {
        let published = attempt(shared, message.clone(), hold, &mut blocked).await;
        let error = match published {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(TimeUp) => return Err(Unpublished::TimeUp),
        };
        match after(&error) {
            ReplyRetry::GiveUp => return Err(Unpublished::GivenUp(error)),
            ReplyRetry::TryAgain => blocked = None,
            ReplyRetry::Hold if scope(CopyStep::Publish, error.kind) == ErrorScope::Everything => {
                held = None;
                close_intake(shared, &mut blocked, &message, &error);
            }
            ReplyRetry::Hold => {
                blocked = None;
                hold_alone(shared, &mut held, &error);
            }
        }
        let pause = wait.mul_f64(shared.random.fraction_from(0.75));
        tokio::select! {
            biased;
            () = time::sleep(pause) => {}
            () = hold.over() => return Err(Unpublished::TimeUp),
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// One try. While the broker blocks publishers, this waits for the confirm with intake closed. A second publish would
/// duplicate the message.
pub(super) async fn attempt<'s>(
    shared: &'s PoolShared,
    message: Outgoing,
    hold: &HoldUntil<'_>,
    blocked: &mut Option<BlockedGuard<'s>>,
) -> Result<Result<(), QueueError>, TimeUp> {
    let mut is_blocked = shared.broker.driver.blocked();
    let mut is_told = true;
    // If the broker stops answering, the copy may have been published: then the message runs twice. That is better than
    // waiting without an end.
    let published = shared
        .broker
        .answered(shared.broker.driver.publish(message));
    let mut published = std::pin::pin!(published);
    // A driver may wait too long, but a delivery must not be held too long.
    let mut late = std::pin::pin!(async {
        hold.over().await;
        time::sleep(LATEST).await;
    });
    loop {
        let blocked_now = *is_blocked.borrow_and_update();
        if blocked_now && blocked.is_none() {
            let cause = "failed to publish: the broker blocks publishers, and what was sent waits for its confirm";
            warn!(pool = %shared.name, "the broker blocks publishers: intake is closed until it takes copies");
            *blocked = Some(shared.gate.block(cause.to_owned()));
        }
        tokio::select! {
            biased;
            published = &mut published => return published.ok_or(TimeUp),
            () = hold.over(), if blocked_now => return Err(TimeUp),
            () = &mut late => return Err(TimeUp),
            changed = is_blocked.changed(), if is_told => is_told = changed.is_ok(),
        }
        if !*is_blocked.borrow() {
            *blocked = None;
        }
    }
}

/// Keeps intake closed while the broker blocks publishers. Does nothing if it does not block them now.
///
/// For a delivery that was held as long as possible and goes back without a copy. Its queue may count that. If the pool took
/// it again at once, an alarm of some hours would use up all counts that the queue allows.
pub(crate) fn stay_blocked(shared: &Arc<PoolShared>) {
    let mut is_blocked = shared.broker.driver.blocked();
    if !*is_blocked.borrow() || shared.kill.is_cancelled() || shared.stop.is_cancelled() {
        return;
    }
    let guarded = shared.clone();
    tokio::spawn(async move {
        let shared = guarded;
        let cause = "failed to publish: the broker blocks publishers";
        let _blocked = shared.gate.block(cause.to_owned());
        tokio::select! {
            biased;
            _ = is_blocked.wait_for(|is_blocked| !is_blocked) => {}
            () = shared.stop.cancelled() => {}
            () = shared.kill.cancelled() => {}
        }
    });
}

/// Nothing can be published: intake is closed while the guard lives. Logged once.
pub(super) fn close_intake<'s>(
    shared: &'s PoolShared,
    blocked: &mut Option<BlockedGuard<'s>>,
    message: &Outgoing,
    error: &QueueError,
) {
    let cause = chain(error);
    match blocked {
        Some(blocked) => blocked.because(cause),
        None => {
            warn!(
                pool = %shared.name,
                messaging.destination.name = %Quoted(cut(&message.routing_key)),
                error = %cause,
                "a copy or an answer cannot be published: intake is closed until it can"
            );
            *blocked = Some(shared.gate.block(cause));
        }
    }
}

/// This message is not accepted: its delivery is held, and the pool continues. Logged once.
pub(super) fn hold_alone<'s>(
    shared: &'s PoolShared,
    held: &mut Option<(HeldGuard<'s>, Instant)>,
    error: &QueueError,
) {
    let why = chain(error);
    match held {
        Some((held, _)) => held.because(why),
        None => {
            warn!(
                pool = %shared.name,
                error = %why,
                "a copy is not accepted: its message is held until ack_deadline, and other messages are processed"
            );
            *held = Some((shared.copies.queues.hold(why), Instant::now()));
        }
    }
}

/// Text from a message, cut for a log line.
pub(super) fn cut(text: &str) -> &str {
    first_chars(text, LOG_CHARS)
}
