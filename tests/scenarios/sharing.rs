//! Daemons that share a queue, and pools that share the supervisor's workers.

use tidegate::{Pool, decide::TermName};

use super::*;

/// A daemon whose pool shares the queue, with jobs that end when they are let.
async fn daemon(broker: &MemoryBroker, policy: Policy) -> (Supervisor, Held) {
    let (held, handler) = Held::new();
    let pool = Pool::new(QUEUE).policy(policy).share(true).handler(handler);
    let supervisor = Supervisor::builder().driver(broker.clone()).pool(pool);
    (supervisor.start().await.unwrap(), held)
}

#[tokio::test(start_paused = true)]
async fn two_daemons_share_one_policy_and_the_second_takes_over_when_the_first_is_gone() {
    let broker = broker();
    for _ in 0..100 {
        broker.send(QUEUE, "job");
    }
    let policy = || Policy::backlog(1).max(10);
    let (first, _held) = daemon(&broker, policy()).await;
    let (second, _also_held) = daemon(&broker, policy()).await;
    for supervisor in [&first, &second] {
        until(supervisor, "half", |pool| pool.workers.live == 5).await;
        // Ready, and held by both.
        let shared = until(supervisor, "known", |pool| pool.demand == 100).await;
        assert_eq!(shared.expected, 5);
        assert_eq!(shared.members.len(), 2, "{:?}", shared.members);
        assert!(shared.members.iter().all(|member| member.share == Some(5)));
    }
    throughout(&second, Duration::from_secs(10), "half", |pool| {
        pool.workers.live == 5
    })
    .await;
    let why = second.explain(&name()).unwrap();
    assert_eq!(why.won, TermName::Share);
    // A supervisor that ends in order would close the broker of both.
    drop(first);
    let alone = until(&second, "alone", |pool| pool.workers.live == 10).await;
    assert_eq!(alone.members.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_joins_gets_workers_as_the_jobs_of_the_first_end() {
    let broker = broker();
    for _ in 0..100 {
        broker.send(QUEUE, "job");
    }
    let policy = || Policy::fixed(6).max(6);
    let (first, mut held) = daemon(&broker, policy()).await;
    for _ in 0..6 {
        held.started().await;
    }
    let (second, _also_held) = daemon(&broker, policy()).await;
    until(&second, "a member", |pool| pool.members.len() == 2).await;
    throughout(
        &second,
        Duration::from_secs(30),
        "without a worker",
        |pool| pool.workers.live == 0,
    )
    .await;
    assert_eq!(status(&first).workers.live, 6, "no running job is stopped");
    held.let_go(3);
    until(&second, "half", |pool| pool.workers.live == 3).await;
    until(&first, "half", |pool| pool.workers.live == 3).await;
}

#[tokio::test(start_paused = true)]
async fn daemons_with_different_policies_do_not_grow_and_say_why() {
    let broker = broker();
    let (first, _held) = daemon(&broker, Policy::backlog(1).max(10)).await;
    let (second, _also_held) = daemon(&broker, Policy::backlog(2).max(10)).await;
    until(&first, "a member", |pool| pool.members.len() == 2).await;
    for _ in 0..100 {
        broker.send(QUEUE, "job");
    }
    for supervisor in [&first, &second] {
        let differs = until(supervisor, "differing", |pool| {
            pool.cause
                .as_ref()
                .is_some_and(|cause| cause.contains("has another policy"))
        })
        .await;
        assert_eq!(differs.workers.live, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn daemons_that_cannot_hear_each_other_in_an_alarm_still_take_their_shares() {
    let broker = broker();
    let policy = || Policy::backlog(1).max(10);
    let (first, _held) = daemon(&broker, policy()).await;
    let (second, _also_held) = daemon(&broker, policy()).await;
    for supervisor in [&first, &second] {
        until(supervisor, "a member", |pool| pool.members.len() == 2).await;
    }
    broker.set_blocked(true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    for _ in 0..100 {
        broker.send(QUEUE, "job");
    }
    for supervisor in [&first, &second] {
        until(supervisor, "half", |pool| pool.workers.live == 5).await;
    }
    throughout(&first, Duration::from_secs(30), "half", |pool| {
        pool.workers.live == 5
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn pools_divide_the_supervisors_workers_by_weight_and_never_pass_the_limit() {
    let broker = MemoryBroker::new();
    let mut builder = Supervisor::builder().driver(broker.clone()).max_workers(6);
    for (queue, weight) in [("heavy", 2), ("light", 1)] {
        broker.declare_queue(queue, QueueKind::Quorum);
        for _ in 0..1000 {
            broker.send(queue, "job");
        }
        let policy = Policy::backlog(1).max(50);
        builder = builder.pool(Pool::new(queue).policy(policy).weight(weight).handler(slow));
    }
    let supervisor = builder.start().await.unwrap();
    let live = |queue: &str| {
        let pool = supervisor.pool(&PoolName::from(queue)).unwrap();
        pool.workers.live + pool.workers.draining
    };
    // The first pool to see its queue may have all workers until its jobs end.
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        assert!(live("heavy") + live("light") <= 6);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((live("heavy"), live("light")), (4, 2));
}
