//! Tests of the verdict: the settlement for each end of a job.

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

/// Per row: the end of the job, its attempt, and the verdict as text.
#[test]
fn each_end_of_a_job_has_the_documented_settlement() {
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
        (
            "stopped",
            JobEnd::Stopped,
            5,
            "give back a copy, 0 unfinished",
        ),
        (
            "not started",
            not_started(),
            5,
            "give back a copy, 0 unfinished",
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
            format!("give back a copy, {} unfinished", next.give_backs)
        }
        Verdict::Renew { next } => format!("renew, {} unfinished", next.give_backs),
        Verdict::Park { level, .. } => format!("park {}s", level.as_secs()),
    }
}

#[test]
fn the_record_of_a_death_has_what_the_runner_reported_about_the_job() {
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
fn a_job_that_asks_for_a_retry_has_not_failed() {
    let verdict = verdict(later(None), at_attempt(1), &RetrySettings::default());
    assert!(matches!(verdict, Verdict::Retry { failure: None, .. }));
}

#[test]
fn the_broker_dead_letters_if_the_pool_is_set_so() {
    let retry = RetrySettings {
        dead_letter: DeadLetter::Broker,
        ..RetrySettings::default()
    };
    let verdict = verdict(JobEnd::Failed(failure()), at_attempt(5), &retry);
    assert_eq!(word(&verdict), "reject: attempts");
}

#[test]
fn failed_launches_are_counted_separately() {
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

fn not_started() -> JobEnd {
    JobEnd::NotStarted(StartError {
        what: String::new(),
        source: None,
    })
}

/// A quorum queue with a delivery limit and no dead-letter exchange, with one message in it.
struct Quorum {
    limit: u64,
    history: History,
}

impl Quorum {
    fn new(limit: u64) -> Self {
        let history = History::default();
        Self { limit, history }
    }

    /// The message is returned unchanged, and the broker counts it.
    fn counts(&mut self) {
        self.history.delivery_count += 1;
        assert!(
            self.history.delivery_count <= self.limit,
            "dropped by the broker: {:?}",
            self.history
        );
    }

    /// Carries out a verdict. Returns its name if the message is settled for good.
    fn does(&mut self, verdict: Verdict) -> Option<String> {
        match verdict {
            Verdict::GiveBack => self.counts(),
            Verdict::GiveBackCopy { next }
            | Verdict::Renew { next }
            | Verdict::Park { next, .. } => self.history = next,
            end => return Some(word(&end)),
        }
        None
    }
}

#[test]
fn giving_back_does_not_raise_the_brokers_delivery_count() {
    let retry = RetrySettings::default();
    for limit in [0, 1, 2, 3, 20] {
        let mut queue = Quorum::new(limit);
        queue.history.attempt = 3;
        for _ in 0..1000 {
            for end in [not_started(), JobEnd::Stopped] {
                let verdict = verdict(end, queue.history, &retry);
                assert_eq!(queue.does(verdict), None);
            }
            let verdict = give_back(queue.history);
            assert_eq!(queue.does(verdict), None);
        }
        assert_eq!(queue.history, at_attempt(3));
    }
}

#[test]
fn a_message_that_kills_the_daemon_is_dead_lettered_before_any_delivery_limit() {
    let retry = RetrySettings::default();
    for limit in [1, 2, 3, 20] {
        let mut queue = Quorum::new(limit);
        let mut runs = 0;
        let end = loop {
            if queue.history.came_back() {
                let verdict = renew(queue.history, &retry);
                match queue.does(verdict) {
                    Some(end) => break end,
                    None => continue,
                }
            }
            // The job began, then the daemon was killed.
            runs += 1;
            queue.counts();
        };
        assert_eq!((runs, end.as_str()), (CRASH_LOOP + 1, "dead: crash-loop"));
    }
}

/// The history of the message as a pool reads it that keeps places.
fn kept(queue: &Quorum) -> History {
    let read = History {
        may_count: true,
        ..queue.history
    };
    read.keeping_places(true)
}

#[test]
fn where_places_are_kept_every_second_give_back_is_a_copy_and_none_counts_as_unfinished() {
    let retry = RetrySettings::default();
    for limit in [1, 2, 20] {
        let mut queue = Quorum::new(limit);
        for round in 0..1000 {
            let history = kept(&queue);
            assert!(
                !history.came_back() && history.unfinished() == 0,
                "{history:?}"
            );
            let verdict = match round % 3 {
                0 => give_back(history),
                _ => verdict(JobEnd::Stopped, history, &retry),
            };
            assert_eq!(verdict == Verdict::GiveBack, round % 2 == 0, "{round}");
            assert_eq!(queue.does(verdict), None);
        }
    }
}

#[test]
fn where_places_are_kept_deaths_and_give_backs_in_turn_stay_within_a_limit_of_two() {
    let retry = RetrySettings::default();
    let mut queue = Quorum::new(2);
    let mut deaths = 0;
    let end = loop {
        let history = kept(&queue);
        if history.came_back() {
            match queue.does(renew(history, &retry)) {
                Some(end) => break end,
                None => continue,
            }
        }
        let verdict = give_back(history);
        assert_eq!(queue.does(verdict), None);
        if kept(&queue).came_back() {
            continue;
        }
        deaths += 1;
        queue.counts();
    };
    assert_eq!((deaths, end.as_str()), (CRASH_LOOP + 1, "dead: crash-loop"));
}

#[test]
fn a_message_given_back_to_a_classic_queue_keeps_its_place() {
    let message = |redelivered, headers| Message {
        redelivered,
        headers,
        ..Message::default()
    };
    let retry = RetrySettings::default();
    let count = |name: &str| Headers::from([(name.to_owned(), HeaderValue::I64(7))]);
    for (message, came_back, back) in [
        // A first delivery: whether the queue counts is not known yet.
        (
            message(false, Headers::new()),
            false,
            "give back a copy, 0 unfinished",
        ),
        (message(true, Headers::new()), false, "give back"),
        (
            message(true, count(DELIVERY_COUNT)),
            true,
            "give back a copy, 1 unfinished",
        ),
        // The count is another queue's or forged: this is the first delivery from this queue.
        (
            message(false, count(DELIVERY_COUNT)),
            false,
            "give back a copy, 0 unfinished",
        ),
        (
            message(true, count(ACQUIRED_COUNT)),
            false,
            "give back a copy, 0 unfinished",
        ),
    ] {
        let history = History::of(&message, &retry);
        assert_eq!(history.came_back(), came_back, "{message:?}");
        assert_eq!(word(&give_back(history)), back, "{message:?}");
    }
}

#[test]
fn a_message_is_not_dead_before_it_ran_once() {
    let retry = RetrySettings::default();
    for (give_backs, count, redelivered) in [
        (101, 0, false),
        (20, 500, false),
        (i64::MAX, 1, true),
        (0, 500, true),
    ] {
        let message = Message {
            redelivered,
            headers: Headers::from([
                (GIVE_BACKS.to_owned(), HeaderValue::I64(give_backs)),
                (DELIVERY_COUNT.to_owned(), HeaderValue::I64(count)),
            ]),
            ..Message::default()
        };
        let history = History::of(&message, &retry);
        let lives = !history.came_back() || matches!(renew(history, &retry), Verdict::Renew { .. });
        assert!(lives, "{message:?}");
    }
}

#[test]
fn suspects_wait_at_an_existing_level() {
    let mut retry = RetrySettings::default();
    let history = History {
        give_backs: SUSPECT,
        ..at_attempt(2)
    };
    assert!(history.is_suspect());
    for (backoff_max, expected) in [(300, 16), (4, 4)] {
        retry.backoff_max = Duration::from_secs(backoff_max);
        let level = Duration::from_secs(expected);
        let next = history;
        assert_eq!(park(history, &retry), Verdict::Park { level, next });
    }
}

#[test]
fn a_job_that_always_exceeds_the_deadline_is_not_retried_for_ever() {
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
