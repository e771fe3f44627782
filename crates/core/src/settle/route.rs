//! The destination of a copy if its queue does not accept it, and the scope of a publish error. Pure.

use std::time::Duration;

use super::levels::{dead_queue_spec, retry_queue_spec};
use crate::{
    decide::QueueName,
    queue::{QueueErrorKind, QueueSpec},
};

/// Numbers of the queues that replace a level's retry queue: `<queue>.retry.<ms>.2` and so on.
const SPARES: std::ops::RangeInclusive<u32> = 2..=4;

/// How long a queue is not used after its first error. Doubled each time, up to [`MAX_REST`].
const FIRST_REST: Duration = Duration::from_secs(60);
const MAX_REST: Duration = Duration::from_secs(600);

/// The queues that a copy may go to, in order of preference.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// How each queue is declared.
    pub queues: Vec<QueueSpec>,
    /// Whether an existing queue with another declaration is accepted.
    pub takes_any: bool,
}

impl Route {
    /// The route of a retry at this level. The queue's arguments do the work (hold a message for a time, then send it
    /// back), so a queue with another declaration is not accepted.
    pub fn retry(queue: &QueueName, level: Duration) -> Self {
        let own = retry_queue_spec(queue, level);
        let spares = SPARES.map(|n| QueueSpec {
            name: spare(&own.name, n),
            ..own.clone()
        });
        let mut queues: Vec<_> = spares.collect();
        queues.insert(0, own);
        Self {
            queues,
            takes_any: false,
        }
    }

    /// The route of a dead letter. Any queue of the name is accepted, so that an operator may give it a limit or
    /// another type. There is no second queue, so that all dead letters are in one place.
    pub fn dead_letter(queue: &QueueName) -> Self {
        Self {
            queues: vec![dead_queue_spec(queue)],
            takes_any: true,
        }
    }
}

/// Name of the `n`th queue of a level. The retry queue itself is the first.
fn spare(retry_queue: &QueueName, n: u32) -> QueueName {
    QueueName::from(format!("{retry_queue}.{n}"))
}

/// The queues that replace a retry queue, in the order of their use.
pub fn spares(retry_queue: &QueueName) -> impl Iterator<Item = QueueName> + '_ {
    SPARES.map(|n| spare(retry_queue, n))
}

/// What an error affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorScope {
    /// Nothing can be published at present.
    Everything,
    /// This queue takes no messages.
    Queue,
    /// This message is refused by every queue.
    Message,
}

/// The operation that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyStep {
    /// Declaring the queue.
    Declare,
    /// Publishing the copy.
    Publish,
}

/// Decides what an error of this kind affects.
pub fn scope(step: CopyStep, kind: QueueErrorKind) -> ErrorScope {
    use QueueErrorKind as K;
    match (step, kind) {
        (_, K::Blocked | K::Disconnected | K::HeldTooLong | K::Other) => ErrorScope::Everything,
        (CopyStep::Declare, _) => ErrorScope::Queue,
        // All copies are published to the same exchange.
        (CopyStep::Publish, K::AccessRefused) => ErrorScope::Everything,
        (CopyStep::Publish, K::TooLarge | K::Conflict | K::BrokerFailed) => ErrorScope::Message,
        (CopyStep::Publish, _) => ErrorScope::Queue,
    }
}

/// What is wrong with a queue after an error of this kind. Reads after the queue's name.
pub fn what_is_wrong(kind: QueueErrorKind) -> &'static str {
    use QueueErrorKind as K;
    match kind {
        K::Mismatch => "was declared with other arguments (406), and would not send retries back",
        K::LimitReached => "cannot be declared, because a limit on queues is reached",
        K::AccessRefused => "does not exist, and this user may not declare it",
        K::Conflict => "is held exclusively by another connection",
        K::Timeout => "does not confirm (a quorum queue without a leader does not)",
        K::Refused => "refuses messages (full, or its node has failed)",
        K::Unroutable => "is deleted as soon as it is declared",
        _ => "cannot be used",
    }
}

/// How long a queue is not used after this number of failures in a row.
pub fn rest(kind: QueueErrorKind, failures: u32) -> Duration {
    use QueueErrorKind as K;
    match kind {
        // Only a change by a person helps.
        K::Mismatch | K::AccessRefused | K::BrokerFailed => MAX_REST,
        _ => FIRST_REST
            .saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)))
            .min(MAX_REST),
    }
}

#[cfg(test)]
mod tests {
    use QueueErrorKind as K;

    use super::*;

    #[test]
    fn a_retry_has_four_queues_and_a_dead_letter_one() {
        let queue = QueueName::from("jobs");
        let names = |route: &Route| -> Vec<String> {
            route.queues.iter().map(|q| q.name.to_string()).collect()
        };
        let retry = Route::retry(&queue, Duration::from_millis(200));
        let expected = ["", ".2", ".3", ".4"].map(|n| format!("jobs.retry.200{n}"));
        assert_eq!(names(&retry), expected);
        for spec in &retry.queues {
            assert_eq!(spec.message_ttl, Some(Duration::from_millis(200)));
            assert_eq!(spec.dead_letter_to, Some(queue.clone()));
        }
        assert_eq!(names(&Route::dead_letter(&queue)), ["jobs.dead"]);
    }

    #[test]
    fn only_errors_that_stop_every_publish_affect_everything() {
        for (step, kind, expected) in [
            (CopyStep::Publish, K::Blocked, ErrorScope::Everything),
            (CopyStep::Publish, K::Disconnected, ErrorScope::Everything),
            (CopyStep::Publish, K::AccessRefused, ErrorScope::Everything),
            (CopyStep::Publish, K::Timeout, ErrorScope::Queue),
            (CopyStep::Publish, K::Refused, ErrorScope::Queue),
            (CopyStep::Publish, K::Unroutable, ErrorScope::Queue),
            (CopyStep::Publish, K::TooLarge, ErrorScope::Message),
            (CopyStep::Publish, K::Conflict, ErrorScope::Message),
            (CopyStep::Declare, K::Disconnected, ErrorScope::Everything),
            (CopyStep::Declare, K::Timeout, ErrorScope::Queue),
            (CopyStep::Declare, K::Mismatch, ErrorScope::Queue),
            (CopyStep::Declare, K::LimitReached, ErrorScope::Queue),
            (CopyStep::Declare, K::AccessRefused, ErrorScope::Queue),
            (CopyStep::Declare, K::BrokerFailed, ErrorScope::Queue),
        ] {
            assert_eq!(scope(step, kind), expected, "{step:?} {kind:?}");
        }
    }

    #[test]
    fn each_failure_doubles_the_pause_of_a_queue_and_a_mismatched_queue_pauses_longest() {
        let seconds = |kind| [1, 2, 3, 4, 5, 99].map(|n| rest(kind, n).as_secs());
        assert_eq!(seconds(K::Timeout), [60, 120, 240, 480, 600, 600]);
        assert_eq!(seconds(K::Mismatch), [600; 6]);
    }
}
