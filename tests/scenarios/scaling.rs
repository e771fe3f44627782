//! Scenarios of scaling: a pool rises, works, and drains.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_burst_starts_workers_and_the_pool_drains_to_zero_after_it() {
    let broker = broker();
    let supervisor = start(
        &broker,
        settings(Policy::backlog(10).max(50)),
        HandlerManager::new(slow),
    );
    until(&supervisor, "idle", |pool| {
        pool.state == PoolState::Idle && pool.depth.age_ms.is_some()
    })
    .await;
    for n in 0..120 {
        broker.send(QUEUE, format!("job {n}"));
    }
    let risen = until(&supervisor, "risen", |pool| pool.runners.busy == 12).await;
    assert_eq!(
        (risen.expected, risen.workers.live, risen.state),
        (12, 12, PoolState::Active)
    );
    let worked = until(&supervisor, "done", |pool| pool.jobs.done == 120).await;
    assert_eq!(worked.runners.busy, 0);
    let drained = until(&supervisor, "drained", |pool| pool.state == PoolState::Idle).await;
    assert_eq!((drained.workers.live, drained.workers.draining), (0, 0));
    assert_eq!((drained.runners.idle, drained.expected), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn idle_runners_and_bare_workers_always_make_up_the_live_workers() {
    let broker = broker();
    let supervisor = start(
        &broker,
        settings(Policy::backlog(2).max(20)),
        HandlerManager::new(slow),
    );
    for n in 0..40 {
        broker.send(QUEUE, format!("job {n}"));
    }
    until(&supervisor, "working", |pool| pool.runners.busy > 0).await;
    throughout(&supervisor, Duration::from_secs(12), "balanced", |pool| {
        pool.runners.idle + pool.runners.busy + pool.workers.bare == pool.workers.live
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_running_job_is_never_stopped_by_scaling_down() {
    let (_broker, supervisor, held) = busy(3, settings(Policy::fixed(3))).await;
    supervisor.scale(&name(), Some(0)).await.unwrap();
    until(&supervisor, "scaled", |pool| pool.expected == 0).await;
    throughout(&supervisor, Duration::from_secs(60), "still busy", |pool| {
        pool.runners.busy == 3
    })
    .await;
    held.let_go(3);
    let after = until(&supervisor, "gone", |pool| pool.workers.live == 0).await;
    assert_eq!((after.jobs.done, after.jobs.requeued), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_mark_to_retire_is_removed_when_work_comes_back() {
    let (_broker, supervisor, held) = busy(2, settings(Policy::fixed(2))).await;
    supervisor.scale(&name(), Some(0)).await.unwrap();
    supervisor.reconcile(&name()).await.unwrap();
    supervisor.scale(&name(), Some(2)).await.unwrap();
    let result = supervisor.reconcile(&name()).await.unwrap();
    assert_eq!(result.workers_diff, 0);
    held.let_go(2);
    let after = until(&supervisor, "done", |pool| pool.jobs.done == 2).await;
    assert_eq!(after.workers.live, 2);
}

#[tokio::test(start_paused = true)]
async fn preemption_gives_running_jobs_back_if_the_pool_is_set_so() {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let settings = PoolSettings {
        preempt: true,
        ..settings(Policy::fixed(1))
    };
    let supervisor = start(&broker, settings, HandlerManager::new(handler));
    broker.send(QUEUE, "one");
    held.started().await;
    supervisor.scale(&name(), Some(0)).await.unwrap();
    let after = until(&supervisor, "stopped", |pool| {
        pool.workers.live + pool.workers.draining == 0
    })
    .await;
    assert_eq!((after.jobs.requeued, after.jobs.done), (1, 0));
    assert_eq!(broker.ready(QUEUE), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_loses_settlements_but_no_job_and_the_pool_comes_back_by_itself() {
    let (broker, supervisor, mut held) = busy(2, settings(Policy::fixed(2))).await;
    broker.disconnect();
    until(&supervisor, "disconnected", |pool| {
        pool.state == PoolState::Disconnected
    })
    .await;
    assert!(!supervisor.readiness().is_ready());
    held.let_go(2);
    let lost = until(&supervisor, "unsettled", |pool| pool.jobs.lost == 2).await;
    assert_eq!(lost.jobs.done, 0);
    broker.reconnect();
    held.let_go(2);
    let after = until(&supervisor, "done again", |pool| pool.jobs.done == 2).await;
    assert_eq!(after.state, PoolState::Active);
    assert!(held.started().await.message().redelivered);
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_probe_the_reading_is_stale_and_the_pool_does_not_change() {
    let broker = broker();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(2)),
        HandlerManager::new(done),
    );
    broker.send(QUEUE, "one");
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
    broker.set_probes_fail(true);
    until(&supervisor, "stale", |pool| pool.depth.stale).await;
    let expected = status(&supervisor).expected;
    assert!(expected > 0);
    throughout(&supervisor, Duration::from_secs(60), "frozen", |pool| {
        pool.expected == expected && pool.workers.live == expected
    })
    .await;
    assert!(status(&supervisor).depth.age_ms.unwrap() >= 59_000);
    assert_eq!(supervisor.explain(&name()).unwrap().rule, Rule::Frozen);
    broker.set_probes_fail(false);
    until(&supervisor, "drained", |pool| pool.workers.live == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_fails_its_job_and_the_worker_continues() {
    let broker = broker();
    let handler = |job: Job| async move {
        assert!(job.body() != "bad", "no such picture");
        Ok(Outcome::Done)
    };
    let settings = PoolSettings {
        retry: RetrySettings {
            max_attempts: 1,
            ..RetrySettings::default()
        },
        ..settings(Policy::fixed(1))
    };
    let supervisor = start(&broker, settings, HandlerManager::new(handler));
    broker.send(QUEUE, "bad");
    broker.send(QUEUE, "good");
    let after = until(&supervisor, "done", |pool| {
        pool.jobs.done == 1 && pool.jobs.dead == 1
    })
    .await;
    assert_eq!(after.workers.live, 1);
    assert!(
        text(&broker.take("jobs.dead")[0].headers, "x-tidegate-error").contains("no such picture")
    );
}

#[tokio::test(start_paused = true)]
async fn a_paused_pool_leaves_messages_in_the_queue_and_finishes_what_runs() {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(2)),
        HandlerManager::new(handler),
    );
    broker.send(QUEUE, "one");
    held.started().await;
    supervisor.pause(&name()).await.unwrap();
    broker.send(QUEUE, "two");
    until(&supervisor, "paused", |pool| {
        pool.state == PoolState::Paused && pool.workers.live == 1
    })
    .await;
    held.let_go(2);
    until(&supervisor, "empty", |pool| {
        pool.workers.live == 0 && pool.jobs.done == 1
    })
    .await;
    assert_eq!(broker.ready(QUEUE), Some(1));
    supervisor.resume(&name()).await.unwrap();
    until(&supervisor, "done", |pool| pool.jobs.done == 2).await;
}

#[tokio::test(start_paused = true)]
async fn prefetched_messages_are_given_back_when_a_worker_stops() {
    let broker = broker();
    let (mut held, handler) = Held::new();
    let settings = PoolSettings {
        prefetch: 10,
        ..settings(Policy::fixed(1))
    };
    let supervisor = start(&broker, settings, HandlerManager::new(handler));
    for n in 0..10 {
        broker.send(QUEUE, format!("job {n}"));
    }
    held.started().await;
    let inflated = until(&supervisor, "holding ten", |pool| pool.demand == 10).await;
    assert_eq!(inflated.workers.live, 1);
    supervisor.pause(&name()).await.unwrap();
    held.let_go(1);
    let after = until(&supervisor, "gone", |pool| {
        pool.workers.live + pool.workers.draining == 0
    })
    .await;
    assert_eq!((after.jobs.done, after.jobs.requeued), (1, 9));
    let order: Vec<_> = broker.take(QUEUE).into_iter().map(|m| m.body).collect();
    assert_eq!(order.len(), 9);
}

#[tokio::test(start_paused = true)]
async fn keep_warm_keeps_workers_with_their_runners_on_an_empty_queue() {
    let broker = broker();
    let settings = PoolSettings {
        keep_warm: 2,
        ..settings(Policy::backlog(1).max(8))
    };
    let supervisor = start(&broker, settings, HandlerManager::new(slow));
    for n in 0..8 {
        broker.send(QUEUE, format!("job {n}"));
    }
    until(&supervisor, "done", |pool| pool.jobs.done == 8).await;
    let warm = until(&supervisor, "idle", |pool| pool.state == PoolState::Idle).await;
    let warm = if warm.workers.live == 2 {
        warm
    } else {
        until(&supervisor, "warm", |pool| {
            pool.workers.live == 2 && pool.workers.draining == 0
        })
        .await
    };
    assert_eq!((warm.runners.idle, warm.workers.bare), (2, 0));
    let result = supervisor.flush(&name(), FlushMode::Idle).await.unwrap();
    assert_eq!(result.metric_stats, [(EventKind::RunnerStop, 2)].into());
    assert_eq!(result.workers_diff, 0);
    let flushed = status(&supervisor);
    assert_eq!((flushed.runners.idle, flushed.workers.bare), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn drain_after_never_keeps_the_workers_of_an_empty_queue() {
    let broker = broker();
    let settings = PoolSettings {
        drain_after: DrainAfter::Never,
        ..settings(Policy::fixed(3))
    };
    let supervisor = start(&broker, settings, HandlerManager::new(done));
    until(&supervisor, "up", |pool| pool.workers.live == 3).await;
    throughout(&supervisor, Duration::from_secs(600), "up", |pool| {
        pool.workers.live == 3
    })
    .await;
}
