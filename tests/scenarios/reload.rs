//! Scenarios of new configurations, and of settings that are refused.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_new_configuration_changes_a_pool_in_place_and_interrupts_no_job() {
    let broker = broker();
    broker.declare_queue("other", QueueKind::Classic);
    let (mut held, handler) = Held::new();
    let handler: Arc<dyn RunnerManager> = Arc::new(HandlerManager::new(handler));
    let pool = |settings: PoolSettings| PoolSpec {
        settings,
        runners: handler.clone(),
    };
    let supervisor = Supervisor::start(
        Arc::new(broker.clone()),
        vec![pool(settings(Policy::fixed(1)))],
        None,
    )
    .unwrap();
    broker.send(QUEUE, "one");
    held.started().await;
    let moved = PoolSettings {
        queue: "other".into(),
        ..settings(Policy::fixed(2))
    };
    let added = PoolSettings::new("second");
    supervisor
        .reconfigure(vec![pool(moved), pool(added)])
        .await
        .unwrap();
    let taken = supervisor.pool(&name()).unwrap();
    assert_eq!(taken.queue, "other".into(), "the call waits for the pool");
    broker.send("other", "two");
    assert_eq!(held.started().await.body(), "two");
    assert_eq!(supervisor.pools().len(), 2);
    held.let_go(2);
    let after = until(&supervisor, "done", |pool| pool.jobs.done == 2).await;
    assert_eq!(after.jobs.requeued, 0);
    supervisor
        .reconfigure(vec![pool(PoolSettings::new("second"))])
        .await
        .unwrap();
    assert!(supervisor.pool(&name()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_removed_finishes_its_jobs_and_a_drain_waits_for_it() {
    let (broker, supervisor, held) = busy(1, settings(Policy::fixed(1))).await;
    supervisor.reconfigure(Vec::new()).await.unwrap();
    assert!(supervisor.pool(&name()).is_none());
    let drain = tokio::spawn({
        let supervisor = supervisor.clone();
        async move { supervisor.drain(Duration::from_secs(600)).await }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!drain.is_finished());
    assert_eq!(broker.ready(QUEUE), Some(0), "its job was not given back");
    held.let_go(1);
    assert_eq!(drain.await.unwrap().unwrap().finished, 1);
    assert_eq!(broker.ready(QUEUE), Some(0), "its job was done");
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_ending_takes_no_new_pools() {
    let broker = broker();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(1)),
        HandlerManager::new(done),
    );
    supervisor.drain(Duration::from_secs(1)).await.unwrap();
    let refused = supervisor.reconfigure(Vec::new()).await.unwrap_err();
    assert!(matches!(refused, SupervisorError::Ending));
}

#[tokio::test(start_paused = true)]
async fn two_pools_on_one_queue_are_refused() {
    let broker = broker();
    let pool = |name: &str| PoolSpec {
        settings: PoolSettings {
            queue: QUEUE.into(),
            ..PoolSettings::new(name)
        },
        runners: Arc::new(HandlerManager::new(done)),
    };
    let error = Supervisor::start(Arc::new(broker), vec![pool("a"), pool("b")], None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the pools a and b cannot work on one queue, jobs"
    );
}

#[tokio::test(start_paused = true)]
async fn settings_that_no_pool_can_work_with_are_refused_at_the_start_and_later() {
    let broker = broker();
    let pool = |poll_interval| PoolSpec {
        settings: PoolSettings {
            poll_interval,
            ..settings(Policy::fixed(1))
        },
        runners: Arc::new(HandlerManager::new(done)),
    };
    let never = || vec![pool(Duration::ZERO)];
    let why = format!(
        "the pool \"{}\" has invalid settings: poll_interval must be above zero",
        pool(Duration::ZERO).settings.name
    );
    let driver = Arc::new(broker.clone());
    let error = Supervisor::start(driver.clone(), never(), None).unwrap_err();
    assert_eq!(error.to_string(), why);

    let good = vec![pool(Duration::from_millis(100))];
    let supervisor = Supervisor::start(driver, good, None).unwrap();
    let error = supervisor.reconfigure(never()).await.unwrap_err();
    assert_eq!(error.to_string(), why);
    broker.send(QUEUE, "one");
    until(&supervisor, "done", |pool| pool.jobs.done == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_reconcile_that_changes_nothing_reports_that() {
    let broker = broker();
    let supervisor = start(
        &broker,
        settings(Policy::fixed(2)),
        HandlerManager::new(slow),
    );
    for n in 0..9 {
        broker.send(QUEUE, format!("job {n}"));
    }
    until(&supervisor, "up", |pool| pool.runners.busy == 2).await;
    let result = supervisor.reconcile(&name()).await.unwrap();
    assert_eq!(result.workers_diff, 0);
}
