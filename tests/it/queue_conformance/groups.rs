//! Groups of daemons.

use std::sync::Arc;

use bytes::Bytes;
use tidegate::{
    decide::QueueName,
    queue::{GroupChannel, QueueDriver, QueueErrorKind},
};

use super::bench::{Bench, within};

/// A member with a driver of its own.
struct Daemon {
    /// Its connections live as long as it does.
    _driver: Arc<dyn QueueDriver>,
    member: Box<dyn GroupChannel>,
}

impl Daemon {
    async fn join(bench: &Bench, queue: &QueueName) -> Self {
        let driver = bench.newcomer().await.driver;
        let member = within("joining", driver.join_group(queue)).await;
        Self {
            member: member.expect("a place in the group"),
            _driver: driver,
        }
    }

    async fn send(&mut self, body: &'static str) {
        let sent = within("sending", self.member.send(Bytes::from(body))).await;
        sent.expect("sent");
    }

    async fn next(&mut self) -> Bytes {
        let next = within("a message", self.member.next()).await;
        next.expect("a message")
    }
}

pub(super) async fn a_message_reaches_every_member_and_its_sender_in_order(mut bench: Bench) {
    let queue = bench.name();
    let (mut a, mut b) = (
        Daemon::join(&bench, &queue).await,
        Daemon::join(&bench, &queue).await,
    );
    for body in ["one", "two"] {
        a.send(body).await;
    }
    for member in [&mut a, &mut b] {
        assert_eq!(member.next().await, "one");
        assert_eq!(member.next().await, "two");
    }
}

pub(super) async fn groups_of_other_queues_hear_nothing_and_a_late_member_gets_no_old_message(
    mut bench: Bench,
) {
    let (queue, other) = (bench.name(), bench.name());
    let (mut a, mut b) = (
        Daemon::join(&bench, &queue).await,
        Daemon::join(&bench, &other).await,
    );
    a.send("for a").await;
    assert_eq!(a.next().await, "for a");
    let mut late = Daemon::join(&bench, &queue).await;
    a.send("for both").await;
    b.send("for b").await;
    assert_eq!(late.next().await, "for both");
    assert_eq!(b.next().await, "for b");
}

pub(super) async fn a_closed_driver_leaves_the_group(mut bench: Bench) {
    let queue = bench.name();
    let mut a = within("joining", bench.driver.join_group(&queue))
        .await
        .expect("a place");
    bench.driver.close().await;
    let error = within("the end", a.next()).await.expect_err("the end");
    assert_eq!(error.kind, QueueErrorKind::Disconnected);
    let again = within("joining", bench.driver.join_group(&queue)).await;
    assert!(again.is_err());
}
