//! Replies: sending the reply before its delivery is settled, and reporting replies that cannot be sent.

use tracing::warn;

use super::{
    held::HeldDelivery,
    hold::{HoldUntil, TimeUp},
    publish::{Unpublished, cut, publish},
};
use crate::{
    config::PoolSettings,
    escape::Quoted,
    queue::{Message, Outgoing},
    run::{metrics::ReplyOutcome, reply_warnings::is_due, shared::PoolShared},
    runner::OutputUse,
    settle::{
        ReplyDecision, ReplyKind, ReplyRefusal, ReplyRetry, ReplyRules, Verdict, retry_of_reply,
    },
};
use tidegate_core::text::chain;

/// How the standard output of this message's job is used.
pub(crate) fn output_use(
    shared: &PoolShared,
    settings: &PoolSettings,
    request: &Message,
) -> OutputUse {
    with_rules(shared, settings, |rules| rules.output(request))
}

/// The reply to a message with this verdict.
pub(super) fn decide(shared: &PoolShared, held: &HeldDelivery, verdict: &Verdict) -> ReplyDecision {
    let request = held.message();
    // The majority of messages ask for no reply.
    if request.properties.reply_to.is_none() {
        return ReplyDecision::None;
    }
    with_rules(shared, &held.settings, |rules| {
        rules.answer(request, verdict)
    })
}

fn with_rules<T>(
    shared: &PoolShared,
    settings: &PoolSettings,
    decide: impl FnOnce(ReplyRules<'_>) -> T,
) -> T {
    decide(ReplyRules {
        settings: &settings.reply,
        given: shared.fleet.replies(),
        own: &shared.own_queues.get(),
    })
}

/// Sends a reply, and waits for the confirm. A reply that cannot be delivered is counted, and its message is settled
/// nevertheless.
///
/// # Errors
/// The delivery can be held no longer, and the reply was not sent.
pub(super) async fn send(
    shared: &PoolShared,
    request: &Message,
    answer: ReplyDecision,
    hold: &HoldUntil<'_>,
) -> Result<(), TimeUp> {
    let outcome = match answer {
        ReplyDecision::None => return Ok(()),
        ReplyDecision::Refused(refusal) => {
            refused(shared, request, refusal);
            ReplyOutcome::Refused
        }
        ReplyDecision::Send { message, says } => match publish_answer(shared, *message, hold).await
        {
            Ok(()) => match says {
                ReplyKind::Done => ReplyOutcome::Done,
                ReplyKind::Failed => ReplyOutcome::Failed,
                ReplyKind::TooLarge => {
                    too_large(shared, request);
                    ReplyOutcome::TooLarge
                }
            },
            Err(Unpublished::TimeUp) => return Err(TimeUp),
            Err(Unpublished::GivenUp(error)) => {
                undeliverable(shared, request, &chain(&error));
                ReplyOutcome::Undeliverable
            }
        },
    };
    shared.stats.replied(outcome);
    Ok(())
}

async fn publish_answer(
    shared: &PoolShared,
    message: Outgoing,
    hold: &HoldUntil<'_>,
) -> Result<(), Unpublished> {
    let mut tried_again = 0;
    publish(shared, message, hold, |error| {
        let retry = retry_of_reply(error.kind, tried_again);
        tried_again += u32::from(retry == ReplyRetry::TryAgain);
        retry
    })
    .await
}

/// The address for a message's reply, cut for a log line.
fn reply_to(request: &Message) -> &str {
    cut(request.properties.reply_to.as_deref().unwrap_or_default())
}

fn refused(shared: &PoolShared, request: &Message, refusal: ReplyRefusal) {
    if let Some(suppressed) = is_due(&shared.reply_warnings.refused[refusal as usize]) {
        warn!(
            pool = %shared.name,
            messaging.destination.name = %Quoted(reply_to(request)),
            reason = refusal.as_str(),
            hint = refusal.hint(reply_to(request)),
            suppressed,
            "a reply is not sent to the address that its message requests"
        );
    }
}

fn too_large(shared: &PoolShared, request: &Message) {
    if let Some(suppressed) = is_due(&shared.reply_warnings.too_large) {
        warn!(
            pool = %shared.name,
            messaging.destination.name = %Quoted(reply_to(request)),
            reply_max = shared.settings().reply.max,
            hint = "raise reply_max, or let jobs answer with less",
            suppressed,
            "an answer is longer than reply_max: a failure is sent in its place"
        );
    }
}

fn undeliverable(shared: &PoolShared, request: &Message, cause: &str) {
    if let Some(suppressed) = is_due(&shared.reply_warnings.undeliverable) {
        warn!(
            pool = %shared.name,
            messaging.destination.name = %Quoted(reply_to(request)),
            error = cause,
            suppressed,
            "an answer cannot be delivered"
        );
    }
}
