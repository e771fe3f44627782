//! The verdict: what happens to a delivery, decided from the end of its job.

use std::time::Duration;

use super::{
    Levels,
    headers::{ACQUIRED_COUNT, ATTEMPT, DELIVERY_COUNT, GIVE_BACKS, LAUNCH_FAILURES},
};
use crate::text::counted;
use crate::{
    queue::{HeaderValue, Headers, Message},
    runner::{Failure, JobEnd, Reply},
    settings::{DeadLetter, RetrySettings},
};

/// A message with more unfinished deliveries than this is dead-lettered as a crash loop.
///
/// The same number as RabbitMQ 4's default delivery limit on a quorum queue.
pub const CRASH_LOOP: u64 = 20;

/// From this number of unfinished deliveries on, a message is a suspect. Suspects run one at a time, and no other
/// suspect is held meanwhile. So only the running one can be the cause of a crash.
pub const SUSPECT: u64 = 10;

/// How long a suspect waits in a retry queue for its turn. Rounded up to a level of the backoff.
const PARKED_FOR: Duration = Duration::from_secs(10);

/// What a message's headers say about its earlier deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// The number of this attempt. The first is 1.
    pub attempt: u32,
    /// How often the command behind a wrapper did not start.
    pub launch_failures: u32,
    /// Unfinished deliveries before the last copy, carried over by the copies.
    pub give_backs: u64,
    /// Unfinished deliveries since the last copy, as the broker counts them on a quorum queue. 0 on the first
    /// delivery from a queue, because the header is then another queue's.
    pub delivery_count: u64,
    /// Whether the queue may count deliveries, and drop a message that was delivered too often. Only a redelivery
    /// without a count shows that it does not.
    pub may_count: bool,
    /// Whether it was delivered before, as far as the broker or a copy tells.
    pub was_taken: bool,
}

impl Default for History {
    fn default() -> Self {
        Self {
            attempt: 1,
            launch_failures: 0,
            give_backs: 0,
            delivery_count: 0,
            may_count: true,
            was_taken: false,
        }
    }
}

impl History {
    /// Reads a message's headers. Anyone may have written them: a value of the wrong type or out of range is ignored.
    pub fn of(message: &Message, retry: &RetrySettings) -> Self {
        let max = i64::from(retry.max_attempts);
        let most = i64::try_from(CRASH_LOOP).unwrap_or(i64::MAX);
        let number = |name: &str, least: i64, most: i64| {
            integer(&message.headers, name).filter(|n| (least..=most).contains(n))
        };
        let small = |n: i64| u32::try_from(n).unwrap_or(0);
        let again = message.redelivered;
        let give_backs = number(GIVE_BACKS, 0, most);
        let counted = || {
            let names = [DELIVERY_COUNT, ACQUIRED_COUNT];
            names.iter().any(|name| message.headers.contains_key(*name))
        };
        Self {
            attempt: number(ATTEMPT, 1, max).map_or(1, small),
            launch_failures: number(LAUNCH_FAILURES, 0, max).map_or(0, small),
            give_backs: give_backs.map_or(0, |n| n.unsigned_abs()),
            delivery_count: number(DELIVERY_COUNT, 0, i64::MAX)
                .filter(|_| again)
                .map_or(0, |n| n.unsigned_abs()),
            may_count: !again || counted(),
            was_taken: again || give_backs.is_some(),
        }
    }

    /// Whether the broker has counted unfinished deliveries of this message. It must then be renewed before its job
    /// begins, because the next unfinished delivery may reach the queue's limit.
    pub fn came_back(&self) -> bool {
        self.delivery_count > 0
    }

    /// The history for a pool that keeps the places of messages in their queue. `keeps`: whether the pool does.
    ///
    /// Such a pool lets a message return once as it is, because a copy would be at the end of the queue. So the first
    /// return is most likely a give-back, and does not count as unfinished. From then on, the next return is a copy.
    #[must_use]
    pub fn keeping_places(self, keeps: bool) -> Self {
        if !keeps {
            return self;
        }
        Self {
            may_count: self.may_count && self.delivery_count > 0,
            delivery_count: self.delivery_count.saturating_sub(1),
            ..self
        }
    }

    /// All unfinished deliveries of this message: those that ended without a result. The deliveries that the broker
    /// counted since the last copy add only one: the others may be another program's, or from a time when no copy could
    /// be published.
    pub fn unfinished(&self) -> u64 {
        self.give_backs.saturating_add(self.came_back().into())
    }

    /// Whether it has so many unfinished deliveries that it must run alone.
    pub fn is_suspect(&self) -> bool {
        self.unfinished() >= SUSPECT
    }

    fn is_crash_loop(&self) -> bool {
        self.unfinished() > CRASH_LOOP
    }
}

fn integer(headers: &Headers, name: &str) -> Option<i64> {
    headers.get(name).and_then(HeaderValue::as_integer)
}

/// What happens to a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Acknowledge it.
    Ack {
        /// The runner's reply.
        reply: Option<Reply>,
    },
    /// Publish a copy that waits at a level of the backoff, then acknowledge.
    Retry {
        /// The level.
        level: Duration,
        /// The copy's history.
        next: History,
        /// The failure, for people who look at the copy.
        failure: Option<Failure>,
    },
    /// Publish a copy to the dead-letter queue, then acknowledge.
    DeadLetter {
        /// Why it is dead.
        death: Death,
    },
    /// Reject it, so that the broker dead-letters it.
    Reject {
        /// Why it is dead. Only logged: a reject cannot carry a reason.
        death: Death,
    },
    /// Give it back to its queue.
    GiveBack,
    /// Publish a copy to the same queue, whose delivery count starts at zero, then acknowledge.
    GiveBackCopy {
        /// The copy's history.
        next: History,
    },
    /// The same, before the job begins, because the queue counts deliveries.
    Renew {
        /// The copy's history.
        next: History,
    },
    /// Publish a copy that waits until it can run alone, then acknowledge.
    Park {
        /// The level of the backoff at which it waits.
        level: Duration,
        /// The copy's history.
        next: History,
    },
}

/// Why a message is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The cause. The set of causes is fixed.
    pub cause: DeathCause,
    /// Attempts spent.
    pub attempts: u32,
    /// One line for a person.
    pub message: String,
    /// The last failure, or what the runner saw of a job that rejected its message or asked for one retry too many.
    pub failure: Option<Failure>,
}

/// Causes of death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeathCause {
    /// All attempts were spent.
    Attempts,
    /// The job rejected its message.
    Rejected,
    /// The command behind a wrapper never started.
    Launch,
    /// Too many unfinished deliveries.
    CrashLoop,
}

impl DeathCause {
    /// All variants.
    pub const ALL: [Self; 4] = [
        Self::Attempts,
        Self::Rejected,
        Self::Launch,
        Self::CrashLoop,
    ];

    /// The word for the dead letter's headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Rejected => "rejected",
            Self::Launch => "launch",
            Self::CrashLoop => "crash-loop",
        }
    }
}

/// Decides what happens to a delivery whose job ended with `end`.
pub fn verdict(end: JobEnd, history: History, retry: &RetrySettings) -> Verdict {
    let is_last = history.attempt >= retry.max_attempts;
    match end {
        JobEnd::Done { reply } => Verdict::Ack { reply },
        JobEnd::Retry { failure, .. } if is_last => {
            let message = String::from("asked to be run later at its last attempt");
            spent(history, retry, message, failure)
        }
        // Asking for a later run is not a failure, so the copy carries none.
        JobEnd::Retry { after, .. } => {
            let levels = Levels::new(retry);
            let level = match after {
                Some(delay) => levels.for_delay(delay),
                None => levels.after(history.attempt),
            };
            again(history, level, None)
        }
        JobEnd::Failed(failure) if is_last => {
            spent(history, retry, failure.message.clone(), Some(failure))
        }
        JobEnd::Failed(failure) => {
            let level = Levels::new(retry).after(history.attempt);
            again(history, level, Some(failure))
        }
        JobEnd::WrapperFailed(failure) => {
            let launch_failures = history.launch_failures + 1;
            if launch_failures >= retry.max_attempts {
                return dead(
                    retry,
                    Death {
                        cause: DeathCause::Launch,
                        attempts: history.attempt - 1,
                        message: failure.message.clone(),
                        failure: Some(failure),
                    },
                );
            }
            Verdict::Retry {
                level: Levels::new(retry).after(launch_failures),
                next: History {
                    launch_failures,
                    ..fresh(history)
                },
                failure: Some(failure),
            }
        }
        JobEnd::Rejected { reason, failure } => dead(
            retry,
            Death {
                cause: DeathCause::Rejected,
                attempts: history.attempt,
                message: reason,
                failure,
            },
        ),
        JobEnd::NotStarted(_) | JobEnd::Stopped => give_back(history),
    }
}

/// Decides how to give back a delivery whose job was stopped or never began.
///
/// It goes back as a copy, already the first time: the queue's delivery limit may be 2 or 3, and tidegate cannot see
/// it. A delivery goes back as it is, and keeps its place, only if the queue is known not to count it. A give-back
/// adds no unfinished delivery: a pool may be faulted for days, and this must not make its messages crash loops.
pub fn give_back(history: History) -> Verdict {
    if !history.may_count {
        return Verdict::GiveBack;
    }
    Verdict::GiveBackCopy {
        next: fresh(history),
    }
}

/// Decides what happens to a delivery that [came back](History::came_back), before its job begins.
pub fn renew(history: History, retry: &RetrySettings) -> Verdict {
    if history.is_crash_loop() {
        return crash_loop(history, retry);
    }
    Verdict::Renew {
        next: fresh(history),
    }
}

/// Decides in which queue a suspect waits while another one runs.
pub fn park(history: History, retry: &RetrySettings) -> Verdict {
    Verdict::Park {
        level: Levels::new(retry).for_delay(PARKED_FOR),
        next: fresh(history),
    }
}

/// Decides how to give back a delivery whose job was stopped because the broker would soon have closed its channel.
///
/// It always goes back as a copy: on a classic queue nothing else counts its deliveries, and a job that needs more time
/// than the broker allows would be delivered again for ever.
pub fn past_deadline(history: History, retry: &RetrySettings) -> Verdict {
    let next = History {
        give_backs: history.unfinished().saturating_add(1),
        delivery_count: 0,
        ..history
    };
    if next.is_crash_loop() {
        return crash_loop(next, retry);
    }
    Verdict::GiveBackCopy { next }
}

/// The verdict for a message with too many unfinished deliveries.
fn crash_loop(history: History, retry: &RetrySettings) -> Verdict {
    dead(
        retry,
        Death {
            cause: DeathCause::CrashLoop,
            attempts: history.attempt - 1,
            message: format!(
                "delivered {}, but its job never ended",
                counted(history.unfinished(), "time")
            ),
            failure: None,
        },
    )
}

fn again(history: History, level: Duration, failure: Option<Failure>) -> Verdict {
    Verdict::Retry {
        level,
        next: History {
            attempt: history.attempt + 1,
            ..fresh(history)
        },
        failure,
    }
}

/// The verdict for a message whose attempts are spent.
fn spent(
    history: History,
    retry: &RetrySettings,
    message: String,
    failure: Option<Failure>,
) -> Verdict {
    dead(
        retry,
        Death {
            cause: DeathCause::Attempts,
            attempts: history.attempt,
            message,
            failure,
        },
    )
}

/// The history for a copy: the broker counts the copy's deliveries from zero, so the sum moves into `give_backs`.
fn fresh(history: History) -> History {
    History {
        give_backs: history.unfinished(),
        delivery_count: 0,
        ..history
    }
}

fn dead(retry: &RetrySettings, death: Death) -> Verdict {
    match retry.dead_letter {
        DeadLetter::Queue => Verdict::DeadLetter { death },
        DeadLetter::Broker => Verdict::Reject { death },
    }
}

#[cfg(test)]
mod tests;
