//! Tests of replies: which messages get one, where it goes, and what it has in it.

use super::*;
use crate::{
    queue::HeaderValue,
    runner::{Failure, FailureKind},
    settle::DeathCause,
};

const CALLER: &str = "amq.rabbitmq.reply-to.g1h2AA==.Key==";

fn request(reply_to: &str) -> Message {
    Message {
        properties: Properties {
            reply_to: Some(reply_to.to_owned()),
            correlation_id: Some("c-1".to_owned()),
            message_id: Some("m-1".to_owned()),
            user_id: Some("guest".to_owned()),
            ..Properties::default()
        },
        headers: Headers::from([("CC".to_owned(), HeaderValue::List(vec!["spy".into()]))]),
        body: "question".into(),
        ..Message::default()
    }
}

fn done(reply: Option<&'static str>) -> Verdict {
    Verdict::Ack {
        reply: reply.map(Reply::new),
    }
}

fn death() -> Death {
    Death {
        cause: DeathCause::Attempts,
        attempts: 5,
        message: "exit code 3".to_owned(),
        failure: Some(Failure {
            kind: FailureKind::Exit(3),
            message: "exit code 3".to_owned(),
            stderr_tail: Some("a secret".to_owned()),
        }),
    }
}

fn dead() -> Verdict {
    Verdict::DeadLetter { death: death() }
}

fn again() -> Verdict {
    Verdict::Retry {
        level: std::time::Duration::from_secs(1),
        next: crate::settle::History::default(),
        failure: None,
    }
}

fn settings(answers: Answers) -> ReplySettings {
    ReplySettings {
        answers,
        allow: vec!["replies.*".to_owned()],
        max: 10,
    }
}

fn answer(
    settings: &ReplySettings,
    given: bool,
    request: &Message,
    verdict: &Verdict,
) -> ReplyDecision {
    let own = [QueueName::from("jobs"), QueueName::from("replies.jobs")];
    let own = &own[..];
    ReplyRules {
        settings,
        given,
        own,
    }
    .answer(request, verdict)
}

fn sent(request: &Message, verdict: &Verdict) -> Outgoing {
    match answer(&settings(Answers::Always), false, request, verdict) {
        ReplyDecision::Send { message, .. } => *message,
        other => panic!("not sent: {other:?}"),
    }
}

#[test]
fn replies_with_the_result_if_the_pool_replies() {
    use Answers::{Always, Given, Never};
    let table = [
        // A reply of a runner is sent for every kind of queue.
        (Given, false, done(Some("yes")), Some(ReplyKind::Done)),
        (Given, true, done(Some("yes")), Some(ReplyKind::Done)),
        (Always, false, done(Some("yes")), Some(ReplyKind::Done)),
        (Never, true, done(Some("yes")), None),
        // Where the runner gives no reply, the sender gets one only with `Always`.
        (Given, true, done(None), None),
        (Always, false, done(None), Some(ReplyKind::Done)),
        (Never, false, done(None), None),
        (
            Always,
            false,
            done(Some("0123456789")),
            Some(ReplyKind::Done),
        ),
        (
            Always,
            false,
            done(Some("0123456789+")),
            Some(ReplyKind::TooLarge),
        ),
        (
            Given,
            true,
            done(Some("0123456789+")),
            Some(ReplyKind::TooLarge),
        ),
        // A final failure is sent wherever the pool replies.
        (Given, false, dead(), None),
        (Given, true, dead(), Some(ReplyKind::Failed)),
        (Always, false, dead(), Some(ReplyKind::Failed)),
        (Never, true, dead(), None),
        (
            Always,
            true,
            Verdict::Reject { death: death() },
            Some(ReplyKind::Failed),
        ),
        // A message that will be delivered again gets no reply yet.
        (Always, true, again(), None),
        (Always, true, Verdict::GiveBack, None),
        (
            Always,
            true,
            Verdict::GiveBackCopy {
                next: crate::settle::History::default(),
            },
            None,
        ),
    ];
    for (answers, given, verdict, expected) in table {
        let says = match answer(&settings(answers), given, &request(CALLER), &verdict) {
            ReplyDecision::Send { says, .. } => Some(says),
            ReplyDecision::None => None,
            ReplyDecision::Refused(refusal) => panic!("{refusal:?}"),
        };
        assert_eq!(says, expected, "{answers:?} {given} {verdict:?}");
    }
}

#[test]
fn replies_go_to_callers_and_allowed_queues_and_never_to_our_own() {
    use ReplyRefusal::{NotAllowed, OwnQueue};
    let table = [
        (CALLER, Ok(NoRoute::Drop)),
        ("replies.web", Ok(NoRoute::Fail)),
        ("elsewhere", Err(NotAllowed)),
        ("jobs", Err(OwnQueue)),
        ("jobs.dead", Err(OwnQueue)),
        ("jobs.retry.1000", Err(OwnQueue)),
        ("jobs2", Err(NotAllowed)),
        // The settings allow it, but it is a queue of our own.
        ("replies.jobs", Err(OwnQueue)),
        ("replies.jobs.dead", Err(OwnQueue)),
        ("replies.jobs.retry.64000", Err(OwnQueue)),
        ("replies.jobs.more", Ok(NoRoute::Fail)),
    ];
    for (reply_to, expected) in table {
        let went = match answer(
            &settings(Answers::Always),
            true,
            &request(reply_to),
            &done(None),
        ) {
            ReplyDecision::Send { message, .. } => {
                assert_eq!(
                    (message.exchange.as_str(), message.routing_key.as_str()),
                    ("", reply_to)
                );
                Ok(message.no_route)
            }
            ReplyDecision::Refused(refusal) => Err(refusal),
            ReplyDecision::None => panic!("no answer to {reply_to}"),
        };
        assert_eq!(went, expected, "{reply_to}");
    }
}

#[test]
fn the_placeholder_for_direct_reply_to_is_refused_even_if_every_queue_is_allowed() {
    let everything = ReplySettings {
        allow: vec!["*".to_owned()],
        ..settings(Answers::Always)
    };
    let refused = answer(&everything, true, &request(DIRECT_REPLY_TO), &done(None));
    assert_eq!(refused, ReplyDecision::Refused(ReplyRefusal::NotAllowed));
}

#[test]
fn a_refusal_has_a_hint_if_the_operator_can_allow_the_reply() {
    use ReplyRefusal::{NotAllowed, OwnQueue};
    let table = [
        (
            NotAllowed,
            "amq.gen-x",
            Some("reply_allow = [\"amq.gen-*\"]"),
        ),
        (NotAllowed, "web", Some("name the queue")),
        (NotAllowed, DIRECT_REPLY_TO, None),
        (OwnQueue, "jobs", None),
        (OwnQueue, "amq.gen-x", None),
    ];
    for (refusal, reply_to, expected) in table {
        let hint = refusal.hint(reply_to);
        let is_right = match (hint, expected) {
            (Some(hint), Some(part)) => hint.contains(part),
            (hint, expected) => hint == expected,
        };
        assert!(is_right, "{refusal:?} {reply_to}: {hint:?}");
    }
}

#[test]
fn a_message_without_reply_to_gets_no_reply_and_no_refusal() {
    let mut silent = request("");
    let all = settings(Answers::Always);
    assert_eq!(answer(&all, true, &silent, &dead()), ReplyDecision::None);
    silent.properties.reply_to = None;
    assert_eq!(answer(&all, true, &silent, &dead()), ReplyDecision::None);
    // A message that would not get a reply anyway is not refused either.
    let given = settings(Answers::Given);
    let elsewhere = request("elsewhere");
    assert_eq!(
        answer(&given, true, &elsewhere, &done(None)),
        ReplyDecision::None
    );
}

#[test]
fn a_reply_carries_only_the_correlation_id_of_its_request() {
    let reply = Reply::new("yes").content_type("text/plain");
    let verdict = Verdict::Ack { reply: Some(reply) };
    let message = sent(&request(CALLER), &verdict);
    assert_eq!(
        message.properties,
        Properties {
            content_type: Some("text/plain".to_owned()),
            correlation_id: Some("c-1".to_owned()),
            delivery_mode: Some(2),
            ..Properties::default()
        }
    );
    assert_eq!(
        message.headers,
        Headers::from([(OUTCOME.to_owned(), "done".into())])
    );
    assert_eq!(&message.body[..], b"yes");
}

#[test]
fn a_reply_to_a_request_without_a_correlation_id_carries_its_message_id() {
    let mut request = request(CALLER);
    let correlation = |request: &Message| sent(request, &done(None)).properties.correlation_id;
    request.properties.correlation_id = Some("\u{e9} \n".to_owned());
    assert_eq!(correlation(&request).as_deref(), Some("\u{e9} \n"));
    request.properties.correlation_id = None;
    assert_eq!(correlation(&request).as_deref(), Some("m-1"));
    request.properties.message_id = None;
    assert_eq!(correlation(&request), None);
}

#[test]
fn the_reply_of_a_failure_has_it_in_its_headers_and_has_no_body() {
    let message = sent(&request(CALLER), &dead());
    assert_eq!(message.body.len(), 0);
    let expected: Headers = [
        (OUTCOME, HeaderValue::from("failed")),
        (REASON, "attempts".into()),
        (ERROR, "exit code 3".into()),
        (ATTEMPTS, 5.into()),
        ("x-tidegate-failure", "exit".into()),
        ("x-tidegate-exit-code", 3.into()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    assert_eq!(message.headers, expected);
}

#[test]
fn a_reply_that_is_too_long_becomes_a_failure() {
    let message = sent(&request(CALLER), &done(Some("0123456789+")));
    assert_eq!(message.body.len(), 0);
    let header = |name: &str| message.headers[name].as_text().map(str::to_owned);
    assert_eq!(header(OUTCOME).as_deref(), Some("failed"));
    assert_eq!(header(REASON).as_deref(), Some("reply-too-large"));
    assert_eq!(
        header(ERROR).as_deref(),
        Some("done, but with an answer of more than 10 bytes, which is not sent")
    );
}

#[test]
fn standard_output_is_a_reply_only_if_the_pool_always_replies() {
    let reply = OutputUse::Reply { limit: 10 };
    for (answers, reply_to, expected) in [
        (Answers::Given, CALLER, OutputUse::Log),
        (Answers::Never, CALLER, OutputUse::Log),
        (Answers::Always, CALLER, reply),
        (Answers::Always, "replies.web", reply),
        (Answers::Always, "elsewhere", OutputUse::Dropped),
        (Answers::Always, "", OutputUse::Dropped),
    ] {
        let settings = settings(answers);
        let answering = ReplyRules {
            settings: &settings,
            given: true,
            own: &[],
        };
        assert_eq!(
            answering.output(&request(reply_to)),
            expected,
            "{reply_to:?}"
        );
    }
}

#[test]
fn a_reply_is_held_while_the_broker_is_unreachable_and_given_up_when_refused() {
    use QueueErrorKind as K;
    for (kinds, [at_first, then, at_last]) in [
        (&[K::Blocked, K::Disconnected][..], [ReplyRetry::Hold; 3]),
        (
            &[K::Timeout, K::BrokerFailed, K::Other],
            [
                ReplyRetry::TryAgain,
                ReplyRetry::TryAgain,
                ReplyRetry::GiveUp,
            ],
        ),
        (
            &[
                K::NotFound,
                K::AccessRefused,
                K::Conflict,
                K::Unroutable,
                K::Refused,
                K::TooLarge,
            ],
            [ReplyRetry::GiveUp; 3],
        ),
    ] {
        for kind in kinds {
            let course = [0, 1, 2].map(|tried_again| retry_of_reply(*kind, tried_again));
            assert_eq!(course, [at_first, then, at_last], "{kind:?}");
        }
    }
}

#[test]
fn a_correlation_id_that_is_not_utf8_is_returned_byte_for_byte() {
    let mut raw = crate::queue::RawTexts::default();
    let mut asked = request(CALLER);
    asked.properties.correlation_id = Some(raw.show(b"\xff\xfe"));
    asked.properties.app_id = Some(raw.show(b"\x80"));
    asked.properties.raw = raw;
    let answering = ReplyRules {
        settings: &settings(Answers::Given),
        given: true,
        own: &[],
    };
    let ReplyDecision::Send { message, .. } = answering.answer(&asked, &done(Some("42"))) else {
        panic!("it is answered");
    };
    let properties = &message.properties;
    let shown = properties.correlation_id.as_deref().unwrap_or_default();
    assert_eq!(properties.raw.bytes(shown), b"\xff\xfe");
    // Nothing else of the request is copied.
    assert_eq!(properties.raw.bytes(r"\x80"), br"\x80");
}
