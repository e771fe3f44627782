//! Tests of copies: what a copy keeps, what it moves aside, and what it drops.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::settle::DeathCause;

const NOW: &str = "2026-01-02T03:04:05Z";

fn now() -> jiff::Timestamp {
    NOW.parse().unwrap()
}

fn copies() -> Copies {
    Copies {
        pool: PoolName::from("p"),
        queue: QueueName::from("q"),
        host: String::from("h"),
        job: Some(JobId::from("p-1")),
        header_limit: 120_000,
    }
}

fn hostile() -> Message {
    Message {
        exchange: String::from("orders"),
        routing_key: String::from("new"),
        properties: Properties {
            delivery_mode: Some(1),
            expiration: Some(String::from("250")),
            user_id: Some(String::from("someone-else")),
            message_id: Some(String::from("m-1")),
            priority: Some(7),
            ..Properties::default()
        },
        headers: Headers::from([
            (
                String::from("CC"),
                HeaderValue::List(vec![HeaderValue::from("another-queue")]),
            ),
            (
                String::from("BCC"),
                HeaderValue::List(vec![HeaderValue::from("third-queue")]),
            ),
            (String::from("x-death"), HeaderValue::List(Vec::new())),
            (String::from("x-delivery-count"), HeaderValue::I64(4)),
            (
                String::from("x-tidegate-reason"),
                HeaderValue::from("forged"),
            ),
            (String::from("x-tidegate-attempt"), HeaderValue::I64(4)),
            (String::from("tenant"), HeaderValue::from("acme")),
        ]),
        body: Bytes::from_static(b"\xff\x00body"),
        redelivered: false,
    }
}

fn retried(message: &Message) -> Outgoing {
    let next = History {
        attempt: 2,
        ..History::default()
    };
    let level = Duration::from_secs(4);
    copies().retry(
        message,
        next,
        level,
        Duration::from_millis(3500),
        None,
        now(),
    )
}

#[test]
fn a_copy_keeps_the_messages_own_content_and_is_persistent() {
    let copy = retried(&hostile());
    assert_eq!(
        (copy.exchange.as_str(), copy.routing_key.as_str()),
        ("", "q.retry.4000")
    );
    assert_eq!(copy.body, hostile().body);
    assert_eq!(copy.properties.delivery_mode, Some(2));
    assert_eq!(copy.properties.message_id.as_deref(), Some("m-1"));
    assert_eq!(copy.properties.priority, Some(7));
    assert_eq!(copy.headers.get("tenant"), Some(&HeaderValue::from("acme")));
}

#[test]
fn content_moves_aside_if_with_it_a_copy_would_be_misrouted_expired_or_refused() {
    let copy = retried(&hostile());
    assert_eq!(copy.properties.expiration.as_deref(), Some("3500"));
    assert_eq!(copy.properties.user_id, None);
    for gone in [
        "CC",
        "BCC",
        "x-death",
        "x-delivery-count",
        "x-tidegate-reason",
    ] {
        assert!(!copy.headers.contains_key(gone), "{gone}");
    }
    let text = |name: &str| {
        copy.headers
            .get(name)
            .and_then(HeaderValue::as_text)
            .map(str::to_owned)
    };
    assert_eq!(
        text("x-tidegate-original-expiration").as_deref(),
        Some("250")
    );
    assert_eq!(
        text("x-tidegate-original-user-id").as_deref(),
        Some("someone-else")
    );
    assert_eq!(
        text("x-tidegate-original-exchange").as_deref(),
        Some("orders")
    );
    assert_eq!(
        text("x-tidegate-original-routing-key").as_deref(),
        Some("new")
    );
    for kept in [
        "x-tidegate-original-cc",
        "x-tidegate-original-bcc",
        "x-tidegate-original-x-death",
    ] {
        assert!(copy.headers.contains_key(kept), "{kept}");
    }
    assert_eq!(
        copy.headers.get("x-tidegate-attempt"),
        Some(&HeaderValue::I64(2))
    );
}

#[test]
fn a_copy_of_a_copy_still_tells_where_the_message_came_from() {
    let first = retried(&hostile());
    let mut headers = first.headers;
    // Headers that the broker adds in the retry queue.
    headers.insert(
        String::from("x-death"),
        HeaderValue::List(vec![HeaderValue::Void]),
    );
    headers.insert(
        String::from("x-first-death-queue"),
        HeaderValue::from("q.retry.4000"),
    );
    let back = Message {
        routing_key: String::from("q"),
        headers,
        properties: Properties {
            expiration: None,
            ..first.properties
        },
        ..hostile()
    };
    let second = retried(&Message {
        exchange: String::new(),
        ..back
    });
    let original = |name: &str| {
        second
            .headers
            .get(&format!("x-tidegate-original-{name}"))
            .cloned()
    };
    assert_eq!(original("exchange"), Some(HeaderValue::from("orders")));
    assert_eq!(original("routing-key"), Some(HeaderValue::from("new")));
    assert_eq!(original("expiration"), Some(HeaderValue::from("250")));
    assert_eq!(original("x-death"), Some(HeaderValue::List(Vec::new())));
    assert!(!second.headers.contains_key("x-first-death-queue"));
    assert!(!second.headers.contains_key("x-death"));
}

#[test]
fn forged_origin_headers_are_dropped_if_the_message_came_from_an_exchange() {
    let mut message = hostile();
    for name in [
        ORIGINAL_EXCHANGE,
        ORIGINAL_ROUTING_KEY,
        "x-tidegate-original-cc",
    ] {
        let forged = HeaderValue::from("forged");
        message.headers.insert(String::from(name), forged);
    }
    assert_eq!(message.exchange, "orders");
    let copy = retried(&message);
    let forged = HeaderValue::from("forged");
    assert!(!copy.headers.values().any(|value| *value == forged));
    let exchange = copy.headers.get(ORIGINAL_EXCHANGE);
    assert_eq!(exchange, Some(&HeaderValue::from("orders")));
}

#[test]
fn a_dead_letter_tells_a_person_what_happened() {
    let death = Death {
        cause: DeathCause::Attempts,
        attempts: 5,
        message: String::from("exit code 3"),
        failure: Some(Failure {
            kind: FailureKind::Exit(3),
            message: String::from("not shown: the death has its own message"),
            stderr_tail: Some(String::from("Traceback ...")),
        }),
    };
    let mut message = hostile();
    message.headers.insert(
        String::from("x-tidegate-first-failed-at"),
        HeaderValue::from("2026-01-01T00:00:00Z"),
    );
    let letter = copies().dead_letter(&message, History::default(), &death, now());
    assert_eq!(letter.routing_key, "q.dead");
    assert_eq!(letter.properties.expiration, None);
    let shown: Vec<String> = letter
        .headers
        .iter()
        .filter(|(name, _)| !name.starts_with(ORIGINAL))
        .map(|(name, value)| match value.as_text() {
            Some(text) => format!("{name}: {text}"),
            None => format!("{name}: {value:?}"),
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    tenant: acme
    x-tidegate-attempts: I64(5)
    x-tidegate-error: exit code 3
    x-tidegate-exit-code: I64(3)
    x-tidegate-failed-at: 2026-01-02T03:04:05Z
    x-tidegate-failure: exit
    x-tidegate-first-failed-at: 2026-01-01T00:00:00Z
    x-tidegate-host: h
    x-tidegate-pool: p
    x-tidegate-queue: q
    x-tidegate-reason: attempts
    x-tidegate-stderr: Traceback ...
    ");
}

#[test]
fn a_message_without_an_id_has_the_same_job_id_at_every_attempt() {
    let mut message = hostile();
    message.properties.message_id = None;
    let copy = retried(&message);
    message.headers = copy.headers;
    assert_eq!(carried_job_id(&message), Some(JobId::from("p-1")));
    // A message with an id of its own needs no other.
    assert!(!retried(&hostile()).headers.contains_key(JOB_ID));
    for forged in ["", "two words", "a\nb"] {
        message
            .headers
            .insert(JOB_ID.to_owned(), HeaderValue::from(forged));
        assert_eq!(carried_job_id(&message), None, "{forged:?}");
    }
}

#[test]
fn a_copy_keeps_a_callers_address_but_not_the_placeholder_for_direct_reply_to() {
    let mut message = hostile();
    let reply_to = |message: &Message| retried(message).properties.reply_to;
    for kept in ["replies", "amq.rabbitmq.reply-to.g1h2AA==.Key=="] {
        message.properties.reply_to = Some(kept.to_owned());
        assert_eq!(reply_to(&message).as_deref(), Some(kept));
    }
    message.properties.reply_to = Some(DIRECT_REPLY_TO.to_owned());
    let copy = retried(&message);
    assert_eq!(copy.properties.reply_to, None);
    let original = copy.headers.get("x-tidegate-original-reply-to");
    assert_eq!(original, Some(&HeaderValue::from(DIRECT_REPLY_TO)));
}

#[test]
fn a_forged_time_is_ignored() {
    let mut message = hostile();
    message
        .headers
        .insert(String::from(FIRST_FAILED_AT), HeaderValue::from("long ago"));
    let mut headers = Headers::new();
    note_time(&mut headers, &message, now());
    assert_eq!(headers.get(FIRST_FAILED_AT), Some(&HeaderValue::from(NOW)));
}

#[test]
fn a_message_whose_headers_fill_the_frame_loses_its_largest_and_says_which() {
    let mut message = hostile();
    message
        .headers
        .insert(String::from("huge"), HeaderValue::from("x".repeat(119_000)));
    message
        .headers
        .insert(String::from("big"), HeaderValue::from("y".repeat(900)));
    let copy = retried(&message);
    assert!(header_size(&copy.properties, &copy.headers) <= 120_000);
    assert!(!copy.headers.contains_key("huge") && copy.headers.contains_key("big"));
    assert_eq!(
        copy.headers.get(DROPPED),
        Some(&HeaderValue::List(vec![HeaderValue::from("huge")]))
    );
    assert_eq!(copy.headers.get(ATTEMPT), Some(&HeaderValue::I64(2)));
}

/// What RabbitMQ adds to a retry before the pool sees it again. Measured with 4.0, which adds the most.
fn as_it_returns(copy: &Outgoing, queue: &str) -> Headers {
    let mut headers = copy.headers.clone();
    let mut death = Headers::new();
    set(&mut death, "count", 1_i64);
    set(&mut death, "reason", "expired");
    set(&mut death, "queue", copy.routing_key.as_str());
    set(&mut death, "time", HeaderValue::Timestamp(1));
    set(&mut death, "exchange", "");
    let keys = HeaderValue::List(vec![copy.routing_key.as_str().into()]);
    set(&mut death, "routing-keys", keys);
    let expiration = copy.properties.expiration.clone().unwrap_or_default();
    set(&mut death, "original-expiration", expiration);
    set(
        &mut headers,
        DEATHS,
        HeaderValue::List(vec![HeaderValue::Table(death)]),
    );
    for when in ["first", "last"] {
        for (what, value) in [
            ("exchange", ""),
            ("queue", copy.routing_key.as_str()),
            ("reason", "expired"),
        ] {
            set(&mut headers, &format!("x-{when}-death-{what}"), value);
        }
    }
    set(&mut headers, "x-delivery-count", 20_i64);
    assert!(queue.len() <= copy.routing_key.len());
    headers
}

#[test]
fn a_retry_of_any_size_fits_with_what_the_broker_adds_on_its_way_back() {
    for queue in ["q".to_owned(), "q".repeat(240)] {
        let copies = Copies {
            queue: QueueName::from(queue.as_str()),
            ..copies()
        };
        let mut kept = 0;
        let sizes = 116_000..=120_000;
        for size in sizes.clone() {
            let message = Message {
                headers: Headers::from([("h".to_owned(), "x".repeat(size).into())]),
                ..hostile()
            };
            let next = History {
                attempt: 2,
                ..History::default()
            };
            let level = Duration::from_secs(4);
            let failure = died().failure;
            let copy = copies.retry(&message, next, level, level, failure.as_ref(), now());
            let back = as_it_returns(&copy, &queue);
            assert!(header_size(&copy.properties, &back) <= 120_000, "{size}");
            kept += usize::from(copy.headers.contains_key("h"));
        }
        assert!(kept > 0 && kept < sizes.count(), "{kept}");
    }
}

#[test]
fn dropped_headers_are_listed_at_each_attempt() {
    let mut message = hostile();
    let huge = |size: usize| HeaderValue::from("x".repeat(size));
    message.headers.insert("huge".to_owned(), huge(119_000));
    let first = delivered(retried(&message));
    assert!(lacks_headers(&first));
    let second = delivered(retried(&first));
    assert_eq!(
        second.headers[DROPPED],
        HeaderValue::List(vec!["huge".into()])
    );

    // New names are appended, and entries that are not names are ignored.
    let mut third = second;
    third.headers.insert("larger".to_owned(), huge(119_500));
    let names = HeaderValue::List(vec!["huge".into(), HeaderValue::Void, huge(5_000)]);
    third.headers.insert(DROPPED.to_owned(), names);
    let copy = retried(&third);
    let names = HeaderValue::List(vec!["huge".into(), "larger".into()]);
    assert_eq!(copy.headers[DROPPED], names);
    let letter = copies().dead_letter(&third, History::default(), &died(), now());
    assert_eq!(letter.headers[DROPPED], names);
}

#[test]
fn bytes_that_are_not_utf8_stay_unchanged_on_a_copy() {
    let mut raw = crate::queue::RawTexts::default();
    let mut show = |bytes: &[u8]| raw.show(bytes);
    let mut message = Message {
        routing_key: show(b"key\xff"),
        headers: Headers::from([(show(b"name\xfe"), HeaderValue::Void)]),
        ..hostile()
    };
    message.properties.correlation_id = Some(show(b"\x80"));
    message.properties.user_id = Some(show(b"\x81"));
    message.properties.raw = raw;
    let copy = retried(&message);
    let bytes = |bytes: &'static [u8]| Some(HeaderValue::Text(Bytes::from_static(bytes)));
    assert_eq!(
        copy.headers.get(ORIGINAL_ROUTING_KEY).cloned(),
        bytes(b"key\xff")
    );
    assert_eq!(
        copy.headers.get("x-tidegate-original-user-id").cloned(),
        bytes(b"\x81")
    );
    let raw = &copy.properties.raw;
    assert!(copy.headers.contains_key(r"name\xfe"));
    assert_eq!(raw.bytes(r"name\xfe"), b"name\xfe");
    assert_eq!(copy.properties.correlation_id.as_deref(), Some(r"\x80"));
    assert_eq!(raw.bytes(r"\x80"), b"\x80");
}

fn died() -> Death {
    Death {
        cause: DeathCause::Attempts,
        attempts: 5,
        message: String::from("exit code 3"),
        failure: Some(Failure {
            kind: FailureKind::Exit(3),
            message: String::from("exit code 3"),
            stderr_tail: Some(String::from("Traceback ...")),
        }),
    }
}

/// The message that a queue delivers after this publish.
fn delivered(copy: Outgoing) -> Message {
    Message {
        exchange: copy.exchange,
        routing_key: copy.routing_key,
        redelivered: true,
        properties: copy.properties,
        headers: copy.headers,
        body: copy.body,
    }
}

fn dead(message: &Message, attempt: u32) -> Message {
    let history = History {
        attempt,
        ..History::default()
    };
    delivered(copies().dead_letter(message, history, &died(), now()))
}

fn revived(letter: &Message) -> Outgoing {
    let copies = Copies {
        job: None,
        ..copies()
    };
    copies.revive(letter)
}

#[test]
fn a_dead_letter_goes_back_with_no_attempt_spent_and_moved_content_stays_moved() {
    let retry = crate::settings::RetrySettings::default();
    let after_a_retry = Message {
        routing_key: String::from("q"),
        ..delivered(retried(&hostile()))
    };
    for message in [hostile(), after_a_retry] {
        let back = revived(&dead(&message, 5));
        assert_eq!(
            (back.exchange.as_str(), back.routing_key.as_str()),
            ("", "q")
        );
        assert_eq!(back.body, hostile().body);
        let properties = Properties {
            delivery_mode: Some(2),
            expiration: None,
            user_id: None,
            ..hostile().properties
        };
        assert_eq!(back.properties, properties);
        let names: Vec<&str> = back.headers.keys().map(String::as_str).collect();
        let expected = [
            "tenant",
            "x-tidegate-original-bcc",
            "x-tidegate-original-cc",
            "x-tidegate-original-exchange",
            "x-tidegate-original-expiration",
            "x-tidegate-original-routing-key",
            "x-tidegate-original-user-id",
            "x-tidegate-original-x-death",
        ];
        assert_eq!(names, expected);
        assert_eq!(
            back.headers.get(ORIGINAL_EXCHANGE),
            Some(&HeaderValue::from("orders"))
        );
        let fresh = Message {
            redelivered: false,
            ..delivered(back)
        };
        assert_eq!(History::of(&fresh, &retry), History::default());
    }
}

#[test]
fn a_letter_from_the_broker_goes_back_without_its_x_death_header() {
    let death = Headers::from([
        (String::from("reason"), HeaderValue::from("rejected")),
        (String::from("exchange"), HeaderValue::from("orders")),
        (
            String::from("routing-keys"),
            HeaderValue::List(vec![HeaderValue::from("new")]),
        ),
    ]);
    let deaths = HeaderValue::List(vec![HeaderValue::Table(death)]);
    let letter = Message {
        exchange: String::from("dlx"),
        routing_key: String::from("dead"),
        headers: Headers::from([
            (String::from("x-death"), deaths.clone()),
            (String::from("x-delivery-count"), HeaderValue::I64(3)),
            (String::from("tenant"), HeaderValue::from("acme")),
        ]),
        ..Message::default()
    };
    let back = revived(&letter);
    let expected = Headers::from([
        (String::from("tenant"), HeaderValue::from("acme")),
        (String::from(ORIGINAL_EXCHANGE), HeaderValue::from("orders")),
        (String::from(ORIGINAL_ROUTING_KEY), HeaderValue::from("new")),
        (String::from("x-tidegate-original-x-death"), deaths),
    ]);
    assert_eq!(back.headers, expected);
    assert_eq!(back.routing_key, "q");
}

proptest! {
    /// A message that was published straight to the queue comes back unchanged, but persistent. If it dies again, its
    /// letter is the same.
    #[test]
    fn retrying_a_dead_letter_publishes_the_original_message(
        headers in proptest::collection::btree_map("[a-z]{1,12}", "\\PC{0,20}", 0..6),
        id in proptest::option::of("[a-z0-9-]{1,12}"),
        priority in proptest::option::of(0u8..10),
        body in proptest::collection::vec(any::<u8>(), 0..40),
        attempts in 1u32..6,
    ) {
        let message = Message {
            exchange: String::new(),
            routing_key: String::from("q"),
            properties: Properties { message_id: id, priority, ..Properties::default() },
            headers: headers.into_iter().map(|(name, text)| (name, HeaderValue::from(text))).collect(),
            body: body.into(),
            redelivered: false,
        };
        let letter = dead(&message, attempts);
        let back = revived(&letter);
        let mut expected = Outgoing {
            routing_key: String::from("q"),
            properties: Properties { delivery_mode: Some(2), ..message.properties.clone() },
            headers: message.headers.clone(),
            body: message.body.clone(),
            ..Outgoing::default()
        };
        if message.properties.message_id.is_none() {
            // Only the job id stays, so that all attempts of a job have the same id.
            set(&mut expected.headers, JOB_ID, "p-1");
        }
        prop_assert_eq!(&back, &expected);
        prop_assert_eq!(dead(&delivered(back), attempts), letter);
    }

    /// The copy of any message fits a frame and carries our own history.
    #[test]
    fn every_copy_fits_and_carries_our_history(
        names in proptest::collection::vec("[a-zA-Z-]{1,20}|x-tidegate-[a-z-]{1,12}|CC|x-death", 0..20),
        sizes in proptest::collection::vec(0usize..40_000, 20),
    ) {
        let message = Message {
            headers: names.into_iter().zip(sizes)
                .map(|(name, size)| (name, HeaderValue::from("z".repeat(size))))
                .collect(),
            ..hostile()
        };
        let copy = retried(&message);
        prop_assert!(header_size(&copy.properties, &copy.headers) <= 120_000);
        prop_assert_eq!(copy.headers.get(ATTEMPT), Some(&HeaderValue::I64(2)));
        prop_assert!(!copy.headers.contains_key("CC") && !copy.headers.contains_key("x-death"));
    }
}
