//! What another policy would decide now, asked of a running pool.

use tidegate::{
    Pool,
    config::{PolicyEdit, change_policy},
    decide::{SetPolicy, TermName},
};

use super::*;

fn set(supervisor: &Supervisor, pool: &PoolName, keys: &[&str]) -> SetPolicy {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    let settings = supervisor.settings(pool).unwrap();
    let changed = change_policy(&settings, None, &PolicyEdit::Arguments(keys));
    changed.unwrap().set
}

#[tokio::test(start_paused = true)]
async fn a_foresight_is_what_the_order_then_does_and_changes_nothing_itself() {
    let broker = broker();
    for _ in 0..20 {
        broker.send(QUEUE, "job");
    }
    let (_held, handler) = Held::new();
    let pool = Pool::new(QUEUE)
        .policy(Policy::fixed(2).max(50))
        .handler(handler);
    let builder = Supervisor::builder().driver(broker.clone()).pool(pool);
    let supervisor = builder.start().await.unwrap();
    until(&supervisor, "at work", |pool| pool.depth.ready == 18).await;
    let set = set(
        &supervisor,
        &name(),
        &["policy.kind=backlog", "jobs_per_worker=2"],
    );
    for _ in 0..2 {
        let foresight = supervisor
            .foresee(&name(), Some(set.clone()))
            .await
            .unwrap();
        assert_eq!(
            (foresight.before.expected, foresight.after.expected),
            (2, 10)
        );
        assert_eq!(foresight.after.plan.spawn, 8);
        // Nobody has set it.
        let mut terms = foresight.after.terms.iter();
        assert!(terms.all(|term| !term.why.contains("by hand")));
    }
    throughout(&supervisor, Duration::from_secs(30), "as before", |pool| {
        pool.workers.live == 2
    })
    .await;
    let order = tidegate::decide::Order::SetPolicy(Box::new(set));
    let by = tidegate::decide::By::program();
    supervisor.steer(&name(), order, by).await.unwrap();
    until(&supervisor, "as foreseen", |pool| pool.workers.live == 10).await;
    let reset = supervisor.foresee(&name(), None).await.unwrap();
    let mut terms = reset.before.terms.iter();
    assert!(terms.any(|term| term.why.contains("set by hand by")));
    assert_eq!(reset.after.rule, Rule::Policy);
    assert!(reset.after.by_hand.is_empty() && !reset.before.by_hand.is_empty());
}

/// The part of the supervisor's workers that a pool has now is what its present policy wants.
#[tokio::test(start_paused = true)]
async fn a_foresight_divides_the_supervisors_workers_anew() {
    let broker = MemoryBroker::new();
    let mut builder = Supervisor::builder().driver(broker.clone()).max_workers(12);
    let mut held = Vec::new();
    for queue in ["one", "other"] {
        broker.declare_queue(queue, QueueKind::Quorum);
        for _ in 0..40 {
            broker.send(queue, "job");
        }
        let (jobs, handler) = Held::new();
        held.push(jobs);
        let pool = Pool::new(queue).policy(Policy::fixed(2).max(50));
        builder = builder.pool(pool.handler(handler));
    }
    let supervisor = builder.start().await.unwrap();
    let pool = PoolName::from("one");
    let settled = async {
        while supervisor.pools().iter().any(|pool| pool.workers.live != 2) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), settled).await.unwrap();
    let set = set(
        &supervisor,
        &pool,
        &["policy.kind=backlog", "jobs_per_worker=1"],
    );
    let foresight = supervisor.foresee(&pool, Some(set)).await.unwrap();
    // All but the two of the other pool, and not only its part for the two that it wants now.
    assert_eq!(
        (foresight.before.expected, foresight.after.expected),
        (2, 10)
    );
    assert_eq!(foresight.after.won, TermName::Budget);
}
