//! Copying: publishing a copy to the first of its queues that accepts it.
//!
//! If nothing can be published at all, the delivery is held and the pool's intake is closed. If only this queue accepts
//! nothing, a spare queue is used. If only this message is not accepted, or no queue is left, this delivery is held and
//! the pool continues.

use std::time::Duration;

use tokio::time::{self, Instant};
use tracing::{info, warn};

use super::{
    hold::HoldUntil,
    publish::{FIRST_WAIT, LONGEST_WAIT, attempt, close_intake, hold_alone},
};
use crate::{
    escape::{Escaped, Quoted},
    queue::{Outgoing, QueueError, QueueErrorKind, QueueKind, QueueSpec},
    run::{copy_queues::HeldGuard, gate::BlockedGuard, shared::PoolShared},
    settle::{CopyStep, ErrorScope, Route, scope, what_is_wrong},
};
use tidegate_core::text::chain;

/// How long a delivery is held because no queue accepts its copy, if many deliveries are held. If every worker held one, the
/// pool would run no job.
const HELD_WHEN_CROWDED: Duration = Duration::from_secs(60);
/// Longest wait before a message that was not accepted is tried again.
const LONGEST_WAIT_ALONE: Duration = Duration::from_secs(60);
/// How often a queue may be gone between its declare and a publish before it counts as a queue that accepts nothing.
const GONE: u32 = 3;

/// Time until a queue that refused a copy is tried once more, before a spare is used. A quorum queue that was just declared
/// elects its leader within this time, and may refuse messages before.
const ELECTION: Duration = Duration::from_millis(500);

/// Why a copy was not published.
#[derive(Debug)]
pub(super) enum NotCopied {
    /// The delivery could be held no longer.
    TimeUp,
    /// No queue of the route accepted it in the time that it could be held for that.
    NoQueue(Box<Outgoing>),
}

/// Publishes a copy to the first queue of its route that accepts it, and returns this queue. If no queue accepts it, the
/// delivery is held for `time_limit`, or shorter if many are held.
pub(super) async fn copy_to(
    shared: &PoolShared,
    route: &Route,
    mut copy: Outgoing,
    hold: &HoldUntil<'_>,
    time_limit: Option<Duration>,
) -> Result<QueueSpec, NotCopied> {
    let mut wait = FIRST_WAIT;
    let mut blocked: Option<BlockedGuard<'_>> = None;
    let mut held: Option<(HeldGuard<'_>, Instant)> = None;
    let mut gone = 0;
    // The queue that was given time for its election.
    let mut elected: Option<&QueueSpec> = None;
    loop {
        let now = Instant::now();
        let mut longest = LONGEST_WAIT;
        if let Some(queue) = shared.copies.queues.choose(&route.queues, now) {
            copy.routing_key = queue.name.as_str().to_owned();
            let tried = try_queue(shared, route, queue, &copy, hold, &mut blocked).await;
            let (step, error) = match tried? {
                Ok(()) => {
                    if shared.copies.queues.took(&queue.name) {
                        info!(pool = %shared.name, messaging.destination.name = %Quoted(queue.name.as_str()), "a queue takes copies again");
                    }
                    return Ok(queue.clone());
                }
                Err(failed) => failed,
            };
            match scope(step, error.kind) {
                ErrorScope::Everything => {
                    held = None;
                    close_intake(shared, &mut blocked, &copy, &error);
                }
                // Most likely the queue was deleted since it was declared. The driver knows now.
                ErrorScope::Queue if error.kind == QueueErrorKind::Unroutable && gone < GONE => {
                    blocked = None;
                    gone += 1;
                    continue;
                }
                ErrorScope::Queue
                    if error.kind == QueueErrorKind::Refused
                        && queue.kind == QueueKind::Quorum
                        && elected != Some(queue)
                        && !shared.copies.queues.has_failed(&queue.name) =>
                {
                    blocked = None;
                    elected = Some(queue);
                    tokio::select! {
                        biased;
                        () = time::sleep(ELECTION) => continue,
                        () = hold.over() => return Err(NotCopied::TimeUp),
                    }
                }
                ErrorScope::Queue => {
                    blocked = None;
                    gone = 0;
                    report_queue(shared, queue, &error);
                    // The next queue is tried without a pause.
                    continue;
                }
                ErrorScope::Message => {
                    blocked = None;
                    hold_alone(shared, &mut held, &error);
                    longest = LONGEST_WAIT_ALONE;
                }
            }
        } else {
            blocked = None;
            let why = format!("{} copy", names(&route.queues));
            let (_, since) = held.get_or_insert_with(|| (shared.copies.queues.hold(why), now));
            let max = shared.settings().policy.max;
            let is_crowded = shared.copies.queues.held().saturating_mul(2) > max;
            let crowded = is_crowded.then_some(HELD_WHEN_CROWDED);
            let limit = [time_limit, crowded].into_iter().flatten().min();
            if limit.is_some_and(|limit| since.elapsed() >= limit) {
                return Err(NotCopied::NoQueue(Box::new(copy)));
            }
            // The pause must not go beyond the limit.
            longest = limit.map_or(longest, |limit| {
                longest.min(limit.saturating_sub(since.elapsed()))
            });
        }
        let pause = wait.mul_f64(shared.random.fraction_from(0.75));
        let pause = pause.min(longest).max(Duration::from_millis(1));
        tokio::select! {
            biased;
            () = time::sleep(pause) => {}
            () = hold.over() => return Err(NotCopied::TimeUp),
        }
        wait = (wait * 2).min(longest.max(FIRST_WAIT));
    }
}

/// Tries one queue once.
async fn try_queue<'s>(
    shared: &'s PoolShared,
    route: &Route,
    queue: &QueueSpec,
    copy: &Outgoing,
    hold: &HoldUntil<'_>,
    blocked: &mut Option<BlockedGuard<'s>>,
) -> Result<Result<(), (CopyStep, QueueError)>, NotCopied> {
    let now = Instant::now();
    if !(route.takes_any && shared.copies.queues.is_as_it_is(&queue.name, now)) {
        let declared = shared
            .broker
            .answered(shared.broker.driver.declare(queue))
            .await;
        match declared.ok_or(NotCopied::TimeUp)? {
            Ok(()) => {}
            Err(error) if route.takes_any && error.kind == QueueErrorKind::Mismatch => {
                if shared.copies.queues.use_as_it_is(&queue.name, now) {
                    let losses = shared
                        .broker
                        .answered(shared.broker.driver.losses(&queue.name))
                        .await;
                    let losses = losses.ok_or(NotCopied::TimeUp)?.join("; it ");
                    let losses = (!losses.is_empty()).then(|| format!("it {losses}"));
                    let message = match losses {
                        Some(_) => {
                            "the dead-letter queue was declared with other arguments: it is used unchanged, and may drop letters"
                        }
                        None => {
                            "the dead-letter queue was declared with other arguments: it is used unchanged"
                        }
                    };
                    warn!(
                        pool = %shared.name,
                        messaging.destination.name = %Quoted(queue.name.as_str()),
                        losses = losses.as_deref().map(Escaped).as_ref().map(tracing::field::display),
                        error = %chain(&error),
                        "{message}"
                    );
                }
            }
            Err(error) => return Ok(Err((CopyStep::Declare, error))),
        }
    }
    let tried = attempt(shared, copy.clone(), hold, blocked).await;
    let tried = tried.map_err(|_| NotCopied::TimeUp)?;
    Ok(tried.map_err(|error| (CopyStep::Publish, error)))
}

/// A queue accepts nothing. Logged once each time that this begins.
fn report_queue(shared: &PoolShared, queue: &QueueSpec, error: &QueueError) {
    let why = chain(error);
    shared.stats.metrics.copy_detoured();
    if shared
        .copies
        .queues
        .took_nothing(&queue.name, error.kind, why.clone(), Instant::now())
    {
        warn!(
            pool = %shared.name,
            messaging.destination.name = %Quoted(queue.name.as_str()),
            error = %why,
            "queue {}: copies wait or go to another queue",
            what_is_wrong(error.kind)
        );
    }
}

fn names(queues: &[QueueSpec]) -> String {
    let names: Vec<_> = queues.iter().map(|queue| queue.name.as_str()).collect();
    match names.as_slice() {
        [first, .., last] => format!("none of {first} to {last} takes a"),
        [only] => format!("{only} takes no"),
        [] => String::from("there is no queue for a"),
    }
}
