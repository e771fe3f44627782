//! Tests of the walk on the in-memory broker: which letters it moves, deletes and leaves.

use std::num::NonZeroU64;

use super::*;
use tidegate::{
    adapters::memory::MemoryBroker,
    decide::PoolName,
    queue::{ConsumeRequest, HeaderValue, Headers, Properties, QueueKind},
};

fn broker() -> MemoryBroker {
    let broker = MemoryBroker::new();
    broker.declare_queue("q", QueueKind::Classic);
    broker.declare_queue("q.dead", QueueKind::Classic);
    broker
}

/// Letters `a`, `b`, `c` and a second `a`. `b` was rejected and the others failed.
fn with_letters() -> (MemoryBroker, DeadLetterQueue) {
    let broker = broker();
    for (id, reason) in [
        ("a", "attempts"),
        ("b", "rejected"),
        ("c", "attempts"),
        ("a", "attempts"),
    ] {
        broker.send_message(Outgoing {
            routing_key: "q.dead".to_owned(),
            properties: Properties {
                message_id: Some(id.to_owned()),
                ..Properties::default()
            },
            headers: Headers::from([("x-tidegate-reason".to_owned(), HeaderValue::from(reason))]),
            ..Outgoing::default()
        });
    }
    let dead_letters = dead_letters(&broker);
    (broker, dead_letters)
}

fn dead_letters(broker: &MemoryBroker) -> DeadLetterQueue {
    DeadLetterQueue {
        driver: Arc::new(broker.clone()),
        queue: QueueName::from("q.dead"),
        letters: broker.ready("q.dead").unwrap_or(0),
    }
}

fn copies() -> Copies {
    Copies {
        pool: PoolName::from("p"),
        queue: QueueName::from("q"),
        host: String::new(),
        job: None,
        header_limit: 130_000,
    }
}

fn all() -> Wanted {
    Wanted {
        ids: Vec::new(),
        reason: None,
        limit: LetterLimit::All,
    }
}

fn at_most(limit: u64) -> LetterLimit {
    LetterLimit::Count(NonZeroU64::new(limit).unwrap())
}

fn ids(ids: &[&str]) -> Wanted {
    Wanted {
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..all()
    }
}

/// The ids in a queue, in order.
fn in_queue(broker: &MemoryBroker, queue: &str) -> Vec<String> {
    let messages = broker.take(queue);
    messages
        .into_iter()
        .map(|message| message.properties.message_id.unwrap_or_default())
        .collect()
}

async fn put_back(dead_letters: &DeadLetterQueue, wanted: &Wanted) -> Walked {
    let stop = CancellationToken::new();
    dead_letters
        .put_back(wanted, &copies(), &stop, |_| {})
        .await
        .unwrap()
}

#[tokio::test]
async fn reads_letters_and_leaves_them() {
    let (broker, dead_letters) = with_letters();
    let wanted = Wanted {
        limit: at_most(2),
        ..all()
    };
    let (letters, walked) = dead_letters.read(&wanted).await.unwrap();
    let ids: Vec<_> = letters
        .iter()
        .filter_map(|letter| letter.id.as_deref())
        .collect();
    assert_eq!(ids, ["a", "b"]);
    assert_eq!((walked.looked, walked.done), (2, 0));
    assert_eq!(in_queue(&broker, "q.dead"), ["a", "b", "c", "a"]);
}

#[tokio::test]
async fn puts_back_the_selected_letters_and_leaves_the_rest_in_order() {
    let by_reason = Wanted {
        reason: Some("attempts".to_owned()),
        ..all()
    };
    let two = Wanted {
        limit: at_most(2),
        ..all()
    };
    let two_by_reason = Wanted {
        limit: at_most(2),
        ..by_reason.clone()
    };
    let table: [(Wanted, &[&str], &[&str]); 6] = [
        (all(), &["a", "b", "c", "a"], &[]),
        (ids(&["a"]), &["a", "a"], &["b", "c"]),
        (ids(&["c", "b"]), &["b", "c"], &["a", "a"]),
        (two, &["a", "b"], &["c", "a"]),
        (by_reason, &["a", "c", "a"], &["b"]),
        (two_by_reason, &["a", "c"], &["b", "a"]),
    ];
    for (wanted, back, stay) in table {
        let (broker, dead_letters) = with_letters();
        let walked = put_back(&dead_letters, &wanted).await;
        assert_eq!(walked.done, back.len() as u64, "{wanted:?}");
        assert_eq!((walked.twice, walked.stay), (0, 0));
        assert!(walked.problem.is_none() && walked.missing.is_empty());
        assert_eq!(in_queue(&broker, "q"), back, "{wanted:?}");
        assert_eq!(in_queue(&broker, "q.dead"), stay, "{wanted:?}");
    }
}

#[tokio::test]
async fn deletes_the_selected_letters() {
    let (broker, dead_letters) = with_letters();
    let stop = CancellationToken::new();
    let walked = dead_letters
        .delete(&ids(&["a"]), &stop, |_| {})
        .await
        .unwrap();
    assert_eq!(walked.done, 2);
    assert_eq!(in_queue(&broker, "q.dead"), ["b", "c"]);
    assert_eq!(broker.ready("q"), Some(0));
}

#[tokio::test]
async fn says_which_ids_it_did_not_find_and_takes_an_id_as_it_is_shown() {
    let (broker, dead_letters) = with_letters();
    let walked = put_back(&dead_letters, &ids(&["b", "zz", "a\\n"])).await;
    assert_eq!(walked.missing, ["zz", "a\\n"]);
    assert_eq!(in_queue(&broker, "q"), ["b"]);
    assert!(is_named("a\nb", "a\\nb") && is_named("a\nb", "a\nb"));
    assert!(!is_named("order-17", "order-1"));
}

#[tokio::test]
async fn a_letter_that_cannot_be_put_back_stays_where_it_is() {
    let (broker, dead_letters) = with_letters();
    broker.delete_queue("q");
    let walked = put_back(&dead_letters, &all()).await;
    let kind = walked.problem.map(|error| error.kind);
    assert_eq!(kind, Some(QueueErrorKind::Unroutable));
    assert_eq!(walked.done, 0);
    assert_eq!(in_queue(&broker, "q.dead"), ["a", "b", "c", "a"]);
}

#[tokio::test]
async fn only_the_letter_that_cannot_be_published_stays() {
    let (broker, dead_letters) = with_letters();
    let long = "x".repeat(300);
    broker.send_message(Outgoing {
        routing_key: "q.dead".to_owned(),
        properties: Properties {
            message_id: Some(long.clone()),
            ..Properties::default()
        },
        ..Outgoing::default()
    });
    let dead_letters = DeadLetterQueue {
        letters: 5,
        ..dead_letters
    };
    let walked = put_back(&dead_letters, &all()).await;
    assert_eq!((walked.done, walked.stay), (4, 1));
    assert_eq!(walked.stay_because.len(), 1);
    assert!(walked.problem.is_none());
    assert_eq!(in_queue(&broker, "q.dead"), [long]);
}

#[tokio::test]
async fn a_letter_that_is_dead_lettered_again_is_not_put_back_twice() {
    // More letters than the limit in progress, so that some are dead-lettered again while others still wait.
    let letters = 10 * MAX_LETTERS_IN_FLIGHT as u64;
    let broker = broker();
    for _ in 0..letters {
        broker.send("q.dead", "x");
    }
    let dead_letters = dead_letters(&broker);
    // Every message in the queue is dead-lettered again at once.
    let again = {
        let broker = broker.clone();
        let request = ConsumeRequest {
            queue: QueueName::from("q"),
            prefetch: 10,
            tag: "again".to_owned(),
        };
        let mut consumer = broker.consume(request).await.unwrap();
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = std::future::poll_fn(|cx| consumer.poll_next(cx)).await {
                let copy = Outgoing {
                    routing_key: "q.dead".to_owned(),
                    properties: delivery.message().properties.clone(),
                    ..Outgoing::default()
                };
                broker.publish(copy).await.unwrap();
                delivery.ack().await.unwrap();
            }
        })
    };
    let time_limit = std::time::Duration::from_secs(20);
    let everything = all();
    let walked = tokio::time::timeout(time_limit, put_back(&dead_letters, &everything)).await;
    assert_eq!(walked.expect("it ends").done, letters);
    while broker.ready("q.dead") != Some(letters) {
        tokio::task::yield_now().await;
    }
    again.abort();
}

#[tokio::test]
async fn stops_when_told_and_leaves_the_rest() {
    let (broker, dead_letters) = with_letters();
    let stop = CancellationToken::new();
    stop.cancel();
    let walked = dead_letters
        .put_back(&ids(&["a"]), &copies(), &stop, |_| {})
        .await
        .unwrap();
    assert!(walked.stopped && walked.missing.is_empty());
    assert_eq!(walked.done, 0);
    assert_eq!(in_queue(&broker, "q.dead").len(), 4);
}

/// Letters in a quorum queue with a delivery limit and without a dead-letter queue of its own.
fn with_counted_letters(limit: u32, letters: &[Outgoing]) -> (MemoryBroker, DeadLetterQueue) {
    let broker = broker();
    broker.delete_queue("q.dead");
    broker.declare_queue("q.dead", QueueKind::Quorum);
    broker.limit_deliveries("q.dead", limit);
    for letter in letters {
        broker.send_message(letter.clone());
    }
    let dead_letters = dead_letters(&broker);
    (broker, dead_letters)
}

fn letter(id: &str) -> Outgoing {
    Outgoing {
        routing_key: "q.dead".to_owned(),
        properties: Properties {
            message_id: Some(id.to_owned()),
            ..Properties::default()
        },
        ..Outgoing::default()
    }
}

#[tokio::test]
async fn a_queue_that_counts_each_browse_does_not_drop_letters() {
    let mut refused = letter("b");
    refused.properties.user_id = Some("someone".to_owned());
    refused.properties.expiration = Some("86400000".to_owned());
    refused.headers = Headers::from([("CC".to_owned(), HeaderValue::from("elsewhere"))]);
    for limit in [1, 2, 3, 20] {
        let (broker, dead_letters) = with_counted_letters(limit, &[letter("a"), refused.clone()]);
        let mut renewed = 0;
        for _ in 0..50 {
            let (letters, walked) = dead_letters.read(&all()).await.unwrap();
            assert_eq!(letters.len(), 2, "limit {limit}");
            assert!(letters.iter().all(|letter| letter.returned <= 1));
            renewed += walked.renewed;
        }
        assert_eq!(renewed, 50);
        let left = broker.take("q.dead");
        let ids: Vec<_> = left
            .iter()
            .map(|message| message.properties.message_id.as_deref())
            .collect();
        assert_eq!(ids, [Some("a"), Some("b")]);
        // As on every copy that tidegate makes.
        let second = &left[1];
        assert_eq!(
            (&second.properties.user_id, &second.properties.expiration),
            (&None, &None)
        );
        for (name, value) in [
            ("user-id", "someone"),
            ("expiration", "86400000"),
            ("cc", "elsewhere"),
        ] {
            let name = format!("x-tidegate-original-{name}");
            assert_eq!(second.headers[&name], HeaderValue::from(value));
        }
    }
}

#[tokio::test]
async fn a_letter_that_cannot_be_put_back_does_not_reach_its_delivery_limit() {
    let (broker, dead_letters) = with_counted_letters(2, &[letter("a")]);
    broker.delete_queue("q");
    for _ in 0..9 {
        let walked = put_back(&dead_letters, &all()).await;
        assert_eq!(walked.problem.unwrap().kind, QueueErrorKind::Unroutable);
    }
    assert_eq!(in_queue(&broker, "q.dead"), ["a"]);
}

#[tokio::test]
async fn browsing_ends_at_the_first_letter_that_cannot_be_replaced_by_a_fresh_copy() {
    let (broker, dead_letters) = with_counted_letters(2, &[letter("a"), letter("b"), letter("c")]);
    dead_letters.read(&all()).await.unwrap();
    broker.set_blocked(true);
    let error = dead_letters.read(&all()).await.unwrap_err();
    assert_eq!(error.kind, QueueErrorKind::Blocked);
    let counts: Vec<_> = broker
        .take("q.dead")
        .into_iter()
        .map(|message| message.headers["x-delivery-count"].as_integer())
        .collect();
    assert_eq!(counts, [Some(2), Some(1), Some(1)]);
}
