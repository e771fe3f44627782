//! Pools that cannot get their work, and report it.

use tidegate::{decide::STUCK_AFTER, queue::QueueErrorKind};

use super::*;

const TOLERANCE: Duration = Duration::from_secs(2);

fn five(broker: &MemoryBroker) -> Supervisor {
    start(
        broker,
        settings(Policy::fixed(5)),
        HandlerManager::new(done),
    )
}

fn send_five(broker: &MemoryBroker) {
    for body in ["a", "b", "c", "d", "e"] {
        broker.send(QUEUE, body);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_without_deliveries_is_stuck_after_a_while_and_active_with_the_first_delivery() {
    let broker = broker();
    broker.set_withholds(true);
    send_five(&broker);
    let supervisor = five(&broker);
    until(&supervisor, "waiting", |pool| pool.workers.live == 5).await;
    throughout(&supervisor, STUCK_AFTER - TOLERANCE, "active", |pool| {
        pool.state == PoolState::Active && pool.cause.is_none()
    })
    .await;
    assert!(supervisor.readiness().is_ready());
    let begun = Instant::now();
    let stuck = until(&supervisor, "stuck", |pool| pool.state == PoolState::Stuck).await;
    assert!(begun.elapsed() < TOLERANCE * 2, "{:?}", begun.elapsed());
    let cause = stuck.cause.unwrap();
    assert!(cause.contains("5 messages are ready"), "{cause}");
    assert!(cause.contains("our 5 consumers got nothing"), "{cause}");
    let reasons = supervisor.readiness().reasons;
    assert!(
        reasons[0].contains("pool jobs is stuck: nothing is delivered"),
        "{reasons:?}"
    );
    // Its workers keep waiting: no other pool would take the messages.
    assert_eq!(stuck.workers.live, 5);

    broker.set_withholds(false);
    until(&supervisor, "well", |pool| {
        pool.jobs.done == 5 && pool.state != PoolState::Stuck && pool.cause.is_none()
    })
    .await;
    assert!(supervisor.readiness().is_ready());
}

#[tokio::test(start_paused = true)]
async fn pools_that_wait_for_a_reason_of_their_own_are_not_stuck() {
    // Paused.
    let broker = broker();
    broker.set_withholds(true);
    send_five(&broker);
    let supervisor = five(&broker);
    until(&supervisor, "waiting", |pool| pool.workers.live == 5).await;
    supervisor.pause(&name()).await.unwrap();
    throughout(&supervisor, STUCK_AFTER * 3, "paused", |pool| {
        pool.state == PoolState::Paused && pool.cause.is_none()
    })
    .await;
    // Resumed for less than `STUCK_AFTER`.
    supervisor.resume(&name()).await.unwrap();
    throughout(&supervisor, STUCK_AFTER - TOLERANCE, "active", |pool| {
        pool.state != PoolState::Stuck
    })
    .await;
    // Pinned to zero workers.
    supervisor.scale(&name(), Some(0)).await.unwrap();
    throughout(&supervisor, STUCK_AFTER * 3, "quiet", |pool| {
        pool.state != PoolState::Stuck
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_whose_workers_are_all_busy_is_not_stuck() {
    let broker = broker();
    for body in ["a", "b", "c", "d"] {
        broker.send(QUEUE, body);
    }
    let (mut held, handler) = Held::new();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(2)),
        HandlerManager::new(handler),
    );
    held.started().await;
    held.started().await;
    throughout(&supervisor, STUCK_AFTER * 3, "active", |pool| {
        pool.state == PoolState::Active && pool.cause.is_none()
    })
    .await;
    held.let_go(4);
    until(&supervisor, "done", |pool| pool.jobs.done == 4).await;
}

#[tokio::test(start_paused = true)]
async fn permanently_refused_consumers_are_a_cause_at_once_and_are_tried_less_and_less_often() {
    let broker = broker();
    broker.send(QUEUE, "a");
    broker.set_refuses(Some(QueueErrorKind::AccessRefused));
    let supervisor = five(&broker);
    let stuck = until(&supervisor, "stuck", |pool| pool.state == PoolState::Stuck).await;
    let cause = stuck.cause.unwrap();
    assert!(cause.contains("no consumer can be opened"), "{cause}");
    throughout(&supervisor, Duration::from_secs(300), "stuck", |pool| {
        pool.state == PoolState::Stuck
    })
    .await;
    assert!(!supervisor.readiness().is_ready());
    broker.set_refuses(None);
    // One trial at a time, then all.
    let begun = Instant::now();
    until(&supervisor, "done", |pool| {
        pool.jobs.done == 1 && pool.state != PoolState::Stuck && pool.cause.is_none()
    })
    .await;
    assert!(
        begun.elapsed() <= Duration::from_secs(31),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_pool_with_only_some_of_its_consumers_works_and_reports_why() {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let supervisor = start(
        &broker,
        settings(Policy::backlog(1).max(5)),
        HandlerManager::new(handler),
    );
    broker.send(QUEUE, "a");
    held.started().await;
    broker.set_refuses(Some(QueueErrorKind::ChannelLimit));
    broker.send(QUEUE, "b");
    until(&supervisor, "limited", |pool| {
        pool.state == PoolState::Active && pool.cause.is_some() && pool.workers.live == 1
    })
    .await;
    throughout(&supervisor, STUCK_AFTER * 3, "active", |pool| {
        pool.state == PoolState::Active && pool.cause.is_some()
    })
    .await;
    assert!(supervisor.readiness().is_ready());
    broker.set_refuses(None);
    held.started().await;
    until(&supervisor, "two", |pool| {
        pool.workers.live == 2 && pool.cause.is_none()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_depth_that_cannot_be_read_for_long_is_stuck() {
    let broker = broker();
    let supervisor = five(&broker);
    until(&supervisor, "idle", |pool| pool.state == PoolState::Idle).await;
    broker.set_probes_fail(true);
    let begun = Instant::now();
    let seen = until(&supervisor, "told", |pool| pool.cause.is_some()).await;
    assert_eq!(seen.state, PoolState::Active);
    until(&supervisor, "stuck", |pool| pool.state == PoolState::Stuck).await;
    assert!(begun.elapsed() >= STUCK_AFTER);
    broker.set_probes_fail(false);
    until(&supervisor, "idle", |pool| {
        pool.state == PoolState::Idle && pool.cause.is_none()
    })
    .await;
}
