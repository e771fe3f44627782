//! The verdict: what becomes of a delivery, from what became of its job.

use std::time::Duration;

use super::Levels;
use crate::{
    queue::{HeaderValue, Headers, Message},
    runner::{Failure, JobEnd, Reply},
    settings::{DeadLetter, RetrySettings},
};

/// Unfinished deliveries, after which a message is dead-lettered as a crash loop.
///
/// As many as RabbitMQ 4 itself allows on a quorum queue that says nothing else.
pub const CRASH_LOOP: u64 = 20;

/// Unfinished deliveries, from which on a message is a suspect. Suspects run one at a time, and meanwhile no
/// other suspect is held: so only the one that runs can be blamed for what happens.
pub const SUSPECT: u64 = 10;

/// How long a suspect waits in a retry queue for its turn, rounded up to a level of the backoff.
const PARKED_FOR: Duration = Duration::from_secs(10);

pub(super) const ATTEMPT: &str = "x-tidegate-attempt";
pub(super) const LAUNCH_FAILURES: &str = "x-tidegate-launch-failures";
pub(super) const GIVE_BACKS: &str = "x-tidegate-give-backs";
pub(super) const DELIVERY_COUNT: &str = "x-delivery-count";
/// RabbitMQ 4 counts with this one what it hands out, where that is not the same.
const ACQUIRED_COUNT: &str = "x-acquired-count";

/// What a message's headers tell of its past with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// Which attempt this delivery is: 1 is the first.
    pub attempt: u32,
    /// Times that the command behind a wrapper did not start.
    pub launch_failures: u32,
    /// Unfinished deliveries, carried over from earlier copies.
    pub give_backs: u64,
    /// Unfinished deliveries since the last copy, as the broker counts them on a quorum queue. 0 of a
    /// message that the broker hands out for the first time, whatever its headers say: those are another queue's.
    pub delivery_count: u64,
    /// Whether the queue may count deliveries, and give a message up that was delivered too often. Only a message that
    /// comes again without a count shows that it does not.
    pub may_count: bool,
    /// Whether it was handed out before, as far as that is known: by the broker's word, or by that of a copy.
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
    /// Reads a message's headers. Anyone may have written them: a wrong type or range counts as not there.
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

    /// Whether the broker counts unfinished deliveries of this one. It must be made new before anything
    /// else, because the queue's limit may be the next.
    pub fn came_back(&self) -> bool {
        self.delivery_count > 0
    }

    /// All unfinished deliveries of this message: those that ended without a result. What the broker counted since the last copy is one of
    /// them, however often: the others may be those of another program, or of a time when no copy could be made.
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

/// What becomes of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Acknowledge it.
    Ack {
        /// What its runner answers.
        reply: Option<Reply>,
    },
    /// A copy waits at a level of the backoff; then acknowledge it.
    Retry {
        /// The level.
        level: Duration,
        /// What the copy carries.
        next: History,
        /// Why, for people who look at the copy.
        failure: Option<Failure>,
    },
    /// A copy goes to the dead letters; then acknowledge it.
    DeadLetter {
        /// Why.
        death: Death,
    },
    /// Reject it, which hands it to the broker's own dead-lettering.
    Reject {
        /// Why, for the log: the broker cannot be told.
        death: Death,
    },
    /// Give it back to its queue.
    GiveBack,
    /// Give it back as a copy with a fresh delivery count; then acknowledge it.
    GiveBackCopy {
        /// What the copy carries.
        next: History,
    },
    /// The same before its job was begun, because the queue counts its deliveries.
    Renew {
        /// What the copy carries.
        next: History,
    },
    /// A copy waits for its turn to run alone; then acknowledge it.
    Park {
        /// The level of the backoff that it waits at.
        level: Duration,
        /// What the copy carries.
        next: History,
    },
}

/// Why a message is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// A word of a bounded set.
    pub cause: DeathCause,
    /// Attempts that were spent.
    pub attempts: u32,
    /// One line for a person.
    pub message: String,
    /// The last failure, or what was seen of a job that said itself that this is its end.
    pub failure: Option<Failure>,
}

/// The kinds of death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeathCause {
    /// All attempts were spent.
    Attempts,
    /// The job refused itself.
    Rejected,
    /// The command behind a wrapper never started.
    Launch,
    /// Too many unfinished deliveries.
    CrashLoop,
}

impl DeathCause {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Attempts,
        Self::Rejected,
        Self::Launch,
        Self::CrashLoop,
    ];

    /// The word in the dead letter's headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Rejected => "rejected",
            Self::Launch => "launch",
            Self::CrashLoop => "crash-loop",
        }
    }
}

/// Decides what becomes of a delivery whose job came to `end`.
pub fn verdict(end: JobEnd, history: History, retry: &RetrySettings) -> Verdict {
    let is_last = history.attempt >= retry.max_attempts;
    match end {
        JobEnd::Done { reply } => Verdict::Ack { reply },
        JobEnd::Retry { failure, .. } if is_last => {
            let message = String::from("asked to be run later at its last attempt");
            spent(history, retry, message, failure)
        }
        // A wish is no failure: its copy tells of none.
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

/// Decides how a delivery is given back whose job was never begun, or that we have stopped.
///
/// As a copy, from the first time on: the queue's limit may be 2 or 3, and cannot be seen. Only where the queue is known
/// not to count it goes back as it is, and keeps its place. It counts for nothing: a pool may be faulted for days,
/// and none of its messages becomes a crash loop by that.
pub fn give_back(history: History) -> Verdict {
    if !history.may_count {
        return Verdict::GiveBack;
    }
    Verdict::GiveBackCopy {
        next: fresh(history),
    }
}

/// Decides what becomes of a delivery that [came back](History::came_back), before its job is begun.
pub fn renew(history: History, retry: &RetrySettings) -> Verdict {
    if history.is_crash_loop() {
        return crash_loop(history, retry);
    }
    Verdict::Renew {
        next: fresh(history),
    }
}

/// Decides where a suspect waits while another one runs.
pub fn park(history: History, retry: &RetrySettings) -> Verdict {
    Verdict::Park {
        level: Levels::new(retry).for_delay(PARKED_FOR),
        next: fresh(history),
    }
}

/// Decides how a delivery is given back whose job was stopped because the broker would soon have cut its channel.
///
/// Always as a copy: on a classic queue nothing else would count, and a job that needs more time than there is would
/// go round for ever.
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

/// The end of a message with too many unfinished deliveries.
fn crash_loop(history: History, retry: &RetrySettings) -> Verdict {
    dead(
        retry,
        Death {
            cause: DeathCause::CrashLoop,
            attempts: history.attempt - 1,
            message: format!(
                "delivered {} times without coming to an end",
                history.unfinished()
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

/// The end of a message whose attempts are spent.
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

/// The history that a copy carries: the broker counts its deliveries from zero again, so the sum moves to us.
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
