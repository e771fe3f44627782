//! The verdict: what becomes of a delivery, from what became of its job.

use std::time::Duration;

use super::Levels;
use crate::{
    queue::{HeaderValue, Headers, Message},
    runner::{Failure, JobEnd, Reply},
    settings::{DeadLetter, RetrySettings},
};

/// Give-backs that a queue with a delivery count is trusted with, before a copy is made instead. A quorum queue
/// of RabbitMQ 4.0 to 4.2 drops or dead-letters a message after 20.
pub const GIVE_BACKS_BEFORE_COPY: u64 = 10;

/// Deliveries that came to nothing, after which a message is dead-lettered as a crash loop.
pub const CRASH_LOOP: u64 = 100;

pub(super) const ATTEMPT: &str = "x-tidegate-attempt";
pub(super) const LAUNCH_FAILURES: &str = "x-tidegate-launch-failures";
pub(super) const GIVE_BACKS: &str = "x-tidegate-give-backs";
pub(super) const DELIVERY_COUNT: &str = "x-delivery-count";

/// What a message's headers tell of its past with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// Which attempt this delivery is: 1 is the first.
    pub attempt: u32,
    /// Times that the command behind a wrapper did not start.
    pub launch_failures: u32,
    /// Deliveries that came to nothing, carried over from earlier copies.
    pub give_backs: u64,
    /// Deliveries that came to nothing since the last copy, as the broker counts them on a quorum queue.
    pub delivery_count: u64,
}

impl Default for History {
    fn default() -> Self {
        Self {
            attempt: 1,
            launch_failures: 0,
            give_backs: 0,
            delivery_count: 0,
        }
    }
}

impl History {
    /// Reads a message's headers. Anyone may have written them: a wrong type or range counts as not there.
    pub fn of(message: &Message, retry: &RetrySettings) -> Self {
        let max = i64::from(retry.max_attempts);
        let number = |name: &str, least: i64, most: i64| {
            integer(&message.headers, name).filter(|n| (least..=most).contains(n))
        };
        let small = |n: i64| u32::try_from(n).unwrap_or(0);
        Self {
            attempt: number(ATTEMPT, 1, max).map_or(1, small),
            launch_failures: number(LAUNCH_FAILURES, 0, max).map_or(0, small),
            give_backs: number(GIVE_BACKS, 0, i64::from(u32::MAX)).map_or(0, |n| n.unsigned_abs()),
            delivery_count: number(DELIVERY_COUNT, 0, i64::MAX).map_or(0, |n| n.unsigned_abs()),
        }
    }

    /// All deliveries of this message that came to nothing.
    pub fn in_vain(&self) -> u64 {
        self.give_backs.saturating_add(self.delivery_count)
    }

    /// Whether the message was delivered in vain so often that it must be what kills its takers.
    pub fn is_crash_loop(&self) -> bool {
        self.in_vain() > CRASH_LOOP
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
        /// What its runner has to say to whoever asked.
        reply: Option<Reply>,
    },
    /// A copy waits at a level of the backoff; then acknowledge it.
    Retry {
        /// The level.
        level: Duration,
        /// What the copy carries.
        next: History,
        /// Why, for whoever looks at the copy.
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
    /// Delivered in vain too often.
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
        JobEnd::NotStarted(_) => give_back(history, retry),
        JobEnd::Stopped => back(history, fresh(history), retry),
    }
}

/// Decides how a delivery is given back whose job was never begun.
///
/// Such a delivery cannot be what ends its takers, so a copy takes none of the broker's count along: a pool may be
/// faulted for days, and none of its messages becomes a crash loop by that.
pub fn give_back(history: History, retry: &RetrySettings) -> Verdict {
    let next = History {
        delivery_count: 0,
        ..history
    };
    back(history, next, retry)
}

fn back(history: History, next: History, retry: &RetrySettings) -> Verdict {
    if history.is_crash_loop() {
        return crash_loop(history, retry);
    }
    if history.delivery_count < GIVE_BACKS_BEFORE_COPY {
        return Verdict::GiveBack;
    }
    Verdict::GiveBackCopy { next }
}

/// Decides how a delivery is given back whose job was stopped because the broker would soon have cut its channel.
///
/// Always as a copy: on a classic queue nothing else would count, and a job that needs more time than there is would
/// go round for ever.
pub fn past_deadline(history: History, retry: &RetrySettings) -> Verdict {
    let next = History {
        give_backs: history.in_vain().saturating_add(1),
        delivery_count: 0,
        ..history
    };
    if next.is_crash_loop() {
        return crash_loop(next, retry);
    }
    Verdict::GiveBackCopy { next }
}

/// The end of a message that was delivered in vain too often.
pub fn crash_loop(history: History, retry: &RetrySettings) -> Verdict {
    dead(
        retry,
        Death {
            cause: DeathCause::CrashLoop,
            attempts: history.attempt - 1,
            message: format!(
                "delivered {} times without coming to an end",
                history.in_vain()
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
        give_backs: history.in_vain(),
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
mod tests {
    use super::*;
    use crate::runner::{FailureKind, StartError};

    fn failure() -> Failure {
        Failure {
            kind: FailureKind::Exit(3),
            message: String::from("exit code 3"),
            stderr_tail: None,
        }
    }

    fn later(after: Option<Duration>) -> JobEnd {
        let failure = Some(failure());
        JobEnd::Retry { after, failure }
    }

    fn at_attempt(attempt: u32) -> History {
        History {
            attempt,
            ..History::default()
        }
    }

    /// What became of the job, its attempt, and the verdict in a word.
    #[test]
    fn each_end_of_a_job_has_the_settlement_of_the_design() {
        let retry = RetrySettings::default();
        let table: Vec<(&str, JobEnd, u32, &str)> = vec![
            ("done", JobEnd::Done { reply: None }, 1, "ack"),
            ("done at last", JobEnd::Done { reply: None }, 5, "ack"),
            (
                "failed",
                JobEnd::Failed(failure()),
                1,
                "retry 1s as attempt 2",
            ),
            (
                "failed again",
                JobEnd::Failed(failure()),
                4,
                "retry 8s as attempt 5",
            ),
            (
                "failed for good",
                JobEnd::Failed(failure()),
                5,
                "dead: attempts",
            ),
            ("asked for later", later(None), 2, "retry 2s as attempt 3"),
            (
                "asked for much later",
                later(Some(Duration::from_secs(90))),
                1,
                "retry 128s as attempt 2",
            ),
            (
                "asked for later too often",
                later(None),
                5,
                "dead: attempts",
            ),
            (
                "refused itself",
                JobEnd::Rejected {
                    reason: String::new(),
                    failure: None,
                },
                1,
                "dead: rejected",
            ),
            (
                "wrapper",
                JobEnd::WrapperFailed(failure()),
                3,
                "retry 1s as attempt 3",
            ),
            ("stopped", JobEnd::Stopped, 5, "give back"),
            (
                "not started",
                JobEnd::NotStarted(StartError {
                    what: String::new(),
                    source: None,
                }),
                5,
                "give back",
            ),
        ];
        for (name, end, attempt, expected) in table {
            assert_eq!(
                word(&verdict(end, at_attempt(attempt), &retry)),
                expected,
                "{name}"
            );
        }
    }

    fn word(verdict: &Verdict) -> String {
        match verdict {
            Verdict::Ack { .. } => String::from("ack"),
            Verdict::Retry { level, next, .. } => {
                format!("retry {}s as attempt {}", level.as_secs(), next.attempt)
            }
            Verdict::DeadLetter { death } => format!("dead: {}", death.cause.as_str()),
            Verdict::Reject { death } => format!("reject: {}", death.cause.as_str()),
            Verdict::GiveBack => String::from("give back"),
            Verdict::GiveBackCopy { next } => {
                format!("give back a copy, {} in vain", next.give_backs)
            }
        }
    }

    #[test]
    fn a_death_carries_what_was_seen_of_the_job_whose_word_it_was() {
        let retry = RetrySettings::default();
        let refused = |failure| JobEnd::Rejected {
            reason: String::from("not a picture"),
            failure,
        };
        let last = "asked to be run later at its last attempt";
        for (end, attempt, message, seen) in [
            (refused(Some(failure())), 1, "not a picture", true),
            (refused(None), 1, "not a picture", false),
            (later(None), 5, last, true),
            (JobEnd::Failed(failure()), 5, "exit code 3", true),
        ] {
            let Verdict::DeadLetter { death } = verdict(end, at_attempt(attempt), &retry) else {
                panic!("{message}: not dead");
            };
            assert_eq!(death.message, message);
            assert_eq!(death.failure, seen.then(failure), "{message}");
        }
    }

    #[test]
    fn a_job_that_asks_for_later_has_not_failed() {
        let verdict = verdict(later(None), at_attempt(1), &RetrySettings::default());
        assert!(matches!(verdict, Verdict::Retry { failure: None, .. }));
    }

    #[test]
    fn the_broker_dead_letters_where_it_is_asked_to() {
        let retry = RetrySettings {
            dead_letter: DeadLetter::Broker,
            ..RetrySettings::default()
        };
        let verdict = verdict(JobEnd::Failed(failure()), at_attempt(5), &retry);
        assert_eq!(word(&verdict), "reject: attempts");
    }

    #[test]
    fn launches_that_fail_have_a_count_of_their_own() {
        let retry = RetrySettings::default();
        let fourth = History {
            launch_failures: 4,
            ..at_attempt(2)
        };
        assert_eq!(
            word(&verdict(JobEnd::WrapperFailed(failure()), fourth, &retry)),
            "dead: launch"
        );
    }

    #[test]
    fn giving_back_minds_the_delivery_limit_of_quorum_queues() {
        let retry = RetrySettings::default();
        for (count, carried, expected) in [
            (9, 0, "give back"),
            (10, 0, "give back a copy, 10 in vain"),
            (10, 60, "give back a copy, 70 in vain"),
            (10, 91, "dead: crash-loop"),
            (101, 0, "dead: crash-loop"),
        ] {
            let history = History {
                delivery_count: count,
                give_backs: carried,
                ..History::default()
            };
            assert_eq!(
                word(&verdict(JobEnd::Stopped, history, &retry)),
                expected,
                "{count} + {carried}"
            );
        }
    }

    #[test]
    fn a_message_whose_job_is_never_begun_is_no_crash_loop() {
        let retry = RetrySettings::default();
        let mut history = at_attempt(3);
        let mut copies = 0;
        for _ in 0..1000 {
            let not_started = JobEnd::NotStarted(StartError {
                what: String::new(),
                source: None,
            });
            match verdict(not_started, history, &retry) {
                // As a quorum queue counts.
                Verdict::GiveBack => history.delivery_count += 1,
                Verdict::GiveBackCopy { next } => {
                    copies += 1;
                    history = next;
                }
                end => panic!("{}", word(&end)),
            }
            assert!(history.delivery_count <= GIVE_BACKS_BEFORE_COPY);
        }
        assert_eq!((copies, history.attempt), (90, 3));
        // What came of jobs that were begun is kept.
        let begun = History {
            delivery_count: 10,
            give_backs: 60,
            ..History::default()
        };
        assert_eq!(
            word(&give_back(begun, &retry)),
            "give back a copy, 60 in vain"
        );
    }

    #[test]
    fn a_job_that_always_runs_into_the_deadline_does_not_go_round_for_ever() {
        let retry = RetrySettings::default();
        let mut history = at_attempt(3);
        let mut rounds = 0;
        let end = loop {
            match past_deadline(history, &retry) {
                Verdict::GiveBackCopy { next } => history = next,
                end => break word(&end),
            }
            rounds += 1;
            assert_eq!((history.attempt, history.give_backs), (3, rounds));
        };
        assert_eq!((rounds, end.as_str()), (CRASH_LOOP, "dead: crash-loop"));
    }

    #[test]
    fn forged_headers_mean_the_first_attempt() {
        let retry = RetrySettings::default();
        let forged = [
            HeaderValue::from("3"),
            HeaderValue::I64(0),
            HeaderValue::I64(-4),
            HeaderValue::I64(6),
            HeaderValue::I64(i64::MAX),
            HeaderValue::F64(2.0),
            HeaderValue::Bool(true),
            HeaderValue::Void,
        ];
        for value in forged {
            let message = Message {
                headers: Headers::from([
                    (String::from(ATTEMPT), value.clone()),
                    (String::from(LAUNCH_FAILURES), HeaderValue::I64(-1)),
                    (String::from(GIVE_BACKS), HeaderValue::from("many")),
                ]),
                ..Message::default()
            };
            assert_eq!(
                History::of(&message, &retry),
                History::default(),
                "{value:?}"
            );
        }
    }

    #[test]
    fn an_attempt_within_range_is_read_whatever_its_width() {
        for value in [HeaderValue::I32(3), HeaderValue::U8(3), HeaderValue::I64(3)] {
            let message = Message {
                headers: Headers::from([(String::from(ATTEMPT), value)]),
                ..Message::default()
            };
            assert_eq!(History::of(&message, &RetrySettings::default()).attempt, 3);
        }
    }
}
