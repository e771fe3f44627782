//! Groups of daemons on queues with long and odd names.

use super::*;
use crate::support::broker::faulty_broker;

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_any_name_has_a_group() {
    let broker = faulty_broker().await;
    let (a, b) = (connect(&broker.url()).await, connect(&broker.url()).await);
    // The longest names that a configuration allows are shorter, because retry queues have longer suffixes.
    for name in [
        "a".repeat(249),
        "ü".repeat(106),
        "jobs / of #1.*\u{202e} \"here\"".to_owned(),
    ] {
        let queue = QueueName::from(name);
        let mut sender = within("joining", a.join_group(&queue))
            .await
            .expect("a place");
        let mut other = within("joining", b.join_group(&queue))
            .await
            .expect("a place");
        within("sending", sender.send(Bytes::from("hello")))
            .await
            .expect("sent");
        for member in [&mut sender, &mut other] {
            let heard = within("a message", member.next()).await.expect("a message");
            assert_eq!(heard, "hello");
        }
    }
    let queue = QueueName::from("a".repeat(250));
    let error = within("joining", a.join_group(&queue)).await.map(drop);
    assert_eq!(
        error.expect_err("a long name").kind,
        QueueErrorKind::TooLarge
    );
}
